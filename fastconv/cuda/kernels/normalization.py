"""The kernels of batch normalisation: one thread for each number, or for each channel."""

from __future__ import annotations

import math
from functools import lru_cache

from fastconv.cuda.device import Kernel, target
from fastconv.cuda.kernels.elementary import fma
from fastconv.cuda.kernels.elements import NUMBERS, element, kernel_of_elements, remainder

cuda = target()
float32, int32 = cuda.types.float32, cuda.types.int32


@lru_cache
def normalize() -> Kernel:
    """The kernel of the forward pass."""

    def batch_normalize(x, mean, scale, offset, out):
        """``out = (x - mean) * scale + offset``, fused as on the CPU; each element has one writer."""
        i = element()
        if i < out.size:
            c = remainder(i, int32(mean.size))
            out[i] = fma(x[i] - mean[c], scale[c], offset[c])

    return kernel_of_elements(batch_normalize, *[NUMBERS] * 5)


@lru_cache
def normalize_backward() -> Kernel:
    """The kernel of the gradient by x."""

    def batch_normalize_backward(grad_out, x, mean, scale, slope, offset, grad_x):
        """``grad_x = grad_out * scale + ((x - mean) * slope + offset)``; each element has one writer."""
        i = element()
        if i < grad_x.size:
            c = remainder(i, int32(mean.size))
            grad_x[i] = fma(grad_out[i], scale[c], fma(x[i] - mean[c], slope[c], offset[c]))

    return kernel_of_elements(batch_normalize_backward, *[NUMBERS] * 7)


@cuda.jit(device=True)
def inverse_deviation(variance, epsilon):
    return float32(1) / math.sqrt(variance + epsilon)


@lru_cache
def mean() -> Kernel:
    """The kernel that divides sums by their count."""

    def quotient(sums, out, count):
        c = element()
        if c < out.size:
            out[c] = sums[c] / count

    return kernel_of_elements(quotient, NUMBERS, NUMBERS, float32)


@lru_cache
def scale() -> Kernel:
    """The kernel of each channel's factor."""

    def channel_scale(gamma, variance, out, epsilon):
        """``out = gamma / sqrt(variance + epsilon)``, as a product with the inverse."""
        c = element()
        if c < out.size:
            out[c] = gamma[c] * inverse_deviation(variance[c], epsilon)

    return kernel_of_elements(channel_scale, NUMBERS, NUMBERS, NUMBERS, float32)


@lru_cache
def slopes() -> Kernel:
    """The kernel of what the backward pass needs for each channel."""

    def channel_slopes(gamma, variance, products, grad_beta, grad_gamma, scale, slope, offset, epsilon, count):
        """grad_gamma from the sums of ``grad_out * (x - mean)``, and the three factors of `normalize_backward`."""
        c = element()
        if c < scale.size:
            inverse = inverse_deviation(variance[c], epsilon)
            of_gamma = products[c] * inverse
            factor = gamma[c] * inverse
            grad_gamma[c] = of_gamma
            scale[c] = factor
            slope[c] = -factor * inverse * of_gamma / count
            offset[c] = -factor * grad_beta[c] / count

    return kernel_of_elements(channel_slopes, *[NUMBERS] * 8, float32, float32)
