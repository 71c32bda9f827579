"""How a direct convolution is cut into tasks: the source of its patches, and blocks of pixels, channels and depths."""

from __future__ import annotations

from functools import lru_cache
from math import gcd
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastconv.cpu import codegen, conv_first, conv_last, patches, product
from fastconv.cpu.patches import IN_PLACE, PATCHES, STRIP, STRIP_BYTES
from fastconv.cpu.product import TILE_ROWS, TILE_VECTORS
from fastconv.cpu.shape import ConvShape, as_product, forward_shape, named_as, numbers_of, round_up
from fastconv.geometry import Conv2dGeometry

# Most pixels and output channels of a block, by the source of patches: the panels, and the sums that wait for the next
# block of depths, lie in the L2 cache; where vectors have 64 bytes, it has 1 MB or more.  400 pixels: 8 images of 7 x 7
# need each number of the weight once.
_PIXELS_OF_BLOCK = {IN_PLACE: round_up(400, TILE_ROWS), PATCHES: 32 * TILE_ROWS}
_COLUMNS_OF_BLOCK = {IN_PLACE: 4 * codegen.VECTOR_BYTES, PATCHES: 256, STRIP: 128}
# Numbers in the panels of a block (128 KB of float32); few depths leave room for more channels.
_NUMBERS_OF_PANELS = 32 * 1024
# Most pixels of a strip.
_PIXELS_OF_STRIP = 16 * TILE_ROWS
# Share of its register tiles that the pixels of a strip must fill; else patches of pixels of several rows are gathered.
_LEAST_FILL = 0.85
# Pixels of a strip, at least, if its panels have more numbers than the L2 cache holds and are fetched again for each:
# of 7x7 images, gathered, several share a block of pixels, which is 1.0 to 1.3 times as fast.
_LEAST_PIXELS, NUMBERS_OF_L2 = 64, 64 * 1024
# Bytes after which the sets of an L1 cache begin again, and cache lines that a set holds, at least.
_BYTES_OF_SETS, _LINES_OF_SET = 4096, 8
# A panel is packed in the time that its product with so many tiles of pixels takes; if the panels of all tasks are
# packed before the first, they go to memory and come back.
_TILES_OF_PACKING, _TILES_OF_PACKING_AHEAD = 1.5, 3
# A tile of patches is taken up, once for a block of channels, in the time of its product with so many.
_CHANNELS_OF_READING = 8


class Plan(NamedTuple):
    """How a problem is computed: where patches are read from, and how (pixels x channels) is cut into tasks.

    A block is *pixels* of all output pixels, one after the other; with strips it is *rows* rows of one image.
    """

    source: int
    rows: int
    pixels: int
    columns: int
    depth: int
    tasks: int


named = named_as(ConvShape, Plan)


class Job(NamedTuple):
    """A problem ready to run: what does not depend on the numbers, so that a small call need not work it out again."""

    shape: ConvShape
    plan: Plan
    #: Both as an array, which `named` takes apart.
    numbers: NDArray[np.int64]
    pieces: NDArray[np.int64]
    #: Numbers of the weight that is packed before all tasks, or 0 where each task packs its own panels.
    packed: int
    workers: int
    #: Stands for a bias, a residual or a weight that a call does without.
    absent: NDArray[Any]


@lru_cache(maxsize=1024)
def job_of(shape: ConvShape, itemsize: int, workers: int, kept: bool) -> Job:
    s = as_product(shape)
    lanes = codegen.VECTOR_BYTES // itemsize
    plan, ahead = _plan(s, lanes, itemsize, workers, kept)
    packed = s.G * round_up(s.OC // s.G, lanes) * s.KH * s.KW * (s.IC // s.G)
    pieces = patches.pieces_of(s, plan.source, plan.depth)
    absent = np.empty(0, f"f{itemsize}")
    return Job(s, plan, numbers_of(s, plan), pieces, packed if ahead else 0, min(workers, plan.tasks), absent)


class Way(NamedTuple):
    """One way to compute a convolution: this *shape*, whose pixels are so many *pixels* of the real one."""

    shape: ConvShape
    pixels: int
    #: None where `conv_first` does it.
    job: Job | None


@lru_cache(maxsize=1024)
def ways_of(shape: ConvShape, itemsize: int, workers: int, kept: bool) -> tuple[Way, ...]:
    """The ways to compute a convolution, the faster first: the last is right even where x is not finite."""
    together = conv_last.pixels_together(shape, itemsize, kept)
    ways = []
    for pixels in (together, 1) if together > 1 else (1,):
        wide = conv_last.widened(shape, pixels)
        first = conv_first.suits(wide, itemsize)
        ways.append(Way(wide, pixels, None if first else job_of(wide, itemsize, workers, kept)))
    return tuple(ways)


@lru_cache(maxsize=1024)
def forward_ways(geometry: Conv2dGeometry, itemsize: int, workers: int, kept: bool) -> tuple[Way, ...]:
    """The ways to compute the forward pass."""
    return ways_of(forward_shape(geometry), itemsize, workers, kept)


def _plan(shape: ConvShape, lanes: int, itemsize: int, workers: int, kept: bool) -> tuple[Plan, bool]:
    """The cut into tasks that the busiest thread has done first, and whether to pack the whole weight before them.

    A packed weight that is *kept* for other calls is packed whole, and costs nothing in most of them.  Threads get
    equal numbers of tasks, so blocks must come out even: with 14 tiles of pixels a block, 66 tiles are 5 blocks, and
    one of two threads has 3 of them.  Time is counted in products of a tile of pixels with one channel.
    """
    s = shape
    oc_of_group = s.OC // s.G
    total_depth = s.KH * s.KW * (s.IC // s.G)
    depth = product.depth_of_block(total_depth)
    width = TILE_VECTORS * lanes
    source, rows = _source(s, itemsize)
    in_strips = source == STRIP
    # what a block of pixels consists of: rows of an image, or tiles of the pixels of all
    images, units = (s.N, s.OH) if in_strips else (1, -(-s.N * s.OH * s.OW // TILE_ROWS))
    most_units = rows if in_strips else _PIXELS_OF_BLOCK[source] // TILE_ROWS
    most_columns = max(_COLUMNS_OF_BLOCK[source], _NUMBERS_OF_PANELS // depth)
    best, ahead, shortest = None, False, float("inf")
    for block in _sizes(units, most_units, workers):
        pixels = block * (s.OW if in_strips else TILE_ROWS)
        blocks = images * -(-units // block)
        for panels in _sizes(-(-oc_of_group // width), most_columns // width, workers):
            columns = min(panels * width, round_up(oc_of_group, lanes))
            column_blocks = -(-oc_of_group // columns)
            tasks = s.G * blocks * column_blocks
            share = -(-tasks // workers)
            # the panels of a task serve the next one too, if they are of the same channels and of all depths
            again = depth >= total_depth and (column_blocks == 1 or not in_strips)
            packing = (-(-share // blocks) if again else share) * columns * _TILES_OF_PACKING
            packing_ahead = 0 if kept else _TILES_OF_PACKING_AHEAD * round_up(s.OC, lanes) / workers
            products = share * -(-pixels // TILE_ROWS) * (columns + _CHANNELS_OF_READING)
            time = products + min(packing, packing_ahead)
            if time < shortest:
                best = Plan(source, block if in_strips else 1, pixels, columns, depth, tasks)
                shortest, ahead = time, packing_ahead < packing
    assert best is not None
    return best, ahead


def _sizes(extent: int, most: int, workers: int) -> list[int]:
    """Sizes of equal blocks, the largest first: one for a single thread, some smaller ones to choose from for more."""
    fewest = -(-extent // most)
    several = 2 * workers if workers > 1 else 1
    return sorted({-(-extent // blocks) for blocks in range(fewest, fewest + several)}, reverse=True)


def _source(shape: ConvShape, itemsize: int) -> tuple[int, int]:
    """Where to read patches from, and how many rows of outputs the largest strip is for.

    Patches that would push each other out of the cache are gathered, which brings them nearer together.
    """
    s = shape
    source = patches.source_of(s, itemsize)
    rows = min(s.OH, max(1, _PIXELS_OF_STRIP // s.OW))
    while source == STRIP and rows > 1 and patches.strip_size(s, rows) * itemsize > STRIP_BYTES:
        rows -= 1
    pixels, panels = rows * s.OW, s.KH * s.KW * (s.IC // s.G) * (s.OC // s.G)
    idle = pixels < _LEAST_FILL * round_up(pixels, TILE_ROWS)
    if source == STRIP and (idle or (pixels < _LEAST_PIXELS and panels > NUMBERS_OF_L2)):
        source = PATCHES
    if source != PATCHES and _collide(s.N * s.OH * s.OW, patches.step_of_pixel(s, source) * itemsize):
        source = PATCHES
    return source, rows


def _collide(pixels: int, step: int) -> bool:
    """Whether a register tile of pixels that lie *step* bytes apart is too high for the sets of the L1 cache.

    A step of the product reads one cache line of each pixel.  1024 float32 apart all of them fall into one set, which
    holds no 14: every read then waits for the L2 cache, and the product has half of its speed or less.  The 6 rows of a
    tile of an AVX2 processor fit.
    """
    sets = _BYTES_OF_SETS // gcd(step, _BYTES_OF_SETS)
    return -(-min(pixels, TILE_ROWS) // sets) > _LINES_OF_SET
