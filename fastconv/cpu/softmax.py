"""Softmax along the rows of a matrix, its logarithm, its gradient, and the cross-entropy with labels.

Every row is one task's, or a part of one, and all its sums are float64, in the order of the row.
"""

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
_NO_CLASSES = np.empty(0, np.int64)


@_jit.inline
def exponentials(source, target):
    """Write ``exp(source - max)`` to *target*; the result is that largest number, and the sum of what was written.

    Three passes over a row that is in cache: the largest number, the vectorised exponentials, and their sum in float64
    in the order of the row.
    """
    largest = source[0]
    for c in range(source.size):
        largest = source[c] if source[c] > largest else largest
    for c in range(source.size):
        target[c] = exp(source[c] - largest)
    total = 0.0
    for c in range(source.size):
        total += target[c]
    return largest, total


# ---- softmax ------------------------------------------------------------------------------------------------------


@_jit.tasks
def forward_tasks(x, out, logarithm, rows_of_task, first, last):
    """Tasks *first* to *last* of ``out = exp(x - max) / sum(exp(x - max))``, or of its logarithm, row by row.

    Each row has one writer.
    """
    C = x.shape[1]
    for row in range(first * rows_of_task, min(last * rows_of_task, x.shape[0])):
        source, target = x[row], out[row]
        largest, total = exponentials(source, target)
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


# ---- cross-entropy ------------------------------------------------------------------------------------------------


@_jit.inline
def share_of(classes, rows, n, c, kept, spread):
    """The share of class c that sample n should have: by its class, or by its row where there are no *classes*."""
    if classes.size > 0:
        return kept + spread if classes[n] == c else spread
    return rows[n, c] * kept + spread


@_jit.tasks
def losses_tasks(logits, classes, rows, kept, spread, losses, rows_of_task, first, last):
    """Tasks *first* to *last* of ``losses[n] = -sum over c of share * log(softmax(logits[n]))[c]``.

    A class with a share of 0 takes no part: its logarithm may be minus infinity.  Each loss has one writer.
    """
    exponential = np.empty(logits.shape[1], logits.dtype)
    for n in range(first * rows_of_task, min(last * rows_of_task, logits.shape[0])):
        largest, total = exponentials(logits[n], exponential)
        log_total = logits.dtype.type(math.log(total))
        loss = 0.0
        for c in range(logits.shape[1]):
            share = share_of(classes, rows, n, c, kept, spread)
            if share != 0:
                loss += np.float64(share) * np.float64((logits[n, c] - largest) - log_total)
        losses[n] = 0 - logits.dtype.type(loss)


@_jit.kernel
def cross_entropy_serial(logits, classes, rows, kept, spread, losses, rows_of_task, tasks):
    losses_tasks(logits, classes, rows, kept, spread, losses, rows_of_task, 0, tasks)


@_jit.parallel_kernel
def cross_entropy_parallel(workers, logits, classes, rows, kept, spread, losses, rows_of_task, tasks):
    for worker in prange(workers):
        first, last = tasks * worker // workers, tasks * (worker + 1) // workers
        losses_tasks(logits, classes, rows, kept, spread, losses, rows_of_task, first, last)


def cross_entropy(logits: Any, labels: Any, label_smoothing: float = 0.0) -> NDArray[Any]:
    """``-sum over c of target[n, c] * log(softmax(logits[n]))[c]`` for each row of (N, C) *logits*.

    *labels* are class numbers (N,), int64, or probabilities (N, C); the target is ``(1 - label_smoothing) * labels +
    label_smoothing / C``.
    """
    losses = empty(logits.shape[:1], logits.dtype)
    _, rows_of_task, tasks = _split(logits)
    workers = threads.worker_count(logits.size * _WORK_PER_ELEMENT)
    arguments = (logits, *_targets(labels, logits, label_smoothing), losses, rows_of_task, tasks)
    threads.run(cross_entropy_serial, cross_entropy_parallel, workers, *arguments)
    return losses


@_jit.tasks
def logit_gradients_tasks(logits, classes, rows, kept, spread, factors, out, rows_of_task, first, last):
    """Tasks *first* to *last* of ``out = (softmax(logits) * sum of the row's shares - share) * factor``.

    *factors* are one for each row, or one for all.  Each row has one writer.
    """
    C = logits.shape[1]
    for n in range(first * rows_of_task, min(last * rows_of_task, logits.shape[0])):
        target = out[n]
        _, total = exponentials(logits[n], target)
        divisor = logits.dtype.type(total)
        shares = 0.0
        for c in range(C):
            shares += share_of(classes, rows, n, c, kept, spread)
        whole = logits.dtype.type(shares)
        factor = factors[min(n, factors.size - 1)]
        for c in range(C):
            target[c] = (target[c] / divisor * whole - share_of(classes, rows, n, c, kept, spread)) * factor


@_jit.kernel
def cross_entropy_backward_serial(logits, classes, rows, kept, spread, factors, out, rows_of_task, tasks):
    logit_gradients_tasks(logits, classes, rows, kept, spread, factors, out, rows_of_task, 0, tasks)


@_jit.parallel_kernel
def cross_entropy_backward_parallel(workers, logits, classes, rows, kept, spread, factors, out, rows_of_task, tasks):
    for worker in prange(workers):
        first, last = tasks * worker // workers, tasks * (worker + 1) // workers
        logit_gradients_tasks(logits, classes, rows, kept, spread, factors, out, rows_of_task, first, last)


def cross_entropy_backward(grad_losses: Any, logits: Any, labels: Any, label_smoothing: float = 0.0) -> NDArray[Any]:
    """``(softmax(logits) * sum(target) - target) * grad_losses``: *grad_losses* is a number, or an array (N,)."""
    out = empty(logits.shape, logits.dtype)
    _, rows_of_task, tasks = _split(logits)
    workers = threads.worker_count(logits.size * _WORK_PER_ELEMENT)
    factors = np.array(grad_losses, logits.dtype, ndmin=1)
    arguments = (logits, *_targets(labels, logits, label_smoothing), factors, out, rows_of_task, tasks)
    threads.run(cross_entropy_backward_serial, cross_entropy_backward_parallel, workers, *arguments)
    return out


def _targets(labels: Any, logits: Any, label_smoothing: float) -> tuple[Any, Any, Any, Any]:
    """Class numbers or rows, of which the other is empty; what a label is multiplied by, and what is added."""
    number = logits.dtype.type
    classes, rows = (labels, logits[:0]) if labels.ndim == 1 else (_NO_CLASSES, labels)
    return classes, rows, number(1 - label_smoothing), number(label_smoothing / logits.shape[1])


def _split(x: Any) -> tuple[Any, int, int]:
    """x as a matrix, rows of one task (a fixed number for a given width), number of tasks."""
    if x.size == 0:
        return x.reshape(0, 1), 1, 0
    rows = x.reshape(-1, x.shape[-1])
    rows_of_task = max(1, _TASK_ELEMENTS // rows.shape[1])
    return rows, rows_of_task, -(-rows.shape[0] // rows_of_task)
