"""Sums of whole arrays on the GPU: their PTX, executed, against the bits of the CPU."""

import math
from typing import Any

import numpy as np
import pytest
from bits import normal_numbers
from emulator import Emulator, needs_target

from fastconv.cpu import total as cpu
from fastconv.cuda import total
from fastconv.cuda.ptx import Fault, OutOfBounds

needs_target()

ARCHITECTURE = pytest.mark.parametrize("architecture", ["sm_80", "sm_100"])
# none, one block and its tail, several blocks, chains of two and of three numbers
SIZES = [0, 1, 3, 256, 257, 1000, cpu.CHAINS + 77, 2 * cpu.CHAINS + 1000]


def numbers_of_all_sizes(size: int) -> Any:
    """Numbers whose sum depends on the order."""
    numbers = normal_numbers(size)
    numbers[:-1:7] *= np.float32(2.0**40)
    numbers[1::7] = -numbers[:-1:7]
    return numbers


@ARCHITECTURE
@pytest.mark.parametrize("size", SIZES)
def test_same_bits_as_the_cpu(size: int, architecture: str) -> None:
    numbers, engine = numbers_of_all_sizes(size), Emulator(architecture)
    totals = np.array([1.0, 2.0, 0.0])
    total.add_sum(engine, numbers, totals, 1, 0.3)
    assert totals[1] == 2 + cpu.of(numbers) * 0.3
    assert cpu.of(numbers) == pytest.approx(math.fsum(numbers), abs=1e-15 * np.abs(numbers).sum(dtype=np.float64))
    total.add_sum(engine, numbers, totals, 2, squared=True)
    assert totals.tolist() == [1.0, totals[1], cpu.of(np.square(numbers, dtype=np.float64))]
    counts = np.array([5, 7])
    total.add_count(engine, (numbers > 0).astype(np.int32), counts, 1)
    assert counts.tolist() == [5, 7 + np.count_nonzero(numbers > 0)]


def test_order_shows_in_the_sum() -> None:
    numbers = numbers_of_all_sizes(1000)
    assert cpu.of(numbers) != np.add.accumulate(numbers, dtype=np.float64)[-1]


def test_large_arrays_take_many_blocks_and_one() -> None:
    engine = Emulator()
    for size, launches in ((0, 0), (256, 1), (257, 2), (2 * cpu.CHAINS, 2)):
        engine.counters.clear()
        total.add_sum(engine, np.ones(size, np.float32), np.zeros(1), 0)
        assert len(engine.counters) == launches


def test_a_missing_barrier_is_caught() -> None:
    engine = Emulator(change=lambda ptx: ptx.replace("bar.sync", "// bar.sync"))
    with pytest.raises(Fault):
        total.add_sum(engine, normal_numbers(1000), np.zeros(1), 0)


def test_arrays_too_short_are_caught() -> None:
    with pytest.raises(OutOfBounds):
        total.add_sum(Emulator(), np.ones(5, np.float32), np.zeros(2), 2)
    with pytest.raises(OutOfBounds):
        total.add_count(Emulator(), np.ones(500, np.int32), np.zeros(2, np.int64), 2)
