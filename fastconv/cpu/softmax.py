"""Softmax along the rows of a matrix, its logarithm, and its gradient."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import prange
from numpy.typing import NDArray

from fastconv import _jit, threads
from fastconv.cpu.elementary import exp
from fastconv.memory import empty

# Elements of one task, in whole rows.
_TASK_ELEMENTS = 16 * 1024
# Arithmetic operations per element, for the decision between one thread and several.
_WORK_PER_ELEMENT = 24


@_jit.tasks
def forward_tasks(x, out, logarithm, rows_of_task, first, last):
    """Tasks *first* to *last* of ``out = exp(x - max) / sum(exp(x - max))``, or of its logarithm, row by row.

    Three passes over a row that is in cache: the largest number, the vectorised exponentials, and their sum in float64
    in the order of the row.  Each row has one writer.
    """
    C = x.shape[1]
    for row in range(first * rows_of_task, min(last * rows_of_task, x.shape[0])):
        source, target = x[row], out[row]
        largest = source[0]
        for c in range(C):
            largest = source[c] if source[c] > largest else largest
        for c in range(C):
            target[c] = exp(source[c] - largest)
        total = 0.0
        for c in range(C):
            total += target[c]
        if logarithm:
            log_total = x.dtype.type(math.log(total))
            for c in range(C):
                target[c] = (source[c] - largest) - log_total
        else:
            divisor = x.dtype.type(total)
            for c in range(C):
                target[c] = target[c] / divisor


@_jit.kernel
def softmax_forward_serial(x, out, logarithm, rows_of_task, tasks):
    forward_tasks(x, out, logarithm, rows_of_task, 0, tasks)


@_jit.parallel_kernel
def softmax_forward_parallel(workers, x, out, logarithm, rows_of_task, tasks):
    for worker in prange(workers):
        forward_tasks(x, out, logarithm, rows_of_task, tasks * worker // workers, tasks * (worker + 1) // workers)


def softmax_forward(x: Any, *, logarithm: bool = False) -> NDArray[Any]:
    """Softmax, or its logarithm, over the last axis of a contiguous array."""
    out = empty(x.shape, x.dtype)
    rows, rows_of_task, tasks = _split(x)
    workers = threads.worker_count(x.size * _WORK_PER_ELEMENT)
    arguments = (rows, out.reshape(rows.shape), logarithm, rows_of_task, tasks)
    threads.run(softmax_forward_serial, softmax_forward_parallel, workers, *arguments)
    return out


@_jit.tasks
def backward_tasks(grad_out, out, grad_x, rows_of_task, first, last):
    """Tasks *first* to *last* of ``grad_x = out * (grad_out - sum(grad_out * out))``, row by row.

    The sum is taken in float64 in the order of the row.  Each row has one writer.
    """
    C = out.shape[1]
    for row in range(first * rows_of_task, min(last * rows_of_task, out.shape[0])):
        cotangent, probability, target = grad_out[row], out[row], grad_x[row]
        total = 0.0
        for c in range(C):
            total += np.float64(cotangent[c]) * np.float64(probability[c])
        mean = out.dtype.type(total)
        for c in range(C):
            target[c] = probability[c] * (cotangent[c] - mean)


@_jit.kernel
def softmax_backward_serial(grad_out, out, grad_x, rows_of_task, tasks):
    backward_tasks(grad_out, out, grad_x, rows_of_task, 0, tasks)


@_jit.parallel_kernel
def softmax_backward_parallel(workers, grad_out, out, grad_x, rows_of_task, tasks):
    for worker in prange(workers):
        backward_tasks(grad_out, out, grad_x, rows_of_task, tasks * worker // workers, tasks * (worker + 1) // workers)


def softmax_backward(grad_out: Any, out: Any) -> NDArray[Any]:
    """The gradient of `softmax_forward`'s input from its output *out*; contiguous arrays of one shape and dtype."""
    grad_x = empty(out.shape, out.dtype)
    rows, rows_of_task, tasks = _split(out)
    workers = threads.worker_count(out.size * _WORK_PER_ELEMENT)
    arguments = (grad_out.reshape(rows.shape), rows, grad_x.reshape(rows.shape), rows_of_task, tasks)
    threads.run(softmax_backward_serial, softmax_backward_parallel, workers, *arguments)
    return grad_x


def cross_entropy(logits: Any, labels: Any, label_smoothing: float = 0.0) -> NDArray[Any]:
    """``-sum over c of target[n, c] * log(softmax(logits[n]))[c]`` for each row of (N, C) *logits*.

    *labels* are class numbers (N,) or probabilities (N, C).
    """
    log_softmax = softmax_forward(logits, logarithm=True)
    if labels.ndim == 1 and not label_smoothing:
        return 0 - np.take_along_axis(log_softmax, labels[:, np.newaxis], axis=1)[:, 0]
    target = _target(labels, logits, label_smoothing)
    products = np.zeros_like(logits)
    np.multiply(target, log_softmax, out=products, where=target != 0)
    losses: NDArray[Any] = 0 - products.sum(axis=1)
    return losses


def cross_entropy_backward(grad_losses: Any, logits: Any, labels: Any, label_smoothing: float = 0.0) -> NDArray[Any]:
    """``(softmax(logits) * sum(target) - target) * grad_losses``: *grad_losses* is a number, or an array (N,)."""
    N = len(logits)
    grad_logits = softmax_forward(logits)
    if labels.ndim == 1 and not label_smoothing:
        grad_logits[np.arange(N), labels] -= 1
    else:
        target = _target(labels, logits, label_smoothing)
        grad_logits *= target.sum(axis=1, keepdims=True)
        grad_logits -= target
    grad_logits *= np.broadcast_to(np.asarray(grad_losses, logits.dtype), N)[:, np.newaxis]
    return grad_logits


def _target(labels: Any, logits: Any, label_smoothing: float) -> NDArray[Any]:
    """The smoothed distribution over the classes that each sample should have."""
    N, C = logits.shape
    if labels.ndim == 2:
        target = labels
    else:
        target = np.zeros_like(logits)
        target[np.arange(N), labels] = 1
    smoothed: NDArray[Any] = target * logits.dtype.type(1 - label_smoothing) + logits.dtype.type(label_smoothing / C)
    return smoothed


def _split(x: Any) -> tuple[Any, int, int]:
    """x as a matrix, rows of one task (a fixed number for a given width), number of tasks."""
    if x.size == 0:
        return x.reshape(0, 1), 1, 0
    rows = x.reshape(-1, x.shape[-1])
    rows_of_task = max(1, _TASK_ELEMENTS // rows.shape[1])
    return rows, rows_of_task, -(-rows.shape[0] // rows_of_task)
