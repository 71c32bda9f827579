"""The weight of a direct convolution as panels: of all depths, or those of a block, by one or two vectors of columns.

A register tile reads its panel from the first number to the last, in the order of memory.
"""

from __future__ import annotations

from fastconv import _jit
from fastconv.cpu import product, simd
from fastconv.cpu.product import TILE_VECTORS

# Rows of the weight that are packed at a time stay in the L1 cache, from panel to panel: so many numbers, but some
# rows also where they lie a power of two apart and share its sets.
_NUMBERS_OF_PACKING, _ROWS_OF_PACKING = 2048, 8


@_jit.flushing_tasks
def pack_tasks(weight, packed, shape, first_task, last_task):
    """The weight as panels, each of all depths by one or two vectors of columns; a task: some depths of a group."""
    s = shape
    weight, packed = simd.span(weight), simd.span(packed)
    oc_of_group = s.OC // s.G
    total_depth = s.KH * s.KW * (s.IC // s.G)
    rows = _rows_of_packing(s)
    parts = (total_depth + rows - 1) // rows
    for task in range(first_task, last_task):
        first_depth = task % parts * rows
        depth = min(rows, total_depth - first_depth)
        group = task // parts
        panels_at = start_of_panels(s, group, 0, simd.lane_count(packed))
        weight_at = first_depth * s.OC + group * oc_of_group
        pack_rows(s, weight, weight_at, depth, oc_of_group, packed, panels_at, total_depth, first_depth)


@_jit.inline
def _rows_of_packing(shape):
    return max(_NUMBERS_OF_PACKING // shape.OC, _ROWS_OF_PACKING)


@_jit.inline
def pack_rows(shape, weight, weight_at, rows, columns, panels, panels_at, panel_depth, depth):
    """Some rows of the weight into rows *depth* and the next of the panels of their *columns*.

    Depths outside, panels inside: the rows of the weight are read once, from few pages at a time.
    """
    narrow = simd.lane_count(panels)
    width = TILE_VECTORS * narrow
    stride, at_a_time = shape.OC, _rows_of_packing(shape)
    for row in range(0, rows, at_a_time):
        count = min(at_a_time, rows - row)
        for column in range(0, columns, width):
            rest = columns - column
            panel_width = width if rest > narrow else narrow
            panel_at = panels_at + column * panel_depth + (depth + row) * panel_width
            product.pack_columns(
                weight, weight_at + row * stride + column, stride, count, rest, panels, panel_at, panel_width
            )


@_jit.inline
def start_of_panels(shape, group, column, lanes):
    """Where the panel starts that begins with output channel *column* of a group."""
    s = shape
    padded = (s.OC // s.G + lanes - 1) // lanes * lanes
    return (group * padded + column) * s.KH * s.KW * (s.IC // s.G)


@_jit.inline
def pack_count(shape):
    """Tasks of `pack_tasks`."""
    s = shape
    rows = _rows_of_packing(s)
    return s.G * ((s.KH * s.KW * (s.IC // s.G) + rows - 1) // rows)
