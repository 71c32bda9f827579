"""Everything that only a GPU can tell, in one command and ten minutes, in one file and one page.

    pip install -e ".[cudatest]" && python bench/gpu_first_run.py --json gpu.json

In this order, most likely to fail first:

1. one kernel      a kernel is compiled, linked, loaded and launched by a process of its own
2. kernel cache    a second process loads what the first has compiled: sooner, the same bits; so does one after
                   kernels were compiled ahead, without asking the driver
3. values          the tests of the emulator on the device, file by file: every kernel against the CPU, bit by bit;
                   first the convolution, at last two streams at once, arrays of other libraries, whole models
4. times           layers of networks on the GPU by its own clock, beside the roofline of its data sheet, the CPU, and
                   where PyTorch with CUDA is installed, cuDNN on the same arrays, without TF32 and with it

Every check of 1 to 3 is a process of its own, because a kernel that reads outside its arrays leaves the GPU of its
process unusable: whatever fails, crashes or hangs, the next check runs.  The file is written after each check and each
layer, so nothing is lost when the machine goes back.  ``--minutes`` ends the run in time.

The exit status is 0 where all values agree, 1 where some differ or a check failed, and 3 where there is no GPU.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from math import exp, log
from pathlib import Path
from statistics import median
from typing import Any

import gpu_torch
import numba
import numpy as np
import pytest
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fastconv import cuda
from fastconv.bench import compare, machine, problems, record
from fastconv.bench.command import PIPE_WIDTH, numbers
from fastconv.bench.model_layers import layers_of
from fastconv.bench.problems import Layer
from fastconv.bench.record import Row
from fastconv.demo import tutorial_network
from fastconv.keras.utils import set_random_seed

EXIT_OK, EXIT_WRONG, EXIT_NO_GPU = 0, 1, 3
TESTS = Path(__file__).parent.parent / "tests" / "cuda"
#: Files of tests that run before the others.
FIRST = ("conv_direct", "conv_winograd", "keras_device")
#: Tests that are for a GPU alone, and what of them: two streams; libraries, graphs, memory and whole models.
ON_GPU_ALONE = {"streams": ("test_on_device.py", "test_two_streams"), "libraries and models": ("test_gpu.py", "")}
NETWORKS = ("resnet_50_v1_5", "mobilenet_dw", "pool")
BATCHES = (1, 32)
SAMPLES = 9
MINUTES = 10.0
#: No check may take longer.
CHECK_SECONDS = 180.0
#: Lines of a failed process that are kept: with nobody's GPU at hand, they are all there is to understand it by.
MESSAGE_LINES = 200

#: Processes that check values at the same time: most of their time goes into compiling, on one core.
AT_ONCE = min(16, numba.config.NUMBA_NUM_THREADS)
LEFT_OUT = "left out"

#: What became of a check.
Check = dict[str, Any]
#: A check: what it found, for the folder of its kernel cache and the seconds it may take; it raises where it fails.
What = Callable[[Path, float], dict[str, Any]]


# ---- checks, each in a process of its own ---------------------------------------------------------------------------


def run_process(arguments: list[str], folder: Path, seconds: float, good: Sequence[int] = (0,)) -> tuple[str, str]:
    """Run Python with a kernel cache in *folder*: what became of it by its status, and what it printed."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(folder)}
    try:
        done = subprocess.run(
            [sys.executable, *arguments],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        printed = error.stdout or b""
        return "hung", printed.decode(errors="replace") if isinstance(printed, bytes) else printed
    status = done.returncode
    return "passed" if status in good else "failed" if status > 0 else "crashed", done.stdout


def run_part(name: str, folder: Path, seconds: float) -> dict[str, Any]:
    """One of `PARTS` in a process of its own; RuntimeError with what it printed where it fails."""
    outcome, printed = run_process([__file__, "--part", name], folder, seconds)
    if outcome != "passed":
        raise RuntimeError(f"{name} {outcome}:\n{printed}")
    told: dict[str, Any] = json.loads(printed.splitlines()[-1])
    return told


def one_kernel() -> dict[str, Any]:
    """The smallest kernel: a sum of four numbers for each element."""
    from fastconv.cuda import kernel_cache
    from fastconv.cuda.kernels import elements

    engine = cuda.libraries.current()
    host = np.random.default_rng(0).normal(size=(4, 1000)).astype(np.float32)
    partial, out = engine.upload(host), engine.empty((1000,), np.float32)
    elements.launch(engine, elements.sum_parts(), 1000, partial, out, 4)
    assert np.array_equal(engine.download(out), ((host[0] + host[1]) + host[2]) + host[3])
    target = cuda.device.target()
    driver = target.cudadrv.driver.driver.get_version()
    return {"capability": engine.capability, "driver": driver, "compilers": kernel_cache.compilers(target)}


def _predict(device: Any) -> Any:
    set_random_seed(0)
    images = np.random.default_rng(0).random((64, 28, 28, 1), np.float32)
    return tutorial_network((28, 28, 1), 10).to(device).predict(images)


def start() -> dict[str, Any]:
    """The first prediction of a process: how long it takes, what it is, and how many kernels are on disk then."""
    began = time.perf_counter()
    out = _predict("cuda")
    seconds = time.perf_counter() - began
    return {"seconds": seconds, "bits": hashlib.sha256(out.tobytes()).hexdigest(), "stored": _stored()}


def compile_ahead() -> dict[str, Any]:
    """The kernels of the same prediction, compiled as by ``fastconv warmup``."""
    from fastconv.cuda.ahead import Compiler, capability_of

    _predict(Compiler(capability_of("cuda")))
    return {"stored": _stored()}


def _stored() -> int:
    return sum(1 for _ in Path(os.environ["NUMBA_CACHE_DIR"]).rglob("*.kernel"))


PARTS = {"one_kernel": one_kernel, "start": start, "compile_ahead": compile_ahead}


def check_one_kernel(folder: Path, seconds: float) -> dict[str, Any]:
    """Whether anything runs at all."""
    return run_part("one_kernel", folder, seconds)


def check_cache(folder: Path, seconds: float) -> dict[str, Any]:
    """Three first predictions: nothing is on disk, all is, all was compiled ahead."""
    cold, warm = (run_part("start", folder / "cold", seconds) for _ in range(2))
    ahead = run_part("compile_ahead", folder / "ahead", seconds)
    prepared = run_part("start", folder / "ahead", seconds)
    told = {"cold": cold, "warm": warm, "prepared": prepared}
    wrong = [
        *(f"{name}: other bits than cold" for name in ("warm", "prepared") if told[name]["bits"] != cold["bits"]),
        *(["cold: no kernel was stored"] if not cold["stored"] else []),
        *(["warm: a kernel was compiled again"] if warm["stored"] != cold["stored"] else []),
        *(["prepared: a kernel was compiled again"] if prepared["stored"] != ahead["stored"] else []),
        *(["warm: no sooner than cold"] if warm["seconds"] >= cold["seconds"] else []),
    ]
    if wrong:
        raise RuntimeError(f"{'; '.join(wrong)}: {told}")
    return told


def tests_of(file: str, wanted: str) -> What:
    """The check that runs the tests of a file whose names hold *wanted*."""

    def check(folder: Path, seconds: float) -> dict[str, Any]:
        arguments = ["-m", "pytest", "-q", "-m", "gpu", "-k", wanted, str(TESTS / file)]
        # a file may have nothing for a device, which the page tells
        good = (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED)
        outcome, printed = run_process(arguments, folder, seconds, good)
        if outcome != "passed":
            raise RuntimeError(f"{outcome}:\n{printed}")
        return {"told": printed.splitlines()[-1]}

    return check


def checks_alone() -> list[tuple[str, What]]:
    """Names and checks that run one after another: one of them takes times."""
    return [("one kernel", check_one_kernel), ("kernel cache", check_cache)]


def checks_of_values() -> list[tuple[str, What]]:
    """Names and checks in the order in which they begin; several run at once."""
    files = {path.stem.removeprefix("test_") for path in TESTS.glob("test_*.py") if "Emulator(" in path.read_text()}
    ordered = [*(name for name in FIRST if name in files), *sorted(files - {*FIRST})]
    # `test_on_device` collects the tests of all files, whose names stand in theirs
    of_files = {name: ("test_on_device.py", f"test_{name}_") for name in ordered if name != "on_device"}
    return [(f"values: {name}", tests_of(*where)) for name, where in {**of_files, **ON_GPU_ALONE}.items()]


def run_checks(folder: Path, end: float) -> Iterator[Check]:
    """What became of each check, as soon as that is known; none begins after *end*."""
    for checks, at_once in ((checks_alone(), 1), (checks_of_values(), AT_ONCE)):
        workers = ThreadPoolExecutor(at_once)
        try:
            for done in as_completed([workers.submit(run_check, name, check, folder, end) for name, check in checks]):
                yield done.result()
        finally:  # after Ctrl-C, which the processes hear too, no other begins
            workers.shutdown(cancel_futures=True)


def run_check(name: str, check: What, folder: Path, end: float) -> Check:
    """What became of a check, whatever that is."""
    began, left = time.perf_counter(), end - time.monotonic()
    if left <= 0:
        return {"check": name, "seconds": 0.0, "outcome": LEFT_OUT, "message": "no time is left", "found": None}
    try:
        found = {"outcome": "passed", "message": "", "found": check(folder, min(left, CHECK_SECONDS))}
    except Exception as error:  # the next check runs in any case
        message = "\n".join(str(error).splitlines()[-MESSAGE_LINES:])
        found = {"outcome": "failed", "message": message or repr(error), "found": None}
    return {"check": name, "seconds": round(time.perf_counter() - began, 1), **found}


# ---- times ----------------------------------------------------------------------------------------------------------


def rivals(layer: Layer) -> list[Row]:
    """Rows of `gpu_torch`; none where PyTorch or its CUDA is missing."""
    try:
        import torch
    except ImportError:
        return []
    return list(gpu_torch.rows_of(torch, layer, SAMPLES)) if torch.cuda.is_available() else []


def time_layer(layer: Layer, described: dict[str, Any], console: Console) -> Row:
    """A row for a layer: its times and those of rivals, or why there are none."""
    try:
        (row,) = compare.measure([layer], described, numba.config.NUMBA_NUM_THREADS, SAMPLES, False, console)
        return {**row, "rivals": rivals(layer)}
    except Exception as error:  # a fault of the GPU, memory that is used up: the next layer may do
        return {"network": layer.network, "layer": layer.name, "batch": layer.batch, "error": repr(error)}


# ---- the page -------------------------------------------------------------------------------------------------------


def checks_table(checks: list[Check]) -> Table:
    """What became of each check, and of a failed one the last that it said."""
    table = Table("check", "outcome", "s", "", title="Checks", box=SIMPLE_HEAD)
    for check in checks:
        passed = check["outcome"] == "passed"
        said = _said(check["found"]) if passed else check["message"].splitlines()[-1]
        style = "green" if passed else "yellow" if check["outcome"] == LEFT_OUT else "bold red"
        table.add_row(check["check"], f"[{style}]{check['outcome']}[/]", f"{check['seconds']:.1f}", escape(said))
    return table


def _said(found: dict[str, Any]) -> str:
    if "cold" in found:
        return ", ".join(f"{name} {found[name]['seconds']:.2f} s" for name in ("cold", "warm", "prepared"))
    return str(found.get("told", ""))


def times_table(rows: list[Row]) -> Table:
    """A line for each network and batch size: sums over its layers, and means of ratios over those that were timed."""
    header = [
        "network",
        "batch",
        "layers",
        "CPU, ms",
        "GPU, ms",
        "of roofline",
        "PyTorch / ours",
        "both in TF32",
        "values",
    ]
    table = Table(*header, title="Times", caption="medians; GPU and PyTorch: kernels alone", box=SIMPLE_HEAD)
    parts: dict[tuple[str, int], list[Row]] = {}
    for row in rows:
        parts.setdefault((row["network"], row["batch"]), []).append(row)
    for (network, batch), part in parts.items():
        timed = [row for row in part if "error" not in row]
        kernel = sum(row["count"] * median(row["kernel"]) for row in timed)
        least = sum(row["count"] * (row["predicted"] or 0) for row in timed)
        table.add_row(
            escape(network),
            str(batch),
            str(len(part)),
            f"{1e3 * sum(row['count'] * median(row['cpu']) for row in timed):.3f}",
            f"{1e3 * kernel:.4f}",
            f"{least / kernel:.0%}" if least else "",
            *(_mean_ratio(timed, name) for name in (gpu_torch.LIBRARY, gpu_torch.LIBRARY_TF32)),
            _values(part),
        )
    return table


def _mean_ratio(rows: list[Row], library: str) -> str:
    """Geometric mean of PyTorch's time over ours in the forward pass."""
    compared = [rival for row in rows for rival in row["rivals"] if rival["library"] == library and rival["ours"]]
    logarithms = [log(record.ratio(rival)) for rival in compared if rival["pass"] == "forward"]
    return f"{exp(sum(logarithms) / len(logarithms)):.2f}" if logarithms else ""


def _values(rows: list[Row]) -> str:
    failed = sum("error" in row for row in rows)
    other = sum("error" not in row and not row["agreement"]["same_bits"] for row in rows)
    words = [f"{other} differ"] * (other > 0) + [f"{failed} failed"] * (failed > 0)
    return f"[bold red]{', '.join(words)}[/]" if words else "same bits"


def main(argv: list[str] | None = None) -> int:
    """Check, time, write; the result is the exit status."""
    parser = argparse.ArgumentParser(description="Check and time every GPU kernel on the GPU that is here.")
    parser.add_argument("--json", type=Path, default=Path("gpu_first_run.json"), metavar="FILE", help="%(default)s")
    parser.add_argument("--batch", type=numbers, default=list(BATCHES), metavar="N,M", help="default: 1,32")
    parser.add_argument("--minutes", type=float, default=MINUTES, metavar="N", help="end in time; default: %(default)s")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.part:
        sys.stdout.write(json.dumps(PARTS[arguments.part]()) + "\n")
        return EXIT_OK
    end = time.monotonic() + 60 * arguments.minutes
    console = Console(width=None if sys.stdout.isatty() else PIPE_WIDTH, highlight=False)
    if reason := cuda.why_not():
        console.print(f"No GPU, so nothing was run: {escape(reason)}.", soft_wrap=True)
        return EXIT_NO_GPU
    described = compare.describe_gpu(None)
    console.print(f"GPU: {escape(described['name'])}. Ctrl-C ends the run; what was found is kept.")
    checks: list[Check] = []
    rows: list[Row] = []
    description = {**machine.describe(), "gpu": described, "checks": checks}
    layers = [
        layer
        for batch in arguments.batch
        for layer in [*layers_of("demo", batch), *problems.layers(NETWORKS, None, batch)]
    ]
    late = 0
    try:
        with tempfile.TemporaryDirectory() as folder:
            for check in run_checks(Path(folder), end):
                checks.append(check)
                console.print(f"{check['check']}: {check['outcome']}, {check['seconds']} s")
                record.write(arguments.json, "gpu_first_run", description, rows)
        for layer in layers:
            if time.monotonic() >= end:
                late += 1
                continue
            rows.append(time_layer(layer, described, console))
            record.write(arguments.json, "gpu_first_run", description, rows)
    except KeyboardInterrupt:
        console.print("[yellow]Stopped by Ctrl-C.[/]")
    console.print(checks_table(checks), times_table(rows))
    if late:
        console.print(f"[yellow]{late} layers were left out: {arguments.minutes:g} minutes are over.[/]")
    console.print(f"All of it is in {escape(str(arguments.json))}", soft_wrap=True)
    wrong = [check for check in checks if check["outcome"] == "failed"]
    wrong += [row for row in rows if "error" in row or not row["agreement"]["same_bits"]]
    return EXIT_WRONG if wrong else EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
