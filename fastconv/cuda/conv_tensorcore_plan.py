"""How a convolution is laid out for tensor cores: precisions, tiles, and the numbers that a kernel is told.

Everything moves in *chunks* of 16 bytes, neighbouring channels of one pixel: what one asynchronous copy brings, and one
row of the 8 x 8 matrices that ``ldmatrix`` reads.  A *line* of shared memory has four of them, so one turn of a block
takes up 32 numbers of a chain where they have 16 bits, and 16 where they have 32.

Nothing here needs CUDA.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastconv.cpu.shape import ConvShape, round_up
from fastconv.cuda.conv_direct_plan import table_of_taps
from fastconv.geometry import Conv2dGeometry

#: Bytes of a chunk, its 32-bit words, and the chunks of a line, which are those of one turn.
CHUNK_BYTES, WORDS, CHUNKS = 16, 4, 4
LINE = CHUNKS * CHUNK_BYTES
#: Channels of each group must be a multiple of this: a chunk of 16-bit numbers, and the columns of one ``mma``.
FRAGMENT = 8
#: Stages of shared memory, each a turn's lines, and the most that a kernel gets of it without asking.
_MOST_STAGES, _SHARED_BYTES = 4, 48 * 1024
#: Multiprocessors of a large GPU, and lines of a tile in whose time the rest of a turn passes: its barrier, and what
#: its instructions wait for each other.
_MULTIPROCESSORS, _LINES_OF_REST = 132, 112


class Precision(NamedTuple):
    """What the factors of the products are rounded to; sums are float32."""

    name: str
    #: Numbers of a chunk.
    channels: int
    #: The largest relative error of rounding a number within the range of the format.
    roundoff: float
    #: The first compute capability whose tensor cores take it.
    capability: tuple[int, int]


TF32 = Precision("tf32", 4, 2.0**-11, (8, 0))
BF16 = Precision("bf16", 8, 2.0**-8, (8, 0))
FP16 = Precision("fp16", 8, 2.0**-11, (7, 5))
PRECISIONS = {precision.name: precision for precision in (TF32, BF16, FP16)}


class Tile(NamedTuple):
    """What a block computes: rows x columns, of which each warp has *warp_rows* x *warp_columns*.

    A multiprocessor is to hold *residents* blocks at the same time, which share its 65,536 registers.
    """

    rows: int
    columns: int
    warp_rows: int
    warp_columns: int
    residents: int

    @property
    def warps_down(self) -> int:
        return self.rows // self.warp_rows

    @property
    def threads(self) -> int:
        return self.warps_down * (self.columns // self.warp_columns) * 32

    @property
    def stages(self) -> int:
        """Stages with asynchronous copies: all but one are on their way while one is multiplied."""
        return min(_MOST_STAGES, _SHARED_BYTES // ((self.rows + self.columns) * LINE))


#: The largest first.  A large tile of a warp means fewer reads of shared memory for each product; the smallest has
#: more warps instead, because it is taken where hardly any other block shares its multiprocessor.
TILES = (
    Tile(128, 128, 64, 32, residents=2),
    Tile(128, 64, 64, 32, residents=3),
    Tile(64, 32, 32, 16, residents=6),
)
#: Without asynchronous copies a turn's loads wait in registers, and sums must leave room for them.
TILES_BY_REGISTERS = (
    Tile(128, 64, 32, 32, residents=2),
    Tile(64, 32, 32, 32, residents=5),
)


#: The tiles of grad_weight are squares.
WEIGHT_TILES = (
    Tile(128, 128, 64, 32, residents=2),
    Tile(64, 64, 32, 32, residents=4),
)
#: Pixels that a partial sum of grad_weight has at least, and blocks of all of them that are enough.
_PIXELS_OF_SPLIT, _ENOUGH_BLOCKS = 512, 264


class Problem(NamedTuple):
    """What a forward kernel is told, besides arrays; IC and ic_of_group count chunks, not channels.

    The taps of the kernel span *span_h* rows and *span_w* columns.  A turn's chunks on in the chain (kh, kw, ic) is
    *step_down* rows, *step_right* columns and *step_ic* chunks on.
    """

    pixels: int
    columns: int
    turns: int
    pixel_blocks: int
    column_blocks: int
    IH: int
    IW: int
    IC: int
    ic_of_group: int
    OH: int
    OW: int
    OC: int
    stride_h: int
    stride_w: int
    pad_top: int
    pad_left: int
    KW: int
    dilation_h: int
    dilation_w: int
    span_h: int
    span_w: int
    step_down: int
    step_right: int
    step_ic: int
    OUT_H: int
    OUT_W: int
    start_h: int
    start_w: int
    step_h: int
    step_w: int


class WeightProblem(NamedTuple):
    """The same for grad_weight; OC and columns are chunks, too, and *chunks* those of the chain (kh, kw, ic).

    A turn's pixels on in the sequence of pixels is (next_n, next_oh, next_ow) on.
    """

    chunks: int
    columns: int
    splits: int
    groups: int
    depth_blocks: int
    column_blocks: int
    IH: int
    IW: int
    IC: int
    ic_of_group: int
    OH: int
    OW: int
    OC: int
    stride_h: int
    stride_w: int
    pad_top: int
    pad_left: int
    next_n: int
    next_oh: int
    next_ow: int


class Packing(NamedTuple):
    """What the kernel that prepares a weight is told: where a tap begins, *width* from line to line, what is real."""

    groups: int
    chunks: int
    chunks_of_tap: int
    columns: int
    packed_chunks: int
    packed_columns: int
    group_step: int
    tap_step: int
    width: int


def choose_tile(tiles: tuple[Tile, ...], rows: int, columns: int, groups: int) -> Tile:
    """The tile with which a turn takes the least time: by the lines that the busiest multiprocessor has to copy."""

    def lines(tile: Tile) -> int:
        blocks = -(-rows // tile.rows) * -(-columns // tile.columns) * groups
        return _LINES_OF_REST + -(-blocks // _MULTIPROCESSORS) * (tile.rows + tile.columns)

    return min(tiles, key=lines)


def forward_problem(shape: ConvShape, tile: Tile, precision: Precision) -> tuple[Problem, int]:
    """What the kernel is told, and the number of blocks."""
    s = shape
    chunks = s.IC // precision.channels
    chunks_of_group = chunks // s.G
    pixels, columns = s.N * s.OH * s.OW, s.OC // s.G
    pixel_blocks, column_blocks = -(-pixels // tile.rows), -(-columns // tile.columns)
    taps, step_ic = divmod(CHUNKS, chunks_of_group)
    rows, right = divmod(taps, s.KW)
    problem = Problem(
        *(pixels, columns, turns(s, precision), pixel_blocks, column_blocks),
        *(s.IH, s.IW, chunks, chunks_of_group, s.OH, s.OW, s.OC),
        *(s.stride_h, s.stride_w, s.pad_top, s.pad_left),
        *(s.KW, s.dilation_h, s.dilation_w, s.KH * s.dilation_h, s.KW * s.dilation_w),
        *(rows * s.dilation_h, right * s.dilation_w, step_ic),
        *(s.OUT_H, s.OUT_W, s.start_h, s.start_w, s.step_h, s.step_w),
    )
    return problem, pixel_blocks * column_blocks * s.G


def turns(shape: ConvShape, precision: Precision) -> int:
    """Turns that the chain of one sum takes."""
    s = shape
    return -(-s.KH * s.KW * (s.IC // s.G // precision.channels) // CHUNKS)


@lru_cache(maxsize=1024)
def table_of_chunks(shape: ConvShape, precision: Precision) -> NDArray[np.int32]:
    """A row (distance in chunks of x, rows down, columns right, 0) for each chunk of the chain (kh, kw, ic)."""
    return table_of_taps(shape._replace(IC=shape.IC // precision.channels), 1)


def packed_chunks(geometry: Conv2dGeometry, precision: Precision, inputs: int, columns: int) -> int:
    """At most so many chunks does a prepared weight of *inputs* and *columns* of a group have, filled up."""
    g = geometry
    chunks = round_up(g.KH * g.KW * inputs // precision.channels, CHUNKS)
    return g.G * chunks * round_up(columns, TILES[0].columns)


def packing(shape: ConvShape, tile: Tile, precision: Precision, width: int, transposed: bool) -> Packing:
    """How the weight of *shape* lies in one of HWIO with *width* output channels, and is to lie for *tile*.

    *transposed*, for the gradient of x: the output channels of the weight are the inputs of the convolution.
    """
    s = shape
    inputs, columns = s.IC // s.G, s.OC // s.G
    return Packing(
        groups=s.G,
        chunks=s.KH * s.KW * inputs // precision.channels,
        chunks_of_tap=inputs // precision.channels,
        columns=columns,
        packed_chunks=turns(s, precision) * CHUNKS,
        packed_columns=round_up(columns, tile.columns),
        group_step=inputs if transposed else columns,
        tap_step=(columns if transposed else inputs) * width,
        width=width,
    )


def choose_weight_tile(tiles: tuple[Tile, ...], depths: int, columns: int) -> Tile:
    """The largest tile that is not mostly empty."""
    for tile in tiles[:-1]:
        if 2 * depths > tile.rows and 2 * columns > tile.columns:
            return tile
    return tiles[-1]


def weight_problem(shape: ConvShape, tile: Tile, precision: Precision) -> tuple[WeightProblem, int]:
    """What the kernel of grad_weight is told, and the number of blocks.

    The pixels are split where there would be few blocks; how, depends on the shapes alone.
    """
    s = shape
    depths, columns, pixels = s.KH * s.KW * (s.IC // s.G), s.OC // s.G, s.N * s.OH * s.OW
    depth_blocks, column_blocks = -(-depths // tile.rows), -(-columns // tile.columns)
    blocks = depth_blocks * column_blocks * s.G
    splits = max(1, min(-(-_ENOUGH_BLOCKS // blocks), pixels // _PIXELS_OF_SPLIT))
    rows, next_ow = divmod(CHUNKS * precision.channels, s.OW)
    next_n, next_oh = divmod(rows, s.OH)
    problem = WeightProblem(
        *(depths // precision.channels, columns // precision.channels, splits, s.G, depth_blocks, column_blocks),
        *(s.IH, s.IW, s.IC // precision.channels, s.IC // s.G // precision.channels),
        *(s.OH, s.OW, s.OC // precision.channels),
        *(s.stride_h, s.stride_w, s.pad_top, s.pad_left),
        *(next_n, next_oh, next_ow),
    )
    return problem, blocks * splits
