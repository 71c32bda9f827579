"""The kernels of Winograd's transforms; what happens between them is said in `conv_winograd`.

One thread for each channel of a tile, channels next to each other: the 36 loads of a thread, and its stores, are those
of a warp to whole lines of memory, and nothing between them leaves the registers.

    points, sums    [tile, point, channel]
    taps            [ic, point, oc]
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from fastconv.cpu.epilogue import RELU
from fastconv.cpu.winograd import INPUTS, OUTPUTS, PLANES, TAPS, TRANSFORMS
from fastconv.cpu.winograd_tiles import Images
from fastconv.cuda.device import Kernel, target
from fastconv.cuda.kernels import winograd
from fastconv.cuda.kernels.elements import NUMBERS, THREADS, element, split_in_three, told
from fastconv.cuda.kernels.intrinsics import add, collect, divide, for_each, load, load_or, relu, store, within

cuda = target()
types = cuda.types
float32, int32, int64 = types.float32, types.int32, types.int64

#: Blocks of a multiprocessor: the numbers of a tile are to stay in at most 80 registers.
_RESIDENTS = 3
_load, _load_or, _each = load(1), load_or(1), for_each(1)


def points_of(tile: int) -> int:
    """Points of a tile of *tile* x *tile* outputs."""
    return TRANSFORMS[tile].points ** 2


def _kernel(function: Any, *arguments: Any) -> Kernel:
    return Kernel(function, types.void(*arguments), THREADS, _RESIDENTS)


@cuda.jit(device=True)
def number_of_line(i, source, at, step):
    """Number *i* of a line of numbers one *step* apart."""
    (number,) = _load(source, at + i * step)
    return number


@cuda.jit(device=True)
def _put(i, numbers, target, at, step):
    """The same line, written."""
    store(target, at + i * step, numbers)


@lru_cache
def pixel_of(size: int) -> Any:
    """A device function that loads one pixel of a tile of *size* x *size*."""

    @cuda.jit(device=True)
    def pixel_of_tile(i, x, at, h, w, images):
        """Pixel *i* of the tile that starts at (h, w), which lies at *at*; zero outside the image."""
        row = divide(i, size)
        column = int32(i - row * size)
        there = within(int32(h + row), images.H) & within(int32(w + column), images.W)
        (number,) = _load_or(x, at + (int64(row) * images.W + column) * images.C, there, float32(0))
        return number

    return pixel_of_tile


def _to_points(size: int, transform: Any) -> Kernel:
    pixel_of_tile, pixels = pixel_of(size), collect(size * size)

    def transform_tiles(x, transformed, images, first_tile, numbers):
        """``transformed[t, :, c]``: the points of channel c of tile ``first_tile + t``."""
        g = images
        i = int32(element())
        if i < numbers:
            t = divide(i, g.C)
            channel = int32(i - t * g.C)
            n, th, tw = split_in_three(int32(first_tile + t), g.grid_h, g.grid_w)
            h, w = int32(g.top + th * OUTPUTS), int32(g.left + tw * OUTPUTS)
            at = ((int64(n) * g.H + h) * g.W + w) * g.C + channel
            points = transform(pixels(pixel_of_tile, (x, at, h, w, g)))
            _each(_put, points, (transformed, int64(t) * PLANES * g.C + channel, int64(g.C)))

    return _kernel(transform_tiles, NUMBERS, NUMBERS, told(Images), int32, int32)


@lru_cache
def input_to_points() -> Kernel:
    """The kernel that transforms tiles of x."""
    return _to_points(INPUTS, winograd.transform_input(OUTPUTS))


@lru_cache
def grad_out_to_points() -> Kernel:
    """The kernel that transforms tiles of grad_out."""
    return _to_points(OUTPUTS, winograd.transform_grad_out(OUTPUTS))


@lru_cache
def taps_to_points(tile: int) -> Kernel:
    """The kernel that transforms a weight, for tiles of *tile* x *tile* outputs."""
    transform, points, taps_of_kernel = winograd.transform_taps(tile), points_of(tile), collect(TAPS * TAPS)

    def transform_weight(weight, taps, first, tap_step, input_step, output_step, inputs, outputs, columns):
        """``taps[i, :, o]``: the points of the kernel from input channel i to output channel o.

        Its taps lie *tap_step* apart in the weight: backwards for a kernel that is turned around.
        """
        at = int32(element())
        if at < int32(inputs * outputs):
            i = divide(at, outputs)
            o = int32(at - i * outputs)
            start = int64(first) + int64(i) * input_step + int64(o) * output_step
            found = transform(taps_of_kernel(number_of_line, (weight, start, int64(tap_step))))
            _each(_put, found, (taps, int64(i) * points * columns + o, int64(columns)))

    return _kernel(transform_weight, NUMBERS, NUMBERS, *(int32,) * 7)


@lru_cache
def finish_output(tile: int) -> Any:
    """A device function that finishes one output of a tile and stores it."""

    @cuda.jit(device=True)
    def finish(i, numbers, oh, ow, at, addend, bias, residual, out, images, activation):
        """Bias, residual and relu for output *i* of a tile, where it lies inside the image."""
        row = divide(i, tile)
        column = int32(i - row * tile)
        if int32(oh + row) < images.H and int32(ow + column) < images.W:
            place = at + (int64(row) * images.W + column) * images.C
            if bias.size > 0:
                numbers = add(numbers, (addend,))
            if residual.size > 0:
                numbers = add(numbers, _load(residual, place))
            if activation == RELU:
                numbers = relu(numbers)
            store(out, place, numbers)

    return finish


@lru_cache
def points_to_output() -> Kernel:
    """The kernel that transforms sums back and writes them to out."""
    transform, points_of_tile, finish = winograd.transform_output(OUTPUTS), collect(PLANES), finish_output(OUTPUTS)

    def finish_tiles(sums, bias, residual, out, images, first_tile, numbers, activation):
        """``out = activation(A' sums A + bias + residual)`` for one channel of tile ``first_tile + t``.

        Each output element has one writer.
        """
        g = images
        i = int32(element())
        if i < numbers:
            t = divide(i, g.C)
            channel = int32(i - t * g.C)
            n, th, tw = split_in_three(int32(first_tile + t), g.grid_h, g.grid_w)
            oh, ow = int32(th * OUTPUTS), int32(tw * OUTPUTS)
            at = ((int64(n) * g.H + oh) * g.W + ow) * g.C + channel
            (addend,) = _load_or(bias, channel, bias.size > 0, float32(0))
            line = int64(t) * PLANES * g.C + channel
            outputs = transform(points_of_tile(number_of_line, (sums, line, int64(g.C))))
            _each(finish, outputs, (oh, ow, at, addend, bias, residual, out, g, activation))

    return _kernel(finish_tiles, NUMBERS, NUMBERS, NUMBERS, NUMBERS, told(Images), int32, int32, int32)


@lru_cache
def points_to_taps() -> Kernel:
    """The kernel that transforms the sums of grad_weight back."""
    transform, points_of_pair = winograd.transform_grad_taps(OUTPUTS), collect(PLANES)

    def finish_taps(sums, partial, inputs, outputs, pairs):
        """``partial[split, :, ic, oc] = G' sums[split, ic, :, oc] G`` for one of the *pairs* of channels of a split."""
        i = int32(element())
        if i < pairs:
            line = divide(i, outputs)
            oc = int32(i - line * outputs)
            split = divide(line, inputs)
            start = int64(line) * PLANES * outputs + oc
            taps = transform(points_of_pair(number_of_line, (sums, start, int64(outputs))))
            weights = int32(inputs * outputs)
            at = int64(split) * (TAPS * TAPS - 1) * weights + i
            _each(_put, taps, (partial, at, int64(weights)))

    return _kernel(finish_taps, NUMBERS, NUMBERS, int32, int32, int32)
