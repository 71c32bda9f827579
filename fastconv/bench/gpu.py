"""A layer on the GPU for `fastconv compare`: computed, timed with CUDA events, or predicted from a data sheet.

What is timed is `fastconv.cuda` itself, on arrays that lie on the device; copies to and from it are timed apart.
Without a GPU the same operations run on the emulator, on a small problem: values are proven then, time is not.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np

from fastconv import cuda
from fastconv.bench.measure import difference
from fastconv.bench.problems import Array, ConvProblem, Layer, Pooling, pooling
from fastconv.bench.timing import calls_in_sample
from fastconv.cuda import device, launches
from fastconv.cuda.emulator import Emulator
from fastconv.cuda.roofline import GPUS, Gpu, seconds, transfer_seconds
from fastconv.functional.average_pool import avg_pool2d
from fastconv.functional.conv import conv2d
from fastconv.functional.pool import max_pool2d
from fastconv.geometry import Conv2dGeometry, conv2d_geometry

# What an emulated layer has at most: channels of a group (which must stay a multiple of four, or none), groups, and
# outputs on each axis.  Enough for every kernel to take its usual way, and for a second tile of channels.
_CHANNELS, _GROUPS, _OUTPUTS = 8, 2, 3
_ITEMSIZE = np.dtype(np.float32).itemsize
#: What no data sheet says: starting a kernel, and starting a copy.  Usual orders of magnitude, assumed, not measured;
#: without them, a prediction for a small layer would be one of nothing at all.
LAUNCH_SECONDS, COPY_SECONDS = 5e-6, 10e-6
# More need not be recorded: a sample of so many is long beside the ticks of the GPU's clock.
_CALLS_OF_RECORDING = 50


class Agreement(NamedTuple):
    """How a result of the GPU's kernels compares with the CPU's for the same algorithm."""

    problem: str
    same_bits: bool
    #: Relative to the largest value.
    error: float


class Times(NamedTuple):
    """Seconds of a layer on a GPU: of its kernels, and of x on its way there and the result on its way back.

    A *call* of a row of calls takes as long as its kernels, or as long as Python needs to start them.
    """

    kernel: list[float]
    call: list[float]
    upload: list[float]
    download: list[float]


class Measured(NamedTuple):
    """What a GPU took, and what it computed."""

    times: Times
    #: Seconds that the first call took longer, which compiles the kernels.
    compile: float
    agreement: Agreement


def algorithm(layer: Layer) -> str:
    """The algorithm that computes a layer on the GPU; the CPU has one of the same name and the same bits."""
    return launches.algorithm(layer.geometry) if isinstance(layer.geometry, Conv2dGeometry) else layer.geometry.kind


def predict(layer: Layer, gpu: Gpu) -> Times:
    """The least possible times by data sheet, and what starting kernels and copies is assumed to take."""
    g = layer.geometry
    if isinstance(g, Conv2dGeometry):
        steps = launches.conv2d("forward", g)
    else:
        window = g.kernel_size[0] * g.kernel_size[1]
        steps = launches.pool2d(g.kind != "max", int(np.prod(g.out_shape)), window, g.bytes(_ITEMSIZE))
    moved = [_ITEMSIZE * int(np.prod(shape)) for shape in (g.x_shape, g.out_shape)]
    upload, download = (COPY_SECONDS + transfer_seconds(gpu, count) for count in moved)
    kernel = seconds(gpu, steps) + LAUNCH_SECONDS * len(steps)
    return Times([kernel], [kernel], [upload], [download])


def measure(layer: Layer, samples: int) -> Measured:
    """Run a layer on the GPU: compare with the CPU, then take the time of its kernels and of its copies.

    Raises
    ------
    RuntimeError
        If there is no GPU.
    """
    arrays = _inputs(layer)
    on_device = [cuda.asarray(array) for array in arrays]
    clock = device.target()
    start = perf_counter()
    out = compute(layer, on_device)
    clock.synchronize()
    first = perf_counter() - start

    def call() -> None:
        compute(layer, on_device, out)

    agreement = compare(layer, arrays, out.numpy())
    calls = min(calls_in_sample(lambda count: max(_seconds_by_events(clock, call, count), 1e-9)), _CALLS_OF_RECORDING)
    kernels = on_device[0].engine.recording()
    with kernels.on():
        for _ in range(calls):
            call()
    kernels.replay()  # the first one takes longer
    host, x = np.empty(out.size, np.float32), arrays[0].reshape(-1)
    times = Times(
        [_seconds_by_events(clock, kernels.replay, 1) / calls for _ in range(samples)],
        [_seconds_by_events(clock, call, calls) for _ in range(samples)],
        [_seconds_by_events(clock, lambda: on_device[0].memory.copy_to_device(x), 1) for _ in range(samples)],
        [_seconds_by_events(clock, lambda: out.memory.copy_to_host(host), 1) for _ in range(samples)],
    )
    return Measured(times, max(first - median(times.call), 0.0), agreement)


def emulate(layer: Layer) -> Agreement:
    """Run the PTX of a layer's kernels on a small problem of its kind, with every check of the interpreter.

    Raises
    ------
    ImportError
        If kernels cannot be compiled here.
    """
    small = shrunk(layer)
    engine, arrays = Emulator(), _inputs(small)
    computed = compute(small, [cuda.asarray(array, engine) for array in arrays])
    return compare(small, arrays, computed.numpy())


def compute(layer: Layer, inputs: list[Any], out: Any = None) -> Any:
    """The result of a layer for x and, for a convolution, the weight: NumPy arrays, or arrays on a device."""
    g = layer.geometry
    options: dict[str, Any] = {"stride": g.stride, "padding": g.padding, "out": out}
    if isinstance(g, Conv2dGeometry):
        options |= {"dilation": g.dilation, "groups": g.G, "algorithm": algorithm(layer)}
        return conv2d(*inputs, **options)
    (x,) = inputs
    return (max_pool2d if g.kind == "max" else avg_pool2d)(x, g.kernel_size, **options)


def compare(layer: Layer, inputs: list[Array], computed: Array) -> Agreement:
    """A result of the GPU's kernels beside the CPU's."""
    expected = compute(layer, inputs)
    same_bits = np.array_equal(computed.view(np.int32), expected.view(np.int32))
    return Agreement(str(layer.geometry), same_bits, difference(computed, expected))


def shrunk(layer: Layer) -> Layer:
    """A layer of the same kind and kernel with one small image and few channels."""
    g = layer.geometry
    if isinstance(g, Pooling):
        _, IH, IW, C = g.x_shape
        IH, IW = (_extent(*axis) for axis in zip((IH, IW), g.kernel_size, g.stride, strict=True))
        small: Any = pooling(g.kind, (1, IH, IW, _channels(C)), g.kernel_size, g.stride, g.padding)
    else:
        windows = [(k - 1) * d + 1 for k, d in zip((g.KH, g.KW), g.dilation, strict=True)]
        extents = [_extent(*axis) for axis in zip((g.IH, g.IW), windows, g.stride, strict=True)]
        groups = min(g.G, _CHANNELS if g.is_depthwise else _GROUPS)
        inputs, outputs = (_channels(channels // g.G) * groups for channels in (g.IC, g.OC))
        small = conv2d_geometry(
            (1, *extents, inputs),
            (g.KH, g.KW, inputs // groups, outputs),
            stride=g.stride,
            padding=g.padding,
            dilation=g.dilation,
            groups=groups,
        )
    return Layer(layer.network, layer.name, layer.count, small)


def _channels(channels: int) -> int:
    """Fewer channels of a group, a multiple of four where they were one."""
    return min(channels, _CHANNELS if channels % 4 == 0 else _CHANNELS - 1)


def _extent(extent: int, window: int, stride: int) -> int:
    return min(extent, window + (_OUTPUTS - 1) * stride)


def model_of_device() -> Gpu | None:
    """The data sheet of the GPU that is here, if there is one and it is among `GPUS`."""
    name = name_of_device()
    return next((gpu for gpu in GPUS if name is not None and gpu.name in name), None)


def name_of_device() -> str | None:
    """What the driver calls the GPU that is here."""
    if not device.available():
        return None
    name = device.target().get_current_device().name
    return name.decode() if isinstance(name, bytes) else str(name)


def _inputs(layer: Layer) -> list[Array]:
    problem = layer.problem()
    return [problem.x[0], problem.weight[0]] if isinstance(problem, ConvProblem) else [problem.x[0]]


def _seconds_by_events(clock: Any, call: Callable[[], object], calls: int) -> float:
    """Seconds of each of several calls in a row, by the GPU's own clock."""
    start, stop = clock.event(), clock.event()
    start.record()
    for _ in range(calls):
        call()
    stop.record()
    stop.synchronize()
    return float(clock.event_elapsed_time(start, stop)) / 1e3 / calls
