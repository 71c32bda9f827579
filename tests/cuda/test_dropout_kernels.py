"""Dropout on the GPU: its PTX, executed, against the CPU's mask."""

import numpy as np
import pytest
from bits import all_kinds, normal_numbers, same_numbers
from emulator import Emulator, needs_target

from fastconv.cpu import dropout as cpu
from fastconv.cuda import dropout
from fastconv.cuda.ptx import OutOfBounds

needs_target()

from fastconv.cuda.kernels import dropout as dropout_kernels, elements  # noqa: E402 - needs the target


@pytest.mark.parametrize("architecture", ["sm_80", "sm_100"])
@pytest.mark.parametrize("size", [0, 1, 2, 3, 64, 1027])
def test_same_mask_as_the_cpu(size: int, architecture: str) -> None:
    x, engine = normal_numbers(size), Emulator(architecture)
    for rate, seed in ((0.3, 2**63 + 12345), (0.0, 0), (0.999, 7)):
        assert same_numbers(dropout.dropout(engine, x, rate, seed), cpu.dropout(x, rate, seed))


def test_not_finite_numbers_and_shape() -> None:
    x = all_kinds(8).reshape(2, 3, 4)
    assert same_numbers(dropout.dropout(Emulator(), x, 0.5, 3), cpu.dropout(x, 0.5, 3))


def test_misaligned_arrays_are_loaded_one_by_one() -> None:
    x = np.empty(42, np.float32)[1:]
    x[...] = normal_numbers(41)
    assert same_numbers(dropout.dropout(Emulator(), x, 0.5, 7), cpu.dropout(x, 0.5, 7))


def test_an_array_too_short_is_caught() -> None:
    x, out = normal_numbers(64), np.empty(63, np.float32)
    arguments = np.empty(0, np.uint64), np.uint64(1), np.uint32(0), np.float32(1)
    with pytest.raises(OutOfBounds):
        elements.launch(Emulator(), dropout_kernels.dropout(True), 16, x, out, *arguments)
