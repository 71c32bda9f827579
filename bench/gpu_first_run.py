"""Everything that only a GPU can tell, in one command: values first, then times, in one file.

    pip install -e ".[cudatest]" && python bench/gpu_first_run.py --json gpu.json

1. Values: ``pytest -m gpu``, the tests of the emulator on the device.  They compile, link and launch every kernel for
   the GPU that is here, and compare with the CPU bit by bit: first what no GPU has ever done, tensor-core fragments
   where those kernels exist, last two streams at once.  Nothing is timed unless all of them pass.
2. Times: layers of networks on the GPU by its own clock, beside the roofline of its data sheet, the CPU, and where
   PyTorch with CUDA is installed, cuDNN on the same arrays, without TF32 and with it.

The exit status is 0 where all values agree, 1 where some differ, and 3 where there is no GPU.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numba
import pytest
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fastconv import cuda
from fastconv.bench import compare, gpu, machine, problems, record
from fastconv.bench.command import numbers
from fastconv.bench.measure import difference
from fastconv.bench.model_layers import layers_of
from fastconv.bench.problems import ConvProblem, Layer
from fastconv.bench.record import Row
from fastconv.bench.timing import calls_in_sample
from fastconv.functional.conv import conv2d
from fastconv.geometry import Conv2dGeometry

EXIT_OK, EXIT_WRONG, EXIT_NO_GPU = 0, 1, 3
TESTS = Path(__file__).parent.parent / "tests" / "cuda"
NETWORKS = ("resnet_50_v1_5", "mobilenet_dw", "pool")
BATCHES = (1, 32)
SAMPLES = 9
# A tensor core rounds its factors to 10 bits, so a long sum may be off by this share of its largest value.
TF32_TOLERANCE = 1e-2


class Outcomes:
    """A plugin of pytest that keeps what became of each test."""

    def __init__(self) -> None:
        self.tests: list[dict[str, Any]] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.outcome != "passed":
            name = report.nodeid.partition("::")[2]
            message = "" if report.passed else str(report.longrepr)
            self.tests.append({"test": name, "outcome": report.outcome, "seconds": report.duration, "message": message})


def check_values() -> list[dict[str, Any]]:
    """Run the tests of the device; what became of each."""
    outcomes = Outcomes()
    status = pytest.main(["-q", "-x", "-m", "gpu", str(TESTS / "test_on_device.py")], plugins=[outcomes])
    if status != pytest.ExitCode.OK and all(test["outcome"] != "failed" for test in outcomes.tests):
        message = "pytest itself failed, see above"
        outcomes.tests.append({"test": "pytest", "outcome": "failed", "seconds": 0.0, "message": message})
    return outcomes.tests


def rivals(layer: Layer) -> dict[str, Any]:
    """Seconds of PyTorch's cuDNN without and with TF32, and its difference from the CPU; empty where it is missing."""
    try:
        import torch
    except ImportError:
        return {}
    g = layer.geometry
    if not torch.cuda.is_available() or not isinstance(g, Conv2dGeometry):
        return {}
    (top, bottom), (left, right) = g.padding
    if (top, left) != (bottom, right):
        return {}
    problem = layer.problem()
    assert isinstance(problem, ConvProblem)
    options = {"stride": g.stride, "padding": g.padding, "dilation": g.dilation, "groups": g.G}
    expected = conv2d(problem.x[0], problem.weight[0], algorithm=gpu.algorithm(layer), **options)
    x = torch.from_numpy(problem.x[0]).permute(0, 3, 1, 2).cuda().contiguous(memory_format=torch.channels_last)
    weight = torch.from_numpy(problem.weight[0]).permute(3, 2, 0, 1).cuda()
    weight = weight.contiguous(memory_format=torch.channels_last)
    torch.backends.cudnn.benchmark = True
    found = {}
    for name, allowed in (("cudnn", False), ("cudnn_tf32", True)):
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = allowed

        def call() -> Any:
            return torch.nn.functional.conv2d(x, weight, None, g.stride, (top, left), g.dilation, g.G)

        error = difference(call().permute(0, 2, 3, 1).cpu().numpy(), expected)  # chooses its algorithm meanwhile
        calls = calls_in_sample(max(_torch_seconds(torch, call, 1), 1e-9))
        seconds = [record.seconds(_torch_seconds(torch, call, calls)) for _ in range(SAMPLES)]
        within = error <= (TF32_TOLERANCE if allowed else layer.tolerance)
        found[name] = {"seconds": seconds if within else [], "error": error}
    return found


def _torch_seconds(torch: Any, call: Callable[[], Any], calls: int) -> float:
    """Seconds of each of several calls in a row, by the GPU's own clock."""
    start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(calls):
        call()
    stop.record()
    stop.synchronize()
    return float(start.elapsed_time(stop)) / 1e3 / calls


def times_table(rows: list[Row]) -> Table:
    """Medians in ms, and how much of the roofline and of cuDNN's speed that is."""
    header = ["layer", "batch", "CPU, ms", "GPU, ms", "TFLOP/s", "of roofline", "cuDNN, ms", "TF32, ms", "agreement"]
    table = Table(*header, title="Times", caption="medians; GPU and cuDNN: kernels alone", box=SIMPLE_HEAD)
    for row in rows:
        kernel = median(row["kernel"])
        share = f"{row['predicted'] / kernel:.0%}" if row["predicted"] else ""
        others = [
            f"{1e3 * median(row['rivals'][name]['seconds']):.4f}" if row["rivals"].get(name, {}).get("seconds") else ""
            for name in ("cudnn", "cudnn_tf32")
        ]
        agreement = row["agreement"]
        table.add_row(
            escape(f"{row['network']} {row['layer']}"),
            str(row["batch"]),
            f"{1e3 * median(row['cpu']):.3f}",
            f"{1e3 * kernel:.4f}",
            f"{row['flops'] / kernel / 1e12:.2f}",
            share,
            *others,
            "same bits" if agreement["same_bits"] else f"[bold red]error {agreement['error']:.0e}[/]",
        )
    return table


def main(argv: list[str] | None = None) -> int:
    """Check, time, write; the result is the exit status."""
    parser = argparse.ArgumentParser(description="Check and time every GPU kernel on the GPU that is here.")
    parser.add_argument("--json", type=Path, default=Path("gpu_first_run.json"), metavar="FILE", help="%(default)s")
    parser.add_argument("--batch", type=numbers, default=list(BATCHES), metavar="N,M", help="default: 1,32")
    arguments = parser.parse_args(argv)
    console = Console()
    if reason := cuda.why_not():
        console.print(f"No GPU, so nothing was run: {escape(reason)}.", soft_wrap=True)
        return EXIT_NO_GPU
    described = compare.describe_gpu(None)
    console.print(f"GPU: {escape(described['name'])}\n1. Values")
    tests = check_values()
    description = {**machine.describe(), "gpu": described, "values": tests}
    failed = [test["test"] for test in tests if test["outcome"] == "failed"]
    if failed:
        record.write(arguments.json, "gpu_first_run", description, [])
        console.print(f"[red]Values differ, so nothing was timed: {escape(', '.join(failed))}[/]; {arguments.json}")
        return EXIT_WRONG
    console.print("2. Times")
    rows: list[Row] = []
    for batch in arguments.batch:
        layers = [*problems.layers(NETWORKS, None, batch), *layers_of("demo", batch)]
        measured = compare.measure(layers, described, numba.config.NUMBA_NUM_THREADS, SAMPLES, False, console)
        rows += [{**row, "rivals": rivals(layer)} for row, layer in zip(measured, layers, strict=False)]
    record.write(arguments.json, "gpu_first_run", description, rows)
    console.print(times_table(rows))
    console.print(f"All of it is in {escape(str(arguments.json))}", soft_wrap=True)
    return EXIT_WRONG if any(not row["agreement"]["same_bits"] for row in rows) else EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
