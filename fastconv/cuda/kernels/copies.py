"""The kernels of copies: a thread for each number that is written."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from fastconv.cuda.device import Kernel, target
from fastconv.cuda.kernels.elements import NUMBERS, element, kernel_of_elements, remainder, split_in_three, told
from fastconv.cuda.kernels.intrinsics import divide, within

cuda = target()
types = cuda.types
float32, int32, int64 = types.float32, types.int32, types.int64


@lru_cache
def fill() -> Kernel:
    """The kernel that writes one number everywhere."""

    def write_number(out, value):
        i = element()
        if i < out.size:
            out[i] = value

    return kernel_of_elements(write_number, NUMBERS, float32)


@lru_cache
def convert(dtype: str) -> Kernel:
    """The kernel that makes float32 numbers of another type."""

    def convert_numbers(x, out, scale):
        """``out = float32(x) * scale``; each element has one writer."""
        i = element()
        if i < out.size:
            out[i] = float32(x[i]) * scale

    return kernel_of_elements(convert_numbers, types.Array(getattr(types, dtype), 1, "C"), NUMBERS, float32)


class Window(NamedTuple):
    """Extents of images and of what is cut from them, and where that begins."""

    IH: int
    IW: int
    OH: int
    OW: int
    C: int
    first_row: int
    first_column: int


@lru_cache
def window() -> Kernel:
    """The kernel that pads and crops."""

    def copy_window(x, out, problem):
        """``out[n, oh, ow, c] = x[n, first_row + oh, first_column + ow, c]``, or 0 where there is no such pixel."""
        p = problem
        i = element()
        if i < out.size:
            pixel = divide(int32(i), p.C)
            channel = remainder(i, p.C)
            n, oh, ow = split_in_three(pixel, p.OH, p.OW)
            ih, iw = int32(p.first_row + oh), int32(p.first_column + ow)
            value = float32(0)
            if within(ih, p.IH) and within(iw, p.IW):
                value = x[((int64(n) * p.IH + ih) * p.IW + iw) * p.C + channel]
            out[i] = value

    return kernel_of_elements(copy_window, NUMBERS, NUMBERS, told(Window))


class Runs(NamedTuple):
    """Numbers to copy in all and in one run; the distance of runs, and where the first lies, here and there."""

    total: int
    run: int
    source_step: int
    target_step: int
    source_start: int
    target_start: int


@lru_cache
def copy_runs() -> Kernel:
    """The kernel that copies runs of numbers."""

    def copy_runs_of_numbers(source, out, problem):
        """Number *j* of run *k* from its place in *source* to its place in *out*; the rest of *out* stays."""
        p = problem
        i = element()
        if i < p.total:
            k = divide(int32(i), p.run)
            j = remainder(i, p.run)
            out[p.target_start + int64(k) * p.target_step + j] = source[p.source_start + int64(k) * p.source_step + j]

    return kernel_of_elements(copy_runs_of_numbers, NUMBERS, NUMBERS, told(Runs))
