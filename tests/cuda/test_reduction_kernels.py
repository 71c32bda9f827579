"""Sums over rows on the GPU: their PTX, executed, against the bits of the CPU."""

from typing import Any

import numpy as np
import pytest
from bits import normal_numbers, same_numbers
from emulator import Emulator, needs_target

from fastconv.cpu import reduction as cpu
from fastconv.cuda import reduction
from fastconv.cuda.ptx import OutOfBounds

needs_target()

# One block and several, rows that are joined (with and without a rest) and those that are not, no rows.
SHAPES = [(7, 1), (1100, 3), (530, 16), (513, 33), (9, 64), (5, 131), (0, 4)]


@pytest.mark.parametrize("architecture", ["sm_80", "sm_100"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_same_bits_as_the_cpu(shape: tuple[int, int], architecture: str) -> None:
    engine = Emulator(architecture)
    a, b = normal_numbers(*shape) + np.float32(3), normal_numbers(*shape, seed=1) * np.float32(1e-3)
    a_shift, b_shift = normal_numbers(shape[1], seed=2), normal_numbers(shape[1], seed=3)
    assert same_numbers(reduction.column_sums(engine, a), cpu.column_sums(a))
    computed = reduction.column_products(engine, a, b, a_shift, b_shift)
    assert same_numbers(computed, cpu.column_products(a, b, a_shift, b_shift))


def test_order_shows_in_the_sum() -> None:
    """Numbers whose sum depends on the order: what the other tests compare is not the exact sum."""
    x = normal_numbers(700, 3)
    x[::7] *= np.float32(2.0**60)
    x[1::7] = -x[::7]
    assert same_numbers(reduction.column_sums(Emulator(), x), cpu.column_sums(x))
    assert not same_numbers(cpu.column_sums(np.ascontiguousarray(x[::-1])), cpu.column_sums(x))


def test_not_finite_numbers_stay_in_their_columns() -> None:
    x = normal_numbers(20, 4)
    x[3, 0], x[4, 1], x[5, 1], x[6, 2], x[:, 3] = np.nan, np.inf, -np.inf, np.inf, 1e-40
    assert same_numbers(reduction.column_sums(Emulator(), x), cpu.column_sums(x))


@pytest.mark.parametrize("short", range(4))
def test_an_array_too_short_is_caught(short: int) -> None:
    arrays: list[Any] = [normal_numbers(60, 8), normal_numbers(60, 8), normal_numbers(8), normal_numbers(8)]
    if short == 0:
        # the first array says how many numbers there are: the others are too short for it
        arrays[0] = np.concatenate([arrays[0], arrays[0]])
    else:
        arrays[short] = arrays[short].reshape(-1)[:-1].copy()
    with pytest.raises(OutOfBounds):
        reduction.column_products(Emulator(), *arrays)
