"""The depthwise convolution on the GPU: its PTX, executed, against the bits of the CPU."""

from typing import Any

import numpy as np
import pytest
from cases import BY_NAME, ConvCase, normal_arrays
from emulator import Emulator, needs_target

from fastconv.cpu import conv_depthwise as cpu
from fastconv.cpu.activation import ACTIVATIONS
from fastconv.cuda import conv_depthwise, conv_depthwise_plan
from fastconv.cuda.ptx import OutOfBounds
from fastconv.geometry import conv2d_geometry

needs_target()

CASES = [
    *(BY_NAME[name] for name in ("depthwise", "depthwise channel tail", "depthwise strided", "depthwise dilated")),
    BY_NAME["depthwise stride larger than kernel"],
    ConvCase("depthwise, windows of 3 x 3, stride 2", (2, 13, 17, 36), (3, 3, 1, 36), stride=2, padding=1, groups=36),
    ConvCase("depthwise, windows of 5 x 5", (1, 9, 13, 8), (5, 5, 1, 8), padding=((2, 1), (3, 2)), groups=8),
    ConvCase("depthwise, windows of 5 x 5, strides", (1, 12, 9, 4), (5, 5, 1, 4), stride=(3, 2), padding=2, groups=4),
    ConvCase("depthwise, several chains", (1, 40, 57, 4), (3, 3, 1, 4), padding=1, groups=4),
    ConvCase("depthwise, empty batch", (0, 5, 7, 4), (3, 3, 1, 4), padding=1, groups=4),
]


def same_bits(left: Any, right: Any) -> bool:
    return bool(np.array_equal(left.view(np.int32), right.view(np.int32)))


@pytest.mark.parametrize("architecture", ["sm_80", "sm_100"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_same_bits_as_the_cpu(case: ConvCase, architecture: str) -> None:
    g, engine, relu = case.geometry, Emulator(architecture), ACTIVATIONS["relu"]
    data = normal_arrays(g)
    out, expected = np.full((2, *g.out_shape), np.nan, np.float32)
    conv_depthwise.forward(engine, g, data.x, data.weight, data.bias, data.residual, out, relu)
    if g.N:
        cpu.forward(g, data.x, data.weight, data.bias, data.residual, expected, relu)
    assert same_bits(out, expected)

    grad_x, expected = np.full((2, *g.x_shape), np.nan, np.float32)
    conv_depthwise.grad_x(engine, g, data.grad_out, data.weight, grad_x)
    if g.N:
        cpu.grad_x(g, data.grad_out, data.weight, expected)
    assert same_bits(grad_x, expected)

    grad_weight, expected = np.full((2, *g.weight_shape), np.nan, np.float32)
    conv_depthwise.grad_weight(engine, g, data.x, data.grad_out, grad_weight)
    if g.N:
        cpu.grad_weight(g, data.x, data.grad_out, expected)
    else:
        expected[...] = 0
    assert same_bits(grad_weight, expected)


def test_images_without_columns() -> None:
    """There is nothing to read, and padding gives the result a size."""
    g = conv2d_geometry((1, 4, 0, 4), (3, 3, 1, 4), padding=2, groups=4)
    x, weight, bias = (np.ones(shape, np.float32) for shape in (g.x_shape, g.weight_shape, (4,)))
    out, grad_weight = np.full(g.out_shape, np.nan, np.float32), np.full(g.weight_shape, np.nan, np.float32)
    conv_depthwise.forward(Emulator(), g, x, weight, bias, None, out, 0)
    assert (out == 1).all()
    conv_depthwise.grad_weight(Emulator(), g, x, out, grad_weight)
    assert (grad_weight == 0).all()


def test_several_chains_are_several() -> None:
    (case,) = (case for case in CASES if case.name == "depthwise, several chains")
    chains = conv_depthwise_plan.chains(case.geometry)
    assert np.diff(chains.splits).tolist() == [2, 3] * 8
    assert np.diff(chains.rows).tolist() == [1] * 40


@pytest.mark.parametrize("extent", [3, 5, 31])
def test_the_sums_of_chains_take_less_memory_than_x(extent: int) -> None:
    g = conv2d_geometry((32, 56, 56, 128), (extent, extent, 1, 128), padding="same", groups=128)
    assert conv_depthwise_plan.chains(g).total * np.prod(g.weight_shape) < np.prod(g.x_shape) / 3


def test_arrays_that_are_not_aligned() -> None:
    """A view that begins with the second number is read number by number."""
    g = BY_NAME["depthwise"].geometry
    data = normal_arrays(g)
    memory = np.empty(data.x.size + 1, np.float32)[1:]
    memory[...] = data.x.reshape(-1)
    assert memory.ctypes.data % 16
    out, expected = np.full((2, *g.out_shape), np.nan, np.float32)
    conv_depthwise.forward(Emulator(), g, memory, data.weight, data.bias, None, out, 0)
    cpu.forward(g, data.x, data.weight, data.bias, None, expected, 0)
    assert same_bits(out, expected)


@pytest.mark.parametrize("short", range(3))
def test_an_array_too_short_is_caught(short: int) -> None:
    """Columns outside are read where the nearest one inside is: no load leaves an array."""
    g = CASES[-2].geometry
    data = normal_arrays(g)
    arrays = [data.x, data.grad_out, np.empty(g.weight_shape, np.float32)]
    arrays[short] = arrays[short].reshape(-1)[:-1].copy()
    with pytest.raises(OutOfBounds):
        conv_depthwise.grad_weight(Emulator(), g, *arrays)
    arrays = [data.x, data.weight, np.empty(g.out_shape, np.float32)]
    arrays[short] = arrays[short].reshape(-1)[:-1].copy()
    x, weight, out = arrays
    with pytest.raises(OutOfBounds):
        conv_depthwise.forward(Emulator(), g, x, weight, None, None, out, 0)


def test_whole_sectors_are_read() -> None:
    """Each thread asks for 6 columns of 3 rows and for 9 taps, and stores 4 pixels, in whole sectors.

    The rows above and below the image are not read, by 2 of the 16 rows of threads.
    """
    g, engine = conv2d_geometry((1, 16, 16, 32), (3, 3, 1, 32), padding=1, groups=32), Emulator(traffic=True)
    data = normal_arrays(g)
    conv_depthwise.forward(engine, g, data.x, data.weight, None, None, np.empty(g.out_shape, np.float32), 0)
    (counters,) = engine.counters
    threads_of_row, rows = 16 * 32 // 16, 3 * 16 - 2
    asked = 16 * threads_of_row * (rows * (6 + 3) + 16 * 4)
    assert counters.global_bytes == asked
    # neighbouring pixels of a warp share taps
    assert counters.sector_efficiency >= 1


@pytest.mark.parametrize("activation", ["relu6", "leaky_relu", "silu"])
def test_every_activation_has_the_cpus_bits(activation: str) -> None:
    g, code = BY_NAME["depthwise"].geometry, ACTIVATIONS[activation]
    data = normal_arrays(g)
    bias = data.bias * np.float32(5)  # so that relu6 has something to cut off
    out, expected = np.full((2, *g.out_shape), np.nan, np.float32)
    conv_depthwise.forward(Emulator(), g, data.x, data.weight, bias, None, out, code)
    cpu.forward(g, data.x, data.weight, bias, None, expected, code)
    assert same_bits(out, expected)


def test_other_problems_are_refused() -> None:
    geometry = BY_NAME["depthwise multiplier"].geometry
    with pytest.raises(ValueError, match="needs one input and one output channel in each group, here 1 and 3"):
        conv_depthwise.forward(Emulator(), geometry, None, None, None, None, None, 0)
