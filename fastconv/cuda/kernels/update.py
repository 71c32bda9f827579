"""The kernels of optimizer steps: one thread for each parameter, which reads and writes its own state only.

The operations of `fastconv.cpu.update`, one by one and in its order, as functions: an operator would let the compiler
fuse a product and a sum, and keep denormals.
"""

from __future__ import annotations

from functools import lru_cache

from fastconv.cuda.device import Kernel, target
from fastconv.cuda.kernels.elements import NUMBERS, element, kernel_of_elements
from fastconv.cuda.kernels.intrinsics import (
    flushed_difference as minus,
    flushed_product as times,
    flushed_quotient as over,
    flushed_root as root,
    flushed_sum as plus,
)

float32 = target().types.float32


@lru_cache
def sgd(nesterov: bool) -> Kernel:
    """The kernel of gradient descent, with Nesterov's momentum or without."""

    def sgd_step(parameter, gradient, velocity, learning_rate, momentum):
        """``v = momentum * v - step`` and ``p += v``, with *nesterov* ``p += momentum * v - step``."""
        i = element()
        if i < parameter.size:
            step = times(learning_rate, gradient[i])
            if velocity.size == 0:
                parameter[i] = minus(parameter[i], step)
            else:
                speed = minus(times(momentum, velocity[i]), step)
                velocity[i] = speed
                if nesterov:
                    speed = minus(times(momentum, speed), step)
                parameter[i] = plus(parameter[i], speed)

    return kernel_of_elements(sgd_step, NUMBERS, NUMBERS, NUMBERS, float32, float32)


@lru_cache
def adam() -> Kernel:
    """The kernel of Adam."""

    def adam_step(parameter, gradient, mean, square, step, mean_rate, square_rate, epsilon):
        """Both averages move towards the gradient and its square; ``p -= mean * step / (sqrt(square) + epsilon)``."""
        i = element()
        if i < parameter.size:
            g = gradient[i]
            m = plus(mean[i], times(minus(g, mean[i]), mean_rate))
            v = plus(square[i], times(minus(times(g, g), square[i]), square_rate))
            mean[i], square[i] = m, v
            parameter[i] = minus(parameter[i], over(times(m, step), plus(root(v), epsilon)))

    return kernel_of_elements(adam_step, *[NUMBERS] * 4, *[float32] * 4)


@lru_cache
def rmsprop() -> Kernel:
    """The kernel of RMSprop, centered and with momentum where it has the arrays for it."""

    def rmsprop_step(parameter, gradient, square, mean, velocity, step, old, new, momentum, epsilon):
        """``p -= step * g / sqrt(spread + epsilon)``, or a share of the last change more; empty arrays are none."""
        i = element()
        if i < parameter.size:
            g = gradient[i]
            spread = plus(times(old, square[i]), times(new, times(g, g)))
            square[i] = spread
            if mean.size > 0:
                m = plus(times(old, mean[i]), times(new, g))
                mean[i] = m
                spread = minus(spread, times(m, m))
            change = over(times(step, g), root(plus(spread, epsilon)))
            if velocity.size > 0:
                change = plus(times(momentum, velocity[i]), change)
                velocity[i] = change
            parameter[i] = minus(parameter[i], change)

    return kernel_of_elements(rmsprop_step, *[NUMBERS] * 5, *[float32] * 5)
