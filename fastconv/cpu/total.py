"""The sum of all numbers of an array in float64, in the order in which a GPU adds them (`fastconv.cuda.total`).

A large array is first added in chains, `CHAINS` numbers apart.  Then every `BLOCK` neighbours make one sum, and so do
those sums: the second half of a block is added to the first, and so on.  All of it is additions of rows in NumPy.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Numbers that are added by halves, and the most of such blocks: threads that fill a large GPU.
BLOCK, BLOCKS = 256, 256
CHAINS = BLOCK * BLOCKS


def of(numbers: Any) -> float:
    """The sum of an array of any shape and kind of number; 0 for an empty one."""
    sums = numbers.reshape(-1)
    if sums.size > CHAINS:
        sums = _chains(sums)
    while sums.size > 1:
        sums = _blocks(sums)
    return float(sums[0]) if sums.size else 0.0


def _chains(numbers: NDArray[Any]) -> NDArray[Any]:
    """The sums of numbers i, i + CHAINS, i + 2 * CHAINS and so on, in order."""
    whole = numbers.size // CHAINS * CHAINS
    sums: NDArray[Any] = numbers[:whole].reshape(-1, CHAINS).sum(axis=0, dtype=np.float64)
    sums[: numbers.size - whole] += numbers[whole:]
    return sums


def _blocks(numbers: NDArray[Any]) -> NDArray[Any]:
    """The sum of each block of neighbours; the last one is filled up with zeros."""
    whole = numbers.size // BLOCK * BLOCK
    rest = numbers[whole:]
    if not rest.size:
        return _halved(numbers.reshape(-1, BLOCK))
    # zeros beyond the next power of two would be added to no effect
    last = np.zeros((1, 1 << (rest.size - 1).bit_length()))
    last[0, : rest.size] = rest
    if not whole:
        return _halved(last)
    return np.concatenate([_halved(numbers[:whole].reshape(-1, BLOCK)), _halved(last)])


def _halved(rows: NDArray[Any]) -> NDArray[Any]:
    """The sum of each row: its second half is added to its first, until one number is left."""
    while rows.shape[1] > 1:
        half = rows.shape[1] // 2
        rows = np.add(rows[:, :half], rows[:, half:], dtype=np.float64)
    return rows[:, 0]
