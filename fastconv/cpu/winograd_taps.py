"""The transform of a weight to Winograd's points, in panels as wide as a register tile.

A panel of a block of depths is 36 planes, in each a row of one panel's output channels for every depth.
"""

from __future__ import annotations

from fastconv import _jit
from fastconv.cpu import simd
from fastconv.cpu.product import TILE_VECTORS, ceil_div
from fastconv.cpu.winograd import EVERYWHERE, PLANES, TAPS, transform_taps
from fastconv.cpu.winograd_plan import DEPTH
from fastconv.cpu.winograd_tiles import count_of, depths_of, next_piece, place_of, start_of

# Depths between the weights that are transformed and those that are asked for.
_AHEAD = 2


@_jit.inline
def transform_block(
    weight, first_depth, first_column, s, images, depths, columns, padded, taps, taps_at, panel_stride, plane
):
    """``taps[panel][plane][depth][oc]``: the transformed taps of a block of the weight, in panels of a tile's width.

    Depths outside: the weights of an input channel are neighbours in memory, but for the nine taps.  They come from
    there, so those of a later channel are asked for ahead.
    """
    lanes = simd.lane_count(taps)
    width = TILE_VECTORS * lanes
    tap_step = s.stride_w * s.IC * s.OC
    row_step = s.stride_h * s.KW * s.IC * s.OC
    row_of_pieces, column_of_pieces, ic = place_of(first_depth, images)
    for depth in range(depths):
        kh = start_of(row_of_pieces, s.stride_h, TAPS, images.long_h)
        kw = start_of(column_of_pieces, s.stride_w, TAPS, images.long_w)
        rows = count_of(kh, row_of_pieces, s.stride_h, TAPS, images.long_h, s.KH)
        taps_of_row = count_of(kw, column_of_pieces, s.stride_w, TAPS, images.long_w, s.KW)
        start = ((kh * s.KW + kw) * s.IC + ic) * s.OC + first_column
        for column in range(0, columns, lanes):
            at = start + column
            if rows == TAPS and taps_of_row == TAPS and column + lanes <= columns:
                for i in range(TAPS):
                    for j in range(TAPS):
                        simd.prefetch_for_read(weight, at + i * row_step + j * tap_step + _AHEAD * s.OC)
                source, source_row, source_tap = weight, row_step, tap_step
            else:
                for i in range(TAPS):
                    for j in range(TAPS):
                        there = i < rows and j < taps_of_row
                        count = min(columns - column, lanes) if there else 0
                        rest = simd.load_first(weight, at + (i * row_step + j * tap_step) * there, count)
                        simd.store(padded, (i * TAPS + j) * lanes, rest)
                source, at, source_row, source_tap = padded, 0, TAPS * lanes, lanes
            to = taps_at + column // width * panel_stride + depth * width + column % width
            transform_taps(source, at, source_row, source_tap, taps, to, plane, EVERYWHERE)
        ic += 1
        if ic == s.IC:
            ic = 0
            row_of_pieces, column_of_pieces = next_piece(row_of_pieces, column_of_pieces, 1, images)


@_jit.flushing_tasks
def transform_tasks(weight, taps, memory, memory_at, s, images, plane, first_task, last_task):
    """Tasks [first_task, last_task) of the transform of a whole weight; a task: a panel times a block of depths.

    From *memory_at* on there is room for nine vectors.  Each element of *taps* has one writer.
    """
    weight, taps, memory = simd.span(weight), simd.span(taps), simd.span(memory)
    padded = simd.part(memory, memory_at, TAPS * TAPS * simd.lane_count(taps))
    width = TILE_VECTORS * simd.lane_count(taps)
    total_depths = depths_of(images)
    depth_blocks = ceil_div(total_depths, DEPTH)
    for task in range(first_task, last_task):
        column = task // depth_blocks * width
        first_depth = task % depth_blocks * DEPTH
        depths, columns = min(DEPTH, total_depths - first_depth), min(width, s.OC - column)
        transform_block(
            weight, first_depth, column, s, images, depths, columns, padded, taps, task * PLANES * plane, 0, plane
        )
