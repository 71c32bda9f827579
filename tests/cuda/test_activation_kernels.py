"""Activation functions on the GPU: their PTX, executed, against the bits of the CPU."""

from typing import Any

import numpy as np
import pytest
from bits import all_kinds, normal_numbers, same_numbers
from emulator import Emulator, needs_target

from fastconv.cpu import activation as cpu
from fastconv.cpu.activation import ACTIVATIONS
from fastconv.cuda import activation
from fastconv.cuda.ptx import OutOfBounds

needs_target()

from fastconv.cuda.kernels import elements  # noqa: E402 - needs the target

NAMES = [name for name in ACTIVATIONS if name]


# sm_100 has another code generator than the rest
@pytest.mark.parametrize("architecture", ["sm_80", "sm_100"])
@pytest.mark.parametrize("name", NAMES)
def test_same_bits_as_the_cpu(name: str, architecture: str) -> None:
    engine, code = Emulator(architecture), ACTIVATIONS[name]
    x, grad_out = all_kinds(500), all_kinds(500, seed=1)
    computed, expected = np.empty((2, x.size), np.float32)
    activation.activation_forward(engine, x, None, computed, code)
    cpu.activation_forward(x, None, expected, code)
    assert same_numbers(computed, expected)
    activation.activation_backward(engine, grad_out, x, computed, code)
    cpu.activation_backward(grad_out, x, expected, code)
    assert same_numbers(computed, expected)


@pytest.mark.parametrize("shape", [(5, 7, 3), (300, 1), (1, 70), (0, 4)])
def test_bias_along_the_last_axis_and_in_place(shape: tuple[int, ...]) -> None:
    x, bias, code = normal_numbers(*shape), normal_numbers(shape[-1], seed=1), ACTIVATIONS["silu"]
    expected = np.empty_like(x)
    cpu.activation_forward(x, bias, expected, code)
    activation.activation_forward(Emulator(), x, bias, x, code)
    assert same_numbers(x, expected)


@pytest.mark.parametrize("short", ["x", "grad_out"])
def test_an_array_too_short_is_caught(short: str) -> None:
    arrays: dict[str, Any] = {"grad_out": normal_numbers(320), "x": normal_numbers(320)}
    arrays[short] = arrays[short][:-1].copy()
    with pytest.raises(OutOfBounds):
        activation.activation_backward(Emulator(), *arrays.values(), np.empty(320, np.float32), ACTIVATIONS["relu"])


def test_too_large_an_array_is_refused() -> None:
    huge = np.broadcast_to(np.float32(0), 2**31)
    with pytest.raises(ValueError, match="takes fewer than"):
        elements.check_size(huge)
