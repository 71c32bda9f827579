"""Activation functions, forward and backward, and the pass that adds a bias before one.

`activate` is the piece that other kernels call on numbers they hold in cache: a convolution applies it to each finished
tile, so that a fused activation costs no second pass over memory.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import prange

from fastconv import _jit, threads
from fastconv.cpu.elementary import FOUR, TWO, ZERO, normal_bell, normal_cdf, sigmoid, sigmoid_slope, tanh

#: The slope of ``leaky_relu`` below 0: that of Keras's activation of this name.
LEAKY_SLOPE = 0.2

_LINEAR, _RELU, _RELU6, _LEAKY_RELU, _SIGMOID, _TANH, _SILU, _GELU = range(8)

#: Name of an element-wise activation -> the code by which kernels know it.
ACTIVATIONS: dict[str | None, int] = {
    None: _LINEAR,
    "linear": _LINEAR,
    "relu": _RELU,
    "relu6": _RELU6,
    "leaky_relu": _LEAKY_RELU,
    "sigmoid": _SIGMOID,
    "tanh": _TANH,
    "silu": _SILU,
    "gelu": _GELU,
}

# Elements of one task: 64 KiB of float32, so that the block stays in a core's cache between bias and activation.
TASK_ELEMENTS = 16 * 1024
# Arithmetic operations per element, for the decision between one thread and several.
_WORK_PER_ELEMENT = 16

_SIX = np.float32(6)
# Where sigmoid and the normal distribution have long reached their limits, in float64 too.  Without this bound on the
# factor, ``x * sigmoid(x)`` at minus infinity would be -inf * 0.
FLAT = np.float32(1000)
DENSITY_AT_ZERO = 1 / math.sqrt(2 * math.pi)


def activation_code(name: str | None) -> int:
    """The code of an element-wise activation; every operation that fuses one asks here."""
    if not isinstance(name, str | None) or name not in ACTIVATIONS:
        names = ", ".join(repr(key) for key in ACTIVATIONS)
        raise ValueError(f"activation must be one of {names}. Received: activation={name!r}")
    return ACTIVATIONS[name]


@_jit.tasks
def activate(values, start, count, code):
    """Apply activation *code* in place to ``values[start : start + count]`` of a flat array.

    The choice lies outside the loops and no loop has a branch, so each becomes one vectorised loop.  (They run over a
    slice: an index that LLVM cannot prove positive would keep it from vectorising.)
    """
    run = values[start : start + count]
    if code == _RELU:
        for i in range(run.size):
            run[i] = ZERO if run[i] < ZERO else run[i]
    elif code == _RELU6:
        for i in range(run.size):
            above = ZERO if run[i] < ZERO else run[i]
            run[i] = _SIX if above > _SIX else above
    elif code == _LEAKY_RELU:
        slope = values.dtype.type(LEAKY_SLOPE)
        for i in range(run.size):
            run[i] = slope * run[i] if run[i] < ZERO else run[i]
    elif code == _SIGMOID:
        for i in range(run.size):
            run[i] = sigmoid(run[i])
    elif code == _TANH:
        for i in range(run.size):
            run[i] = tanh(run[i])
    elif code == _SILU:
        for i in range(run.size):
            factor = -FLAT if run[i] < -FLAT else run[i]
            run[i] = factor * sigmoid(run[i])
    elif code == _GELU:
        for i in range(run.size):
            factor = -FLAT if run[i] < -FLAT else run[i]
            run[i] = factor * normal_cdf(run[i])


@_jit.inline
def bounded(x):
    """*x* as a factor of a slope that has died out at both ends: inf * 0 is meant to be 0."""
    x = -FLAT if x < -FLAT else x
    return FLAT if x > FLAT else x


@_jit.inline
def slope_product(grad_out, x, grad_x, code):
    """``grad_x = grad_out * slope(x)`` for activation *code*, flat runs of one size; one vectorised loop each."""
    if code == _RELU:
        for i in range(x.size):
            grad_x[i] = ZERO if x[i] <= ZERO else grad_out[i]
    elif code == _RELU6:
        for i in range(x.size):
            below = grad_out[i] if x[i] < _SIX else ZERO
            grad_x[i] = below if x[i] > ZERO else ZERO
    elif code == _LEAKY_RELU:
        slope = x.dtype.type(LEAKY_SLOPE)
        for i in range(x.size):
            grad_x[i] = grad_out[i] if x[i] > ZERO else slope * grad_out[i]
    elif code == _SIGMOID:
        for i in range(x.size):
            grad_x[i] = grad_out[i] * sigmoid_slope(x[i])
    elif code == _TANH:
        # tanh(x) = 2 sigmoid(2 x) - 1
        for i in range(x.size):
            grad_x[i] = grad_out[i] * FOUR * sigmoid_slope(TWO * x[i])
    elif code == _SILU:
        for i in range(x.size):
            grad_x[i] = grad_out[i] * (sigmoid(x[i]) + bounded(x[i]) * sigmoid_slope(x[i]))
    elif code == _GELU:
        density_at_zero = x.dtype.type(DENSITY_AT_ZERO)
        for i in range(x.size):
            grad_x[i] = grad_out[i] * (normal_cdf(x[i]) + bounded(x[i]) * (density_at_zero * normal_bell(x[i])))
    else:
        for i in range(x.size):
            grad_x[i] = grad_out[i]


# ---- forward ------------------------------------------------------------------------------------------------------


@_jit.inline
def add_bias(x, bias, out, start, stop):
    """``out = x + bias`` for elements *start* to *stop*, which may lie anywhere in the rows that have one bias each."""
    if bias.size == 0:
        source, target = x[start:stop], out[start:stop]
        for i in range(source.size):
            target[i] = source[i]
    else:
        at = start
        while at < stop:
            channel = at % bias.size
            count = min(bias.size - channel, stop - at)
            source, shift, target = x[at : at + count], bias[channel : channel + count], out[at : at + count]
            for i in range(count):
                target[i] = source[i] + shift[i]
            at += count


@_jit.tasks
def forward_tasks(x, bias, out, code, first, last):
    """Blocks *first* to *last* of ``out = activation(x + bias)``, all arrays flat; an empty *bias* is none.

    A block is written, then activated while it is in cache.  Each output element has one writer; *out* may be *x*.
    """
    for task in range(first, last):
        start = task * TASK_ELEMENTS
        stop = min(start + TASK_ELEMENTS, x.size)
        add_bias(x, bias, out, start, stop)
        activate(out, start, stop - start, code)


@_jit.kernel
def activation_forward_serial(x, bias, out, code, tasks):
    forward_tasks(x, bias, out, code, 0, tasks)


@_jit.parallel_kernel
def activation_forward_parallel(workers, x, bias, out, code, tasks):
    for worker in prange(workers):
        forward_tasks(x, bias, out, code, tasks * worker // workers, tasks * (worker + 1) // workers)


def activation_forward(x: Any, bias: Any, out: Any, code: int) -> None:
    """``out = activation(x + bias)`` for contiguous arrays of one dtype; *bias*, or None, is along the last axis."""
    x, out = x.reshape(-1), out.reshape(-1)
    bias = np.empty(0, x.dtype) if bias is None else bias
    workers = threads.worker_count(x.size * _WORK_PER_ELEMENT)
    tasks = -(-x.size // TASK_ELEMENTS)
    threads.run(activation_forward_serial, activation_forward_parallel, workers, x, bias, out, code, tasks)


# ---- backward -----------------------------------------------------------------------------------------------------


@_jit.tasks
def backward_tasks(grad_out, x, grad_x, code, first, last):
    """Blocks *first* to *last* of ``grad_x = grad_out * slope(x)``, all arrays flat; each element has one writer."""
    for task in range(first, last):
        start = task * TASK_ELEMENTS
        stop = min(start + TASK_ELEMENTS, x.size)
        slope_product(grad_out[start:stop], x[start:stop], grad_x[start:stop], code)


@_jit.kernel
def activation_backward_serial(grad_out, x, grad_x, code, tasks):
    backward_tasks(grad_out, x, grad_x, code, 0, tasks)


@_jit.parallel_kernel
def activation_backward_parallel(workers, grad_out, x, grad_x, code, tasks):
    for worker in prange(workers):
        backward_tasks(grad_out, x, grad_x, code, tasks * worker // workers, tasks * (worker + 1) // workers)


def activation_backward(grad_out: Any, x: Any, grad_x: Any, code: int) -> None:
    """``grad_x = grad_out * slope(x)`` for contiguous arrays of one shape and dtype."""
    grad_out, x, grad_x = grad_out.reshape(-1), x.reshape(-1), grad_x.reshape(-1)
    workers = threads.worker_count(x.size * _WORK_PER_ELEMENT)
    tasks = -(-x.size // TASK_ELEMENTS)
    threads.run(activation_backward_serial, activation_backward_parallel, workers, grad_out, x, grad_x, code, tasks)
