"""The kernels that compare predictions with labels, with a number, and with each other."""

from __future__ import annotations

from functools import lru_cache

from fastconv.cuda.device import Kernel, target
from fastconv.cuda.kernels.elements import NUMBERS, POSITIONS, TABLE, element, kernel_of_elements, remainder

cuda = target()
types = cuda.types
float32, int32, int64 = types.float32, types.int32, types.int64


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
def within_top(sparse: bool) -> Kernel:
    """The kernel that counts larger predictions; labels are class numbers if *sparse*, else rows."""

    def look_for_class(predictions, labels, hits, C, k):
        """``hits[row]``: whether fewer than k numbers of the row are larger than the label's; a thread for each row."""
        row = element()
        if row < hits.size:
            if sparse:
                label = labels[row]
            else:
                label = int64(place_of_largest(labels, row * C, C))
            chosen = predictions[row * C + label]
            larger = int32(0)
            for c in range(C):
                if predictions[row * C + c] > chosen:
                    larger += int32(1)
            hits[row] = int32(1) if larger < k else int32(0)

    return kernel_of_elements(look_for_class, NUMBERS, POSITIONS if sparse else NUMBERS, TABLE, int32, int32)


@lru_cache
def positives() -> Kernel:
    """The kernel that finds numbers above a threshold and among the largest of their row."""

    def find_positives(numbers, found, least, C, places, first, step):
        """``found[i]`` is about number ``first + i * step``, whose place in its row is counted; its own writer.

        Numbers before it that are as large have better places.  NaN is above nothing.
        """
        i = element()
        if i < found.size:
            at = first + i * step
            number = numbers[at]
            positive = number > least
            if positive and places < C:
                start = at - remainder(at, C)
                place = int32(0)
                for other in range(start, start + C):
                    if numbers[other] > number or (other < at and numbers[other] == number):
                        place += int32(1)
                positive = place < places
            found[i] = float32(1) if positive else float32(0)

    return kernel_of_elements(find_positives, NUMBERS, NUMBERS, float32, int32, int32, int32, int32)
