"""The products of a few tiles with a large weight, which is transformed in registers.

The transformed weight is four times as large as the weight.  With one image of 7 x 7, four tiles, each of its numbers
serves four multiply-adds: 512 channels are 38 MB that come from memory, or go to the L2 cache and back, where the plain
sum reads 9.  Here the nine taps of a channel, which lie in the L1 cache, become a row of six points in 18 instructions
and meet that row of four tiles, 24 multiply-adds, one row after the other.

Ladder, 3x3, microseconds of one image, one AVX-512 core (Zen 5), two of them in brackets:

                                                   512 channels, 7 x 7          256 channels, 7 x 7
                                                     kept       array             kept       array
    transformed in memory                         1310 (730)  1460 (750)        302 (155)  233 (162)
    in registers, 32 channels and 32 outputs
    packed at a time, their lines asked for       2180        2200              214        225
    16 channels and 256 outputs; kept in
    the order of reading                           614 (352)   911 (634)        164 (96)   199 (121)

The first cut read the weight 128 bytes here and there: lines 2048 bytes apart, in few sets of the caches and one per
page of the memory.  Where the last cache holds the transformed weight, of 128 channels, this loses (.6 to .8 times as
fast, kept).  With 16 registers (AVX2) sums go to memory and back: kept 1.2 to 1.6 times as fast all the same, otherwise
.8 to 1.2 times.
"""

from __future__ import annotations

from typing import Any

from numba.extending import intrinsic

from fastconv import _jit
from fastconv.cpu import codegen, product, simd, tiles
from fastconv.cpu.product import LINE, ceil_div
from fastconv.cpu.winograd import INPUTS, TAP_MATRIX, TAPS, on_vectors, to_points
from fastconv.cpu.winograd_plan import CHANNELS_OF_FEW, DEPTH, FEW_TILES, ROW, TAPS_OF_CHANNEL

# Numbers that are asked for beside the products of a channel: two lines, of 1.5 that each needs.
_ASKED = 2 * LINE
# Sums of a row of points of all tiles.
_SUMS = INPUTS * FEW_TILES


def _sum_row(row: int) -> Any:
    """The products of row *row* of the points."""

    @intrinsic
    def add_products(typingctx: Any, tile: Any, points: Any, at: Any, plane: Any, taps: Any, taps_at: Any) -> Any:
        """``tile[point, t] += points[point, t] * transformed taps[point]`` for one channel.

        Point p of tile t lies at ``at + p * plane + t * ROW``, the taps one vector after the other.
        """

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            value, points, at, plane, taps, taps_at = arguments
            vector = tile.vector
            size = codegen.constant(TAPS_OF_CHANNEL * vector.lanes)
            start = codegen.address(context, builder, signature.args[4], taps, taps_at, size)
            places = (builder.gep(start, [codegen.constant(tap * vector.lanes)]) for tap in range(TAPS_OF_CHANNEL))
            numbers = [codegen.load_vector(builder, place, vector) for place in places]
            of = on_vectors(builder, vector)
            columns = [to_points(of, TAP_MATRIX, numbers[column::TAPS])[row] for column in range(TAPS)]
            last = builder.mul(plane, codegen.constant(INPUTS - 1))
            extent = builder.add(last, codegen.constant((FEW_TILES - 1) * ROW + 1))
            start = codegen.address(context, builder, signature.args[1], points, at, extent)
            for point, factor in enumerate(to_points(of, TAP_MATRIX, columns)):
                line = builder.gep(start, [builder.mul(plane, codegen.constant(point))])
                for t in range(FEW_TILES):
                    number = builder.load(builder.gep(line, [codegen.constant(t * ROW)]))
                    position = point * FEW_TILES + t
                    total = builder.extract_value(value, position)
                    number = codegen.broadcast(builder, number, vector)
                    total = codegen.fused_multiply_add(builder, number, factor, total, vector)
                    value = builder.insert_value(value, total, position)
            return value

        return tile(tile, points, at, plane, taps, taps_at), generate

    @_jit.inline
    def sum_row(points, at, plane, taps, taps_at, channels, sums, sums_at, sums_stride, first, source, asked):
        """The sums go on over *channels*, or start with the *first*; meanwhile lines of *source* are asked for."""
        step = TAPS_OF_CHANNEL * simd.lane_count(taps)
        if first:
            tile = tiles.zeros(sums, _SUMS, 1)
        else:
            tile = tiles.load(sums, sums_at, sums_stride, _SUMS, 1)
        for channel in range(channels):
            asked = product.fetch_rows(source, asked, _ASKED, 1, _ASKED)
            tile = add_products(tile, points, at + channel, plane, taps, taps_at + channel * step)
        tiles.store(tile, sums, sums_at, sums_stride)

    return sum_row


_row_0, _row_1, _row_2, _row_3, _row_4, _row_5 = (_sum_row(row) for row in range(INPUTS))


@_jit.inline
def _pack_channels(weight, first, channels, first_column, columns, s, taps, taps_at, panel_stride):
    """``taps[panel][channel][tap]``: the taps of some channels, in panels of one vector of output channels."""
    lanes = simd.lane_count(taps)
    for tap in range(TAPS_OF_CHANNEL):
        for channel in range(channels):
            source = (tap * s.IC + first + channel) * s.OC + first_column
            to = taps_at + (channel * TAPS_OF_CHANNEL + tap) * lanes
            for column in range(0, columns, lanes):
                simd.store(taps, to, simd.load_first(weight, source + column, min(columns - column, lanes)))
                to += panel_stride


@_jit.inline
def _size_of_panel(taps):
    """Numbers of the packed taps of a block of channels, one vector wide."""
    return CHANNELS_OF_FEW * TAPS_OF_CHANNEL * simd.lane_count(taps)


@_jit.tasks
def pack_weight(weight, taps, s):
    """``taps[panel][block][channel][tap]``: the whole weight in blocks of channels."""
    weight, taps = simd.span(weight), simd.span(taps)
    blocks, size = ceil_div(s.IC, CHANNELS_OF_FEW), _size_of_panel(taps)
    for block in range(blocks):
        first = block * CHANNELS_OF_FEW
        channels = min(CHANNELS_OF_FEW, s.IC - first)
        _pack_channels(weight, first, channels, 0, s.OC, s, taps, block * size, blocks * size)


@_jit.inline
def _next_in_weight(number, passes, first, first_column, columns, s):
    """Where pass *number* of so many begins to ask for the taps of the channels from *first* on, as the weight lies."""
    lines_of_row = ceil_div(columns, LINE)
    line = number * TAPS_OF_CHANNEL * CHANNELS_OF_FEW * lines_of_row // passes
    row = line // lines_of_row
    tap, channel = row // CHANNELS_OF_FEW, first + row % CHANNELS_OF_FEW
    return (tap * s.IC + channel) * s.OC + first_column + line % lines_of_row * LINE


@_jit.inline
def sum_few_tiles(weight, kept, own, transformed, points, sums, s, blocks, first_column, columns):
    """All products of up to FEW_TILES tiles with *columns* output channels.

    Blocks of input channels outside, whose taps are packed to *own* unless all have been *kept*; then vectors of output
    channels, whose taps lie in the L1 cache, and rows of points.  What is read next is asked for meanwhile.  A tile
    without points at infinity has no line there; what is summed in its place is not looked at.
    """
    lanes = simd.lane_count(sums)
    size, blocks_of_channels = _size_of_panel(sums), ceil_div(s.IC, CHANNELS_OF_FEW)
    passes = ceil_div(columns, lanes) * INPUTS
    for block in range(blocks_of_channels):
        first = block * CHANNELS_OF_FEW
        channels = min(CHANNELS_OF_FEW, s.IC - first)
        if kept.size == 0:
            _pack_channels(weight, first, channels, first_column, columns, s, own, 0, size)
        for column in range(0, columns, lanes):
            if kept.size > 0:
                taps, source = kept, kept
                taps_at = ((first_column + column) // lanes * blocks_of_channels + block) * size
                next_panel = taps_at + blocks_of_channels * size
                if column + lanes >= columns:
                    next_panel = (first_column // lanes * blocks_of_channels + block + 1) * size
            else:
                taps, source, taps_at, next_panel = own, weight, column // lanes * size, 0
            for row in range(INPUTS):
                if kept.size > 0:
                    asked = next_panel + row * CHANNELS_OF_FEW * _ASKED
                else:
                    number = column // lanes * INPUTS + row
                    asked = _next_in_weight(number, passes, first + CHANNELS_OF_FEW, first_column, columns, s)
                at = first // DEPTH * points.block + first % DEPTH + row * INPUTS * points.plane
                to = row * INPUTS * blocks.sums_plane + column
                factors = transformed, at, points.plane, taps, taps_at, channels
                places = sums, to, blocks.columns, block == 0, source, asked
                if row == 0:
                    _row_0(*factors, *places)
                elif row == 1:
                    _row_1(*factors, *places)
                elif row == 2:
                    _row_2(*factors, *places)
                elif row == 3:
                    _row_3(*factors, *places)
                elif row == 4:
                    _row_4(*factors, *places)
                else:
                    _row_5(*factors, *places)
