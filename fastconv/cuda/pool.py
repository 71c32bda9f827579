"""Pooling on the GPU: largest, smallest and average pixel of a window, the gradients, and moves to stored positions.

Two tables say which rows and columns a window holds (`geometry.AxisWindows`), as on the CPU, so one kernel serves
plain, dilated, ceil_mode, adaptive and global pooling.  Gradients are gathered: a pixel of x looks through the windows
that hold it, in the order in which the CPU adds them.  No two threads write to one element, and the bits are the CPU's.

Ladder: microseconds on an H200, 32 images, kernels replayed from a CUDA graph.

                                      max 3x3, stride 2   max 2x2     average 3x3   global average
                                         112 x 112, 64    224, 64        35, 192      112, 64
    a thread for each number                  118           311            143         1,417
    four channels, windows unrolled,
    tall images row by row first               39           120             33            39
    PyTorch                                   124           324            170           948

    python bench/gpu_torch.py --net pool
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv.cuda.device import Engine, aligned, flat
from fastconv.geometry import AxisWindows, Pool2dGeometry, covering_windows, single_pixels

#: Elements and positions are 32-bit integers in the kernels.
_LARGEST = 2**31 - 2**16
#: Channels of a load of 16 bytes.
_QUAD = 4
#: Windows of 2 or 3 columns have code of their own.
_FEW_COLUMNS = 3
#: Windows of so many rows are summed row by row first where there are at most so many sums.
_TALL, _FEW_SUMS = 16, 2**16
#: Threads that fill a large GPU; a scatter cuts its images into bands where it has fewer.
_THREADS_OF_SCATTER = 2**17


def extreme(
    engine: Engine,
    x: Any,
    rows: AxisWindows,
    columns: AxisWindows,
    sign: int,
    out: Any,
    indices: Any | None = None,
) -> None:
    """Write the largest (``sign=1``) or smallest (``sign=-1``) pixel of each window into *out*, and where it is."""
    from fastconv.cuda.kernels import elements, pool as kernels

    problem = _problem(x.shape, rows, columns)
    x, out = flat(x), flat(out)
    _check_size(x, out)
    indices = engine.empty((0,), np.int64) if indices is None else flat(indices, np.int64)
    tables = _table(engine, rows), _table(engine, columns)
    lanes = _lanes(problem.C, x, out, indices)
    kernel = kernels.extreme(lanes, _width(columns, lanes))
    elements.launch(engine, kernel, out.size // lanes, x, *tables, float(sign), out, indices, problem)


def average(engine: Engine, x: Any, rows: AxisWindows, columns: AxisWindows, out: Any) -> None:
    """Write the sum of each window, divided by the product of its two counts, into *out*.

    Few large windows are summed row by row first, by as many threads as there are rows: the order of the sum is the
    same, for a window's is one of its rows.
    """
    N, IH, IW, C = x.shape
    x, out = flat(x), flat(out)
    _check_size(x, out)
    OH, OW = rows.outputs, columns.outputs
    if OW > 1 or N * OH * C > _FEW_SUMS or rows.largest < _TALL:
        _average(engine, (N, IH, IW, C), x, rows, columns, out)
        return
    row_sums = engine.empty((N * IH * C,), np.float32)
    one = single_pixels(1)
    _average(engine, (N, IH, IW, C), x, single_pixels(IH), columns.divided_by(one.counts), row_sums)
    # one column of row sums is summed as if it were a row, of which many numbers are loaded together
    _average(engine, (N, 1, IH, C), row_sums, one, rows.divided_by(rows.counts * columns.counts), out)


def _average(engine: Engine, shape: tuple[int, ...], x: Any, rows: AxisWindows, columns: AxisWindows, out: Any) -> None:
    from fastconv.cuda.kernels import elements, pool as kernels

    lanes = _lanes(shape[3], x, out)
    tables = _table(engine, rows), _table(engine, columns)
    kernel, problem = kernels.average(lanes, _width(columns, lanes)), _problem(shape, rows, columns)
    elements.launch(engine, kernel, out.size // lanes, x, *tables, out, problem)


def scatter(engine: Engine, values: Any, indices: Any, accumulate: bool, out: Any) -> bool:
    """Move *values* (N, OH, OW, C) to their pixels in *out*, zero elsewhere; those whose pixel is not there are lost.

    Whether all lie inside is not looked at, for that would wait for the device: the result is True.
    """
    from fastconv.cuda.kernels import elements, pool as kernels

    _, OH, OW, C = values.shape
    N, IH, IW, _ = out.shape
    values, out = flat(values), flat(out)
    _check_size(values, out)
    bands = min(IH, -(-_THREADS_OF_SCATTER // max(1, N * C)))
    problem = kernels.ScatterProblem(OH * OW, IH * IW, C, bands, -(-IH * IW // bands), int(accumulate))
    threads = N * bands * C
    elements.launch(engine, kernels.scatter(), threads, values, flat(indices, np.int64), out, threads, problem)
    return True


def take(engine: Engine, values: Any, indices: Any, out: Any) -> bool:
    """Write the pixels of *values* that *indices* name into *out*, channel by channel, and 0 for those outside.

    As in `scatter` the result is True.
    """
    from fastconv.cuda.kernels import elements, pool as kernels

    _, IH, IW, C = values.shape
    _, OH, OW, _ = out.shape
    values, out = flat(values), flat(out)
    _check_size(values, out)
    places = flat(indices, np.int64)
    elements.launch(engine, kernels.take(), out.size, values, places, out, IH * IW, OH * OW, C)
    return True


def extreme_backward(engine: Engine, geometry: Pool2dGeometry, grad_out: Any, indices: Any, grad_x: Any) -> bool:
    """Hand the gradient of each window to the pixel that *indices* names, which must be one of the window.

    A pixel looks only at the windows that hold it, where `scatter` reads all indices of an image for each of its bands.
    As there, nothing waits for the device to see whether all lie inside: the result is True.
    """
    from fastconv.cuda.kernels import elements, pool as kernels

    grad_out, grad_x = flat(grad_out), flat(grad_x)
    _check_size(grad_out, grad_x)
    g = geometry
    problem = kernels.Problem(g.IH, g.IW, g.C, g.OH, g.OW, g.rows.step, g.columns.step)
    # with gaps in the windows these ranges hold more windows than they must, which the indices sort out
    tables = _table(engine, covering_windows(g.rows, g.IH)), _table(engine, covering_windows(g.columns, g.IW))
    indices = flat(indices, np.int64)
    lanes = _lanes(g.C, grad_out, indices, grad_x)
    kernel = kernels.extreme_backward(lanes)
    elements.launch(engine, kernel, grad_x.size // lanes, grad_out, indices, *tables, grad_x, problem)
    return True


def _problem(shape: tuple[int, ...], rows: AxisWindows, columns: AxisWindows) -> Any:
    """What the kernels know of images and windows."""
    from fastconv.cuda.kernels import pool as kernels

    _, IH, IW, C = shape
    return kernels.Problem(IH, IW, C, rows.outputs, columns.outputs, rows.step, columns.step)


def _lanes(channels: int, *arrays: Any) -> int:
    """Channels of a thread: four neighbours where they lie in 16 bytes."""
    return _QUAD if channels % _QUAD == 0 and aligned(*arrays) else 1


def _width(columns: AxisWindows, lanes: int) -> int:
    """Columns that are loaded together: those of a window if they are few."""
    from fastconv.cuda.kernels import pool as kernels

    few = lanes == _QUAD and columns.largest <= _FEW_COLUMNS
    return max(columns.largest, 2) if few else kernels.RUN


def _table(engine: Engine, windows: AxisWindows) -> Any:
    """Starts, ends and counts of the windows of an axis, one after the other."""
    return engine.constant(np.concatenate([windows.start, windows.stop, windows.counts]).astype(np.int32))


def _check_size(*arrays: Any) -> None:
    for array in arrays:
        if array.size >= _LARGEST:
            raise ValueError(f"pooling on the GPU takes fewer than {_LARGEST} numbers. Received: {array.size}")
