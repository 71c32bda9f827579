"""Optimizer steps on the GPU: their PTX, executed, against the bits of the CPU."""

from typing import Any

import numpy as np
import pytest
from bits import all_kinds, same_numbers
from emulator import Emulator, needs_target

from fastconv.cpu import update as cpu
from fastconv.cuda import update
from fastconv.cuda.ptx import OutOfBounds

needs_target()

# operation, which arrays of state there are, and the options
STEPS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "gradient descent": ("sgd_update", "-", {"learning_rate": 0.1}),
    "momentum": ("sgd_update", "a", {"learning_rate": 0.1, "momentum": 0.9}),
    "Nesterov": ("sgd_update", "a", {"learning_rate": 0.1, "momentum": 0.9, "nesterov": True}),
    "Adam": ("adam_update", "ap", {"learning_rate": 0.01, "iteration": 3}),
    "RMSprop": ("rmsprop_update", "p--", {"learning_rate": 0.01}),
    "RMSprop, centered": ("rmsprop_update", "pa-", {"learning_rate": 0.01}),
    "RMSprop, momentum": ("rmsprop_update", "p-a", {"learning_rate": 0.01, "momentum": 0.5}),
}


def state(kind: str, seed: int) -> Any:
    """An average of numbers (a), of squares (p), or none; fading ones among them, which become denormal."""
    if kind == "-":
        return None
    numbers = all_kinds(300, seed)
    numbers[::3] *= np.float32(1e-35)
    return abs(numbers) if kind == "p" else numbers


@pytest.mark.parametrize("architecture", ["sm_80", "sm_100"])
@pytest.mark.parametrize("name", STEPS)
def test_same_bits_as_the_cpu(name: str, architecture: str) -> None:
    operation, kinds, options = STEPS[name]
    arrays = [all_kinds(300), all_kinds(300, 1), *(state(kind, 2 + i) for i, kind in enumerate(kinds))]
    expected = [None if array is None else array.copy() for array in arrays]
    for _ in range(2):
        getattr(update, operation)(Emulator(architecture), *arrays, **options)
        getattr(cpu, operation)(*expected, **options)
    for computed, right in zip(arrays, expected, strict=True):
        assert computed is right is None or same_numbers(computed, right)


def test_fading_velocity_ends_at_zero() -> None:
    """``0.9 * 1.2e-38`` is denormal."""
    parameter, gradient, velocity = np.ones(5, np.float32), np.zeros(5, np.float32), np.full(5, 1.2e-38, np.float32)
    update.sgd_update(Emulator(), parameter, gradient, velocity, learning_rate=0.1, momentum=0.9)
    assert not velocity.any()


def test_no_parameters() -> None:
    empty = np.empty(0, np.float32)
    update.sgd_update(Emulator(), empty, empty, None, learning_rate=0.1)


@pytest.mark.parametrize("short", [1, 2, 3])
def test_an_array_too_short_is_caught(short: int) -> None:
    arrays = [abs(all_kinds(300, seed)) for seed in range(4)]
    arrays[short] = arrays[short][:-1].copy()
    with pytest.raises(OutOfBounds):
        update.adam_update(Emulator(), *arrays, iteration=1, learning_rate=0.1)
