"""Layers on a GPU beside PyTorch's, whose convolutions are cuDNN's: every pass, on the same arrays of PyTorch.

    python bench/gpu_torch.py --json bench/results/gpu.json

Arrays are NHWC (PyTorch: channels_last) and float32.  Factors are rounded to TF32 only in rows that say so, in theirs
as in ours.  PyTorch tries all its algorithms first (``cudnn.benchmark``).  Values are compared, then calls are recorded
once and replayed in turns: what Python takes to start a kernel does not count (see `fastconv.cuda.recording`).

``--train`` is about Python as well: epochs of whole networks, ours by `fit`, whose batches come from host memory,
theirs by the loop that everybody writes, over images that lie on the GPU.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from math import inf, isfinite, prod
from pathlib import Path
from time import perf_counter
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import track
from rich.table import Table

import fastconv
from fastconv import cuda
from fastconv.bench import compare, machine, problems, record, training
from fastconv.bench.command import numbers
from fastconv.bench.problems import Layer, Pooling
from fastconv.bench.record import Row
from fastconv.geometry import Conv2dGeometry

NETWORKS = ("resnet_50_v1_5", "vgg_19", "mobilenet", "mobilenet_dw", "keras_cifar10", "pool")
BATCHES = (1, 32)
PAIRS = 15
LIBRARY, LIBRARY_TF32 = "PyTorch", "PyTorch with TF32"
# A tensor core rounds its factors to 10 bits, so a long sum may be off by this share of its largest value.
TF32_TOLERANCE = 1e-2
# A graph of at most so many calls takes about so long: long beside the ticks of the GPU's clock.
MOST_CALLS, SAMPLE_SECONDS = 50, 1e-3

Call = Callable[[], Any]
#: A call with a precision, which may be None.
Ours = Callable[[str | None], Any]


def normal(torch: Any, shape: Sequence[int]) -> Any:
    """Random numbers on the GPU, the same in every run."""
    return torch.randn(*shape, generator=torch.Generator("cuda").manual_seed(prod(shape)), device="cuda")


def calls_of_convolution(torch: Any, g: Conv2dGeometry) -> dict[str, tuple[Ours, Call]]:
    """For each pass ours, and PyTorch's, whose result has our layout."""
    x, weight, grad_out = (normal(torch, shape) for shape in (g.x_shape, g.weight_shape, g.out_shape))
    place: dict[str, Any] = {"stride": g.stride, "padding": g.padding, "dilation": g.dilation, "groups": g.G}
    image, gradient = (array.permute(0, 3, 1, 2) for array in (x, grad_out))
    kernel = weight.permute(3, 2, 0, 1).contiguous(memory_format=torch.channels_last)
    sides = [side for side, _ in g.padding]

    def backward(which: int) -> Any:
        wanted = [which == 0, which == 1, False]
        options = (None, g.stride, sides, g.dilation, False, (0, 0), g.G, wanted)
        return torch.ops.aten.convolution_backward(gradient, image, kernel, *options)[which]

    forward = torch.nn.functional.conv2d
    return {
        "forward": (
            lambda precision: fastconv.conv2d(x, weight, **place, precision=precision),
            lambda: forward(image, kernel, None, g.stride, sides, g.dilation, g.G).permute(0, 2, 3, 1),
        ),
        "grad_x": (
            lambda precision: fastconv.conv2d_grad_x(grad_out, weight, g.x_shape, **place, precision=precision),
            lambda: backward(0).permute(0, 2, 3, 1),
        ),
        "grad_weight": (
            lambda precision: fastconv.conv2d_grad_weight(grad_out, x, g.weight_shape, **place, precision=precision),
            lambda: backward(1).permute(2, 3, 1, 0),
        ),
    }


def calls_of_pooling(torch: Any, g: Pooling) -> dict[str, tuple[Ours, Call]]:
    """The same for the forward pass of a pooling."""
    x = normal(torch, g.x_shape)
    image, sides = x.permute(0, 3, 1, 2), [side for side, _ in g.padding]
    ours = fastconv.max_pool2d if g.kind == "max" else fastconv.avg_pool2d
    theirs = torch.nn.functional.max_pool2d if g.kind == "max" else torch.nn.functional.avg_pool2d
    return {
        "forward": (
            lambda precision: ours(x, g.kernel_size, stride=g.stride, padding=g.padding),
            lambda: theirs(image, g.kernel_size, g.stride, sides).permute(0, 2, 3, 1),
        )
    }


def difference(ours: Any, theirs: Any) -> float:
    """`fastconv.bench.measure.difference`, computed on the GPU."""
    error = float((ours - theirs).abs().max() / theirs.abs().max())
    return error if isfinite(error) else inf


def recorded(torch: Any, call: Call) -> tuple[Any, int]:
    """A graph of several calls, and how many."""
    call()
    torch.cuda.synchronize()
    calls = min(MOST_CALLS, 1 + int(SAMPLE_SECONDS / seconds_of(torch, call)))
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(calls):
            call()
    graph.replay()
    return graph, calls


def seconds_of(torch: Any, run: Call) -> float:
    """Seconds by the GPU's own clock."""
    start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    run()
    stop.record()
    stop.synchronize()
    return float(start.elapsed_time(stop)) / 1e3


def rows_of(torch: Any, layer: Layer, pairs: int) -> Iterator[Row]:
    """A row for each pass, in float32 and with TF32; none where PyTorch has no such padding."""
    torch.backends.cudnn.benchmark = True
    g = layer.geometry
    if any(before != after for before, after in g.padding):
        return
    calls = calls_of_convolution(torch, g) if isinstance(g, Conv2dGeometry) else calls_of_pooling(torch, g)
    ways = ((LIBRARY, None), (LIBRARY_TF32, "tf32")) if isinstance(g, Conv2dGeometry) else ((LIBRARY, None),)
    for direction, (ours, theirs) in calls.items():
        described = problems.described(layer, direction)
        for library, precision in ways:
            torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = precision is not None
            call = partial(ours, precision)
            try:
                mine = call()
            except ValueError:  # channels that no tensor core takes
                continue
            error = difference(mine, theirs())
            times: tuple[list[float], list[float]] = ([], [])
            if error <= (layer.tolerance if precision is None else TF32_TOLERANCE):
                graphs = [recorded(torch, one) for one in (call, theirs)]
                for _ in range(pairs):
                    for (graph, count), found in zip(graphs, times, strict=True):
                        found.append(record.seconds(seconds_of(torch, graph.replay) / count))
            yield row_of(described, direction, library, error, times)


def row_of(
    described: dict[str, Any], direction: str, library: str, error: float, times: tuple[list[float], list[float]]
) -> Row:
    """A row of results; without times where the values differ."""
    return {
        **described,
        "pass": direction,
        "algorithm": "auto",
        "library": library,
        "threads": 0,
        "error": error,
        "ours": times[0],
        "theirs": times[1],
    }


def row_of_training(torch: Any, wanted: training.Training, pairs: int, device: str = "cuda") -> Row:
    """A row for epochs of a network; the first ones, which compile kernels, compare the losses."""
    from fastconv.bench.libraries import torch as library

    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    problem = wanted.problem()
    prepare = library.training(torch.contiguous_format, device)
    epochs = [contender.compute for contender in (training.ours(problem, 0, device), prepare(problem, 0))]
    mine, theirs = (epoch(0) for epoch in epochs)
    error = abs(mine - theirs) / theirs
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(pairs if error <= wanted.tolerance else 0):
        for epoch, found in zip(epochs, times, strict=True):
            start = perf_counter()
            epoch(0)  # its loss is fetched, so it is over
            found.append(record.seconds(perf_counter() - start))
    return row_of(problems.described(wanted, "train"), "train", LIBRARY, error, times)


def summary(rows: Sequence[Row]) -> Table:
    """Geometric means for each network and pass."""
    header = ["network", "pass", "batch", "against", "mean speed-up", "best layer", "worst layer", "layers lost"]
    table = Table(*header, title="PyTorch's time over ours, on the GPU", box=SIMPLE_HEAD)
    for part in record.summarise(rows):
        table.add_row(part.network, part.direction, str(part.batch), part.library, f"{part.mean:.2f}", *part.words)
    return table


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print all rows; the result is the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--net", nargs="*", default=NETWORKS, metavar="NAME", help=f"default: {' '.join(NETWORKS)}")
    parser.add_argument("--train", nargs="+", choices=training.NETWORKS, default=[], help="whole networks, by name")
    parser.add_argument("--batch", type=numbers, default=list(BATCHES), metavar="N,M", help="default: 1,32")
    parser.add_argument("--pairs", type=int, default=PAIRS, metavar="N", help="default: %(default)s")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all times, after each layer")
    arguments = parser.parse_args(argv)
    console = Console()
    if reason := cuda.why_not():
        console.print(f"No GPU, so nothing was run: {reason}.", soft_wrap=True, markup=False)
        return 1
    import torch

    description = {**machine.describe(), "gpu": compare.describe_gpu(None)}
    description["versions"]["torch"] = torch.__version__
    rows: list[Row] = []
    batches = arguments.batch if arguments.net else ()
    layers = [layer for batch in batches for layer in problems.layers(arguments.net, None, batch)]
    epochs = [
        training.Training(batch, training.IMAGES[chosen], chosen)
        for chosen in arguments.train
        for batch in arguments.batch
    ]
    for task in track([*layers, *epochs], "Layers", console=console, transient=True):
        if isinstance(task, training.Training):
            rows.append(row_of_training(torch, task, arguments.pairs))
        else:
            rows += rows_of(torch, task, arguments.pairs)
        if arguments.json:
            record.write(arguments.json, "gpu", description, rows)
    console.print(summary(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
