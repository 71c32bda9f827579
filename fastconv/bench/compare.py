"""`fastconv compare`: CPU and GPU side by side, layer by layer, and the batch size from which the GPU pays."""

from __future__ import annotations

import argparse
import sys
from collections import deque
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numba
from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn
from rich.table import Table

from fastconv import cuda
from fastconv.bench import crossover, problems
from fastconv.bench.command import PIPE_WIDTH, numbers, positive
from fastconv.bench.problems import Layer
from fastconv.bench.record import Row
from fastconv.cuda.roofline import GPUS, Gpu, gpu

DEFAULT_BATCHES = (1, 8, 32, 128)
DEFAULT_SAMPLES = 9
DEFAULT_GPU = "H100"
DEFAULT_MODEL = "demo"
LIVE_ROWS = 15
EXAMPLES = """examples:
  fastconv compare                                     the network of fastconv train
  fastconv compare --net resnet_50_v1_5 --batch 1,8,32 --json gpu.json --html gpu.html
  fastconv compare --gpu T4 --emulate                  without a GPU: predicted times, proven values
"""
PREDICTED = "PREDICTED for {gpu}: the least possible by data sheet, and {launch:.0f} us a launch, {copy:.0f} us a copy"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command line."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EXAMPLES
    names = ", ".join(problems.networks())
    what = parser.add_argument_group("what to compare")
    what.add_argument("--net", nargs="+", metavar="NAME", help=f"networks, of {names}")
    what.add_argument(
        "--model", metavar="NAME", help=f"a model: {DEFAULT_MODEL}, the network of fastconv train (default)"
    )
    what.add_argument("--shape", nargs="+", metavar="SHAPE", help=f"layers of your own: {problems.SHAPE_HELP}")
    what.add_argument("--layer", metavar="NAME", help="only the layer of this name")
    how = parser.add_argument_group("how")
    how.add_argument("--batch", type=numbers, default=list(DEFAULT_BATCHES), metavar="N,M", help="default: 1,8,32,128")
    how.add_argument("--threads", type=positive, metavar="N", help="of the CPU; default: all")
    how.add_argument("--samples", type=positive, default=DEFAULT_SAMPLES, metavar="N", help="default: %(default)s")
    how.add_argument(
        "--gpu",
        metavar="NAME",
        help=f"whose data sheet to predict from: {', '.join(one.name for one in GPUS)}; default: {DEFAULT_GPU}",
    )
    how.add_argument(
        "--emulate", action="store_true", help="without a GPU, prove values: run the PTX of small layers on the CPU"
    )
    out = parser.add_argument_group("what to write")
    out.add_argument("--json", type=Path, metavar="FILE", help="all times")
    out.add_argument("--html", type=Path, metavar="FILE", help="a page with crossover plots and tables")


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Run the comparison; the result is the exit status: 1 where values differ.

    Raises
    ------
    ImportError
        If a package that the bench needs is not installed, or with ``--emulate`` Numba's CUDA target.
    ValueError
        If an argument names nothing that there is.
    """
    try:
        from fastconv.bench import compare_report, machine, record
    except ModuleNotFoundError as error:
        raise ImportError(f'fastconv compare needs {error.name}: pip install "fastconv[bench]"') from None

    threads = arguments.threads or numba.config.NUMBA_NUM_THREADS
    machine.check_threads([threads])
    layers = chosen_layers(arguments)
    described = describe_gpu(arguments.gpu)
    if arguments.emulate:
        cuda.device.target()  # raises its sentence now, not after all times
    if not sys.stdout.isatty():
        console = Console(width=PIPE_WIDTH, highlight=False)
    if line := machine.warning():
        console.print(f"[yellow]{line}[/]")
    if described["why_not"]:
        console.print(f"[yellow]No GPU: {escape(described['why_not'])}.[/]", soft_wrap=True)
        console.print(f"[bold yellow]GPU times are {_prediction(described)}. None was measured.[/]", soft_wrap=True)
    else:
        console.print(f"GPU: {escape(described['name'])}")
    rows = measure(layers, described, threads, arguments.samples, arguments.emulate, console)
    if not rows:
        return 0
    console.print(results_table(rows, "Rows", described), summary_table(rows, described))
    description = {**machine.describe(), "gpu": described, "threads": threads}
    if arguments.json:
        record.write(arguments.json, "cpu_and_gpu", description, rows)
    if arguments.html:
        arguments.html.parent.mkdir(parents=True, exist_ok=True)
        arguments.html.write_text(compare_report.page(description, rows), encoding="utf-8")
        console.print(f"The report is {escape(str(arguments.html))}", soft_wrap=True)
    return int(any(crossover.wrong(row) for row in rows))


def chosen_layers(arguments: argparse.Namespace) -> list[Layer]:
    """What the arguments name: layer by layer, each with all batch sizes."""
    from fastconv.bench.model_layers import MODELS, layers_of

    model = arguments.model
    if model is None and not arguments.net and not arguments.shape:
        model = DEFAULT_MODEL
    if model is not None and model not in MODELS:
        raise ValueError(f"--model must be one of {', '.join(MODELS)}. Received: {model}")
    by_batch = []
    for batch in sorted(set(arguments.batch)):
        layers = layers_of(model, batch) if model else []
        if arguments.net:
            layers += problems.layers(arguments.net, None, batch)
        layers += [problems.layer_of_text(shape, batch) for shape in arguments.shape or ()]
        by_batch.append([layer for layer in layers if arguments.layer in (None, layer.name)])
    if not by_batch[0]:
        raise ValueError(f"--layer must be the name of a layer. Received: {arguments.layer}")
    return [layer for layers in zip(*by_batch, strict=True) for layer in layers]


def describe_gpu(name: str | None) -> dict[str, Any]:
    """The GPU that is measured, or why there is none and which data sheet predicts its times."""
    from fastconv.bench.gpu import model_of_device, name_of_device

    reason = cuda.why_not()
    sheet = gpu(name or DEFAULT_GPU) if reason or name else model_of_device()
    if reason is None:
        return {"name": name_of_device(), "why_not": None, "sheet": sheet and sheet.name}
    assert sheet is not None
    return {"name": sheet.name, "why_not": reason, "sheet": sheet.name}


def measure(
    layers: Sequence[Layer], described: dict[str, Any], threads: int, samples: int, emulate: bool, console: Console
) -> list[Row]:
    """All rows, with a live table of the latest and a progress bar; Ctrl-C ends the run and keeps its rows."""
    from fastconv.bench import machine

    rows: list[Row] = []
    latest: deque[Row] = deque(maxlen=LIVE_ROWS)
    bar = Progress(*Progress.get_default_columns(), MofNCompleteColumn(), TimeElapsedColumn())
    progress = bar.add_task("", total=len(layers))
    sheet = gpu(described["sheet"]) if described["sheet"] else None
    emulated: dict[str, dict[str, Any]] = {}
    with Live(bar, console=console, transient=True, auto_refresh=False) as live, machine.threads(threads):
        try:
            for layer in layers:
                bar.update(progress, description=escape(f"{layer.network} {layer.name}"))
                row = _row(layer, threads, samples, sheet, measured=described["why_not"] is None)
                if emulate and row["agreement"] is None:
                    row["agreement"] = _emulated(layer, emulated)
                rows.append(row)
                latest.append(row)
                live.update(Group(results_table(latest, "Latest rows", described), bar), refresh=True)
                bar.advance(progress)
        except KeyboardInterrupt:
            console.print(f"[yellow]Stopped by Ctrl-C after {len(rows)} rows.[/]")
    return rows


def _row(layer: Layer, threads: int, samples: int, sheet: Gpu | None, measured: bool) -> Row:
    """A layer's times on the CPU and on the GPU, measured or predicted."""
    from fastconv.bench import gpu as device_side
    from fastconv.bench.libraries import ours, rotating
    from fastconv.bench.record import seconds
    from fastconv.bench.timing import calls_in_sample, sampler, settle, timed

    problem = layer.problem()
    contender = ours.preparation(layer.operation, "forward", "auto")(problem, threads)
    first, _ = timed(lambda: contender.compute(0))
    sample = sampler(rotating(contender, problem))
    calls = calls_in_sample(sample)
    cpu = []
    for _ in range(samples):
        settle()
        cpu.append(seconds(sample(calls)))
    predicted = device_side.predict(layer, sheet) if sheet else None
    found = device_side.measure(layer, samples) if measured else None
    times = found.times if found else predicted
    assert times is not None
    return {
        **problems.described(layer, "forward"),
        "threads": threads,
        "algorithm": device_side.algorithm(layer),
        "first_cpu": seconds(first),
        "cpu": cpu,
        "measured": measured,
        "kernel": [seconds(time) for time in times.kernel],
        "call": [seconds(time) for time in times.call],
        "upload": [seconds(time) for time in times.upload],
        "download": [seconds(time) for time in times.download],
        "compile": seconds(found.compile) if found else None,
        "predicted": seconds(predicted.kernel[0]) if predicted else None,
        "tolerance": layer.tolerance,
        "agreement": {**found.agreement._asdict(), "emulated": False} if found else None,
    }


def _emulated(layer: Layer, known: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The agreement of a small layer of the same kind; batch sizes, and many layers, share one."""
    from fastconv.bench import gpu as device_side

    key = str(device_side.shrunk(layer).geometry)
    if key not in known:
        known[key] = {**device_side.emulate(layer)._asdict(), "emulated": True}
    return known[key]


def _prediction(described: dict[str, Any]) -> str:
    from fastconv.bench.gpu import COPY_SECONDS, LAUNCH_SECONDS

    return PREDICTED.format(gpu=described["name"], launch=1e6 * LAUNCH_SECONDS, copy=1e6 * COPY_SECONDS)


def results_table(rows: Iterable[Row], title: str, described: dict[str, Any]) -> Table:
    """The rows with their times: medians in ms."""
    predicted = described["why_not"] is not None
    kernel = f"GPU kernel, ms\n{'PREDICTED, ' * predicted}{described['name']}"
    called = [] if predicted else ["call, ms"]
    header = [
        "layer",
        "batch",
        "CPU, ms",
        kernel,
        *called,
        "transfer, ms",
        "faster by:\nkernel alone",
        "\nwith transfer",
    ]
    table = Table(
        *(*header, "agreement", *([] if predicted else ["compile"])),
        title=title,
        caption=f"GPU times are {_prediction(described)}" if predicted else "medians",
        box=SIMPLE_HEAD,
    )
    for row in rows:
        at = crossover.point(row)
        about = "[yellow]~" if predicted else ""
        times = [f"{1e3 * at.cpu:.3f}", *(f"{about}{1e3 * time:.4f}" for time in crossover.on_gpu(at, predicted))]
        ratios = [_ratio(at.cpu / time, predicted) for time in (at.kernel, at.gpu)]
        compiled = [] if predicted else [f"{1e3 * row['compile']:.0f} ms"]
        words = crossover.agreement(row)
        verdict = f"[bold white on red]{words}[/]" if crossover.wrong(row) else words
        place = escape(f"{row['network']} {row['layer']}")
        table.add_row(place, str(row["batch"]), *times, *ratios, verdict, *compiled)
    return table


def _ratio(value: float, predicted: bool) -> str:
    return f"[{'green' if value >= 1 else 'red'}]{'~' * predicted}{value:.3g}[/]"


def summary_table(rows: Sequence[Row], described: dict[str, Any]) -> Table:
    """From which batch size on the GPU is not slower, for each layer and for whole networks."""
    predicted = described["why_not"] is not None
    title = f"Break-even batch size{', PREDICTED' * predicted}"
    header = ["network", "layer", "kernel alone", "with transfer", "largest batch: CPU, ms", "GPU, ms"]
    table = Table(*header, title=title, box=SIMPLE_HEAD)
    for curve in crossover.curves(rows):
        last = curve.points[-1]
        style = "bold" if curve.layer == crossover.WHOLE else ""
        batches = [crossover.batch_of(curve, with_transfer) for with_transfer in (False, True)]
        times = [f"{1e3 * time:.3f}" for time in (last.cpu, last.gpu)]
        table.add_row(escape(curve.network), escape(curve.layer), *batches, *times, style=style)
    return table
