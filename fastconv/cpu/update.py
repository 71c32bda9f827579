"""Optimizer steps, in place on flat parameters and their state: one pass over memory each."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import prange

from fastconv import _jit, threads

_TASK_ELEMENTS = 16 * 1024
# Arithmetic operations per element, for the decision between one thread and several.
_WORK_PER_ELEMENT = 8


# ---- stochastic gradient descent ----------------------------------------------------------------------------------


@_jit.flushing_tasks
def sgd_tasks(parameter, gradient, velocity, learning_rate, momentum, nesterov, first, last):
    """Blocks *first* to *last* of one step of gradient descent; an empty *velocity* is no momentum.

    Each element is read and written by one thread.
    """
    for task in range(first, last):
        start, stop = task * _TASK_ELEMENTS, (task + 1) * _TASK_ELEMENTS
        p, g, v = parameter[start:stop], gradient[start:stop], velocity[start:stop]
        if velocity.size == 0:
            for i in range(p.size):
                p[i] -= learning_rate * g[i]
        elif nesterov:
            for i in range(p.size):
                step = learning_rate * g[i]
                v[i] = momentum * v[i] - step
                p[i] += momentum * v[i] - step
        else:
            for i in range(p.size):
                v[i] = momentum * v[i] - learning_rate * g[i]
                p[i] += v[i]


@_jit.kernel
def sgd_serial(parameter, gradient, velocity, learning_rate, momentum, nesterov, tasks):
    sgd_tasks(parameter, gradient, velocity, learning_rate, momentum, nesterov, 0, tasks)


@_jit.parallel_kernel
def sgd_parallel(workers, parameter, gradient, velocity, learning_rate, momentum, nesterov, tasks):
    for worker in prange(workers):
        first, last = tasks * worker // workers, tasks * (worker + 1) // workers
        sgd_tasks(parameter, gradient, velocity, learning_rate, momentum, nesterov, first, last)


def sgd_update(
    parameter: Any, gradient: Any, velocity: Any, *, learning_rate: float, momentum: float = 0.0, nesterov: bool = False
) -> None:
    """One step of Keras's SGD on contiguous arrays of one dtype; *velocity* is None without momentum.

    ``velocity = momentum * velocity - learning_rate * gradient``, then ``parameter += velocity``, or with *nesterov*
    ``parameter += momentum * velocity - learning_rate * gradient``.
    """
    number = parameter.dtype.type
    velocity = np.empty(0, parameter.dtype) if velocity is None else _flat(velocity)
    arguments = (_flat(parameter), gradient.reshape(-1), velocity, number(learning_rate), number(momentum), nesterov)
    _run(sgd_serial, sgd_parallel, parameter.size, arguments)


# ---- Adam ---------------------------------------------------------------------------------------------------------


@_jit.flushing_tasks
def adam_tasks(parameter, gradient, mean, square, step, mean_rate, square_rate, epsilon, first, last):
    """Blocks *first* to *last* of one step of Adam; each element is read and written by one thread."""
    for task in range(first, last):
        start, stop = task * _TASK_ELEMENTS, (task + 1) * _TASK_ELEMENTS
        p, g, m, v = parameter[start:stop], gradient[start:stop], mean[start:stop], square[start:stop]
        for i in range(p.size):
            m[i] += (g[i] - m[i]) * mean_rate
            v[i] += (g[i] * g[i] - v[i]) * square_rate
            p[i] -= m[i] * step / (math.sqrt(v[i]) + epsilon)


@_jit.kernel
def adam_serial(parameter, gradient, mean, square, step, mean_rate, square_rate, epsilon, tasks):
    adam_tasks(parameter, gradient, mean, square, step, mean_rate, square_rate, epsilon, 0, tasks)


@_jit.parallel_kernel
def adam_parallel(workers, parameter, gradient, mean, square, step, mean_rate, square_rate, epsilon, tasks):
    for worker in prange(workers):
        first, last = tasks * worker // workers, tasks * (worker + 1) // workers
        adam_tasks(parameter, gradient, mean, square, step, mean_rate, square_rate, epsilon, first, last)


def adam_step(iteration: int, learning_rate: float, beta_1: float, beta_2: float) -> float:
    """The length of a step of Adam, with which averages that began at zero count in full."""
    return learning_rate * math.sqrt(1 - beta_2**iteration) / (1 - beta_1**iteration)


def adam_update(
    parameter: Any,
    gradient: Any,
    mean: Any,
    square: Any,
    *,
    iteration: int,
    learning_rate: float,
    beta_1: float = 0.9,
    beta_2: float = 0.999,
    epsilon: float = 1e-7,
) -> None:
    """Step number *iteration* (from 1) of Keras's Adam on contiguous arrays of one dtype.

    ``mean += (gradient - mean) * (1 - beta_1)`` and ``square += (gradient**2 - square) * (1 - beta_2)``, then
    ``parameter -= mean * learning_rate * sqrt(1 - beta_2**t) / (1 - beta_1**t) / (sqrt(square) + epsilon)``.
    (Kingma and Ba, "Adam: a method for stochastic optimization", 2015, end of section 2.)
    """
    step = adam_step(iteration, learning_rate, beta_1, beta_2)
    numbers = (parameter.dtype.type(number) for number in (step, 1 - beta_1, 1 - beta_2, epsilon))
    arguments = (_flat(parameter), gradient.reshape(-1), _flat(mean), _flat(square), *numbers)
    _run(adam_serial, adam_parallel, parameter.size, arguments)


# ---- RMSprop ------------------------------------------------------------------------------------------------------


@_jit.flushing_tasks
def rmsprop_tasks(parameter, gradient, square, mean, velocity, step, old, new, momentum, epsilon, first, last):
    """Blocks *first* to *last* of one step of RMSprop.

    Without *mean* it is not centered, without *velocity* it has no momentum.  Each element is read and written by one
    thread.
    """
    for task in range(first, last):
        start, stop = task * _TASK_ELEMENTS, (task + 1) * _TASK_ELEMENTS
        p, g, s = parameter[start:stop], gradient[start:stop], square[start:stop]
        m, v = mean[start:stop], velocity[start:stop]
        for i in range(p.size):
            s[i] = old * s[i] + new * (g[i] * g[i])
            spread = s[i]
            if mean.size > 0:
                m[i] = old * m[i] + new * g[i]
                spread -= m[i] * m[i]
            change = step * g[i] / math.sqrt(spread + epsilon)
            if velocity.size > 0:
                v[i] = momentum * v[i] + change
                change = v[i]
            p[i] -= change


@_jit.kernel
def rmsprop_serial(parameter, gradient, square, mean, velocity, step, old, new, momentum, epsilon, tasks):
    rmsprop_tasks(parameter, gradient, square, mean, velocity, step, old, new, momentum, epsilon, 0, tasks)


@_jit.parallel_kernel
def rmsprop_parallel(workers, parameter, gradient, square, mean, velocity, step, old, new, momentum, epsilon, tasks):
    for worker in prange(workers):
        first, last = tasks * worker // workers, tasks * (worker + 1) // workers
        rmsprop_tasks(parameter, gradient, square, mean, velocity, step, old, new, momentum, epsilon, first, last)


def rmsprop_update(
    parameter: Any,
    gradient: Any,
    square: Any,
    mean: Any,
    velocity: Any,
    *,
    learning_rate: float,
    rho: float = 0.9,
    momentum: float = 0.0,
    epsilon: float = 1e-7,
) -> None:
    """One step of Keras's RMSprop on contiguous arrays of one dtype; *mean* and *velocity* may be None.

    ``square = rho * square + (1 - rho) * gradient**2``, and the same for *mean* with the gradient itself; then
    ``velocity = momentum * velocity + learning_rate * gradient / sqrt(square - mean**2 + epsilon)`` and ``parameter -=
    velocity``.
    """
    nothing = np.empty(0, parameter.dtype)
    state = (_flat(nothing if array is None else array) for array in (square, mean, velocity))
    numbers = (parameter.dtype.type(number) for number in (learning_rate, rho, 1 - rho, momentum, epsilon))
    _run(rmsprop_serial, rmsprop_parallel, parameter.size, (_flat(parameter), gradient.reshape(-1), *state, *numbers))


def _run(serial: Any, parallel: Any, size: int, arguments: tuple[Any, ...]) -> None:
    workers = threads.worker_count(size * _WORK_PER_ELEMENT)
    threads.run(serial, parallel, workers, *arguments, -(-size // _TASK_ELEMENTS))


def _flat(array: Any) -> Any:
    """The same memory, flat; a copy would lose the update."""
    if not array.flags.c_contiguous:
        raise ValueError(f"parameters and their state must be contiguous. Received: strides={array.strides}")
    return array.reshape(-1)
