"""The kernels of arithmetic, one for each operation; a thread for each number."""

from __future__ import annotations

import math
from functools import lru_cache

from fastconv.cuda.device import Kernel, target
from fastconv.cuda.kernels.elementary import exp
from fastconv.cuda.kernels.elements import NUMBERS, element, kernel_of_elements, remainder
from fastconv.cuda.kernels.intrinsics import divide

cuda = target()
float32, float64, int32 = cuda.types.float32, cuda.types.float64, cuda.types.int32


@cuda.jit(device=True)
def sum_of(left, right):
    return left + right


@cuda.jit(device=True)
def difference_of(left, right):
    return left - right


@cuda.jit(device=True)
def product_of(left, right):
    return left * right


@cuda.jit(device=True)
def quotient_of(left, right):
    return left / right


@cuda.jit(device=True)
def larger_of(left, right):
    return left if left >= right or left != left else right


@cuda.jit(device=True)
def smaller_of(left, right):
    return left if left <= right or left != left else right


@cuda.jit(device=True)
def absolute_of(number):
    return float32(abs(number))


@cuda.jit(device=True)
def sign_of(number):
    if number > 0:
        return float32(1)
    if number < 0:
        return float32(-1)
    return float32(0) if number == 0 else number


@cuda.jit(device=True)
def square_of(number):
    return number * number


@cuda.jit(device=True)
def opposite_of(number):
    return -number


@cuda.jit(device=True)
def exponential_of(number):
    return exp(number)


@cuda.jit(device=True)
def logarithm_of_one_plus(number):
    """What ``1 + number`` loses of a small number is made good by the quotient."""
    whole = float64(number)
    shifted = whole + 1.0
    kept = shifted - 1.0
    if kept == 0:
        return number
    logarithm = math.log(shifted)
    return float32(logarithm if kept == whole else logarithm * (whole / kept))


_OPERATIONS = {
    "add": sum_of,
    "subtract": difference_of,
    "multiply": product_of,
    "divide": quotient_of,
    "maximum": larger_of,
    "minimum": smaller_of,
    "absolute": absolute_of,
    "sign": sign_of,
    "square": square_of,
    "negative": opposite_of,
    "exp": exponential_of,
    "log1p": logarithm_of_one_plus,
}


@lru_cache
def mapped(operation: str) -> Kernel:
    """The kernel of a named operation on one number."""
    function = _OPERATIONS[operation]

    def map_numbers(x, out):
        """``out = function(x)``; each element has one writer."""
        i = element()
        if i < out.size:
            out[i] = function(x[i])

    return kernel_of_elements(map_numbers, NUMBERS, NUMBERS)


@lru_cache
def combined(operation: str) -> Kernel:
    """The kernel of a named operation."""
    function = _OPERATIONS[operation]

    def arithmetic(left, right, number, out, image, channels):
        """``out = function(left, right)``, each *image* numbers having a row of *channels* numbers; or with *number*.

        Each element has one writer, which reads before it writes.
        """
        i = element()
        if i < out.size:
            other = number
            if right.size > 0:
                other = right[divide(int32(i), image) * channels + remainder(i, channels)]
            out[i] = function(left[i], other)

    return kernel_of_elements(arithmetic, NUMBERS, NUMBERS, float32, NUMBERS, int32, int32)
