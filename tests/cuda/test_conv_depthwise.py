"""The depthwise convolution on the GPU: its PTX, executed, against the bits of the CPU."""

from typing import Any

import numpy as np
import pytest
from cases import BY_NAME, ConvCase, normal_arrays
from emulator import Emulator, needs_target

from fastconv.cpu import conv_depthwise as cpu
from fastconv.cpu.activation import ACTIVATIONS
from fastconv.cuda import conv_depthwise

needs_target()

CASES = [
    *(BY_NAME[name] for name in ("depthwise", "depthwise channel tail", "depthwise strided", "depthwise dilated")),
    BY_NAME["depthwise stride larger than kernel"],
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
