"""How often Winograd's algorithm multiplies, and how it is cut into tasks.

Blocks of tiles, shares of the channels, and the memory they need.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from math import prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fastconv import _jit
from fastconv.cpu import codegen, simd
from fastconv.cpu.product import LINE, TILE_ROWS, TILE_VECTORS
from fastconv.cpu.shape import ConvShape, Forms, forward_shape, named_as, numbers_of, round_up
from fastconv.cpu.winograd import INPUTS, OUTPUTS, PLANES, TAPS
from fastconv.cpu.winograd_tiles import (
    Images,
    Points,
    depths_of,
    grid_of,
    images_of,
    long_of,
    pieces_of,
    plane_size,
    tiles_of,
    whole_of,
)
from fastconv.geometry import Conv2dGeometry, Pair
from fastconv.memory import aligned, scratch

#: Depths that a register tile sums in one go: 128 x 32 numbers of the transformed weight are half an L1 cache.
DEPTH = 128
#: Rows of transformed tiles are one cache line longer, so that they do not all start in the same L1 set.
ROW = DEPTH + LINE
# Tiles and output channels of a block.  Weights are used once for each tile of a block, transformed tiles once for
# each of its channels, and both have to come from the L2 cache or the one behind it.  A small weight, transformed ahead
# of all blocks, costs little to read, and with fewer tiles the rest stays in the L2 cache.
_TILES_OF_BLOCK, _TILES_WITH_TAPS_AHEAD = 48, 12
_COLUMNS_OF_BLOCK = 64
# Numbers of the transformed tiles of a block, for many depths: 4 MB of float32.
_POINTS_OF_BLOCK = 1 << 20
# Numbers of a transformed weight up to which it is transformed ahead and shared by all blocks: 4 MB of float32, the
# share of a core in the last cache.  A larger one would be written to memory and read back: it is transformed part by
# part, by each block anew.  One that is kept for later calls is read back only.
_TAPS_AHEAD = 1 << 20

#: Tiles, at most, that meet a weight transformed in registers (`winograd_few`): their sums of a row stay there, too.
FEW_TILES = 4
#: Taps of a channel, and channels whose taps are packed together: one vector wide, they lie in the L1 cache.
TAPS_OF_CHANNEL, CHANNELS_OF_FEW = TAPS * TAPS, 16
# Output channels of a block of few tiles: so long are the pieces of memory that the weight is read in.
_COLUMNS_OF_FEW = 256
# Vector registers with which the sums of few tiles do not live in memory.
_REGISTERS_OF_FEW = 32

# The gradient of x is computed from tiles of grad_out where tiles of its own take so many times as many products.
_LESS_BACKWARDS = 1.25


def products_of(outputs: Pair, dilation: Pair = (1, 1), kernel: Pair = (TAPS, TAPS), stride: Pair = (1, 1)) -> int:
    """Multiplications for an image and a pair of channels: 36 for each tile, where tiles and pieces are all whole."""
    products = 1
    axes = zip(
        grid_of(*outputs, dilation), whole_of(*outputs, dilation), pieces_of(kernel, stride), long_of(kernel, stride),
        strict=True,
    )  # fmt: skip
    for tiles, whole, pieces, long in axes:
        products *= (INPUTS - 1) * tiles * pieces + whole * long
    return products


@lru_cache(maxsize=1024)
def reads_backwards(geometry: Conv2dGeometry) -> bool:
    """Whether the gradient of x is computed from tiles of grad_out: small images of 3x3 taps with little padding.

    One image has to fit into a block, and the weight is to be small.
    """
    g = geometry
    plain = g.G == 1 and ((g.KH, g.KW), g.stride, g.dilation) == ((TAPS, TAPS), (1, 1), (1, 1))
    return (
        plain
        and PLANES * g.IC * g.OC <= _TAPS_AHEAD
        and prod(grid_of(g.OH, g.OW)) * PLANES * ROW * -(-g.OC // DEPTH) <= _POINTS_OF_BLOCK
        and products_of((g.IH, g.IW)) >= _LESS_BACKWARDS * products_of((g.OH, g.OW))
    )


class Blocks(NamedTuple):
    """How the (tiles x output channels) plane of a problem is cut into tasks, and what lies where in the workspace.

    A task is a block of *tiles* and a share of the output channels, which it takes *columns* at a time.
    """

    tiles: int
    columns: int
    share: int
    tasks: int
    #: Tasks of transforming the weight before all others, or 0 where each block transforms its own part.
    panels: int
    #: Numbers from one of 36 planes to the next, of the sums and of the transformed taps of a panel.
    sums_plane: int
    taps_plane: int


class Workspace(NamedTuple):
    """Numbers of each part of the memory of one thread."""

    #: Transformed tiles of a block, their sums, transformed taps of a block.
    points: int
    sums: int
    taps: int
    #: One tile with its border or taps with a rest of channels, and one tile of out.
    padded: int
    values: int


@_jit.inline
def parts_of(memory, memory_at, workspace):
    """The memory of one thread, from *memory_at* on, as its parts: points, sums, taps, padded and values."""
    sums_at = memory_at + workspace.points
    taps_at = sums_at + workspace.sums
    padded_at = taps_at + workspace.taps
    return (
        simd.part(memory, memory_at, workspace.points),
        simd.part(memory, sums_at, workspace.sums),
        simd.part(memory, taps_at, workspace.taps),
        simd.part(memory, padded_at, workspace.padded),
        simd.part(memory, padded_at + workspace.padded, workspace.values),
    )


class Job(NamedTuple):
    """A problem ready to run: what does not depend on the numbers."""

    #: Shape, images, points, blocks and workspace, which `named` takes apart.
    numbers: NDArray[np.int64]
    #: Numbers of the weight that is transformed ahead, and of the workspace of a thread.
    taps: int
    workspace: int
    workers: int
    #: Stands for a bias, a residual or a weight that a call does without.
    absent: NDArray[Any]
    #: Whether tiles are so few that the weight is transformed in registers, and packed at most before.
    few: bool = False


def arrays_of(
    job: Job, weight: Callable[[], NDArray[Any]], forms: Forms | None, key: str, dtype: DTypeLike
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """The weight, room for its transform, and memory of all threads.

    With *forms*, the transform is kept there under *key*; once it is there, the weight is empty.
    """
    own = job.workers * job.workspace
    if forms is None:
        memory = scratch(job.taps + own, dtype)
        return weight().ravel(), memory[: job.taps], memory[job.taps :]
    if key in forms:
        return job.absent, forms[key], scratch(own, dtype)
    return weight().ravel(), aligned(job.taps, dtype), scratch(own, dtype)


named = named_as(ConvShape, Images, Points, Blocks, Workspace)


@lru_cache(maxsize=1024)
def forward_job(geometry: Conv2dGeometry, itemsize: int, workers: int, kept: bool) -> Job:
    return job_of(forward_shape(geometry), itemsize, workers, kept)


def _has_few_tiles(s: ConvShape, kept: bool) -> bool:
    """Whether few tiles meet a weight whose transform the caches do not hold.

    With few registers that pays where the weight is kept.
    """
    plain = (s.KH, s.KW, s.stride_h, s.stride_w) == (TAPS, TAPS, 1, 1)
    large = PLANES * s.IC * s.OC > _TAPS_AHEAD
    return plain and large and tiles_of(s) <= FEW_TILES and (kept or codegen.REGISTERS >= _REGISTERS_OF_FEW)


@lru_cache(maxsize=1024)
def job_of(s: ConvShape, itemsize: int, workers: int, kept: bool) -> Job:
    """Blocks of tiles that fit the caches, as many for each thread, or shares of the channels where tiles are few.

    The weight is transformed before the tasks start where it is small, or *kept* for later calls; a large one never,
    where tiles are few, but packed if it is kept.
    """
    lanes = codegen.VECTOR_BYTES // itemsize
    images, _ = images_of(s)
    total = tiles_of(s)
    width = TILE_VECTORS * lanes
    depth_blocks = -(-depths_of(images) // DEPTH)
    largest = max(_POINTS_OF_BLOCK // (PLANES * ROW * depth_blocks), TILE_ROWS)
    most = _TILES_WITH_TAPS_AHEAD if PLANES * depths_of(images) * s.OC <= _TAPS_AHEAD else _TILES_OF_BLOCK
    blocks_of_tiles = -(-total // min(most, largest))
    shares = 1
    if total >= 2 * TILE_ROWS * workers:
        blocks_of_tiles = -(-blocks_of_tiles // workers) * workers
    else:
        shares = -(-workers // blocks_of_tiles)
    tiles = round_up(-(-total // blocks_of_tiles), TILE_ROWS)
    share = round_up(-(-s.OC // shares), width)
    few = _has_few_tiles(s, kept)
    columns = min(_COLUMNS_OF_FEW if few else _COLUMNS_OF_BLOCK, share)
    points = Points(DEPTH, PLANES * plane_size(tiles * ROW), ROW, plane_size(tiles * ROW))
    tasks = -(-total // tiles) * -(-s.OC // share)
    panels = depth_blocks * -(-s.OC // width) if kept or PLANES * depths_of(images) * s.OC <= _TAPS_AHEAD else 0
    sums_plane, taps_plane = plane_size(tiles * columns), plane_size(DEPTH * width)
    own_taps = 0 if panels else columns // width * PLANES * taps_plane
    taps = panels * PLANES * taps_plane
    if few:
        panel = CHANNELS_OF_FEW * TAPS_OF_CHANNEL * lanes
        sums_plane = FEW_TILES * columns
        own_taps = 0 if kept else -(-columns // lanes) * panel
        taps = -(-s.OC // lanes) * -(-s.IC // CHANNELS_OF_FEW) * panel if kept else 0
    padded = PLANES * round_up(depths_of(images), lanes)
    workspace = Workspace(depth_blocks * points.block, PLANES * sums_plane, own_taps, padded, OUTPUTS**2 * width)
    blocks = Blocks(tiles, columns, share, tasks, panels, sums_plane, taps_plane)
    return Job(
        numbers_of(s, images, points, blocks, workspace),
        taps,
        sum(workspace),
        min(workers, tasks),
        np.empty(0, f"f{itemsize}"),
        few,
    )
