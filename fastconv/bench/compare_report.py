"""The HTML page of `fastconv compare`: one file, with a plot of times over batch sizes for each network and layer."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from fastconv.bench import crossover, machine as machines
from fastconv.bench.charts import Line, times_plot
from fastconv.bench.crossover import WHOLE, Curve
from fastconv.bench.gpu import COPY_SECONDS, LAUNCH_SECONDS
from fastconv.bench.record import Row
from fastconv.bench.report import document, table

STYLE = """
:root { --cpu: #e08a1e; --gpu: #2f6fde; --kernel: #2f8f6b; }
@media (prefers-color-scheme: dark) { :root { --gpu: #76a5ff; --kernel: #4cc397; } }
svg .line { fill: none; stroke-width: 2; } svg .line.cpu { stroke: var(--cpu); }
svg .line.gpu { stroke: var(--gpu); } svg .line.kernel { stroke: var(--kernel); stroke-dasharray: 6 4; }
svg circle.cpu { fill: var(--cpu); } svg circle.gpu { fill: var(--gpu); } svg circle.kernel { fill: var(--kernel); }
svg circle.crossing { fill: none; stroke: var(--ink); stroke-width: 2; }
.key.cpu { background: var(--cpu); } .key.gpu { background: var(--gpu); } .key.kernel { background: var(--kernel); }
.prediction { border: 2px dashed var(--roof); padding: .5rem 1rem; margin: 1rem 0; }
.whole td { font-weight: 600; }
"""


def page(description: dict[str, Any], rows: Sequence[Row]) -> str:
    """The whole page.

    Parameters
    ----------
    description : dict
        What `machine.describe` found, with the GPU under "gpu" and the CPU's threads under "threads".
    rows : sequence of Row
        What `compare.measure` returned.

    Returns
    -------
    str
        HTML that needs no other file and no network.
    """
    gpu, curves = description["gpu"], crossover.curves(rows)
    predicted = gpu["why_not"] is not None
    parts = [
        "<h1>fastconv compare</h1>",
        f'<p class="soft">{escape(machines.line(description))}; {_threads(description)}</p>',
        *_alarms(description, rows),
        *(_prediction(gpu) if predicted else [f"<p>GPU: <b>{escape(gpu['name'])}</b></p>"]),
        "<p>The time of the CPU is that of fastconv's own kernels. On the GPU, <b>with transfer</b> counts a call from "
        "Python, x on its way there and the result on its way back, <b>kernel alone</b> what the GPU is busy with the "
        "call; between the layers of a network nothing is copied. Compiling is not counted.</p>",
        "<h2>From which batch size on the GPU is as fast</h2>",
        _summary(curves, predicted),
    ]
    for network in dict.fromkeys(curve.network for curve in curves):
        parts += _plots(network, [curve for curve in curves if curve.network == network], predicted)
    parts += ["<h2>Every row</h2>", _every_row(rows, predicted)]
    return document("fastconv compare", parts, STYLE)


def _threads(description: dict[str, Any]) -> str:
    count = description["threads"]
    return f"{count} thread{'s' * (count > 1)}"


def _alarms(description: dict[str, Any], rows: Sequence[Row]) -> list[str]:
    alarms = []
    if settings := machines.settings(description):
        alarms.append(f"Measured with {settings}: the ratios are not fair.")
    alarms += [
        f"Values differ: {row['network']} {row['layer']}, batch {row['batch']}: {crossover.agreement(row)}"
        for row in rows
        if crossover.wrong(row)
    ]
    return [f'<p class="alarm">{escape(alarm)}</p>' for alarm in alarms]


def _prediction(gpu: dict[str, Any]) -> list[str]:
    return [
        '<p class="prediction"><b>Nothing here ran on a GPU.</b> The GPU\'s times are <b>PREDICTED</b> for '
        f"{escape(gpu['name'])}: the least possible by its data sheet, from arithmetic, memory, tiles, waves and the "
        f"instructions of the compiled kernels, and {1e6 * LAUNCH_SECONDS:.0f} us for a launch and "
        f"{1e6 * COPY_SECONDS:.0f} us for a copy, which are assumed. A real GPU is slower, and pays from larger "
        f'batches on.<br><span class="soft">{escape(gpu["why_not"])}</span></p>'
    ]


def _summary(curves: Sequence[Curve], predicted: bool) -> str:
    mark = ", predicted" if predicted else ""
    header = ["network", "layer", f"kernel alone{mark}", f"with transfer{mark}", "batch", "CPU, ms", f"GPU, ms{mark}"]
    body = []
    for curve in curves:
        last = curve.points[-1]
        name = f"<b>{WHOLE}</b>" if curve.layer == WHOLE else escape(curve.layer)
        batches = [crossover.batch_of(curve, with_transfer) for with_transfer in (False, True)]
        times = [f"{1e3 * time:.3f}" for time in (last.cpu, last.gpu)]
        body.append([escape(curve.network), name, *batches, str(last.batch), *times])
    return table(header, body, numbers={2, 3, 4, 5, 6})


def _plots(network: str, curves: Sequence[Curve], predicted: bool) -> list[str]:
    first, *others = curves
    mark = " (predicted)" if predicted else ""
    keys = (("cpu", "CPU"), ("gpu", f"GPU with transfer{mark}"), ("kernel", f"GPU, kernel alone{mark}"))
    parts = [
        f"<h2>{escape(network)}: {escape(first.layer)}</h2>",
        '<p class="soft">' + "".join(f'<span class="key {kind}"></span>{name}' for kind, name in keys) + "</p>",
        _plot(first),
    ]
    for curve in others:
        batch = crossover.batch_of(curve, True)
        parts.append(f"<details><summary>{escape(curve.layer)} · as fast at batch {batch}{mark}</summary>")
        parts += [_plot(curve), "</details>"]
    return parts


def _plot(curve: Curve) -> str:
    lines = [
        Line("CPU", "cpu", [(point.batch, point.cpu) for point in curve.points]),
        Line("GPU with transfer", "gpu", [(point.batch, point.gpu) for point in curve.points]),
        Line("GPU, kernel alone", "kernel", [(point.batch, point.kernel) for point in curve.points]),
    ]
    return times_plot(lines, curve.crossing())


def _every_row(rows: Sequence[Row], predicted: bool) -> str:
    mark = ", predicted" if predicted else ""
    called, compiled = ([], []) if predicted else (["call, ms"], ["compile, ms"])
    header = ["layer", "batch", "CPU, ms", f"kernel, ms{mark}", *called, f"transfer, ms{mark}", "CPU / GPU"]
    header += ["agreement", *compiled]
    body = []
    for row in rows:
        at = crossover.point(row)
        ratio = at.cpu / at.gpu
        verdict = f'<span class="{"good" if ratio >= 1 else "bad"}">{"~" * predicted}{ratio:.3g}</span>'
        compiled = [] if predicted else [f"{1e3 * row['compile']:.0f}"]
        times = [f"{1e3 * at.cpu:.3f}", *(f"{1e3 * time:.4f}" for time in crossover.on_gpu(at, predicted))]
        place = f'<span title="{escape(row["problem"])}">{escape(row["network"])} {escape(row["layer"])}</span>'
        words = escape(crossover.agreement(row))
        agreement = f'<span class="bad">{words}</span>' if crossover.wrong(row) else words
        body.append([place, str(row["batch"]), *times, verdict, agreement, *compiled])
    return table(header, body, numbers={*range(1, len(header))} - {header.index("agreement")})
