"""How the pixels of a weight's gradient are cut into sums of their own, on the CPU and on GPUs alike.

A *split* is a part of the pixels that a task can sum by itself; a *chain*, a part of a split that is one sum of fused
multiply-adds from zero.  Chains are added to their split in order, and splits to the result.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastconv import _jit
from fastconv.cpu.shape import ConvShape, splits_of

# grad_weight with few channels has too few blocks for all cores, so its pixels are split as well: into about this
# many tasks, none of fewer pixels than a few strips, and none of more depths and output channels than these, so that
# the partial sums are small.  The split follows from the geometry alone, not from the register tile: it decides the
# order of a sum, which must be the same on every CPU.
_TASKS_OF_GRAD_WEIGHT = 16
_DEPTH_OF_TASK = 96
_COLUMNS_OF_TASK = 64
_PIXELS_OF_SPLIT = 448
# Pixels are summed in chains of about so many, whole rows or images where those are not longer, and fewer where the
# weight is large: a shorter chain rounds less, and a GPU sums all of them at the same time, in so many blocks, each for
# a square of the weight (`cuda.conv_direct`).  On a CPU a chain costs an addition to each weight.
_PIXELS_OF_CHAIN = 512
_SQUARES_OF_CHAINS, _SQUARE = 2048, 64


def split_count(shape: ConvShape) -> int:
    """Parts of the pixels with sums of their own."""
    s = shape
    depths = -(-s.KH * s.KW * (s.IC // s.G) // _DEPTH_OF_TASK)
    tasks_of_split = s.G * depths * -(-(s.OC // s.G) // _COLUMNS_OF_TASK)
    return splits_of(-(-_TASKS_OF_GRAD_WEIGHT // tasks_of_split), s.N * s.OH * s.OW // _PIXELS_OF_SPLIT)


def chain_count(shape: ConvShape) -> int:
    """Chains of all splits together."""
    s = shape
    squares = s.G * -(-s.KH * s.KW * (s.IC // s.G) // _SQUARE) * -(-(s.OC // s.G) // _SQUARE)
    enough, image = -(-_SQUARES_OF_CHAINS // squares), max(s.OH * s.OW, 1)
    of_image = min(-(-image // _PIXELS_OF_CHAIN), max(enough // max(s.N, 1), 1))
    images = max(_PIXELS_OF_CHAIN // image, -(-s.N // enough), 1)
    return max(split_count(s), of_image * -(-s.N // images))


@_jit.inline
def start_of_chain(shape, chains, chain):
    """The first pixel of a chain, or the one behind the last: where a row begins, unless rows are long.

    There are no more splits than pieces of _PIXELS_OF_SPLIT pixels, so no chain is empty.
    """
    pixels = shape.N * shape.OH * shape.OW
    unit = max(shape.OW, 1) if shape.OW <= _PIXELS_OF_SPLIT else 1
    return pixels // unit * chain // chains * unit


@lru_cache(maxsize=1024)
def starts_of_chains(shape: ConvShape) -> NDArray[np.int32]:
    """The first pixel of each chain, and the one behind the last."""
    chains = chain_count(shape)
    starts = np.array([start_of_chain(shape, chains, chain) for chain in range(chains + 1)], np.int32)
    starts.flags.writeable = False  # so that a device knows it again without reading it
    return starts


def add_splits(partial: NDArray[Any], out: NDArray[Any]) -> None:
    """``out = partial[0] + partial[1] + ...``, in this order; infinity less infinity is NaN, here as in the kernels."""
    with np.errstate(all="ignore"):
        np.add.reduce(partial, axis=0, out=out.reshape(-1))
