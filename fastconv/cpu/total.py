"""The sum of all numbers of an array in float64, in the order in which a GPU adds them (`fastconv.cuda.total`).

A large array is first added in chains, `CHAINS` numbers apart.  Then every `BLOCK` neighbours make one sum, and so do
those sums: the second half of a block is added to the first, and so on.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastconv import _jit

#: Numbers that are added by halves, and the most of such blocks: threads that fill a large GPU.
BLOCK, BLOCKS = 256, 256
CHAINS = BLOCK * BLOCKS


def of(numbers: Any) -> float:
    """The sum of an array of any shape and kind of number; 0 for an empty one."""
    sums = numbers.reshape(-1)
    if sums.size > CHAINS:
        sums = _chains(sums)
    return float(add_by_halves(sums.astype(np.float64))) if sums.size else 0.0


def _chains(numbers: NDArray[Any]) -> NDArray[Any]:
    """The sums of numbers i, i + CHAINS, i + 2 * CHAINS and so on, in order."""
    whole = numbers.size // CHAINS * CHAINS
    sums: NDArray[Any] = numbers[:whole].reshape(-1, CHAINS).sum(axis=0, dtype=np.float64)
    sums[: numbers.size - whole] += numbers[whole:]
    return sums


@_jit.kernel
def add_by_halves(sums):
    """The sum of all numbers, at least one, which are overwritten: block by block, until one block is left.

    Beyond the last number lie zeros, which are not added.
    """
    count = sums.size
    while count > 1:
        blocks = -(-count // BLOCK)
        for block in range(blocks):
            numbers = sums[block * BLOCK : min((block + 1) * BLOCK, count)]
            half = BLOCK // 2
            while half > 0:
                for i in range(min(numbers.size - half, half)):
                    numbers[i] += numbers[half + i]
                half //= 2
            sums[block] = numbers[0]
        count = blocks
    return sums[0]
