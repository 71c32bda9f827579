"""Pooling on the GPU: largest, smallest and average pixel of a window, and the gradients of all three.

Two tables say which rows and columns a window holds (`geometry.AxisWindows`), as on the CPU, so one kernel serves
plain, dilated, ceil_mode, adaptive and global pooling.  Gradients are gathered: a pixel of x looks through the windows
that hold it, in the order in which the CPU adds them.  No two threads write to one element, and the bits are the CPU's.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv.cuda.device import Engine, flat
from fastconv.geometry import AxisWindows, Pool2dGeometry, covering_windows, single_pixels, windows_of_pixels

#: Elements and positions are 32-bit integers in the kernels.
_LARGEST = 2**31 - 2**16


def extreme(engine: Engine, geometry: Pool2dGeometry, x: Any, sign: int, out: Any, indices: Any | None = None) -> None:
    """Write the largest (``sign=1``) or smallest (``sign=-1``) pixel of each window into *out*, and where it is."""
    from fastconv.cuda import elements, pool_kernels as kernels

    x, out = flat(x), flat(out)
    _check_size(x, out)
    indices = engine.empty((0,), np.int64) if indices is None else flat(indices, np.int64)
    g = geometry
    problem = kernels.Problem(g.IH, g.IW, g.C, g.OH, g.OW, g.rows.step, g.columns.step)
    tables = _table(engine, g.rows), _table(engine, g.columns)
    elements.launch(engine, kernels.extreme(), out.size, x, *tables, float(sign), out, indices, problem)


def average(engine: Engine, geometry: Pool2dGeometry, x: Any, out: Any) -> None:
    """Write the average pixel of each window into *out*."""
    g = geometry
    _average(engine, x, (g.IH, g.IW), g.C, g.rows, g.columns, out)


def average_backward(engine: Engine, geometry: Pool2dGeometry, grad_out: Any, grad_x: Any) -> None:
    """Sum over the windows that hold each pixel: the forward kernel with its tables reversed.

    Where all windows divide by the same count, so do their sums; otherwise the gradients are divided first.
    """
    g = geometry
    rows, columns, counts_differ = windows_of_pixels(g)
    if counts_differ:
        shares = engine.empty((flat(grad_out).size,), np.float32)
        every_row = single_pixels(g.OH).divided_by(g.rows.counts)
        every_column = single_pixels(g.OW).divided_by(g.columns.counts)
        _average(engine, grad_out, (g.OH, g.OW), g.C, every_row, every_column, shares)
        grad_out = shares
    _average(engine, grad_out, (g.OH, g.OW), g.C, rows, columns, grad_x)


def extreme_backward(engine: Engine, geometry: Pool2dGeometry, grad_out: Any, indices: Any, grad_x: Any) -> None:
    """Hand the gradient of each window to the pixel that *indices* names, which must be one of the window."""
    from fastconv.cuda import elements, pool_kernels as kernels

    grad_out, grad_x = flat(grad_out), flat(grad_x)
    _check_size(grad_out, grad_x)
    g = geometry
    problem = kernels.Problem(g.IH, g.IW, g.C, g.OH, g.OW, g.rows.step, g.columns.step)
    # with gaps in the windows these ranges hold more windows than they must, which the indices sort out
    tables = _table(engine, covering_windows(g.rows, g.IH)), _table(engine, covering_windows(g.columns, g.IW))
    kernel = kernels.extreme_backward()
    elements.launch(engine, kernel, grad_x.size, grad_out, flat(indices, np.int64), *tables, grad_x, problem)


def _average(
    engine: Engine,
    x: Any,
    extents: tuple[int, int],
    channels: int,
    rows: AxisWindows,
    columns: AxisWindows,
    out: Any,
) -> None:
    from fastconv.cuda import elements, pool_kernels as kernels

    x, out = flat(x), flat(out)
    _check_size(x, out)
    problem = kernels.Problem(*extents, channels, rows.start.size, columns.start.size, rows.step, columns.step)
    tables = _table(engine, rows), _table(engine, columns)
    elements.launch(engine, kernels.average(), out.size, x, *tables, out, problem)


def _table(engine: Engine, windows: AxisWindows) -> Any:
    """Starts, ends and counts of the windows of an axis, one after the other."""
    return engine.constant(np.concatenate([windows.start, windows.stop, windows.counts]).astype(np.int32))


def _check_size(*arrays: Any) -> None:
    for array in arrays:
        if array.size >= _LARGEST:
            raise ValueError(f"pooling on the GPU takes fewer than {_LARGEST} numbers. Received: {array.size}")
