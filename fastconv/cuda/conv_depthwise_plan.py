"""How the depthwise convolution is cut into blocks and chains for the GPU, and which kernel takes it.

Plain Python: `launches` reads it where there is no CUDA.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from fastconv.cpu.conv_depthwise_weight import rows_of_chain, split_count
from fastconv.geometry import Conv2dGeometry

#: Channels of a load of 16 bytes.
QUAD = 4
#: Channels of a block: threads side by side read a line of memory.
CHANNELS = 32
#: Neighbouring pixels of a row that one thread of the kernel of windows computes, and places for those in a block.
PIXELS, PLACES = 4, 16
#: Threads of such a block.
THREADS = CHANNELS // QUAD * PLACES
#: Kernels of these extents, and windows these many columns apart, have code of their own.
EXTENTS, STEPS = (3, 5), (1, 2)


def lanes_possible(geometry: Conv2dGeometry) -> int:
    """Channels of a load: four neighbours, or one."""
    return QUAD if geometry.OC % QUAD == 0 else 1


class Windows(NamedTuple):
    """A pass as windows over its source, one for each pixel of its target, for the kernels that have code of their own.

    Taps in the order of the source are *first_tap*, *first_tap* + *tap_step*, ...: grad_x walks backwards.
    """

    extent: int
    step: int
    row_step: int
    first_row: int
    first_column: int
    first_tap: int
    tap_step: int


def windows(geometry: Conv2dGeometry, backward: bool) -> Windows | None:
    """The forward pass, or grad_x with *backward*, as windows, if there is code for them."""
    g = geometry
    # a column outside is read where the nearest one is: there must be one
    if g.KH != g.KW or g.KW not in EXTENTS or g.dilation != (1, 1) or 0 in (g.IW, g.OW):
        return None
    top, left = g.padding[0][0], g.padding[1][0]
    if not backward:
        return Windows(g.KW, g.stride[1], g.stride[0], -top, -left, 0, 1) if g.stride[1] in STEPS else None
    reach = g.KW - 1
    return Windows(g.KW, 1, 1, top - reach, left - reach, g.KH * g.KW - 1, -1) if g.stride == (1, 1) else None


class Blocks(NamedTuple):
    """Blocks along each axis, and the binary logarithm of the places of a block along a row."""

    images: int
    rows: int
    columns: int
    channels: int
    across: int

    @property
    def total(self) -> int:
        return self.images * self.rows * self.columns * self.channels


def blocks_of_windows(form: Windows, images: int, height: int, width: int, channels: int) -> Blocks:
    """The shape of blocks with which all of them together read the fewest pixels of the source."""
    found = []
    for across in range(PLACES.bit_length()):
        rows, columns = PLACES >> across, PIXELS << across
        blocks = Blocks(images, -(-height // rows), -(-width // columns), -(-channels // CHANNELS), across)
        read = ((rows - 1) * form.row_step + form.extent) * ((columns - 1) * form.step + form.extent)
        found.append((blocks.rows * blocks.columns * read, blocks))
    return min(found)[1]


class Chains(NamedTuple):
    """Where the rows (n, oh) of each chain of grad_weight begin, and the chains of each split; with their ends."""

    rows: Any
    splits: Any

    @property
    def total(self) -> int:
        return int(self.rows.size) - 1


@lru_cache(maxsize=1024)
def chains(geometry: Conv2dGeometry) -> Chains:
    """The chains of the CPU."""
    rows, splits, length = geometry.N * geometry.OH, split_count(geometry), rows_of_chain(geometry)
    starts: list[int] = []
    counts = [0]
    for split in range(splits):
        starts += range(rows * split // splits, rows * (split + 1) // splits, length)
        counts.append(len(starts))
    found = Chains(np.array([*starts, rows], np.int32), np.array(counts, np.int32))
    for numbers in found:
        numbers.flags.writeable = False  # so that a device knows them again without reading them
    return found


def taps_together(geometry: Conv2dGeometry, lanes: int) -> tuple[int, int]:
    """Taps whose sums a thread of grad_weight takes together, and the distance of the windows they belong to."""
    g = geometry
    shared = lanes == QUAD and g.KW in EXTENTS and g.stride[1] in STEPS and g.dilation[1] == 1
    return (g.KW, g.stride[1]) if shared else (1, 1)


def threads_of_chains(geometry: Conv2dGeometry, lanes: int) -> int:
    """Threads of grad_weight, each with *lanes* channels of a chain."""
    g = geometry
    taps, _ = taps_together(g, lanes)
    return chains(g).total * -(-g.OC // CHANNELS) * g.KH * (g.KW // taps) * (CHANNELS // lanes)
