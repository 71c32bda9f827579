"""Tiles of images on their way to Winograd's points: where a tile lies, and what it holds at the border.

An image is cut into tiles of 4x4 outputs, and in the end of 3, so that the last ones end where the image does: 14 rows
are 4 + 4 + 3 + 3.  A tile with three rows or columns has no products at infinity on that axis, so 14 x 14 outputs take
22 x 22 products, not 24 x 24, and 3x3 outputs 25.  In the planes of these points there are lines for the other tiles
alone.

A kernel larger than 3x3 is cut into pieces of 3x3 taps and in the end of 2, which have no products at infinity either.
Each is a convolution of its own over x moved by the taps before it, and their sum is a convolution over as many times
the channels: channel c of piece p is depth ``p * IC + c`` of the sum.  5x5 taps are 3 + 2 on each axis, four pieces,
7.6 products an output in place of 25.

With a stride, the taps of a piece lie a stride apart, and so do the pixels of a tile: 11x11 taps with stride 4 are 16
pieces, one for each offset modulo the stride, 36 products in place of 121.  Pieces side by side, which begin at
neighbouring taps, see neighbouring pixels, so a *run* of them is read as one pixel of more channels.

Outputs that lie a dilation apart see pixels that lie a dilation apart: with dilation 2 an image is four images, each
convolved without.  A tile is then 4x4 outputs, and 6x6 pixels, of one of them.

D. Huang et al., DWM: A Decomposable Winograd Method for Convolution Acceleration, arXiv:2002.00552, section 3: pieces.
"""

from __future__ import annotations

from math import prod
from typing import Any, NamedTuple

from fastconv import _jit
from fastconv.cpu import product, simd
from fastconv.cpu.product import LINE, TILE_ROWS, ceil_div
from fastconv.cpu.shape import ConvShape
from fastconv.cpu.winograd import INPUTS, OUTPUTS, TAPS, transform_grad_out, transform_input
from fastconv.geometry import Conv2dGeometry, Pair

# Numbers that are asked for ahead of a block: an eighth of an L2 cache of 1 MB.
_MOST_NUMBERS = 1 << 15
# Numbers of an array that is in the L2 cache, or soon is without being asked for: 2 MB of float32.
_HELD = 1 << 19


class Images(NamedTuple):
    """A batch of H x W images of C channels, cut into grid_h x grid_w tiles each, the first from (top, left) on.

    They are seen by pieces_h x pieces_w pieces of a kernel; those that are written count one.  The first whole_h rows
    and whole_w columns of tiles have four outputs, the others three; the first long_h rows and long_w columns of pieces
    have three taps, the others two or one.
    """

    H: int
    W: int
    C: int
    grid_h: int
    grid_w: int
    whole_h: int
    whole_w: int
    top: int
    left: int
    pieces_h: int
    pieces_w: int
    long_h: int
    long_w: int
    stride_h: int
    stride_w: int
    dilation_h: int
    dilation_w: int


def grid_of(rows: int, columns: int, dilation: Pair = (1, 1), tile: int = OUTPUTS) -> Pair:
    """Rows and columns of tiles over an image."""
    h, w = (-(-extent // (tile * apart)) * apart for extent, apart in zip((rows, columns), dilation, strict=True))
    return h, w


def whole_of(rows: int, columns: int, dilation: Pair = (1, 1), tile: int = OUTPUTS) -> Pair:
    """Rows and columns of tiles that are whole: others have an output less, so many that tiles end with the image."""
    axes = zip((rows, columns), grid_of(rows, columns, dilation, tile), dilation, strict=True)
    h, w = (max(grid - (grid // apart * tile - -(-extent // apart)) * apart, 0) for extent, grid, apart in axes)
    return h, w


def pieces_of(kernel: Pair, stride: Pair) -> Pair:
    """Rows and columns of pieces of a kernel."""
    h, w = (
        taps // (TAPS * step) * step + min(taps % (TAPS * step), step)
        for taps, step in zip(kernel, stride, strict=True)
    )
    return h, w


def long_of(kernel: Pair, stride: Pair) -> Pair:
    """Rows and columns of pieces with three taps.

    Without a stride others have two, so many that pieces end with the kernel; with a stride only the last ones do.
    """

    def along_axis(taps: int, pieces: int, step: int) -> int:
        if step == 1:
            return max(taps - (TAPS - 1) * pieces, 0)
        groups, rest = divmod(taps, TAPS * step)
        return groups * step + max(rest - (TAPS - 1) * step, 0)

    h, w = map(along_axis, kernel, pieces_of(kernel, stride), stride)
    return h, w


def needs(geometry: Conv2dGeometry) -> str | None:
    """What a convolution that cannot be cut into tiles and pieces lacks, or None."""
    g = geometry
    steps = zip(g.stride, g.dilation, strict=True)
    if g.G == 1 and all(1 in pair for pair in steps):
        return None
    return (
        f"needs a convolution without groups, and with stride or dilation 1 on each axis, here groups={g.G}, "
        f"stride={g.stride}, dilation={g.dilation}"
    )


def images_of(shape: ConvShape, tile: int = OUTPUTS) -> tuple[Images, Images]:
    """How x and out are cut into tiles of *tile* x *tile* outputs."""
    s = shape
    stride, dilation = (s.stride_h, s.stride_w), (s.dilation_h, s.dilation_w)
    grid = *grid_of(s.OH, s.OW, dilation, tile), *whole_of(s.OH, s.OW, dilation, tile)
    pieces = *pieces_of((s.KH, s.KW), stride), *long_of((s.KH, s.KW), stride)
    return (
        Images(s.IH, s.IW, s.IC, *grid, -s.pad_top, -s.pad_left, *pieces, *stride, *dilation),
        Images(s.OH, s.OW, s.OC, *grid, 0, 0, 1, 1, 1, 1, 1, 1, *dilation),
    )


def tiles_of(shape: ConvShape, tile: int = OUTPUTS) -> int:
    """Tiles over all images."""
    return shape.N * prod(grid_of(shape.OH, shape.OW, (shape.dilation_h, shape.dilation_w), tile))


class Points(NamedTuple):
    """Where transformed tiles go: 36 planes, in each a row of numbers for every tile, in blocks of depths.

    Depth d of tile t lies at ``d // depths * block + t * row + d % depths`` of a plane.
    """

    depths: int
    block: int
    row: int
    plane: int


@_jit.inline
def depths_of(images):
    """Channels of all pieces: what a sum goes over."""
    return images.pieces_h * images.pieces_w * images.C


@_jit.inline
def plane_size(numbers):
    """Numbers from a plane to the next: an odd count of cache lines, or all 36 would compete for one set of the L1."""
    return ceil_div(numbers, LINE) // 2 * 2 * LINE + LINE


@_jit.inline
def start_of(place, apart, length, whole):
    """Where the row, or column, at a place begins: so many alternate as their numbers lie *apart*.

    The first *whole* ones have *length* numbers, the others one less.  Of pieces of 3 taps that lie a stride apart it
    is the first tap, of tiles of 4 outputs that lie a dilation apart the first output.
    """
    if apart == 1:
        return place * length - max(place - whole, 0)
    group = place // apart
    return (group * (length - 1) - max(group - whole // apart, 0)) * apart + place


@_jit.inline
def count_of(start, place, apart, length, whole, extent):
    """How many numbers it has, from its start on, that lie inside."""
    length -= place >= whole
    return length if start + (length - 1) * apart < extent else ceil_div(extent - start, apart)


@_jit.inline
def run_of(column, images):
    """Columns of pieces from this one on that begin at neighbouring taps."""
    if images.stride_w == 1:
        return 1
    return min(images.stride_w - column % images.stride_w, images.pieces_w - column)


@_jit.inline
def place_of(depth, images):
    """(row, column, channel) of a depth, for those of its piece."""
    piece = depth // images.C
    return piece // images.pieces_w, piece % images.pieces_w, depth - piece * images.C


@_jit.inline
def next_piece(row, column, run, images):
    """The piece behind a run of so many."""
    column += run
    return (row, column) if column < images.pieces_w else (row + 1, 0)


@_jit.inline
def share_of(array, first_tile, tiles, total, steps):
    """(first number, numbers of one of so many *steps*) of what some of *total* tiles look at in an array of images.

    Nothing of an array that the L2 cache holds, and not more than would push what is used now out of it.
    """
    numbers_of_tile = array.size // total if array.size > _HELD else 0
    return numbers_of_tile * first_tile, ceil_div(min(numbers_of_tile * tiles, _MOST_NUMBERS), steps)


@_jit.inline
def clear_run(target, row_at, depth, count):
    """Set the vectors of a row that begin in a run to zero."""
    lanes = simd.lane_count(target)
    for start in range(ceil_div(depth, lanes) * lanes, depth + count, lanes):
        simd.store(target, row_at + start, simd.zeros(target))


@_jit.inline
def insert_run(source, source_at, target, row_at, depth, count):
    """Copy *count* numbers to ``target[row_at + depth :]``, in whole vectors of the row.

    The first vector may hold numbers of the run before, and is put together with them in a register: to load it later
    where two stores overlap takes four times as long.  The last one is filled up with zeros.
    """
    lanes = simd.lane_count(target)
    lane, done = depth % lanes, 0
    if lane > 0 and count > 0:
        done = min(lanes - lane, count)
        to = row_at + depth - lane
        simd.store(target, to, simd.insert(simd.load(target, to), lane, source, source_at, done))
    product.copy_run(source, source_at + done, target, row_at + depth + done, count - done)


@_jit.inline
def tile_at(tile, images):
    """(n, row, column) of a tile in the grid of its image."""
    row = tile // images.grid_w
    n = row // images.grid_h
    return n, row - n * images.grid_h, tile - row * images.grid_w


@_jit.inline
def next_depths(depth, stop, kind, images):
    """The next depths from *depth* on that count at points of a kind: (first, behind the last), or *stop* twice.

    A piece without a third tap does without the points at infinity.  Pieces of few channels take part all the same.
    """
    if kind == 0 or images.C < TILE_ROWS:
        return depth, stop
    row = images.pieces_w * images.C
    start, end = depth, min(stop, images.long_h * row) if kind >= 2 else stop
    if kind != 2:
        row_start, long = depth // row * row, images.long_w * images.C
        if depth >= row_start + long:
            row_start += row
            start = row_start
        end = min(end, row_start + long)
    return (start, end) if start < end else (stop, stop)


@_jit.inline
def lines_behind(lines, grid_row, grid_column, images):
    """The lines for the next tile, one in the planes of each kind: there are none for points that do not count.

    A tile at the grid's (row, column) with an output less does without the points at infinity.
    """
    down, across = grid_row < images.whole_h, grid_column < images.whole_w
    return lines[0] + 1, lines[1] + across, lines[2] + down, lines[3] + (down and across)


@_jit.inline
def shifts_of(lines, length):
    """How far from the first of these lines, which have so many numbers, the others lie."""
    return (lines[1] - lines[0]) * length, (lines[2] - lines[0]) * length, (lines[3] - lines[0]) * length


@_jit.inline
def next_tile(n, row, column, images):
    """The tile behind that one."""
    column += 1
    if column == images.grid_w:
        column = 0
        row += 1
        if row == images.grid_h:
            row = 0
            n += 1
    return n, row, column


def _gather_pixels(size: int) -> Any:
    """How the pixels of a tile of *size* x *size* are gathered."""

    @_jit.inline
    def gather(x, images, n, h, w, bottom, right, run, first_channel, channels, padded, depth, row):
        """The pixels of a tile, in rows of *padded* from *depth* on, where a vector begins; zeros elsewhere."""
        g = images
        for i in range(size):
            for j in range(size):
                ih, iw = h + i * g.stride_h * g.dilation_h, w + j * g.stride_w * g.dilation_w
                to = (i * size + j) * row + depth
                if 0 <= ih < bottom and 0 <= iw < right:
                    pixel = ((n * g.H + ih) * g.W + iw) * g.C
                    product.copy_run(x, pixel + first_channel, padded, to, channels)
                else:
                    product.fill_zeros(padded, to, channels)

    return gather


def _gather_runs(size: int) -> Any:
    """The same for runs of pixels, each as if it were one, and for depths where no vector begins."""
    gather_pixels = _gather_pixels(size)

    @_jit.inline
    def gather(x, images, n, h, w, bottom, right, run, first_channel, channels, padded, depth, row):
        if run == 1 and depth % simd.lane_count(padded) == 0:
            gather_pixels(x, images, n, h, w, bottom, right, run, first_channel, channels, padded, depth, row)
            return
        g = images
        for i in range(size):
            for j in range(size):
                ih, iw = h + i * g.stride_h * g.dilation_h, w + j * g.stride_w * g.dilation_w
                pixel, to = ((n * g.H + ih) * g.W + iw) * g.C, (i * size + j) * row
                if 0 <= ih < bottom and 0 <= iw <= right - run:
                    insert_run(x, pixel + first_channel, padded, to, depth, channels)
                else:
                    clear_run(padded, to, depth, channels)
                    if 0 <= ih < bottom:
                        start = max(first_channel, -iw * g.C)
                        stop = min(first_channel + channels, (right - iw) * g.C)
                        insert_run(x, pixel + start, padded, to, depth + start - first_channel, stop - start)

    return gather


@_jit.inline
def _end_of_image(extent, start, outputs):
    """Where the pixels end that a tile sees: those behind the ones that it needs do not count."""
    return extent


@_jit.inline
def _end_of_tile(extent, start, outputs):
    """Where the outputs of a tile end: those behind them are the next one's."""
    return min(extent, start + outputs)


def _to_points(size: int, transform: Any, gather: Any, end_of: Any) -> Any:
    """The transform of tiles of *size* x *size* pixels."""

    @_jit.inline
    def transform_tiles(x, images, first_tile, tiles, first_depth, depths, padded, target, points):
        """Transform *depths* of *tiles* tiles, run by run of pieces, one vector of channels after the other.

        A tile inside the image is read in place; one at the border, or whose channels are no whole vectors, passes
        through *padded*, where vectors may begin with channels of the run before.  Returns how many lines there are in
        the planes of each kind.  Each element of *target* has one writer that counts: the line of a tile that does
        without some points is written again by the next tile.
        """
        g = images
        lanes = simd.lane_count(target)
        padded_row = ceil_div(depths, lanes) * lanes
        first_row, first_column, first_channel = place_of(first_depth, g)
        step_h, step_w = g.stride_h * g.dilation_h, g.stride_w * g.dilation_w
        reach_h, reach_w = (size - 1) * step_h, (size - 1) * step_w
        n, grid_row, grid_column = tile_at(first_tile, g)
        lines = (0, 0, 0, 0)
        for _ in range(tiles):
            oh = start_of(grid_row, g.dilation_h, OUTPUTS, g.whole_h)
            ow = start_of(grid_column, g.dilation_w, OUTPUTS, g.whole_w)
            bottom = end_of(g.H, oh, (OUTPUTS - (grid_row >= g.whole_h)) * g.dilation_h)
            right = end_of(g.W, ow, (OUTPUTS - (grid_column >= g.whole_w)) * g.dilation_w)
            top, left = g.top + oh * g.stride_h, g.left + ow * g.stride_w
            depth, row, column, channel = 0, first_row, first_column, first_channel
            to = lines[0] * points.row
            block_end = to + points.depths
            shifts = shifts_of(lines, points.row)
            while depth < depths:
                run = run_of(column, g)
                channels = min(run * g.C - channel, depths - depth)
                h = top + start_of(row, g.stride_h, TAPS, g.long_h) * g.dilation_h
                w = left + start_of(column, g.stride_w, TAPS, g.long_w) * g.dilation_w
                inside = 0 <= h < bottom - reach_h and 0 <= w <= right - reach_w - run
                if inside and depth % lanes == 0 and channels % lanes == 0:
                    source, at = x, ((n * g.H + h) * g.W + w) * g.C + channel - depth
                    row_stride, pixel_stride = step_h * g.W * g.C, step_w * g.C
                else:
                    gather(x, g, n, h, w, bottom, right, run, channel, channels, padded, depth, padded_row)
                    source, at = padded, 0
                    row_stride, pixel_stride = size * padded_row, padded_row
                start = depth // lanes * lanes
                depth += channels
                stop = depth // lanes * lanes if depth < depths else depth
                for vector in range(start, stop, lanes):
                    transform(source, at + vector, row_stride, pixel_stride, target, to, points.plane, shifts)
                    to += lanes
                    if to == block_end:
                        to += points.block - points.depths
                        block_end += points.block
                channel = 0
                row, column = next_piece(row, column, run, g)
            lines = lines_behind(lines, grid_row, grid_column, g)
            n, grid_row, grid_column = next_tile(n, grid_row, grid_column, g)
        return lines

    return transform_tiles


transform_input_tiles = _to_points(INPUTS, transform_input, _gather_runs(INPUTS), _end_of_image)
transform_grad_out_tiles = _to_points(OUTPUTS, transform_grad_out, _gather_pixels(OUTPUTS), _end_of_tile)
