"""Write the tables of README.md and bench/RESULTS.md from the results in bench/results, or check them.

    python bench/tables.py            # write
    python bench/tables.py --check    # exit with status 1 where a file is out of date

``<!-- table: torch -->`` begins the whole table of ``bench/results/torch.json``, with every loss;
``<!-- short: torch -->`` one with a line for each network and pass; ``<!-- end table -->`` ends both.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console

from fastconv.bench import machine, record
from fastconv.bench.record import Row

# From here on a number needs no digits behind the point.
WHOLE = 100

# The share of the peak that a plain sum with many channels should reach.
NEAR_PEAK = 0.85

# Passes of the short table.
SHORT_PASSES = ("forward", "forward, kept", "all", "train")

PAGES = (Path(__file__).parent.parent / "README.md", Path(__file__).with_name("RESULTS.md"))
RESULTS = Path(__file__).with_name("results")
MARKED = re.compile(r"(<!-- (?P<kind>table|short): (?P<name>[\w-]+) -->\n).*?(<!-- end table -->)", re.DOTALL)


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; all columns but the first two are numbers and stand right."""
    rule = ["---" if column < 2 else "--:" for column in range(len(header))]
    return "".join(f"| {' | '.join(row)} |\n" for row in (header, rule, *rows))


def machine_line(description: dict[str, Any]) -> str:
    """What the numbers below belong to."""
    settings = machine.settings(description)
    gpu = f"{description['gpu']['name']}; " if "gpu" in description else ""
    return f"{gpu}{machine.line(description)}." + (f" **With {settings}.**" if settings else "") + "\n\n"


def compare_table(rows: Sequence[Row], ceilings: Sequence[dict[str, Any]]) -> str:
    """Geometric means for each network and pass; below, every layer where fastconv loses, the worst first."""
    body = []
    for part in record.summarise(rows):
        start = [part.network, f"{part.direction}{_algorithm(part)} against {part.library}"]
        shares = [record.roofline_share(part.rows, who, ceilings) for who in ("ours", "theirs")]
        roofline = " / ".join("" if share is None else f"{share:.0%}" for share in shares)
        body.append([*start, str(part.batch), str(part.threads), f"{part.mean:.2f}", *part.words, roofline])
    header = ["network", "pass", "batch", "threads", "mean speed-up", "best layer", "worst layer", "layers lost"]
    lost = sorted((row for row in rows if row["ours"] and record.ratio(row) < 1), key=record.ratio)
    text = markdown([*header, "of the roofline, ours / theirs"], body)
    if lost:
        losses = [[f"{row['network']} {row['layer']}", *_loss(row)] for row in lost]
        table = markdown(["layer", "pass", "batch", "threads", "ms", "theirs, ms", "speed-up"], losses)
        text += f"\n<details><summary>The {len(lost)} rows where fastconv is slower</summary>\n\n{table}\n</details>\n"
    return text


def short_table(rows: Sequence[Row], ceilings: Sequence[dict[str, Any]]) -> str:
    """A line for each network and pass: the mean, and the worst layer, with each number of threads."""
    lines: dict[tuple[str, ...], dict[int, str]] = {}
    for part in record.summarise(rows):
        if part.direction in SHORT_PASSES:
            place = (part.network, f"{part.direction}{_algorithm(part)} against {part.library}", str(part.batch))
            text = f"{part.mean:.2f}" + (f" ({record.ratio(part.worst):.2f})" if part.layers > 1 else "")
            lines.setdefault(place, {})[part.threads] = text
    threads = sorted({count for line in lines.values() for count in line})
    header = ["network", "pass", "batch", *(f"{count} thread{'s' * (count > 1)}" for count in threads)]
    return markdown(header, [[*place, *(line.get(count, "") for count in threads)] for place, line in lines.items()])


def _algorithm(part: record.Summary) -> str:
    return "" if part.algorithm == "auto" else f', algorithm="{part.algorithm}",'


def _loss(row: Row) -> list[str]:
    against = f"{record.pass_of(row)} against {row['library']} {row['variant']}"
    times = [_milliseconds(row["ours"]), _milliseconds(row["theirs"])]
    return [against, str(row["batch"]), str(row["threads"]), *times, f"{record.ratio(row):.2f}"]


def _milliseconds(seconds: Sequence[float]) -> str:
    """The median, with three digits or all in front of the point."""
    milliseconds = 1e3 * median(seconds)
    return f"{milliseconds:,.0f}" if milliseconds >= WHOLE else f"{milliseconds:.3g}"


def startup_table(rows: Sequence[Row], ceilings: Sequence[dict[str, Any]]) -> str:
    """Medians of imports, first calls and small calls."""
    body = [
        [row["name"], row["rival"], _milliseconds(row["ours"]), _milliseconds(row["theirs"]) if row["theirs"] else ""]
        for row in rows
    ]
    return markdown(["what", "against", "fastconv, ms", "theirs, ms"], body)


def peak_table(rows: Sequence[Row], ceilings: Sequence[dict[str, Any]]) -> str:
    """What share of each ceiling each pass reaches, and below, every layer, the lowest share first."""
    body = []
    for direction, ceiling in dict.fromkeys((row["pass"], row["ceiling"]) for row in rows):
        part = [row for row in rows if (row["pass"], row["ceiling"]) == (direction, ceiling)]
        part.sort(key=record.ratio)
        lowest = f"{record.ratio(part[0]):.0%} ({part[0]['network']} {part[0]['layer']})"
        high = sum(record.ratio(row) >= NEAR_PEAK for row in part)
        body.append([direction, ceiling, f"{median(map(record.ratio, part)):.0%}", lowest, f"{high} of {len(part)}"])
    header = ["pass", "beside multiply-adds from", "median layer", "lowest layer", f"layers at {NEAR_PEAK:.0%} or more"]
    text = markdown(header, body)
    lines = [
        [
            f"{row['network']} {row['layer']}",
            row["pass"],
            row["ceiling"],
            _milliseconds(row["ours"]),
            f"{record.ratio(row):.0%}",
        ]
        for row in sorted(rows, key=record.ratio)
    ]
    table = markdown(["layer", "pass", "beside", "ms", "share"], lines)
    return f"{text}\n<details><summary>All {len(rows)} rows</summary>\n\n{table}\n</details>\n"


def gpu_table(rows: Sequence[Row], ceilings: Sequence[dict[str, Any]]) -> str:
    """Geometric means for each network, pass and library; below, every row, the slowest beside theirs first."""
    body = []
    for part in record.summarise(rows):
        start = [part.network, f"{part.direction} against {part.library}", str(part.batch)]
        body.append([*start, f"{part.mean:.2f}", *part.words])
    header = ["network", "pass", "batch", "mean speed-up", "best layer", "worst layer", "layers lost"]
    every = sorted((row for row in rows if row["ours"]), key=record.ratio)
    lines = [[f"{row['network']} {row['layer']}", *_on_gpu(row)] for row in every]
    table = markdown(["layer", "pass", "batch", "us", "theirs, us", "speed-up"], lines)
    return f"{markdown(header, body)}\n<details><summary>All {len(lines)} rows</summary>\n\n{table}\n</details>\n"


def short_gpu_table(rows: Sequence[Row], ceilings: Sequence[dict[str, Any]]) -> str:
    """A line for each network and pass: the mean, and the worst layer, with each batch size."""
    lines: dict[tuple[str, str], dict[int, str]] = {}
    for part in record.summarise(rows):
        place = part.network, f"{part.direction} against {part.library}"
        lines.setdefault(place, {})[part.batch] = f"{part.mean:.2f} ({record.ratio(part.worst):.2f})"
    batches = sorted({batch for line in lines.values() for batch in line})
    header = ["network", "pass", *(f"batch {batch}" for batch in batches)]
    return markdown(header, [[*place, *(line.get(batch, "") for batch in batches)] for place, line in lines.items()])


def _on_gpu(row: Row) -> list[str]:
    times = [f"{1e6 * median(row[who]):.1f}" for who in ("ours", "theirs")]
    return [f"{row['pass']} against {row['library']}", str(row["batch"]), *times, f"{record.ratio(row):.2f}"]


TABLES: dict[tuple[str, str], Callable[[Sequence[Row], Sequence[dict[str, Any]]], str]] = {
    ("table", "compare"): compare_table,
    ("short", "compare"): short_table,
    ("table", "startup"): startup_table,
    ("table", "peak"): peak_table,
    ("table", "gpu"): gpu_table,
    ("short", "gpu"): short_gpu_table,
}


def updated(text: str, results: Path) -> str:
    """The text of a page with every marked table made anew.

    Raises
    ------
    ValueError
        If the text has no marked table, or one without a result file.
    """
    if not MARKED.search(text):
        raise ValueError('a page must have a table between "<!-- table: NAME -->" and "<!-- end table -->"')

    def table(match: re.Match[str]) -> str:
        path = results / f"{match['name']}.json"
        if not path.exists():
            raise ValueError(f"{match['kind']}: {match['name']} needs a result file {path.name} in {results.name}")
        data = record.read(path)
        made = TABLES[match["kind"], data["kind"]](data["rows"], data["machine"].get("roofline", ()))
        return f"{match[1]}{machine_line(data['machine'])}{made}{match[4]}"

    return MARKED.sub(table, text)


def main(argv: Sequence[str] | None = None, pages: Sequence[Path] = PAGES, results: Path = RESULTS) -> int:
    """Write or check the tables; the result is the exit status."""
    parser = argparse.ArgumentParser(description="Write the tables of README.md and bench/RESULTS.md.")
    parser.add_argument("--check", action="store_true", help="change nothing; exit with 1 if a table is out of date")
    arguments = parser.parse_args(argv)
    console = Console(stderr=True)
    before = {page: page.read_text() for page in pages}
    try:
        after = {page: updated(text, results) for page, text in before.items()}
    except ValueError as error:
        console.print(f"[red]{error}[/]")
        return 1
    old = [page for page in pages if after[page] != before[page]]
    for page in old:
        if arguments.check:
            console.print(f"[red]{page.name} is out of date: run python bench/tables.py[/]")
        else:
            page.write_text(after[page])
    return int(arguments.check and bool(old))


if __name__ == "__main__":
    sys.exit(main())
