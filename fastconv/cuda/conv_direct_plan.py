"""How the direct convolution is laid out on a GPU: tiles, the numbers that a kernel is told, and tables of taps.

Nothing here needs CUDA.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastconv.cpu.shape import ConvShape, round_up
from fastconv.cuda.roofline import gpu

#: Numbers of the chain that a block takes up in one turn, where its threads have many sums; two quads.
DEPTH = 8
#: Neighbours that one load brings.
QUAD = 4
#: A row or column from which no tap reaches an image.
OUTSIDE = -(2**30)
#: What addresses within a weight, and distances within x, must stay below.
_LARGEST = 2**31 - 2**16


class Tile(NamedTuple):
    """What a block computes: rows x columns; a thread has *height* rows and *width* columns of it, in runs of four.

    A block takes up *depth* numbers of the chain in one turn.  A multiprocessor has registers for *residents* blocks at
    the same time, or *singly* where numbers are loaded one at a time, which takes more of them; it has the shared
    memory as well, except on a T4, whose 64 KiB are enough for fewer.  On an H200, a turn takes *waits* nanoseconds
    where memory is waited for, and *works* for each block where the multiprocessor has enough to do.
    """

    rows: int
    columns: int
    width: int
    residents: int
    singly: int
    height: int = 8
    depth: int = DEPTH
    waits: int = 0
    works: int = 0

    @property
    def threads(self) -> int:
        return self.rows * self.columns // (self.height * self.width)

    def turn(self, blocks: int) -> float:
        """About how long a turn of so many blocks of a multiprocessor takes, in nanoseconds on an H200."""
        return float((self.waits**3 + (blocks * self.works) ** 3) ** (1 / 3))


#: The largest first.  More sums in a thread mean fewer loads for each product; smaller tiles mean more blocks, and have
#: room for deeper turns: few warps hide the latency of memory only if each has much on its way.  Two tiles are alike
#: but for that: with three blocks on a multiprocessor, deeper turns only make a longer beginning and end.
#: The times were taken before neighbouring threads shared columns, which changed them by about as much for every tile.
TILES = (
    Tile(128, 128, 8, residents=2, singly=2, waits=1520, works=560),
    Tile(128, 64, 8, residents=3, singly=2, waits=1050, works=410),
    Tile(128, 64, 8, residents=3, singly=2, depth=16, waits=1010, works=930),
    Tile(64, 64, 4, residents=4, singly=3, depth=16, waits=640, works=520),
    Tile(64, 32, 4, residents=6, singly=6, depth=16, waits=640, works=370),
    Tile(32, 32, 4, residents=4, singly=4, height=2, depth=32, waits=600, works=450),
)
_LARGE, _MIDDLE, _DEEP, _SQUARE, _SMALL, _LEAST = TILES
#: The same for grad_weight, where the smallest tile often has a multiprocessor for itself.
WEIGHT_TILES = (
    _LARGE._replace(waits=600, works=790),
    _MIDDLE._replace(waits=400, works=370),
    _DEEP._replace(waits=600, works=740),
    _SQUARE._replace(waits=450, works=500),
    _SMALL._replace(waits=450, works=300),
    _LEAST._replace(residents=4, singly=3, depth=64, waits=850, works=900),
)
#: Numbers of one turn where sums are in parts.
TURN_OF_PARTS = 16
#: For sums in parts, which take twice the registers.
TILE_IN_PARTS = Tile(64, 32, 4, residents=6, singly=4, depth=TURN_OF_PARTS)
#: For a quad of columns at most, in parts or not: with more columns, they would be multiplied in vain.
NARROW = Tile(64, 4, 4, residents=16, singly=8, height=2, depth=TURN_OF_PARTS)

# What `choose_tile` reckons with on every GPU; bits do not depend on it.  Multiprocessors of an H100, an H200 has as
# many, and turns that the beginning and the end of a block take as long as.
_MULTIPROCESSORS, _TURNS_AROUND = gpu("H100").multiprocessors, 2

# Lines behind the weight for which kernels work out where they would lie.
_BEHIND = 3 * max(tile.depth for tile in (*TILES, TILE_IN_PARTS))


class Problem(NamedTuple):
    """What a forward kernel is told, besides arrays: extents, and how rows and columns are cut into blocks."""

    pixels: int
    columns: int
    depths: int
    turns: int
    turns_of_part: int
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
    OUT_H: int
    OUT_W: int
    start_h: int
    start_w: int
    step_h: int
    step_w: int


class WeightProblem(NamedTuple):
    """The same for grad_weight.

    A turn of output pixels on, their pixels of x are *step_at* on, *step_top* rows and *step_left* columns; where this
    leaves a row of the output, *row_at* more and *row_left* columns back, where it leaves an image, *image_at* more and
    *image_top* rows back.
    """

    pixels: int
    columns: int
    depths: int
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
    step_at: int
    step_top: int
    step_left: int
    row_at: int
    row_left: int
    image_at: int
    image_top: int


def tiles_of_forward(columns: int, in_parts: bool) -> tuple[Tile, ...]:
    """What there is to choose from in the forward pass."""
    if columns <= QUAD:
        return (NARROW,)
    return (TILE_IN_PARTS,) if in_parts else TILES


@lru_cache(maxsize=1024)
def choose_tile(rows: int, columns: int, others: int, depths: int, tiles: tuple[Tile, ...] = TILES) -> Tile:
    """The tile that takes the least time for chains of *depths* numbers; *others*: groups, or groups x splits."""
    return min(tiles, key=lambda tile: nanoseconds(tile, rows, columns, others, depths))


def weight_tile(shape: ConvShape, starts: NDArray[np.int32]) -> Tile:
    """The tile of grad_weight for chains that begin at pixels *starts*, the one behind the last at the end."""
    s = shape
    others, longest = s.G * (starts.size - 1), int(np.diff(starts).max())
    return choose_tile(s.KH * s.KW * (s.IC // s.G), s.OC // s.G, others, longest, WEIGHT_TILES)


def nanoseconds(tile: Tile, rows: int, columns: int, others: int, depths: int) -> float:
    """About how long the multiprocessor with the most blocks works on an H200; the launch does not count.

    It takes them up by as many as fit.  Fitted to 67 times of the layers of ResNet-50: with 3 us for the launch, it is
    within 10% of all of them, and within 5% of 59.
    """
    blocks = -(-(-(-rows // tile.rows) * -(-columns // tile.columns) * others) // _MULTIPROCESSORS)
    times, left = divmod(blocks, tile.residents)
    turns = -(-depths // tile.depth) + _TURNS_AROUND
    return turns * (times * tile.turn(tile.residents) + (tile.turn(left) if left else 0.0))


def vectors_possible(shape: ConvShape, tile: Tile) -> bool:
    """Whether four neighbouring channels are always of one pixel, one group, and aligned if the arrays are.

    For a narrow tile, those of x alone count.
    """
    s = shape
    return (s.IC // s.G) % QUAD == 0 and (tile == NARROW or (s.OC // s.G) % QUAD == 0)


@lru_cache(maxsize=1024)
def check_size(shape: ConvShape) -> None:
    """Raise ValueError for a problem that is too large for the kernels' 32-bit numbers."""
    s = shape
    depths = s.KH * s.KW * (s.IC // s.G)
    reach = ((s.KH - 1) * s.dilation_h * s.IW + (s.KW - 1) * s.dilation_w + 1) * s.IC
    counts = {
        "output pixels": s.N * s.OH * s.OW,
        "pixels of x": s.N * s.IH * s.IW,
        "weights": (depths + _BEHIND) * s.OC,
        "numbers of x from the first to the last tap of a kernel": reach,
    }
    for name, count in counts.items():
        if count >= _LARGEST:
            raise ValueError(f"the GPU kernels take fewer than {_LARGEST} {name}. Received: {count}, {shape}")


@lru_cache(maxsize=1024)
def starts_of_splits(pixels: int, splits: int) -> NDArray[np.int32]:
    """Where each of so many equal parts of the pixels, tiles or chains begins, and where the last one ends."""
    starts = np.array([pixels * split // splits for split in range(splits + 1)], np.int32)
    starts.flags.writeable = False  # as that of `table_of_taps`
    return starts


def turns_of_tap(shape: ConvShape) -> int:
    """Turns that each tap takes where every tap is a part of its own."""
    return -(-(shape.IC // shape.G) // TURN_OF_PARTS)


@lru_cache(maxsize=1024)
def forward_problem(shape: ConvShape, tile: Tile, turns_of_part: int) -> tuple[Problem, int]:
    """What the kernel is told, and the number of blocks; with *turns_of_part*, every tap takes whole turns."""
    s = shape
    lines = turns_of_part * tile.depth or s.IC // s.G
    depths = s.KH * s.KW * lines
    pixels, columns = s.N * s.OH * s.OW, s.OC // s.G
    pixel_blocks, column_blocks = -(-pixels // tile.rows), -(-columns // tile.columns)
    problem = Problem(
        *(pixels, columns, depths, -(-depths // tile.depth), turns_of_part, pixel_blocks, column_blocks),
        *(s.IH, s.IW, s.IC, s.IC // s.G, s.OH, s.OW, s.OC),
        *(s.stride_h, s.stride_w, s.pad_top, s.pad_left),
        *(s.OUT_H, s.OUT_W, s.start_h, s.start_w, s.step_h, s.step_w),
    )
    return problem, pixel_blocks * column_blocks * s.G


@lru_cache(maxsize=1024)
def weight_problem(shape: ConvShape, tile: Tile, splits: int) -> tuple[WeightProblem, int]:
    """What the kernel of grad_weight is told, and the number of blocks."""
    s = shape
    columns, depths = s.OC // s.G, s.KH * s.KW * (s.IC // s.G)
    depth_blocks, column_blocks = -(-depths // tile.rows), -(-columns // tile.columns)
    rows, right = divmod(tile.depth, s.OW)
    images, down = divmod(rows, s.OH)
    row_left, image_top = s.OW * s.stride_w, s.OH * s.stride_h
    problem = WeightProblem(
        *(s.N * s.OH * s.OW, columns, depths, splits, s.G, depth_blocks, column_blocks),
        *(s.IH, s.IW, s.IC, s.IC // s.G, s.OH, s.OW, s.OC),
        *(s.stride_h, s.stride_w, s.pad_top, s.pad_left),
        (images * s.IH + down * s.stride_h) * s.IW + right * s.stride_w,
        *(down * s.stride_h, right * s.stride_w),
        *(s.stride_h * s.IW - row_left, row_left),
        *((s.IH - image_top) * s.IW, image_top),
    )
    return problem, depth_blocks * column_blocks * s.G * splits


@lru_cache(maxsize=1024)
def table_of_taps(shape: ConvShape, run: int, depth: int = DEPTH, turns_of_part: int = 0) -> NDArray[np.int32]:
    """A row (distance in x, rows down, columns right, 0) for each *run* of neighbours of the chain (kh, kw, ic).

    Four numbers, because one load brings four.  Behind the chain follow entries that always miss the image, up to a
    whole turn of *depth* and, as kernels load x a turn ahead and entries one more, for two turns.  With
    *turns_of_part*, every tap is filled up to so many turns.
    """
    s = shape
    ic_of_group = s.IC // s.G
    taps = s.KH * s.KW
    kh, kw, ic = np.unravel_index(np.arange(taps * ic_of_group // run) * run, (s.KH, s.KW, ic_of_group))
    down, right = kh * s.dilation_h, kw * s.dilation_w
    entries = np.stack([(down * s.IW + right) * s.IC + ic, down, right, np.zeros_like(ic)], axis=1)
    neutral = np.array([0, OUTSIDE, OUTSIDE, 0])
    of_turn = depth // run
    if turns_of_part:
        of_tap = turns_of_part * of_turn
        table = np.tile(neutral, (taps, of_tap, 1))
        table[:, : ic_of_group // run] = entries.reshape(taps, -1, 4)
        entries = table.reshape(-1, 4)
    rows = round_up(len(entries), of_turn) + 2 * of_turn
    table = np.concatenate([entries, np.tile(neutral, (rows - len(entries), 1))]).astype(np.int32)
    table.flags.writeable = False  # so that a device knows it again without reading it
    return table
