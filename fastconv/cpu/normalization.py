"""Batch normalisation of a (rows, C) matrix: its two passes, and what lies between; its sums are in reduction.py.

Rows of few channels are joined to longer ones, as there: the vectors of per-channel numbers are repeated to that
length.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange
from numpy.typing import NDArray

from fastconv import _jit, threads
from fastconv.cpu.elementary import fma
from fastconv.cpu.reduction import ROWS_OF_BLOCK, column_products, column_sums, repeats
from fastconv.memory import empty

# Arithmetic operations per element, for the decision between one thread and several.
_WORK_PER_ELEMENT = 4


@_jit.tasks
def forward_tasks(x, mean, scale, offset, out, span, first, last):
    """Blocks *first* to *last*, of *span* numbers each, of ``out = (x - mean) * scale + offset``; x and out are flat.

    The mean is taken off first: ``x * scale - mean * scale`` would cancel where the mean is large.  The inner loop runs
    along memory.  Each output element has one writer.
    """
    for start in range(first * span, min(last * span, x.size), mean.size):
        source, target = x[start : start + mean.size], out[start : start + mean.size]
        for j in range(source.size):
            target[j] = fma(source[j] - mean[j], scale[j], offset[j])


@_jit.kernel
def normalize_serial(x, mean, scale, offset, out, span, tasks):
    forward_tasks(x, mean, scale, offset, out, span, 0, tasks)


@_jit.parallel_kernel
def normalize_parallel(workers, x, mean, scale, offset, out, span, tasks):
    for worker in prange(workers):
        first, last = tasks * worker // workers, tasks * (worker + 1) // workers
        forward_tasks(x, mean, scale, offset, out, span, first, last)


def normalize(x: Any, mean: Any, scale: Any, offset: Any) -> NDArray[Any]:
    """``(x - mean) * scale + offset`` for a contiguous (rows, C) matrix and vectors (C,) of one dtype."""
    out = empty(x.shape, x.dtype)
    arguments = (*_rows(x, mean, scale, offset), out.reshape(-1), *_tasks(x))
    threads.run(normalize_serial, normalize_parallel, threads.worker_count(x.size * _WORK_PER_ELEMENT), *arguments)
    return out


@_jit.tasks
def backward_tasks(grad_out, x, mean, scale, slope, offset, grad_x, span, first, last):
    """Blocks *first* to *last* of ``grad_x = grad_out * scale + (x - mean) * slope + offset``; the matrices are flat.

    The inner loop runs along memory.  Each output element has one writer.
    """
    for start in range(first * span, min(last * span, x.size), mean.size):
        stop = start + mean.size
        cotangent, source, target = grad_out[start:stop], x[start:stop], grad_x[start:stop]
        for j in range(source.size):
            target[j] = fma(cotangent[j], scale[j], fma(source[j] - mean[j], slope[j], offset[j]))


@_jit.kernel
def normalize_backward_serial(grad_out, x, mean, scale, slope, offset, grad_x, span, tasks):
    backward_tasks(grad_out, x, mean, scale, slope, offset, grad_x, span, 0, tasks)


@_jit.parallel_kernel
def normalize_backward_parallel(workers, grad_out, x, mean, scale, slope, offset, grad_x, span, tasks):
    for worker in prange(workers):
        first, last = tasks * worker // workers, tasks * (worker + 1) // workers
        backward_tasks(grad_out, x, mean, scale, slope, offset, grad_x, span, first, last)


def normalize_backward(grad_out: Any, x: Any, mean: Any, scale: Any, slope: Any, offset: Any) -> NDArray[Any]:
    """``grad_out * scale + (x - mean) * slope + offset``: matrices (rows, C) and vectors (C,) of one dtype."""
    grad_x = empty(x.shape, x.dtype)
    arguments = (grad_out.reshape(-1), *_rows(x, mean, scale, slope, offset), grad_x.reshape(-1), *_tasks(x))
    workers = threads.worker_count(x.size * _WORK_PER_ELEMENT)
    threads.run(normalize_backward_serial, normalize_backward_parallel, workers, *arguments)
    return grad_x


def batch_norm(x: Any, gamma: Any, beta: Any, mean: Any, variance: Any, epsilon: float) -> NDArray[Any]:
    """``gamma * (x - mean) / sqrt(variance + epsilon) + beta`` with given statistics."""
    return normalize(x, mean, gamma * _inverse_deviation(variance, epsilon), beta)


def batch_norm_training(
    x: Any, gamma: Any, beta: Any, epsilon: float
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """The same with the statistics of the (rows, C) matrix itself; (out, mean, variance)."""
    count = x.dtype.type(max(1, len(x)))
    mean = column_sums(x) / count
    variance = column_products(x, x, mean, mean) / count
    return batch_norm(x, gamma, beta, mean, variance, epsilon), mean, variance


def batch_norm_backward(
    grad_out: Any, x: Any, gamma: Any, mean: Any, variance: Any, epsilon: float
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Gradients of `batch_norm_training`: (grad_x, grad_gamma, grad_beta)."""
    inverse = _inverse_deviation(variance, epsilon)
    grad_beta = column_sums(grad_out)
    grad_gamma = column_products(grad_out, x, np.zeros_like(mean), mean) * inverse
    scale = gamma * inverse
    count = x.dtype.type(max(1, len(x)))
    slope, offset = -scale * inverse * grad_gamma / count, -scale * grad_beta / count
    return normalize_backward(grad_out, x, mean, scale, slope, offset), grad_gamma, grad_beta


def _inverse_deviation(variance: Any, epsilon: float) -> NDArray[Any]:
    inverse: NDArray[Any] = 1 / np.sqrt(variance + variance.dtype.type(epsilon))
    return inverse


def _rows(x: Any, *vectors: Any) -> tuple[Any, ...]:
    """x flat, and the per-channel vectors repeated to the length of the joined rows."""
    return x.reshape(-1), *(np.tile(vector, repeats(vector.size)) for vector in vectors)


def _tasks(x: Any) -> tuple[int, int]:
    """Numbers in one block, a multiple of the joined rows' length, and the number of blocks."""
    C = x.shape[1]
    span = ROWS_OF_BLOCK * repeats(C) * C
    return span, -(-x.size // span)
