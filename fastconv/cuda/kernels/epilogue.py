"""What becomes of finished sums in the kernels of a convolution: bias, residual, activation, and their way to out."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from fastconv.cuda.device import target
from fastconv.cuda.epilogue import LINEAR
from fastconv.cuda.kernels.elements import split_in_three
from fastconv.cuda.kernels.intrinsics import add, load, rectify, relu, store

cuda = target()
int64 = cuda.types.int64


@cuda.jit(device=True)
def place_of_pixel(pixel, problem):
    """Where a pixel of the results lies in out, in pixels: every step_h-th row and step_w-th column from a start on."""
    p = problem
    n, oh, ow = split_in_three(pixel, p.OH, p.OW)
    return (int64(n) * p.OUT_H + p.start_h + oh * p.step_h) * p.OUT_W + p.start_w + ow * p.step_w


@lru_cache
def finish(channels: int, relu_only: bool = False) -> Any:
    """A device function that finishes the sums of *channels* neighbours and stores them.

    The activations are those of `epilogue`, up to leaky_relu, or with *relu_only* up to relu.
    """
    load_some = load(channels)

    @cuda.jit(device=True)
    def finish_sums(sums, bias, residual, out, at, channel, activation):
        """``out[at] = activation(sums + bias[channel] + residual[at])``; arrays without numbers do not take part."""
        if bias.size > 0:
            sums = add(sums, load_some(bias, channel))
        if residual.size > 0:
            sums = add(sums, load_some(residual, at))
        if activation > LINEAR:
            sums = relu(sums) if relu_only else rectify(sums, activation)
        store(out, at, sums)

    return finish_sums
