"""grad_x of first layers and of small images: each output pixel's products with all taps, added to where they belong.

Ladder: PyTorch's time (2.13, oneDNN, the faster of its two layouts) over ours, one AVX2 core, batch 8:

                                                       7x7, 1 <- 64, 28 x 28    7x7 stride 2, 3 <- 64, 224 x 224
    a convolution of grad_out with 1 or 3 outputs              0.84                          0.81
    columns are taps, parts added to their places              5.35                          2.96

With 1 to 4 channels of x and 1 to 8 of grad_out, and several pixels in a vector (`conv_last`), that convolution is 1.4
to 8 times as fast at 64 x 64 on an AVX-512 core, 1.2 to 8 times with AVX2, 11 to 13 times for 1 <- 1 at 256 x 256.

And, the convolution's time over this one's, for 64 <- 64 channels and 3x3 without padding: 2.1 at 5x5, 1.3 at 13x13.

    fastconv bench --net handson_fashion_mnist --layer conv2d --pass grad_x --threads 1 --against torch

As a convolution of grad_out, the gradient has as many output channels as x: 1 of a grey image, 3 of a colour image, so
most lanes of a vector would compute nothing.  And it has as many pixels as x, also where grad_out is much smaller and
most taps fall on its padding.  Here the columns of the product are (kh, kw, ic), up to hundreds:

    part[oh, ow, kh, kw, ic] = sum over oc of grad_out[n, oh, ow, oc] * weight[kh, kw, ic, oc]
    grad_x[n, ih, iw, ic] = sum over (oh, ow) of the parts with oh * stride - pad + kh = ih, and ow likewise

The order of every sum follows from the geometry alone: a part is a chain of fused multiply-adds over oc from zero, and
the parts of an element are added to zero in rising order (oh, ow).

Error bound: ``|grad_x - exact| <= eps * (OC + KH * KW) * sum of |grad_out * weight|``.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numba import prange
from numpy.typing import NDArray

from fastconv import _jit, threads
from fastconv.cpu import codegen, patches, product, simd, tiles
from fastconv.cpu.elementary import ZERO
from fastconv.cpu.product import FEW_ROWS, LINE, TILE_ROWS, TILE_VECTORS
from fastconv.cpu.shape import ConvShape, forward_shape, named_as, numbers_of
from fastconv.geometry import Conv2dGeometry

# With more channels, a convolution of grad_out fills enough of its lanes.
_MOST_CHANNELS = 4
# With as few channels of grad_out, too, a convolution with several pixels in a vector is as fast, if some divide a row.
_FEW_CHANNELS, _PIXELS_OF_VECTOR = 8, 4
# So many times as many pixels as needed, and a convolution of grad_out is slower for its zeros.
_WASTE = 1.2
# Taps times channels; the parts of a tile of pixels stay in the L1 cache, or nearly.
_MOST_TAPS = 1152
# Numbers in the band of grad_x that a task adds to: 1 MB of float32.  Few of its rows are in use at any time.
_NUMBERS_OF_BAND = 256 * 1024
# Tasks per thread below which bands are made lower.
_TASKS_PER_WORKER = 3
# A run of at most so many numbers is added one by one: a vector would have to wait for the overlapping one that the
# neighbouring pixel has just stored.
_SHORT_RUN = 4


class Bands(NamedTuple):
    """How the images are cut into tasks: *rows* rows of grad_x each."""

    rows: int
    tasks: int


_named = named_as(ConvShape, Bands)


@_jit.inline
def _pack_taps(weight, packed, taps, OC):
    """Panels of columns (kh, kw, ic) by rows oc: the transpose of the weight; columns behind the last stay zero."""
    lanes = simd.lane_count(packed)
    width = TILE_VECTORS * lanes
    for column in range(0, taps, width):
        panel_width = width if taps - column > lanes else lanes
        for lane in range(min(panel_width, taps - column)):
            for oc in range(OC):
                at = column * OC + oc * panel_width + lane
                packed[at] = weight[(column + lane) * OC + oc]


def _multiply(vectors):
    """Some pixels of grad_out times a panel of the weight, *vectors* wide."""
    multiply = product.placed_product(vectors)

    @_jit.splice
    def store_parts(grad_out, places, rows, OC, packed, packed_at, parts, column, parts_stride):
        """``parts[pixel, column:] = grad_out[pixel, :] @ panel`` for as many pixels as `product.rows_of_tile` says."""
        if rows == FEW_ROWS:
            low = tiles.zeros(parts, FEW_ROWS, vectors)
            low = multiply(low, grad_out, places, 0, 0, OC, packed, packed_at)
            tiles.store(low, parts, column, parts_stride)
        else:
            high = tiles.zeros(parts, TILE_ROWS, vectors)
            high = multiply(high, grad_out, places, 0, 0, OC, packed, packed_at)
            tiles.store(high, parts, column, parts_stride)

    return store_parts


_multiply_wide = _multiply(TILE_VECTORS)
_multiply_narrow = _multiply(1)


@_jit.flushing_tasks
def _scatter_tasks(grad_out, packed, grad_x, workspace, shape, bands, first_task, last_task):
    """Tasks [first_task, last_task); a task is a band of rows of one image of grad_x.

    Tiles of output pixels outside: the product of their gradients with all panels, stored in the L1 cache; then pixel
    by pixel each kernel row of parts is added to its row of the band.  Output rows at the edge of a band are computed
    for both bands, so that each element has one writer.
    """
    s = shape
    grad_out, packed, grad_x = simd.span(grad_out), simd.span(packed), simd.span(grad_x)
    parts, band = simd.span(workspace[0]), simd.span(workspace[1])
    places = simd.span(workspace[2])
    lanes = simd.lane_count(grad_x)
    width = TILE_VECTORS * lanes
    taps = s.KH * s.KW * s.IC
    parts_stride = (taps + lanes - 1) // lanes * lanes
    run = s.KW * s.IC
    whole = run - run % lanes
    pitch = patches.strip_pitch(s)
    bands_of_image = (s.IH + bands.rows - 1) // bands.rows
    for task in range(first_task, last_task):
        n = task // bands_of_image
        first_ih = task % bands_of_image * bands.rows
        rows_of_band = min(bands.rows, s.IH - first_ih)
        product.fill_zeros(band, 0, rows_of_band * pitch)
        # the output rows with a tap in the band
        first_oh = max((first_ih + s.pad_top - s.KH + s.stride_h) // s.stride_h, 0)
        last_oh = min((first_ih + rows_of_band - 1 + s.pad_top) // s.stride_h + 1, s.OH)
        pixels = max(last_oh - first_oh, 0) * s.OW
        oh, ow = first_oh, 0
        first_pixel = 0
        while first_pixel < pixels:
            height = product.rows_of_tile(pixels - first_pixel)
            rows = min(height, pixels - first_pixel)
            for row in range(TILE_ROWS):
                pixel = (n * s.OH + first_oh) * s.OW + first_pixel + min(row, rows - 1)
                places[row] = pixel * s.OC
            for column in range(0, taps, width):
                if taps - column > lanes:
                    _multiply_wide(grad_out, places, height, s.OC, packed, column * s.OC, parts, column, parts_stride)
                else:
                    _multiply_narrow(grad_out, places, height, s.OC, packed, column * s.OC, parts, column, parts_stride)
            for row in range(rows):
                ih = oh * s.stride_h - s.pad_top - first_ih
                target = ih * pitch + ow * s.stride_w * s.IC
                part = row * parts_stride
                for kh in range(max(-ih, 0), min(rows_of_band - ih, s.KH)):
                    from_parts, to_band = part + kh * run, target + kh * pitch
                    if run <= _SHORT_RUN:
                        for element in range(run):
                            band[to_band + element] += parts[from_parts + element]
                    else:
                        for element in range(0, whole, lanes):
                            addend = simd.load(parts, from_parts + element)
                            total = simd.add(simd.load(band, to_band + element), addend)
                            simd.store(band, to_band + element, total)
                        if whole < run:
                            # the lanes behind the run belong to its neighbours, to which zero is added
                            addend = simd.load_first(parts, from_parts + whole, run - whole)
                            total = simd.add(simd.load(band, to_band + whole), addend)
                            simd.store(band, to_band + whole, total)
                ow += 1
                if ow == s.OW:
                    ow = 0
                    oh += 1
            first_pixel += height
        _copy_band(band, grad_x, s, n, first_ih, rows_of_band)


@_jit.inline
def _copy_band(band, grad_x, shape, n, first_ih, rows):
    """The rows of a band without their padding; columns that no output reads are zero."""
    s = shape
    pitch = patches.strip_pitch(s)
    pad = s.pad_left * s.IC
    reached = max(min(pitch - pad, s.IW * s.IC), 0)
    for row in range(rows):
        target = (n * s.IH + first_ih + row) * s.IW * s.IC
        for element in range(reached):
            grad_x[target + element] = band[row * pitch + pad + element]
        for element in range(reached, s.IW * s.IC):
            grad_x[target + element] = ZERO


@_jit.inline
def _scatter_workspace(grad_x, shape, bands):
    """Memory of one thread: parts of a tile of pixels, a band of grad_x, places of the pixels and of their channels."""
    lanes = codegen.VECTOR_BYTES // grad_x.itemsize
    taps = shape.KH * shape.KW * shape.IC
    parts = np.empty(TILE_ROWS * (taps + lanes), grad_x.dtype)
    band = np.empty(bands.rows * patches.strip_pitch(shape) + LINE, grad_x.dtype)
    return parts, band, np.empty(TILE_ROWS, np.int64)


@_jit.kernel
def conv2d_grad_x_scatter_serial(grad_out, weight, packed, grad_x, numbers):
    """All tasks; arrays are flat."""
    shape, bands = _named(numbers)
    _pack_taps(simd.span(weight), simd.span(packed), shape.KH * shape.KW * shape.IC, shape.OC)
    workspace = _scatter_workspace(grad_x, shape, bands)
    _scatter_tasks(grad_out, packed, grad_x, workspace, shape, bands, 0, bands.tasks)


@_jit.parallel_kernel
def conv2d_grad_x_scatter_parallel(workers, grad_out, weight, packed, grad_x, numbers):
    """The same tasks, an equal share for each worker."""
    shape, _ = _named(numbers)
    _pack_taps(simd.span(weight), simd.span(packed), shape.KH * shape.KW * shape.IC, shape.OC)
    for worker in prange(workers):
        shape, bands = _named(numbers)
        first_task = bands.tasks * worker // workers
        last_task = bands.tasks * (worker + 1) // workers
        workspace = _scatter_workspace(grad_x, shape, bands)
        _scatter_tasks(grad_out, packed, grad_x, workspace, shape, bands, first_task, last_task)


# ---- from a geometry to the kernels ---------------------------------------------------------------------------------


def suits(geometry: Conv2dGeometry) -> bool:
    """Few input channels and more output channels, or many zeros; several taps, no groups and no dilation.

    One image alone decides, because the order of the sums follows.
    """
    g = geometry
    beside = g.stride == (1, 1) and g.KW > 1 and g.IW % _PIXELS_OF_VECTOR == 0
    few = g.IC <= _MOST_CHANNELS and not (beside and g.OC <= _FEW_CHANNELS)
    taps = g.KH * g.KW * g.IC
    wasteful = g.IH * g.IW > _WASTE * g.OH * g.stride[0] * g.OW * g.stride[1]
    possible = g.G == 1 and g.dilation == (1, 1) and g.IC < taps <= _MOST_TAPS
    return possible and (few or wasteful) and patches.strip_pitch(forward_shape(g)) <= _NUMBERS_OF_BAND


def grad_x(geometry: Conv2dGeometry, grad_out: NDArray[Any], weight: NDArray[Any], out: NDArray[Any]) -> None:
    """``out = the gradient with respect to x`` of a geometry that `suits`."""
    s = forward_shape(geometry)
    workers = threads.worker_count(geometry.flops)
    bands, numbers = _bands(s, workers)
    padded = s.KH * s.KW * s.IC + codegen.VECTOR_BYTES // out.itemsize
    threads.run(
        conv2d_grad_x_scatter_serial,
        conv2d_grad_x_scatter_parallel,
        min(workers, bands.tasks),
        grad_out.reshape(-1),
        weight.reshape(-1),
        np.zeros(padded * s.OC, out.dtype),
        out.reshape(-1),
        numbers,
    )


def workspace(geometry: Conv2dGeometry, itemsize: int) -> int:
    """Bytes of memory of one thread."""
    s = forward_shape(geometry)
    parts = TILE_ROWS * (s.KH * s.KW * s.IC + codegen.VECTOR_BYTES // itemsize)
    return itemsize * (parts + _bands(s, 1)[0].rows * patches.strip_pitch(s))


@lru_cache(maxsize=1024)
def _bands(shape: ConvShape, workers: int) -> tuple[Bands, NDArray[np.int64]]:
    """Whole images where that is enough work for all threads, bands of several kernel heights where it is not.

    And shape and bands as `_named` gives them to a kernel.
    """
    s = shape
    rows = min(s.IH, max(_NUMBERS_OF_BAND // patches.strip_pitch(s), 1))
    while workers > 1 and s.N * -(-s.IH // rows) < _TASKS_PER_WORKER * workers and rows >= 8 * s.KH:
        rows = -(-rows // 2)
    bands = Bands(rows, s.N * -(-s.IH // rows))
    return bands, numbers_of(s, bands)
