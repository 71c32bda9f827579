"""Convolution in NumPy, one tap of the kernel at a time: no patch is ever copied.

Without stride and groups, a tap is a shift: images and results lie on the same grid of pixels, that of the padded
images, one row of a matrix for each, and the pixel that a tap sees for a result is always the same number of rows
further on.  So a tap is one product of two large matrices.  With a stride a tap sees a strided view, multiplied image
row by image row; in a depthwise convolution it is one number per channel, and no matrix is needed.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fastconv.bench.libraries.numpy_conv import FLOAT_BYTES, Compute, Images, by_group
from fastconv.bench.problems import Array, ConvProblem
from fastconv.geometry import Conv2dGeometry


def is_shift(g: Conv2dGeometry) -> bool:
    """A tap is a shift of the whole grid."""
    return g.stride == (1, 1) and g.G == 1


def is_number(g: Conv2dGeometry) -> bool:
    """A tap is one number per channel."""
    return g.is_depthwise and g.OC == g.IC


class Grid(Images):
    """Images and results on the grid of the padded images, some images at a time."""

    def __init__(self, geometry: Conv2dGeometry) -> None:
        super().__init__(geometry)
        g = geometry
        _, self.GH, self.GW, _ = self.padded.shape
        self.grid_blocks = self.blocks(FLOAT_BYTES * self.GH * self.GW * max(g.IC, g.OC))
        self.results = np.zeros((self.grid_blocks[0].stop, self.GH, self.GW, g.OC), np.float32)
        self.product = np.empty(self.results.size * max(g.IC, g.OC) // g.OC, np.float32)

    def shifts(self) -> Iterator[tuple[int, int, int]]:
        """(kh, kw, rows from a result to the pixel that this tap sees)."""
        g = self.geometry
        for kh in range(g.KH):
            for kw in range(g.KW):
                yield kh, kw, kh * g.dilation[0] * self.GW + kw * g.dilation[1]

    def spread(self, grad_out: Array) -> Array:
        """The gradients on the grid, zero where there is no result, as a matrix (pixels, OC)."""
        g = self.geometry
        results = self.results[: len(grad_out)]
        results[:, : g.OH, : g.OW] = grad_out
        return results.reshape(-1, g.OC)

    def add_product(self, total: Array, a: Array, b: Array) -> None:
        """``total += a @ b`` without new memory."""
        total += np.matmul(a, b, out=self.product[: total.size].reshape(total.shape))


def forward(problem: ConvProblem) -> Compute:
    g = problem.geometry
    if is_shift(g):
        return _forward_shifts(problem)
    images = Images(g)

    def compute(copy: int) -> Array:
        out, product = np.zeros(g.out_shape, np.float32), np.empty(g.out_shape, np.float32)
        for kh, kw, seen in images.taps(images.pad(problem.x[copy])):
            matrix = problem.weight[copy][kh, kw]
            if is_number(g):
                out += np.multiply(seen, matrix[0], out=product)
            elif g.G == 1:
                out += np.matmul(seen, matrix, out=product)
            else:
                grouped = np.einsum("nhwgi,igo->nhwgo", by_group(g, seen), by_group(g, matrix))
                out += grouped.reshape(g.out_shape)
        return out

    return compute


def grad_x(problem: ConvProblem) -> Compute:
    g = problem.geometry
    if is_shift(g):
        return _grad_x_shifts(problem)
    images = Images(g)

    def compute(copy: int) -> Array:
        grad_out = problem.grad_out[copy]
        result = np.zeros(images.padded.shape, np.float32)
        product = np.empty((g.N, g.OH, g.OW, g.IC), np.float32)
        for kh, kw, seen in images.taps(result):
            matrix = problem.weight[copy][kh, kw]
            if is_number(g):
                seen += np.multiply(grad_out, matrix[0], out=product)
            elif g.G == 1:
                seen += np.matmul(grad_out, matrix.T, out=product)
            else:
                grouped = np.einsum("nhwgo,igo->nhwgi", by_group(g, grad_out), by_group(g, matrix))
                seen += grouped.reshape(seen.shape)
        return result[images.inside]

    return compute


def grad_weight(problem: ConvProblem) -> Compute:
    g = problem.geometry
    if is_shift(g):
        return _grad_weight_shifts(problem)
    images = Images(g)

    def compute(copy: int) -> Array:
        grad_out = problem.grad_out[copy]
        result, product = np.empty(g.weight_shape, np.float32), np.empty(g.out_shape, np.float32)
        for kh, kw, seen in images.taps(images.pad(problem.x[copy])):
            if is_number(g):
                np.multiply(seen, grad_out, out=product).sum(axis=(0, 1, 2), out=result[kh, kw, 0])
            elif g.G == 1:
                result[kh, kw] = np.tensordot(seen, grad_out, axes=((0, 1, 2), (0, 1, 2)))
            else:
                grouped = np.einsum("nhwgi,nhwgo->igo", by_group(g, seen), by_group(g, grad_out))
                result[kh, kw] = grouped.reshape(-1, g.OC)
        return result

    return compute


def _forward_shifts(problem: ConvProblem) -> Compute:
    g, grid = problem.geometry, Grid(problem.geometry)

    def compute(copy: int) -> Array:
        padded, out = grid.pad(problem.x[copy]), np.empty(g.out_shape, np.float32)
        for block in grid.grid_blocks:
            pixels = padded[block].reshape(-1, g.IC)
            results = grid.results[: block.stop - block.start]
            rows = results.reshape(-1, g.OC)
            np.matmul(pixels, problem.weight[copy][0, 0], out=rows)
            for kh, kw, shift in grid.shifts():
                if shift:
                    grid.add_product(rows[: len(rows) - shift], pixels[shift:], problem.weight[copy][kh, kw])
            out[block] = results[:, : g.OH, : g.OW]
        return out

    return compute


def _grad_x_shifts(problem: ConvProblem) -> Compute:
    g, grid = problem.geometry, Grid(problem.geometry)

    def compute(copy: int) -> Array:
        result = np.empty(grid.padded.shape, np.float32)
        for block in grid.grid_blocks:
            pixels, results = result[block].reshape(-1, g.IC), grid.spread(problem.grad_out[copy][block])
            np.matmul(results, problem.weight[copy][0, 0].T, out=pixels)
            for kh, kw, shift in grid.shifts():
                if shift:
                    grid.add_product(pixels[shift:], results[: len(pixels) - shift], problem.weight[copy][kh, kw].T)
        return result[grid.inside]

    return compute


def _grad_weight_shifts(problem: ConvProblem) -> Compute:
    g, grid = problem.geometry, Grid(problem.geometry)

    def compute(copy: int) -> Array:
        padded, result = grid.pad(problem.x[copy]), np.zeros(g.weight_shape, np.float32)
        for block in grid.grid_blocks:
            pixels, results = padded[block].reshape(-1, g.IC), grid.spread(problem.grad_out[copy][block])
            for kh, kw, shift in grid.shifts():
                result[kh, kw] += pixels[shift:].T @ results[: len(pixels) - shift]
        return result

    return compute
