"""Time fastconv against NumPy and PyTorch over the layers of well-known networks.

    python bench/compare.py --against torch --json bench/results/torch.json
    python bench/compare.py --net keras_mnist --pass forward --threads 1

For each layer, pass, library and number of threads: the values are compared first; the first call, which may compile,
is timed apart; then ours and theirs are timed in turns (`timing.paired`), both with the same number of threads.
The exit status is 1 where values differ.
"""

from __future__ import annotations

import argparse
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import machine
import numpy as np
import record
from competitors import COMPETITORS, LIBRARIES, OURS, PASSES, Contender
from problems import Array, Layer, Problem, layers
from record import Row
from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.live import Live
from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn
from rich.table import Table
from timing import Pairs, calls_in_sample, paired, settle, timed, usual

# Largest difference that rounding explains, relative to the largest value: a Winograd transform loses 2e-5, a sum over
# the 400,000 pixels of a large batch as much again.  One wrong tap shows as 1e-2.
TOLERANCE = 1e-4
# A variant slower than the fastest by this factor is not tried again with another number of threads.
HOPELESS = 2
# Ratio below which a row is marked: a loss by a factor of two.
LOUD_LOSS = 0.5
LIVE_ROWS = 15
# A file has no width of its own; the widest row fits in this.
PIPE_WIDTH = 170


def difference(ours: Array, theirs: Array) -> float:
    """Largest difference of two results, relative to the largest value; infinite where a NaN or a shape differs."""
    if ours.shape != theirs.shape:
        return float("inf")
    error = float(np.abs(ours - theirs).max() / np.abs(theirs).max())
    return error if np.isfinite(error) else float("inf")


def measure(
    layer: Layer, problem: Problem, direction: str, library: str, thread_counts: Sequence[int], pairs: int
) -> Iterator[Row]:
    """A row for each number of threads: check the values of all variants of *library*, then time ours and the fastest.

    A row whose values differ has no times.
    """
    ours, variants = prepared(problem, direction, library)
    our_call = rotating(ours, problem)
    for threads in thread_counts:
        with machine.threads(threads):
            our_first, our_result = timed(lambda: ours.compute(0))
            our_values = ours.as_ours(our_result)
            firsts, errors, times = {}, {}, {}
            for name, theirs in variants.items():
                firsts[name], result = timed(partial(theirs.compute, 0))
                errors[name] = difference(our_values, theirs.as_ours(result))
                settle()
                times[name] = usual(rotating(theirs, problem), firsts[name])
            fastest = min(times, key=times.__getitem__)
            variants = {name: variants[name] for name in variants if times[name] <= HOPELESS * times[fastest]}
            error = max(errors.values())
            samples = Pairs([], [])
            if error <= TOLERANCE:
                calls = calls_in_sample(timed(our_call)[0]), calls_in_sample(times[fastest])
                samples = paired(our_call, rotating(variants[fastest], problem), calls, pairs)
        yield {
            "network": layer.network,
            "layer": layer.name,
            "count": layer.count,
            "problem": str(layer.geometry),
            "flops": layer.geometry.flops,
            "pass": direction,
            "threads": threads,
            "library": library,
            "variant": fastest,
            "error": error,
            "first_ours": record.seconds(our_first),
            "first_theirs": record.seconds(firsts[fastest]),
            "ours": [record.seconds(time) for time in samples.ours],
            "theirs": [record.seconds(time) for time in samples.theirs],
        }


def rotating(contender: Contender, problem: Problem) -> Callable[[], Any]:
    """The timed call: each one takes the next copy of the inputs."""
    return lambda: contender.compute(problem.turn())


def prepared(problem: Problem, direction: str, library: str) -> tuple[Contender, dict[str, Contender]]:
    """Ours, and all variants of *library*, ready to be called."""
    (prepare_ours,) = COMPETITORS[direction][OURS].values()
    variants = COMPETITORS[direction][library]
    return prepare_ours(problem), {name: prepare(problem) for name, prepare in variants.items()}


def cells(row: Row) -> list[str]:
    """A row as the live table shows it; a loss by a factor of two and wrong values are loud."""
    start = [f"{row['network']} {row['layer']}", row["pass"], str(row["threads"]), f"{row['library']} {row['variant']}"]
    start += [f"{row['error']:.0e}", f"{1e3 * row['first_ours']:.0f} ms"]
    if not row["ours"]:
        return [*start, "", "", "", "0", "[bold white on red]VALUES DIFFER[/]"]
    ratio, ours = record.ratio(row), min(row["ours"])
    if ratio < LOUD_LOSS:
        verdict = f"[bold red]{ratio:.2f} LOST BY {1 / ratio:.1f}[/]"
    else:
        verdict = f"[{'green' if ratio >= 1 else 'yellow'}]{ratio:.2f}[/]"
    speed = f"{row['flops'] / ours / 1e9:.1f}"
    return [*start, _milliseconds(row["ours"]), _milliseconds(row["theirs"]), speed, str(len(row["ours"])), verdict]


def _milliseconds(values: Sequence[float]) -> str:
    return f"{1e3 * min(values):.3f} / {1e3 * median(values):.3f}"


def results_table(rows: Sequence[Row] | deque[Row], title: str) -> Table:
    """The rows with their times: min / median in ms."""
    header = [
        "layer",
        "pass",
        "threads",
        "against",
        "error",
        "first call",
        "ours, ms",
        "theirs, ms",
        "GFLOP/s",
        "pairs",
    ]
    table = Table(*header, "speed-up", title=title, caption="speed-up: median of their time / ours", box=SIMPLE_HEAD)
    for row in rows:
        table.add_row(*cells(row))
    return table


def summary_table(rows: Sequence[Row]) -> Table:
    """Geometric means, with the worst layer of each by name."""
    header = ["network", "pass", "threads", "against", "mean speed-up", "worst layer", "lost"]
    table = Table(*header, title="Summary", box=SIMPLE_HEAD)
    for part in record.summarise(rows):
        mean = f"[{'green' if part.mean >= 1 else 'bold red'}]{part.mean:.2f}[/]"
        worst = f"{part.worst['layer']} {record.ratio(part.worst):.2f}"
        lost = f"{part.lost} of {part.layers}" + (f", {part.wrong} WRONG" if part.wrong else "")
        table.add_row(part.network, part.direction, str(part.threads), part.library, mean, worst, lost)
    return table


def run(chosen: Sequence[Layer], libraries: Sequence[str], arguments: Any, console: Console) -> list[Row]:
    """Measure all rows, with a live table of the latest and a progress bar."""
    rows: list[Row] = []
    latest: deque[Row] = deque(maxlen=LIVE_ROWS)
    bar = Progress(*Progress.get_default_columns(), MofNCompleteColumn(), TimeElapsedColumn())
    total = len(chosen) * len(arguments.passes) * len(libraries) * len(arguments.threads)
    task = bar.add_task("", total=total)
    with Live(bar, console=console, transient=True, auto_refresh=False) as live:  # no refresh while a row is timed
        for layer in chosen:
            bar.update(task, description=f"{layer.network} {layer.name}")
            problem = Problem(layer.geometry)
            for direction, library in product(arguments.passes, libraries):
                for row in measure(layer, problem, direction, library, arguments.threads, arguments.pairs):
                    rows.append(row)
                    latest.append(row)
                    bar.advance(task)
                    live.update(Group(results_table(latest, "Latest rows"), bar), refresh=True)
    return rows


def _one_of(known: Sequence[str]) -> Any:
    def names(text: str) -> list[str]:
        for name in text.split(","):
            if name not in known:
                raise argparse.ArgumentTypeError(f"must be some of {','.join(known)}, not {name!r}")
        return text.split(",")

    return names


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Time fastconv against NumPy and PyTorch.")
    parser.add_argument("--net", nargs="+", metavar="NAME", help="networks of networks.json; default: all")
    parser.add_argument("--layer", metavar="NAME", help="only layers of this name")
    parser.add_argument("--pass", dest="passes", type=_one_of(PASSES), default=list(PASSES), help=",".join(PASSES))
    parser.add_argument("--batch", type=int, default=8, help="images at a time; default: %(default)s")
    parser.add_argument("--threads", type=_numbers, default=[1, 2], metavar="N,M", help="default: 1,2")
    parser.add_argument("--against", type=_one_of(LIBRARIES), default=list(LIBRARIES), help=",".join(LIBRARIES))
    parser.add_argument("--pairs", type=int, default=15, help="at most; a slow row takes fewer; default: %(default)s")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the times of every pair")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the comparison; the result is the exit status."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    console = Console(width=None if sys.stdout.isatty() else PIPE_WIDTH)
    try:
        machine.check_threads(arguments.threads)
        chosen = layers(arguments.net, arguments.layer, arguments.batch)
    except ValueError as error:
        parser.error(str(error))
    if line := machine.warning():
        console.print(f"[yellow]{line}[/]")
    installed = [library for library in arguments.against if COMPETITORS[PASSES[0]][library]]
    for library in set(arguments.against) - set(installed):
        console.print(f"[yellow]{library} is not installed: skipped.[/]")
    rows = run(chosen, installed, arguments, console)
    console.print(results_table(rows, f"Batch {arguments.batch}"), summary_table(rows))
    if arguments.json:
        record.write(arguments.json, "compare", machine.describe(), rows)
    return int(any(not row["ours"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
