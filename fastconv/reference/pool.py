"""What pooling means: every window cut out of the image, in plain NumPy, for any float dtype.

Arrays are NHWC with a batch axis.  A window is a list of pixel positions along each axis; `windows` and
`adaptive_windows` make them from the arguments, and everything else takes them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]
Indices = NDArray[np.int64]


class Window(NamedTuple):
    """Positions of a window along one axis, and how many positions an average divides by."""

    pixels: list[int]
    divisor: int


def windows(
    extent: int,
    kernel: int,
    stride: int,
    padding: tuple[int, int] = (0, 0),
    dilation: int = 1,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> list[Window]:
    """All windows along an axis, by moving one over the padded axis until it leaves it."""
    before, after = padding
    reach = (kernel - 1) * dilation + 1
    found = []
    start = -before
    while start + reach <= extent + after or (ceil_mode and start < extent and start - stride + reach < extent + after):
        positions = range(start, start + reach, dilation)
        inside = [position for position in positions if 0 <= position < extent]
        on_padded_axis = [position for position in positions if position < extent + after]
        found.append(Window(inside, len(on_padded_axis if count_include_pad else inside)))
        start += stride
    return found


def adaptive_windows(extent: int, outputs: int) -> list[Window]:
    """The windows that cut an axis into *outputs* parts, overlapping where it does not divide."""
    found = []
    for output in range(outputs):
        start = int(np.floor(output * extent / outputs))
        stop = int(np.ceil((output + 1) * extent / outputs))
        found.append(Window(list(range(start, stop)), stop - start))
    return found


def max_pool2d(x: Array, rows: list[Window], columns: list[Window]) -> tuple[Array, Indices]:
    """Largest pixel of each window, and its position ``ih * IW + iw``: the first of equal ones, the last of all NaN."""
    N, _, IW, C = x.shape
    out = np.empty((N, len(rows), len(columns), C), x.dtype)
    indices = np.empty(out.shape, np.int64)
    for oh, row in enumerate(rows):
        for ow, column in enumerate(columns):
            positions = np.array([(ih, iw) for ih in row.pixels for iw in column.pixels])
            pixels = x[:, positions[:, 0], positions[:, 1], :]
            is_nan = np.isnan(pixels)
            first_largest = np.where(is_nan, -np.inf, pixels).argmax(axis=1)
            last_nan = len(positions) - 1 - is_nan[:, ::-1].argmax(axis=1)
            chosen = np.where(is_nan.any(axis=1), last_nan, first_largest)
            out[:, oh, ow, :] = np.take_along_axis(pixels, chosen[:, np.newaxis], axis=1)[:, 0]
            indices[:, oh, ow, :] = (positions[:, 0] * IW + positions[:, 1])[chosen]
    return out, indices


def max_pool2d_backward(grad_out: Array, indices: Indices, x_shape: tuple[int, ...]) -> Array:
    """Every gradient added to the pixel that its output took."""
    N, IH, IW, C = x_shape
    grad_x = np.zeros((N, IH * IW, C), grad_out.dtype)
    n, c = np.arange(N)[:, np.newaxis, np.newaxis, np.newaxis], np.arange(C)
    np.add.at(grad_x, (n, indices, c), grad_out)
    return grad_x.reshape(x_shape)


def avg_pool2d(x: Array, rows: list[Window], columns: list[Window]) -> Array:
    """Sum of each window divided by its two divisors."""
    out = np.empty((x.shape[0], len(rows), len(columns), x.shape[3]), x.dtype)
    for oh, row in enumerate(rows):
        for ow, column in enumerate(columns):
            window = x[:, row.pixels][:, :, column.pixels]
            out[:, oh, ow, :] = window.sum(axis=(1, 2)) / (row.divisor * column.divisor)
    return out


def avg_pool2d_backward(grad_out: Array, x_shape: tuple[int, ...], rows: list[Window], columns: list[Window]) -> Array:
    """Every gradient shared equally between the pixels of its window."""
    grad_x = np.zeros(x_shape, grad_out.dtype)
    for oh, row in enumerate(rows):
        for ow, column in enumerate(columns):
            share = grad_out[:, oh, ow, :] / (row.divisor * column.divisor)
            for ih in row.pixels:
                for iw in column.pixels:
                    grad_x[:, ih, iw, :] += share
    return grad_x
