"""Copies with the axes in another order on the GPU: their PTX, executed, against NumPy, and what they move."""

from math import prod
from typing import Any

import numpy as np
import pytest
from emulator import Emulator, needs_target

from fastconv.cuda import transpose
from fastconv.cuda.exchange import strides_of
from fastconv.cuda.ptx import Fault, OutOfBounds

needs_target()

ARCHITECTURE = pytest.mark.parametrize("architecture", ["sm_80", "sm_100"])
# name: the shape of the original, the order of its axes in the copy, and whether it goes in tiles
CASES: dict[str, tuple[tuple[int, ...], tuple[int, ...], bool]] = {
    "NCHW to NHWC": ((2, 33, 5, 7), (0, 2, 3, 1), True),
    "NHWC to NCHW": ((2, 5, 7, 33), (0, 3, 1, 2), True),
    "OIHW to HWIO": ((16, 3, 5, 5), (2, 3, 1, 0), True),
    "HWIO to OIHW": ((3, 3, 17, 16), (3, 2, 0, 1), True),
    "few taps": ((2, 2, 17, 16), (3, 2, 0, 1), False),
    "few channels": ((2, 3, 8, 8), (0, 2, 3, 1), False),
    "one image, whole tiles": ((1, 64, 8, 8), (0, 2, 3, 1), True),
    "two axes": ((40, 50), (1, 0), True),
    "five axes": ((2, 2, 16, 3, 16), (0, 1, 4, 3, 2), True),
    "no pixels": ((2, 64, 0, 8), (0, 2, 3, 1), False),
}
CASE = pytest.mark.parametrize(("shape", "order", "tiled"), CASES.values(), ids=CASES)


def copied(engine: Emulator, x: Any, order: tuple[int, ...]) -> Any:
    steps = strides_of(x.shape)
    shape = tuple(x.shape[axis] for axis in order)
    return transpose.gather(engine, x.reshape(-1), shape, tuple(steps[axis] for axis in order)).reshape(shape)


@CASE
@pytest.mark.parametrize("dtype", [np.float32, np.int64], ids=["numbers", "positions"])
@ARCHITECTURE
def test_order_of_the_axes(
    shape: tuple[int, ...], order: tuple[int, ...], tiled: bool, dtype: Any, architecture: str
) -> None:
    x = np.arange(prod(shape), dtype=dtype).reshape(shape)
    engine = Emulator(architecture, traffic=True)
    np.testing.assert_array_equal(copied(engine, x, order), x.transpose(order), strict=True)
    assert all((counters.shared_requests > 0) == tiled for counters in engine.counters)


@pytest.mark.parametrize("dtype", [np.float32, np.int64], ids=["numbers", "positions"])
@pytest.mark.parametrize(("shape", "order"), [((2, 64, 8, 8), (0, 2, 3, 1)), ((2, 8, 8, 64), (0, 3, 1, 2))])
def test_tiles_move_whole_sectors_without_conflicts(shape: tuple[int, ...], order: tuple[int, ...], dtype: Any) -> None:
    engine = Emulator(traffic=True)
    copied(engine, np.zeros(shape, dtype), order)
    (counters,) = engine.counters
    assert counters.sector_efficiency >= 0.9
    assert counters.bank_conflicts == 0


def test_a_missing_barrier_is_caught() -> None:
    engine = Emulator(change=lambda ptx: ptx.replace("bar.sync", "// bar.sync"))
    with pytest.raises(Fault):
        copied(engine, np.zeros((2, 64, 8, 8), np.float32), (0, 2, 3, 1))


def test_a_tile_reads_to_the_end_and_not_beyond() -> None:
    x = np.arange(2 * 33 * 35, dtype=np.float32)
    transpose.gather(Emulator(), x, (2, 35, 33), (33 * 35, 1, 35))
    with pytest.raises(OutOfBounds):
        transpose.gather(Emulator(), x[:-1].copy(), (2, 35, 33), (33 * 35, 1, 35))


def test_more_axes_than_the_kernels_count_are_refused() -> None:
    with pytest.raises(ValueError, match="at most 4 axes"):
        copied(Emulator(), np.zeros((2, 3, 2, 3, 2), np.float32), (4, 2, 0, 3, 1))
