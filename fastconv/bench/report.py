"""The HTML page of a run: one file without anything from elsewhere, losses in plain sight."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from statistics import median
from typing import Any

from fastconv.bench import machine as machines, record
from fastconv.bench.charts import Bar, Point, ratio_bars, roofline_plot
from fastconv.bench.record import Row
from fastconv.bench.roofline import Roofline

#: Bars of the first chart: the worst losses; all of them are further down.
WORST_LOSSES = 25

STYLE = (
    """
:root { --ink: #1d2330; --soft: #667085; --line: #e3e6ec; --paper: #ffffff; --band: #f6f7f9;
  --won: #2f8f6b; --lost: #d1462f; --roof: #8a63d2; --theirs: #9aa3b2;
  --forward: #2f6fde; --grad_x: #e08a1e; --grad_weight: #2f8f6b; --all: #b0479c; --train: #b0479c; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ef; --soft: #9aa3b2; --line: #333a47; --paper: #161a21;
  --band: #1e232c; --won: #4cc397; --lost: #ff7a63; --roof: #b79cf0; --theirs: #78828f; --forward: #76a5ff; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 1000px; margin: 2rem auto; padding: 0 1rem; }
h1 { margin: 0; font-size: 1.7rem; } h2 { margin: 2.2rem 0 .4rem; font-size: 1.25rem; }
h3 { margin: 1.2rem 0 .2rem; font-size: 1rem; } p { margin: .3rem 0; } .soft { color: var(--soft); }
table { border-collapse: collapse; width: 100%; font-size: 13px; font-variant-numeric: tabular-nums; }
th { text-align: left; color: var(--soft); font-weight: 600; border-bottom: 2px solid var(--line); }
td, th { padding: 3px 8px; white-space: nowrap; } td.number, th.number { text-align: right; }
tbody tr:nth-child(even) { background: var(--band); } .wide { overflow-x: auto; }
.good { color: var(--won); font-weight: 600; } .bad { color: var(--lost); font-weight: 600; }
.alarm { border: 2px solid var(--lost); padding: .5rem 1rem; margin: 1rem 0; color: var(--lost); font-weight: 600; }
summary { cursor: pointer; padding: .35rem 0; font-weight: 600; } details { border-top: 1px solid var(--line); }
svg { width: 100%; height: auto; display: block; } svg text { font-size: 12px; fill: var(--ink); }
svg .tick { fill: var(--soft); font-size: 11px; } svg .end { text-anchor: end; } svg .middle { text-anchor: middle; }
svg .grid { stroke: var(--line); } svg .one { stroke: var(--ink); stroke-width: 1.5; }
svg .won { fill: var(--won); } svg .lost { fill: var(--lost); } svg .won-text { fill: var(--won); }
svg .lost-text { fill: var(--lost); font-weight: 600; }
svg .roof { fill: none; stroke: var(--roof); stroke-width: 2; } svg .roof-text { fill: var(--roof); }
svg circle { fill-opacity: .75; } svg circle.theirs { fill: none; stroke: var(--theirs); stroke-width: 1.5; }
"""
    + "".join(
        f"svg .{name} {{ fill: var(--{name}); }} .key.{name} {{ background: var(--{name}); }}\n"
        for name in ("forward", "grad_x", "grad_weight", "all", "train")
    )
    + """.key { display: inline-block; width: 10px; height: 10px; border-radius: 5px; margin: 0 4px 0 14px; }
.key.theirs { border: 1.5px solid var(--theirs); }
"""
)


def page(machine: dict[str, Any], rows: Sequence[Row]) -> str:
    """The whole page.

    Parameters
    ----------
    machine : dict
        What `machine.describe` found, with the ceilings of `roofline` under "roofline".
    rows : sequence of Row
        What `measure` yielded.

    Returns
    -------
    str
        HTML that needs no other file and no network.
    """
    compared = [row for row in rows if row["ours"]]
    layers = [row for row in compared if row["pass"] != "train"]
    trainings = [row for row in compared if row["pass"] == "train"]
    parts = [
        "<h1>fastconv bench</h1>",
        f'<p class="soft">{escape(machines.line(machine))}</p>',
        *_alarms(machine, rows),
        "<p>Every ratio is another library's time divided by fastconv's, the median of pairs taken in turns: "
        '<span class="good">above 1 fastconv is faster</span>, <span class="bad">below 1 it is slower</span>. '
        "Values were compared before anything was timed. <b>kept</b>: our weights were packed before; elsewhere each "
        "call packs them.</p>",
        "<h2>Summary</h2>",
        _summary(rows),
    ]
    if trainings:
        parts += ["<h2>Training</h2>", _training(trainings)]
    parts += _losses(compared)
    parts += _rooflines(machine.get("roofline", ()), layers)
    parts += ["<h2>Every ratio</h2>", *_bars(layers), "<h2>Every row</h2>", _every_row(rows)]
    return document("fastconv bench", parts)


def document(title: str, parts: Sequence[str], style: str = "") -> str:
    """A page of these parts, with *style* behind the usual rules."""
    head = f'<meta charset="utf-8"><title>{title}</title>\n<style>{STYLE}{style}</style>'
    body = "\n".join(parts)
    return f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head>\n<body>\n{body}\n</body></html>\n'


def _alarms(machine: dict[str, Any], rows: Sequence[Row]) -> list[str]:
    alarms = []
    if settings := machines.settings(machine):
        alarms.append(f"Measured with {settings}: the ratios are not fair.")
    alarms += [f"Values differ: {_place(row)} against {_rival(row)}" for row in rows if not row["ours"]]
    return [f'<p class="alarm">{escape(alarm)}</p>' for alarm in alarms]


def _summary(rows: Sequence[Row]) -> str:
    header = ["network", "pass", "against", "batch", "threads", "mean", "best layer", "worst layer", "lost"]
    body = []
    for part in record.summarise(rows):
        lost = f"{part.lost} of {part.layers}" + (f", {part.wrong} wrong" if part.wrong else "")
        body.append(
            [
                escape(part.network),
                part.direction,
                part.library,
                str(part.batch),
                str(part.threads),
                _ratio(part.mean),
                *(f"{escape(row['layer'])} {_ratio(record.ratio(row))}" for row in (part.best, part.worst)),
                f'<span class="bad">{lost}</span>' if part.lost or part.wrong else lost,
            ]
        )
    return table(header, body, numbers={3, 4, 5})


def _training(rows: Sequence[Row]) -> str:
    header = ["network", "batch", "threads", "fastconv, images/s", "against", "theirs, images/s", "speed-up"]
    body = []
    for row in rows:
        ours, theirs = (f"{row['images'] / median(row[who]):,.0f}" for who in ("ours", "theirs"))
        place = [escape(row["network"]), str(row["batch"]), str(row["threads"])]
        body.append([*place, ours, escape(_rival(row)), theirs, _ratio(record.ratio(row))])
    return table(header, body, numbers={1, 2, 3, 5, 6})


def _losses(rows: Sequence[Row]) -> list[str]:
    lost = sorted((row for row in rows if record.ratio(row) < 1), key=record.ratio)
    title = f"<h2>Where fastconv is slower: {len(lost)} of {len(rows)} rows</h2>"
    if not lost:
        return [title]
    more = f"<p>The {WORST_LOSSES} worst; the others are below.</p>" if len(lost) > WORST_LOSSES else ""
    bars = [_bar(row, f"{row['network']} {row['layer']}, {_setting(row)}") for row in lost[:WORST_LOSSES]]
    return [title, more, ratio_bars(bars, [bar.ratio for bar in bars])]


def _rooflines(ceilings: Iterable[dict[str, Any]], rows: Sequence[Row]) -> list[str]:
    parts = []
    for ceiling in ceilings:
        chosen = [row for row in rows if row["threads"] == ceiling["threads"]]
        if not chosen:
            continue
        passes = _distinct(row["pass"] for row in chosen)
        keys = "".join(f'<span class="key {name}"></span>{name}' for name in passes)
        parts += [
            f"<h2>Roofline, {ceiling['threads']} thread{'s' * (ceiling['threads'] > 1)}</h2>",
            f'<p class="soft">{keys}<span class="key theirs"></span>the fastest other library</p>',
            roofline_plot(Roofline(**ceiling), _points(chosen)),
        ]
    if parts:
        parts.append(
            '<p class="soft">FLOPs are those of the plain sum, so an algorithm with fewer multiplications may lie '
            "above the upper ceiling; data that stays in the caches may lie above the slope.</p>"
        )
    return parts


def _points(rows: Sequence[Row]) -> list[Point]:
    """Ours, and the fastest of the others, for each layer, pass and batch size."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["network"], row["layer"], row["batch"], record.pass_of(row)), []).append(row)
    points = []
    for group in groups.values():
        flops, intensity = group[0]["flops"], group[0]["flops"] / group[0]["bytes"]
        fastest = min(group, key=lambda row: median(row["theirs"]))
        for kind, seconds, who in (
            ("theirs", median(fastest["theirs"]), _rival(fastest)),
            (group[0]["pass"], min(median(row["ours"]) for row in group), "fastconv"),
        ):
            speed = flops / seconds / 1e9
            detail = f"{_place(group[0])}, {who}: {speed:.1f} GFLOP/s, {speed / intensity:.1f} GB/s"
            points.append(Point(intensity, speed, kind, detail))
    return sorted(points, key=lambda point: point.kind != "theirs")  # ours on top


def _bars(rows: Sequence[Row]) -> list[str]:
    parts: list[str] = []
    for network in _distinct(row["network"] for row in rows):
        mine = [row for row in rows if row["network"] == network]
        lost = sum(record.ratio(row) < 1 for row in mine)
        verdict = (
            f'<span class="bad">{lost} of {len(mine)} rows lost</span>' if lost else f"{len(mine)} rows, none lost"
        )
        parts.append(f"<details{' open' * (not parts)}><summary>{escape(network)} · {verdict}</summary>")
        for setting in _distinct(_setting(row) for row in mine):
            bars = [_bar(row, row["layer"]) for row in mine if _setting(row) == setting]
            parts += [f"<h3>{escape(setting)}</h3>", ratio_bars(bars, [record.ratio(row) for row in mine])]
        parts.append("</details>")
    return parts


def _every_row(rows: Sequence[Row]) -> str:
    header = ["layer", "pass", "batch", "threads", "against", "ours, ms", "theirs, ms", "speed-up", "GFLOP/s", "error"]
    body = []
    for row in rows:
        start = [
            f"{escape(row['network'])} {escape(row['layer'])}",
            record.pass_of(row),
            str(row["batch"]),
            str(row["threads"]),
        ]
        if row["ours"]:
            ours, theirs = (median(row[who]) for who in ("ours", "theirs"))
            cells = [f"{1e3 * ours:.3f}", f"{1e3 * theirs:.3f}", _ratio(record.ratio(row))]
            cells.append(f"{row['flops'] / ours / 1e9:.1f}")
        else:
            cells = ["", "", '<span class="bad">values differ</span>', ""]
        body.append([*start, escape(_rival(row)), *cells, f"{row['error']:.0e}"])
    return table(header, body, numbers={2, 3, 5, 6, 7, 8, 9})


def _bar(row: Row, name: str) -> Bar:
    times = " against ".join(f"{1e3 * median(row[who]):.3f} ms" for who in ("ours", "theirs"))
    return Bar(name, record.ratio(row), f"{_place(row)}, {_rival(row)}: {times}\n{row['problem']}")


def _setting(row: Row) -> str:
    threads = f"{row['threads']} thread{'s' * (row['threads'] > 1)}"
    return f"{record.pass_of(row)} against {row['library']}, batch {row['batch']}, {threads}"


def _place(row: Row) -> str:
    return f"{row['network']} {row['layer']} {record.pass_of(row)}, batch {row['batch']}"


def _rival(row: Row) -> str:
    return f"{row['library']} {row['variant']}"


def _ratio(value: float) -> str:
    return f'<span class="{"good" if value >= 1 else "bad"}">{value:.2f}</span>'


def _distinct(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))


def table(header: Sequence[str], body: Sequence[Sequence[str]], numbers: set[int]) -> str:
    """An HTML table; columns of *numbers* are aligned at the right.  The cells are HTML."""

    def cells(row: Sequence[str], tag: str) -> str:
        kinds = [' class="number"' if column in numbers else "" for column in range(len(row))]
        return "".join(f"<{tag}{kind}>{cell}</{tag}>" for kind, cell in zip(kinds, row, strict=True))

    lines = "\n".join(f"<tr>{cells(row, 'td')}</tr>" for row in body)
    head = f"<thead><tr>{cells(header, 'th')}</tr></thead>"
    return f'<div class="wide"><table>{head}<tbody>\n{lines}\n</tbody></table></div>'
