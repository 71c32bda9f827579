"""What fastconv costs before the first number: import, first calls with an empty and a warm cache, a small call.

    python bench/startup.py --json bench/results/startup.json

Imports and first calls are timed in fresh processes.  A first call compiles where the cache is empty; with a warm cache
it loads machine code from the disk.  The small call is nearly all overhead: arguments, shapes, choice of the algorithm.
A function that Numba compiles makes it without Python.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numba import njit
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import track
from rich.table import Table

from fastconv import conv2d
from fastconv.bench import command, machine, record
from fastconv.bench.libraries import Library, ours
from fastconv.bench.measure import measure
from fastconv.bench.problems import Layer, layers
from fastconv.bench.record import Row
from fastconv.bench.timing import Pairs, paired, sampler, timed
from fastconv.geometry import conv2d_geometry

PASSES = ("forward", "grad_x", "grad_weight")
RIVALS = ("numpy", "torch")

IMPORT_PAIRS = 15
WARM_CALLS = 5
CALL_PAIRS = 15
# Large enough for the parallel kernels, which take longest to compile.
FIRST_LAYER = ("keras_mnist", "conv2d_1")
SMALL = Layer("small", "call", 1, conv2d_geometry((1, 8, 8, 4), (3, 3, 4, 4)))


def import_rows() -> list[Row]:
    """``import fastconv`` against ``import numba``: the statement, and a process with nothing else."""
    statements = [partial(_statement, f"import {name}") for name in ("fastconv", "numba")]
    processes = [partial(_python, f"import {name}") for name in ("fastconv", "numba")]
    for call in processes:
        call()  # Python writes its byte code
    return [
        _row("import", "import numba", paired(*statements, IMPORT_PAIRS)),
        _row("process that imports", "numba", paired(*map(sampler, processes), IMPORT_PAIRS)),
    ]


def _statement(code: str, processes: int) -> float:
    """Seconds of a statement, added up over some processes."""
    timed_code = f"import time; start = time.perf_counter(); {code}; print(time.perf_counter() - start)"
    return sum(float(_python(timed_code)) for _ in range(processes))


def first_call_rows(direction: str) -> list[Row]:
    """First calls in new processes: with an empty cache, and again with the cache that the first has filled."""
    code = f"import startup; startup.print_first_call({direction!r})"
    with tempfile.TemporaryDirectory() as cache:
        cold, *warm = (float(_python(code, cache)) for _ in range(1 + WARM_CALLS))
    return [
        _row(f"first {direction}, empty cache", "", Pairs([cold], [])),
        _row(f"first {direction}, warm cache", "", Pairs(warm, [])),
    ]


def print_first_call(direction: str) -> None:
    """Runs in the new process: print the seconds of the first call."""
    network, name = FIRST_LAYER
    (layer,) = layers([network], name)
    contender = ours.variants("auto")[layer.operation, direction](layer.problem(), 1)
    print(timed(lambda: contender.compute(0))[0])  # noqa: T201 (the parent reads it)


def small_call_rows(direction: str, rivals: dict[str, Library]) -> list[Row]:
    """One small call on one thread against NumPy and PyTorch."""
    problem = SMALL.problem()
    rows = []
    for name, library in rivals.items():
        row, *_ = measure(SMALL, problem, direction, name, library, [1], CALL_PAIRS)
        rows.append(_row(f"small {direction}", f"{name} {row['variant']}", Pairs(row["ours"], row["theirs"])))
    return rows


@njit
def _compiled(x: Any, weight: Any) -> Any:
    return conv2d(x, weight)


def compiled_call_row() -> Row:
    """The small call from a function that Numba compiles against the same call from Python, on one thread."""
    problem = SMALL.problem()
    samples = [partial(call, problem.x[0], problem.weight[0]) for call in (_compiled, conv2d)]
    mine, python = (call() for call in samples)
    np.testing.assert_array_equal(mine, python)
    inside, outside = map(sampler, samples)
    return _row("small forward inside @njit", "the call from Python", paired(inside, outside, CALL_PAIRS))


def _row(name: str, rival: str, times: Pairs) -> Row:
    both = {
        who: [record.seconds(time) for time in part] for who, part in (("ours", times.ours), ("theirs", times.theirs))
    }
    return {"name": name, "rival": rival, **both}


def _python(code: str, cache: str | None = None) -> str:
    environment = os.environ if cache is None else {**os.environ, "NUMBA_CACHE_DIR": cache}
    command = [sys.executable, "-c", code]
    here = Path(__file__).parent
    return subprocess.run(command, cwd=here, env=environment, check=True, capture_output=True, text=True).stdout


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print all rows; the result is the exit status."""
    parser = argparse.ArgumentParser(description="Time imports, first calls and small calls.")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all times")
    arguments = parser.parse_args(argv)
    console = Console()
    rivals, _ = command.load(RIVALS)
    if line := machine.warning(list(rivals.values())):
        console.print(f"[yellow]{line}[/]")
    rows = import_rows()
    for direction in track(PASSES, "First calls", console=console, transient=True):
        rows += first_call_rows(direction)
    for direction in PASSES:
        rows += small_call_rows(direction, rivals)
    rows.append(compiled_call_row())
    table = Table("what", "fastconv, ms", "against", "theirs, ms", title="Medians", box=SIMPLE_HEAD)
    for row in rows:
        theirs = f"{1e3 * median(row['theirs']):.3f}" if row["theirs"] else ""
        table.add_row(row["name"], f"{1e3 * median(row['ours']):.3f}", row["rival"], theirs)
    console.print(table)
    if arguments.json:
        record.write(arguments.json, "startup", machine.describe(list(rivals.values())), rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
