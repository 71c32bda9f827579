"""The kernels that compare predictions with labels, and the one that adds what they found."""

from __future__ import annotations

from functools import lru_cache

from fastconv.cuda.device import Kernel, target
from fastconv.cuda.kernels.elements import NUMBERS, POSITIONS, SUMS, TABLE, THREADS, element, kernel_of_elements

cuda = target()
types = cuda.types
float32, float64, int32, int64 = types.float32, types.float64, types.int32, types.int64


@cuda.jit(device=True)
def place_of_largest(numbers, first, C):
    """Where the largest of C numbers is; the first of several, and of NaNs."""
    best, where = numbers[first], int32(0)
    for c in range(1, C):
        value = numbers[first + c]
        if best == best and (value > best or value != value):
            best, where = value, int32(c)
    return where


@lru_cache
def right_class(sparse: bool) -> Kernel:
    """The kernel that compares classes; labels are class numbers if *sparse*, else rows."""

    def compare_classes(predictions, labels, hits, C):
        """``hits[row] = argmax(predictions[row]) == class``; each row has one thread."""
        row = element()
        if row < hits.size:
            if sparse:
                label = labels[row]
            else:
                label = int64(place_of_largest(labels, row * C, C))
            hits[row] = int32(1) if place_of_largest(predictions, row * C, C) == label else int32(0)

    return kernel_of_elements(compare_classes, NUMBERS, POSITIONS if sparse else NUMBERS, TABLE, int32)


@lru_cache
def right_side() -> Kernel:
    """The kernel that compares numbers with a threshold."""

    def compare_sides(predictions, labels, hits, threshold):
        """``hits = (prediction > threshold) == label``; each number has one thread."""
        i = element()
        if i < hits.size:
            side = float32(1) if predictions[i] > threshold else float32(0)
            hits[i] = int32(1) if side == labels[i] else int32(0)

    return kernel_of_elements(compare_sides, NUMBERS, NUMBERS, TABLE, float32)


@lru_cache
def add_total(counts: bool) -> Kernel:
    """The kernel that adds an array to a total: *counts*, as integers, or numbers, in float64."""
    number = int64 if counts else float64

    def add_to_total(numbers, totals, at):
        """``totals[at] += sum(numbers)`` by one block: each thread every 256th number, then one thread all sums."""
        sums = cuda.shared.array(THREADS, number)
        thread = cuda.threadIdx.x
        total = number(0)
        i = int64(thread)
        while i < numbers.size:
            total += number(numbers[i])
            i += THREADS
        sums[thread] = total
        cuda.syncthreads()
        if thread == 0:
            total = totals[at]
            for other in range(THREADS):
                total += sums[other]
            totals[at] = total

    arrays = (TABLE, POSITIONS) if counts else (NUMBERS, SUMS)
    return kernel_of_elements(add_to_total, *arrays, int32)
