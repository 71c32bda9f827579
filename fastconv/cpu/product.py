"""Blocks of a matrix product: pack the right factor, multiply register tile by register tile.

A convolution is the product of a (pixels x KH*KW*IC) matrix that nobody wants to store, each row the patch of x under
the kernel, with the (KH*KW*IC x OC) matrix that a HWIO weight already is.  The kernels in `conv_direct` take it block
by block: a few hundred KB of workspace per thread, resident in the L2 cache, whatever the size of the images.

    patches  (pixels x depths), where they lie or gathered                       `patches`
    panel    (depths x one or two vectors of columns)                            `pack_columns`
    tile     (TILE_ROWS x the columns of a panel), in registers                  `tile_product`, `placed_product`

Padding takes part as zeros, as in ``np.pad`` followed by a convolution without padding.
"""

from __future__ import annotations

from fastconv import _jit
from fastconv.cpu import codegen, simd, tiles

TILE_ROWS = tiles.TILE_ROWS
TILE_VECTORS = tiles.TILE_VECTORS
# Rows of a register tile for the last rows of a block, where one of TILE_ROWS would multiply several in vain.
FEW_ROWS = 4

# float32 numbers in a cache line.
LINE = 16
# Most depths of a block: a tile of patches, read again for every panel, and its successor stay in the L1 cache.  Most
# channel counts are multiples, so that sums are stored and taken up again seldom.
MOST_DEPTH = 256
# Depths that grad_weight counts on for a task.
DEPTH = 192
# The last vector written to a row, and the last tile of rows read from it, may reach beyond by one of these.
_SLACK = max(codegen.VECTOR_BYTES // 4, TILE_ROWS)
# One more cache line keeps the rows from starting in the same L1 set.
PATCH_STRIDE = MOST_DEPTH + _SLACK + LINE
# Steps of a product after which more lines of memory are asked for.  All lines of the next panel at once are more than
# a core can wait for, and the products wait with them.  28 and 56 rows by 38 MB of panels of 128 depths, one core (Zen
# 5), ms: none asked for 4.5, 7.6; all at once 5.8, 7.4; every 32 steps 2.9, 4.6; 16: 2.9, 4.8; 8: 2.9, 5.7; panels
# that are in the L2 cache 2.4, 4.3.
STEPS_OF_FETCHING = LINE
# Rows of a matrix that are packed at a time, through registers.
_ROWS_OF_COPY = 4


@_jit.inline
def ceil_div(a, b):
    return (a + b - 1) // b


@_jit.inline
def copy_run(source, source_offset, target, target_offset, count):
    """Copy *count* numbers; the target may be overwritten up to the end of the last vector."""
    lanes = simd.lane_count(target)
    done = 0
    while done + lanes <= count:
        simd.store(target, target_offset + done, simd.load(source, source_offset + done))
        done += lanes
    if done < count:
        simd.store(target, target_offset + done, simd.load_first(source, source_offset + done, count - done))


@_jit.inline
def fill_zeros(target, target_offset, count):
    """Set *count* numbers to zero; the target may be overwritten up to the end of the last vector."""
    lanes = simd.lane_count(target)
    zeros = simd.zeros(target)
    for done in range(0, count, lanes):
        simd.store(target, target_offset + done, zeros)


@_jit.inline
def fetch(source, at, numbers):
    """Ask for the cache lines of so many numbers."""
    for line in range(0, numbers, LINE):
        simd.prefetch_for_read(source, at + line)


@_jit.inline
def fetch_rows(source, at, step, rows, numbers):
    """Ask for the lines of *numbers* of each of so many rows, a *step* apart; returns where the row behind them is."""
    for _ in range(rows):
        fetch(source, at, numbers)
        at += step
    return at


@_jit.inline
def next_pixel(n, oh, ow, OH, OW):
    """(n, oh, ow) for an ow that has run over the end of its row."""
    while ow >= OW:
        ow -= OW
        oh += 1
        if oh == OH:
            oh = 0
            n += 1
    return n, oh, ow


@_jit.inline
def pixel_at(position, OH, OW):
    """(n, oh, ow) of a position in the sequence of all output pixels."""
    return position // (OH * OW), position // OW % OH, position % OW


@_jit.inline
def pack_columns(matrix, offset, stride, rows, columns, panel, panel_at, width):
    """``panel[row, :columns] = matrix[offset + row * stride :][:columns]``, the rest of its *width* zero."""
    lanes = simd.lane_count(panel)
    if columns >= width and width == TILE_VECTORS * lanes:
        whole = rows - rows % _ROWS_OF_COPY
        for row in range(0, whole, _ROWS_OF_COPY):
            block = tiles.load(matrix, offset + row * stride, stride, _ROWS_OF_COPY, TILE_VECTORS)
            tiles.store(block, panel, panel_at + row * width, width)
        for row in range(whole, rows):
            line = tiles.load(matrix, offset + row * stride, stride, 1, TILE_VECTORS)
            tiles.store(line, panel, panel_at + row * width, width)
    else:
        for column in range(0, width, lanes):
            count = min(max(columns - column, 0), lanes)
            for row in range(rows):
                value = simd.load_first(matrix, offset + row * stride + column, count)
                simd.store(panel, panel_at + row * width + column, value)


@_jit.inline
def rows_of_tile(rows):
    """Rows of the next register tile where so many are left: the last ones are done sooner by low tiles."""
    return FEW_ROWS if (rows + FEW_ROWS - 1) // FEW_ROWS * FEW_ROWS < TILE_ROWS else TILE_ROWS


def tile_product(row_stride, step):
    """A product with panels; element (m, k) of the left factor lies at m * row_stride + k * step."""
    high, low, high_narrow, low_narrow = (
        _tile_product(row_stride, step, rows, vectors)
        for vectors in (TILE_VECTORS, 1)
        for rows in (TILE_ROWS, FEW_ROWS)
    )

    @_jit.inline
    def product(
        left, left_at, panel, panel_at, sums, sums_at, sums_stride, length, first, rows, columns, next_at, next_rows,
    ):  # fmt: skip
        """``sums[m, :] (+)= sum over k of left[m, k] * panel[k, :]`` for one register tile; *first* starts from zero.

        It has *rows* of `rows_of_tile`, and one vector where the panel holds no more *columns*.  Beside it, rows of a
        panel from *next_at* on are asked for, *next_rows* at a time.
        """
        if columns > simd.lane_count(sums):
            if rows == FEW_ROWS:
                low(left, left_at, panel, panel_at, sums, sums_at, sums_stride, length, first, next_at, next_rows)
            else:
                high(left, left_at, panel, panel_at, sums, sums_at, sums_stride, length, first, next_at, next_rows)
        elif rows == FEW_ROWS:
            low_narrow(left, left_at, panel, panel_at, sums, sums_at, sums_stride, length, first, next_at, next_rows)
        else:
            high_narrow(left, left_at, panel, panel_at, sums, sums_at, sums_stride, length, first, next_at, next_rows)

    return product


def _tile_product(row_stride, step, rows, vectors):
    @_jit.inline
    def product(left, left_at, panel, panel_at, sums, sums_at, sums_stride, length, first, next_at, next_rows):
        """The sums stay in registers while k rises.

        So a step costs *rows* scalar loads and *vectors* vector loads for *rows* x *vectors* fused multiply-adds.
        """
        width = TILE_VECTORS * simd.lane_count(sums)
        if first:
            tile = tiles.zeros(sums, rows, vectors)
        else:
            tile = tiles.load(sums, sums_at, sums_stride, rows, vectors)
        at_a_time = STEPS_OF_FETCHING if next_rows > 0 else MOST_DEPTH
        for start in range(0, length, at_a_time):
            next_at = fetch_rows(panel, next_at, width, next_rows, width)
            for k in range(start, min(start + at_a_time, length)):
                tile = tiles.rank1(tile, left, left_at + k * step, row_stride, panel, panel_at + k * width)
        tiles.store(tile, sums, sums_at, sums_stride)

    return product


def placed_product(vectors):
    """A product whose left factor lies where it always did: each row starts at a place of its own."""

    @_jit.splice
    def product(tile, left, places, row, start, stop, panel, panel_at):
        """``tile[m, :] += sum over k from start to stop of left[places[row + m] + k] * panel[k - start, :]``."""
        width = vectors * simd.lane_count(left)
        for k in range(start, stop):
            tile = tiles.rank1_placed(tile, left, places, row, k, panel, panel_at)
            panel_at += width
        return tile

    return product


def depth_of_block(total: int) -> int:
    """Depths are cut into equal blocks of whole cache lines, at most MOST_DEPTH, so that no block is a small rest."""
    blocks = max(-(-total // MOST_DEPTH), 1)
    depth = -(-total // blocks)
    return max(-(-depth // LINE) * LINE, LINE)
