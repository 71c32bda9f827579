"""The kernels of the rectifier: one thread for each number."""

from __future__ import annotations

from functools import lru_cache

from fastconv.cuda.device import Kernel, target
from fastconv.cuda.kernels.elements import NUMBERS, element, kernel_of_elements

float32 = target().types.float32


@lru_cache
def forward() -> Kernel:
    """The kernel that rectifies."""

    def rectify(x, out, slope, limit, threshold):
        """``slope * (x - threshold)`` below *threshold*, or 0 for a slope of 0; at most *limit*."""
        i = element()
        if i < out.size:
            value = x[i]
            if value < threshold:
                value = slope * (value - threshold) if slope != 0 else float32(0)
            out[i] = limit if value > limit else value

    return kernel_of_elements(rectify, NUMBERS, NUMBERS, float32, float32, float32)


@lru_cache
def backward() -> Kernel:
    """The kernel of the gradient."""

    def rectify_backward(grad_out, x, grad_x, slope, limit, threshold):
        """``grad_out``, times *slope* up to *threshold*, 0 from *limit* on; each element has one writer."""
        i = element()
        if i < grad_x.size:
            gradient = grad_out[i]
            if x[i] <= threshold:
                gradient = slope * gradient
            grad_x[i] = float32(0) if x[i] >= limit else gradient

    return kernel_of_elements(rectify_backward, NUMBERS, NUMBERS, NUMBERS, float32, float32, float32)
