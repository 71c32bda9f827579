"""The kernels of softmax and of its cross-entropy.

A warp takes a row, 32 neighbouring numbers at a time.  A sum goes through the lanes by shuffles: all of them add the 32
numbers one after the other, in float64, so each has the total in the order of the row, and no memory is shared.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

from fastconv.cuda.device import Kernel, target
from fastconv.cuda.kernels.elementary import exp
from fastconv.cuda.kernels.elements import NUMBERS, POSITIONS, element, kernel_of_elements
from fastconv.cuda.kernels.intrinsics import product

cuda = target()
types = cuda.types
float32, float64, int32, int64 = types.float32, types.float64, types.int32, types.int64

#: Threads that take a row together.
WARP = 32
_ALL_LANES = 0xFFFFFFFF
_NOT_A_NUMBER = float("nan")


@cuda.jit(device=True)
def largest_of_row(x, first, lane, C):
    """The largest number of a row, in every lane; NaN among them does not matter, since their sum will be NaN."""
    largest = x[first]
    c = lane
    while c < C:
        value = x[first + c]
        largest = value if value > largest else largest
        c = int32(c + WARP)
    distance = WARP // 2
    while distance > 0:
        other = cuda.shfl_xor_sync(_ALL_LANES, largest, distance)
        largest = other if other > largest else largest
        distance >>= 1
    return largest


@cuda.jit(device=True)
def added_in_order(total, value):
    """``total + (value of lane 0) + (value of lane 1) + ...`` in every lane."""
    for lane in range(WARP):
        total += float64(cuda.shfl_sync(_ALL_LANES, value, lane))
    return total


@lru_cache
def forward(logarithm: bool) -> Kernel:
    """The kernel of softmax, or of its logarithm."""

    def softmax_forward(x, out, C):
        """``out = exp(x - max) / sum(exp(x - max))`` for one row; each row has one warp, each element one writer."""
        i = element()
        row, lane = i >> 5, int32(i & 31)
        first = row * C
        if first < x.size:
            largest = largest_of_row(x, first, lane, C)
            total = float64(0)
            start = int32(0)
            while start < C:
                c = int32(start + lane)
                value = float32(0)
                if c < C:
                    value = exp(x[first + c] - largest)
                    if not logarithm:
                        out[first + c] = value
                total = added_in_order(total, value)
                start = int32(start + WARP)
            of_row = float32(math.log(total)) if logarithm else float32(total)
            c = lane
            while c < C:
                if logarithm:
                    out[first + c] = (x[first + c] - largest) - of_row
                else:
                    out[first + c] = out[first + c] / of_row
                c = int32(c + WARP)

    return kernel_of_elements(softmax_forward, NUMBERS, NUMBERS, int32)


@lru_cache
def backward() -> Kernel:
    """The kernel of softmax's gradient."""

    def softmax_backward(grad_out, out, grad_x, C):
        """``grad_x = out * (grad_out - sum(grad_out * out))`` for one row; each element has one writer."""
        i = element()
        row, lane = i >> 5, int32(i & 31)
        first = row * C
        if first < out.size:
            total = float64(0)
            start = int32(0)
            while start < C:
                c = int32(start + lane)
                value = float64(0)
                if c < C:
                    value = float64(grad_out[first + c]) * float64(out[first + c])
                total = added_in_order(total, value)
                start = int32(start + WARP)
            mean = float32(total)
            c = lane
            while c < C:
                grad_x[first + c] = out[first + c] * (grad_out[first + c] - mean)
                c = int32(c + WARP)

    return kernel_of_elements(softmax_backward, NUMBERS, NUMBERS, NUMBERS, int32)


@lru_cache
def _target(sparse: bool) -> Any:
    """``target(labels, n, c, C, kept, spread)``: the share of class c that sample n should have."""

    @cuda.jit(device=True)
    def of_class(labels, n, c, C, kept, spread):
        label = float32(1) if labels[n] == c else float32(0)
        return product(label, kept) + spread

    @cuda.jit(device=True)
    def of_row(labels, n, c, C, kept, spread):
        return product(labels[int64(n) * C + c], kept) + spread

    return of_class if sparse else of_row


@cuda.jit(device=True)
def is_class(label, C):
    return 0 <= label and label < C


@lru_cache
def losses(sparse: bool) -> Kernel:
    """The kernel of each sample's loss, from the logarithm of softmax."""
    target_of = _target(sparse)

    def cross_entropy(log_softmax, labels, kept, spread, out, C):
        """``out[n] = 0 - sum over c of target * log_softmax``, in float64; classes of probability 0 take no part."""
        i = element()
        n, lane = i >> 5, int32(i & 31)
        if n < out.size:
            total = float64(0)
            start = int32(0)
            while start < C:
                c = int32(start + lane)
                value = float64(0)
                if c < C:
                    share = target_of(labels, n, c, C, kept, spread)
                    if share != float32(0):
                        value = float64(share) * float64(log_softmax[n * C + c])
                total = added_in_order(total, value)
                start = int32(start + WARP)
            if sparse and not is_class(labels[n], C):
                total = float64(_NOT_A_NUMBER)
            if lane == 0:
                out[n] = float32(0) - float32(total)

    kind = POSITIONS if sparse else NUMBERS
    return kernel_of_elements(cross_entropy, NUMBERS, kind, float32, float32, NUMBERS, int32)


@lru_cache
def logit_gradients(sparse: bool) -> Kernel:
    """The kernel of the gradient by the logits, from softmax."""
    target_of = _target(sparse)

    def cross_entropy_backward(probabilities, labels, kept, spread, factor, factors, out, C):
        """``(probability * sum(target) - target) * factor`` for one row, in whose place *factors* may have its own.

        Each row has one warp, each element one writer.
        """
        i = element()
        n, lane = i >> 5, int32(i & 31)
        first = n * C
        if first < out.size:
            total = float64(0)
            start = int32(0)
            while start < C:
                c = int32(start + lane)
                share = target_of(labels, n, c, C, kept, spread) if c < C else float32(0)
                total = added_in_order(total, share)
                start = int32(start + WARP)
            whole = float32(total)
            if factors.size > 0:
                factor = factors[n]
            if sparse and not is_class(labels[n], C):
                factor = float32(_NOT_A_NUMBER)
            c = lane
            while c < C:
                share = target_of(labels, n, c, C, kept, spread)
                out[first + c] = (product(probabilities[first + c], whole) - share) * factor
                c = int32(c + WARP)

    kind = POSITIONS if sparse else NUMBERS
    arguments = NUMBERS, kind, float32, float32, float32, NUMBERS, NUMBERS, int32
    return kernel_of_elements(cross_entropy_backward, *arguments)
