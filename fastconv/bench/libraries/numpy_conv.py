"""Convolution in NumPy, as fast as we could write it: patches at once; `numpy_taps` has the third way.

``windows``  `sliding_window_view` and one `einsum`, which NumPy turns into a matrix product where it can
``columns``  patches copied into the rows of a matrix (im2col), a few images at a time, and BLAS; grad_x adds rows back

Each function prepares memory and weights outside the timed call and returns what is timed: a function of the number of
the copy of the inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import prod
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from fastconv.bench.problems import Array, ConvProblem
from fastconv.geometry import Conv2dGeometry

Compute = Callable[[int], Array]

# As many images as fit in this make one matrix: large enough for BLAS, small enough for the outer cache.
BLOCK_BYTES = 16 << 20
FLOAT_BYTES = 4
# The two operands at once: einsum then looks for a matrix product.
PAIR = ["einsum_path", (0, 1)]


class Images:
    """The images of one problem inside a border of zeros that is made once."""

    def __init__(self, geometry: Conv2dGeometry) -> None:
        g = self.geometry = geometry
        (top, bottom), (left, right) = g.padding
        self.padded = np.zeros((g.N, g.IH + top + bottom, g.IW + left + right, g.IC), np.float32)
        self.inside = slice(None), slice(top, top + g.IH), slice(left, left + g.IW)

    def pad(self, x: Array) -> Array:
        """The images with their border; without a border, themselves."""
        if self.padded.shape == x.shape:
            return x
        self.padded[self.inside] = x
        return self.padded

    def blocks(self, image_bytes: int) -> list[slice]:
        """The batch cut into blocks of `BLOCK_BYTES`, or of one image."""
        images = max(1, min(self.geometry.N, BLOCK_BYTES // image_bytes))
        return [slice(n, min(n + images, self.geometry.N)) for n in range(0, self.geometry.N, images)]

    def windows(self, x: Array) -> Any:
        """View (N, OH, OW, IC, KH, KW) of all patches."""
        g = self.geometry
        reach = ((g.KH - 1) * g.dilation[0] + 1, (g.KW - 1) * g.dilation[1] + 1)
        view = sliding_window_view(self.pad(x), reach, axis=(1, 2))
        return view[:, :: g.stride[0], :: g.stride[1], :, :: g.dilation[0], :: g.dilation[1]]

    def taps(self, padded: Array) -> Iterator[tuple[int, int, Array]]:
        """(kh, kw, view (N, OH, OW, IC) of the pixels that this tap sees)."""
        g = self.geometry
        for kh in range(g.KH):
            for kw in range(g.KW):
                top, left = kh * g.dilation[0], kw * g.dilation[1]
                rows = slice(top, top + (g.OH - 1) * g.stride[0] + 1, g.stride[0])
                yield kh, kw, padded[:, rows, left : left + (g.OW - 1) * g.stride[1] + 1 : g.stride[1]]


class Columns(Images):
    """Images whose patches are copied into matrices, (G, pixels, KH * KW * IC / G), some images at a time."""

    def __init__(self, geometry: Conv2dGeometry) -> None:
        super().__init__(geometry)
        g = geometry
        image = (g.OH, g.OW, g.KH, g.KW, g.IC // g.G)
        self.matrix_blocks = self.blocks(FLOAT_BYTES * g.G * prod(image))
        self.buffer = np.empty((g.G, self.matrix_blocks[0].stop, *image), np.float32)

    def patches(self, padded: Array) -> Array:
        """The matrices of a block of images; a view of the images where a patch is a pixel."""
        g = self.geometry
        if g.KH * g.KW * g.G == 1:
            (_, _, seen), *_ = self.taps(padded)
            return seen.reshape(1, -1, g.IC)
        buffer: Array = self.buffer[:, : len(padded)]
        for kh, kw, seen in self.taps(padded):
            buffer[..., kh, kw, :] = np.moveaxis(by_group(g, seen), 3, 0)
        return buffer.reshape(g.G, -1, g.KH * g.KW * (g.IC // g.G))

    def matrices(self, grad_out: Array) -> Array:
        """The pixels of a block of results as (G, pixels, OC / G)."""
        g = self.geometry
        pixels: Array = np.moveaxis(by_group(g, grad_out), 3, 0)
        return pixels.reshape(g.G, -1, g.OC // g.G)

    def weights(self, weight: Array) -> Array:
        """(G, KH * KW * IC / G, OC / G)."""
        g = self.geometry
        return np.ascontiguousarray(np.moveaxis(by_group(g, weight), 3, 0)).reshape(g.G, -1, g.OC // g.G)


def by_group(g: Conv2dGeometry, array: Any) -> Any:
    """The channel axis, the last one, as (G, channels of a group)."""
    return array.reshape(*array.shape[:-1], g.G, -1)


def contract(g: Conv2dGeometry, subscripts: str, a: Any, b: Any) -> Any:
    """einsum by BLAS; without groups their axis ``g`` is left out, for with it einsum would not call BLAS."""
    if g.G == 1:
        subscripts = subscripts.replace("g", "")
    return np.einsum(subscripts, a, b, optimize=PAIR)


def forward_windows(problem: ConvProblem) -> Compute:
    g, images = problem.geometry, Images(problem.geometry)

    def compute(copy: int) -> Array:
        windows, weight = images.windows(problem.x[copy]), problem.weight[copy]
        if g.G > 1:
            windows, weight = windows.reshape(g.N, g.OH, g.OW, g.G, -1, g.KH, g.KW), by_group(g, weight)
        return contract(g, "nhwgikl,kligo->nhwgo", windows, weight).reshape(g.out_shape)  # type: ignore[no-any-return]

    return compute


def grad_x_windows(problem: ConvProblem) -> Compute:
    """A forward convolution of grad_out, with zeros between and around its pixels, and the flipped weight."""
    g = problem.geometry
    reach = [(k - 1) * d for k, d in zip((g.KH, g.KW), g.dilation, strict=True)]
    (top, _), (left, _) = g.padding
    if top > reach[0] or left > reach[1]:
        raise ValueError(f"padding must be smaller than the dilated kernel. Received: {g}")
    spread = np.zeros((g.N, g.IH + reach[0], g.IW + reach[1], g.OC), np.float32)
    pixels = spread[:, reach[0] - top :: g.stride[0], reach[1] - left :: g.stride[1]][:, : g.OH, : g.OW]
    windows = sliding_window_view(spread, (reach[0] + 1, reach[1] + 1), axis=(1, 2))
    windows = windows[..., :: g.dilation[0], :: g.dilation[1]]
    if g.G > 1:
        windows = windows.reshape(g.N, g.IH, g.IW, g.G, -1, g.KH, g.KW)

    def compute(copy: int) -> Array:
        pixels[...] = problem.grad_out[copy]
        weight = problem.weight[copy][::-1, ::-1]
        if g.G > 1:
            weight = by_group(g, weight)
        return contract(g, "nhwgokl,kligo->nhwgi", windows, weight).reshape(g.x_shape)  # type: ignore[no-any-return]

    return compute


def grad_weight_windows(problem: ConvProblem) -> Compute:
    g, images = problem.geometry, Images(problem.geometry)

    def compute(copy: int) -> Array:
        windows, grad_out = images.windows(problem.x[copy]), problem.grad_out[copy]
        if g.G > 1:
            windows, grad_out = windows.reshape(g.N, g.OH, g.OW, g.G, -1, g.KH, g.KW), by_group(g, grad_out)
        product = contract(g, "nhwgikl,nhwgo->kligo", windows, grad_out)
        return product.reshape(g.weight_shape)  # type: ignore[no-any-return]

    return compute


def forward_columns(problem: ConvProblem) -> Compute:
    g, images = problem.geometry, Columns(problem.geometry)
    weights = [images.weights(weight) for weight in problem.weight]

    def compute(copy: int) -> Array:
        padded, out = images.pad(problem.x[copy]), np.empty(g.out_shape, np.float32)
        for block in images.matrix_blocks:
            patches = images.patches(padded[block])
            if g.G == 1:
                np.matmul(patches[0], weights[copy][0], out=out[block].reshape(-1, g.OC))
            else:
                pixels = (patches @ weights[copy]).reshape(g.G, -1, g.OH, g.OW, g.OC // g.G)
                by_group(g, out[block])[...] = np.moveaxis(pixels, 0, 3)
        return out

    return compute


def grad_x_columns(problem: ConvProblem) -> Compute:
    g, images = problem.geometry, Columns(problem.geometry)
    weights = [np.ascontiguousarray(images.weights(weight).swapaxes(1, 2)) for weight in problem.weight]

    def compute(copy: int) -> Array:
        if g.KH * g.KW * g.G == 1 and g.stride == (1, 1) and images.padded.shape == g.x_shape:
            pixels: Array = problem.grad_out[copy].reshape(-1, g.OC) @ weights[copy][0]
            return pixels.reshape(g.x_shape)
        grad_x = np.zeros(images.padded.shape, np.float32)
        for block in images.matrix_blocks:
            product = images.matrices(problem.grad_out[copy][block]) @ weights[copy]
            columns = product.reshape(g.G, -1, g.OH, g.OW, g.KH, g.KW, g.IC // g.G)
            for kh, kw, seen in images.taps(grad_x[block]):
                seen += np.moveaxis(columns[..., kh, kw, :], 0, 3).reshape(seen.shape)
        return grad_x[images.inside]

    return compute


def grad_weight_columns(problem: ConvProblem) -> Compute:
    g, images = problem.geometry, Columns(problem.geometry)

    def compute(copy: int) -> Array:
        padded = images.pad(problem.x[copy])
        total = np.zeros((g.G, g.KH * g.KW * (g.IC // g.G), g.OC // g.G), np.float32)
        for block in images.matrix_blocks:
            total += images.patches(padded[block]).swapaxes(1, 2) @ images.matrices(problem.grad_out[copy][block])
        return np.moveaxis(total, 0, 1).reshape(g.weight_shape)

    return compute
