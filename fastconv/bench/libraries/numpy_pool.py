"""Pooling in NumPy, one position of the window at a time: a strided view of all images, as large as the result."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

import numpy as np
from numpy.typing import NDArray

from fastconv.bench.libraries.numpy_conv import Compute
from fastconv.bench.problems import Array, Pooling, PoolProblem


class Border:
    """Memory for one image batch with its padding, made once and filled with *value* there."""

    def __init__(self, geometry: Pooling, value: float) -> None:
        self.geometry = geometry
        N, IH, IW, C = geometry.x_shape
        (top, bottom), (left, right) = geometry.padding
        self.array = np.full((N, IH + top + bottom, IW + left + right, C), value, np.float32)
        self.inside = self.array[:, top : top + IH, left : left + IW]

    def around(self, x: Array) -> Array:
        """The images with their border; without a border, themselves."""
        if self.array.shape == x.shape:
            return x
        self.inside[...] = x
        return self.array


def positions(g: Pooling, padded: Array) -> Iterator[tuple[int, int, Array]]:
    """(kh, kw, view of the pixels at this position of every window)."""
    _, OH, OW, _ = g.out_shape
    for kh in range(g.kernel_size[0]):
        for kw in range(g.kernel_size[1]):
            rows = slice(kh, kh + (OH - 1) * g.stride[0] + 1, g.stride[0])
            yield kh, kw, padded[:, rows, kw : kw + (OW - 1) * g.stride[1] + 1 : g.stride[1]]


def max_forward(problem: PoolProblem) -> Compute:
    g, border = problem.geometry, Border(problem.geometry, -np.inf)

    def compute(copy: int) -> Array:
        (_, _, first), *rest = positions(g, border.around(problem.x[copy]))
        out = first.copy()
        for _, _, seen in rest:
            np.maximum(out, seen, out=out)
        return out

    return compute


def winners(g: Pooling, padded: Array) -> NDArray[np.intp]:
    """The number kh * KW + kw of the first largest pixel of each window."""
    best = np.full(g.out_shape, -np.inf, np.float32)
    winner = np.zeros(g.out_shape, np.intp)
    for kh, kw, seen in positions(g, padded):
        larger = seen > best
        np.copyto(best, seen, where=larger)
        winner[larger] = kh * g.kernel_size[1] + kw
    return winner


def max_grad_x(problem: PoolProblem) -> Compute:
    g = problem.geometry
    winner = winners(g, Border(g, -np.inf).around(problem.x[0]))
    result = Border(g, 0)

    def compute(copy: int) -> Array:
        result.array[...] = 0
        for kh, kw, seen in positions(g, result.array):
            seen += np.where(winner == kh * g.kernel_size[1] + kw, problem.grad_out[copy], np.float32(0))
        return result.inside.copy()

    return compute


def average_forward(problem: PoolProblem) -> Compute:
    g, border = problem.geometry, Border(problem.geometry, 0)
    share = np.float32(1 / prod(g.kernel_size))

    def compute(copy: int) -> Array:
        (_, _, first), *rest = positions(g, border.around(problem.x[copy]))
        out = first.copy()
        for _, _, seen in rest:
            out += seen
        out *= share
        return out

    return compute


def average_grad_x(problem: PoolProblem) -> Compute:
    g, border = problem.geometry, Border(problem.geometry, 0)
    share = np.float32(1 / prod(g.kernel_size))

    def compute(copy: int) -> Array:
        border.array[...] = 0
        part = problem.grad_out[copy] * share
        for _, _, seen in positions(g, border.array):
            seen += part
        return border.inside.copy()

    return compute


def global_forward(problem: PoolProblem) -> Compute:
    return lambda copy: problem.x[copy].mean(axis=(1, 2), keepdims=True)


def global_grad_x(problem: PoolProblem) -> Compute:
    shape = problem.geometry.x_shape
    share = np.float32(1 / prod(problem.geometry.kernel_size))
    return lambda copy: np.ascontiguousarray(np.broadcast_to(problem.grad_out[copy] * share, shape))
