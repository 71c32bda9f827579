"""The kernels of Winograd's transforms; what happens between them is said in `conv_winograd`.

One thread for each channel of a tile, channels next to each other: the 36 loads of a thread, and its stores, are those
of a warp to whole lines of memory, and nothing between them leaves the registers.

    points, sums    [tile, point, depth or channel]
    taps            [depth, point, oc]

Kernels that look at tiles are compiled twice: *plain* ones, for 3x3 taps without dilation, spare the arithmetic of
places that the others need.
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


@cuda.jit(device=True)
def _start_of(place, apart, length):
    """Where a row, or column, of pieces or tiles begins: `winograd_tiles.start_of`."""
    group = divide(place, apart)
    return int32(group * apart * length + place - group * apart)


@cuda.jit(device=True)
def _place_of(depth, images):
    """(kh, kw, channel) of a depth: the first tap of its piece."""
    g = images
    piece = divide(depth, g.C)
    row = divide(piece, g.pieces_w)
    column = int32(piece - row * g.pieces_w)
    kh, kw = _start_of(row, g.stride_h, TAPS), _start_of(column, g.stride_w, TAPS)
    return kh, kw, int32(depth - piece * g.C)


@lru_cache
def pixel_of(size: int, plain: bool) -> Any:
    """A device function that loads one pixel of a tile of *size* x *size*."""

    @cuda.jit(device=True)
    def pixel_of_tile(i, x, at, h, w, images):
        """Pixel *i* of the tile that starts at (h, w), which lies at *at*; zero outside the image."""
        row = divide(i, size)
        column = int32(i - row * size)
        if not plain:
            row = int32(row * images.stride_h * images.dilation_h)
            column = int32(column * images.stride_w * images.dilation_w)
        there = within(int32(h + row), images.H) & within(int32(w + column), images.W)
        (number,) = _load_or(x, at + (int64(row) * images.W + column) * images.C, there, float32(0))
        return number

    return pixel_of_tile


def _to_points(size: int, transform: Any, plain: bool) -> Kernel:
    pixel_of_tile, pixels = pixel_of(size, plain), collect(size * size)

    def transform_tiles(x, transformed, images, first_tile, numbers):
        """``transformed[t, :, d]``: the points of depth d of tile ``first_tile + t``."""
        g = images
        i = int32(element())
        if i < numbers:
            depths = g.C if plain else int32(g.pieces_h * g.pieces_w * g.C)
            t = divide(i, depths)
            depth = int32(i - t * depths)
            n, th, tw = split_in_three(int32(first_tile + t), g.grid_h, g.grid_w)
            if plain:
                h, w, channel = int32(g.top + th * OUTPUTS), int32(g.left + tw * OUTPUTS), depth
            else:
                kh, kw, channel = _place_of(depth, g)
                h = int32(g.top + _start_of(th, g.dilation_h, OUTPUTS) * g.stride_h + kh * g.dilation_h)
                w = int32(g.left + _start_of(tw, g.dilation_w, OUTPUTS) * g.stride_w + kw * g.dilation_w)
            at = ((int64(n) * g.H + h) * g.W + w) * g.C + channel
            points = transform(pixels(pixel_of_tile, (x, at, h, w, g)))
            _each(_put, points, (transformed, int64(t) * PLANES * depths + depth, int64(depths)))

    return _kernel(transform_tiles, NUMBERS, NUMBERS, told(Images), int32, int32)


@lru_cache
def input_to_points(plain: bool) -> Kernel:
    """The kernel that transforms tiles of x."""
    return _to_points(INPUTS, winograd.transform_input(OUTPUTS), plain)


@lru_cache
def grad_out_to_points(plain: bool) -> Kernel:
    """The kernel that transforms tiles of grad_out."""
    return _to_points(OUTPUTS, winograd.transform_grad_out(OUTPUTS), plain)


@cuda.jit(device=True)
def _tap_of(i, weight, at, step, rows, columns, width, images):
    """Tap *i* of a piece whose first one lies at *at*, of a kernel *width* taps wide; zero outside the kernel."""
    line = divide(i, TAPS)
    row, column = int32(line * images.stride_h), int32((i - line * TAPS) * images.stride_w)
    there = (row < rows) & (column < columns)
    (number,) = _load_or(weight, at + (int64(row) * width + column) * step, there, float32(0))
    return number


@lru_cache
def taps_to_points(tile: int) -> Kernel:
    """The kernel that transforms a weight, for tiles of *tile* x *tile* outputs."""
    transform, points, taps_of_piece = winograd.transform_taps(tile), points_of(tile), collect(TAPS * TAPS)

    def transform_weight(
        weight, taps, first, tap_step, input_step, output_step, images, KH, KW, outputs, columns, pairs
    ):
        """``taps[d, :, o]``: the points of the piece of the kernel from depth d to output channel o.

        Its taps lie *tap_step* apart in the weight: backwards for a kernel that is turned around.
        """
        at = int32(element())
        if at < pairs:
            depth = divide(at, outputs)
            o = int32(at - depth * outputs)
            kh, kw, channel = _place_of(depth, images)
            start = int64(first) + int64(channel) * input_step + int64(o) * output_step
            start += (int64(kh) * KW + kw) * tap_step
            piece = (weight, start, int64(tap_step), int32(KH - kh), int32(KW - kw), KW, images)
            found = transform(taps_of_piece(_tap_of, piece))
            _each(_put, found, (taps, int64(depth) * points * columns + o, int64(columns)))

    return _kernel(transform_weight, NUMBERS, NUMBERS, *(int32,) * 4, told(Images), *(int32,) * 5)


@lru_cache
def finish_output(tile: int, plain: bool) -> Any:
    """A device function that finishes one output of a tile and stores it."""

    @cuda.jit(device=True)
    def finish(i, numbers, oh, ow, at, addend, bias, residual, out, images, activation):
        """Bias, residual and relu for output *i* of a tile, where it lies inside the image."""
        row = divide(i, tile)
        column = int32(i - row * tile)
        if not plain:
            row, column = int32(row * images.dilation_h), int32(column * images.dilation_w)
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
def points_to_output(plain: bool) -> Kernel:
    """The kernel that transforms sums back and writes them to out."""
    transform, points_of_tile = winograd.transform_output(OUTPUTS), collect(PLANES)
    finish = finish_output(OUTPUTS, plain)

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
            if plain:
                oh, ow = int32(th * OUTPUTS), int32(tw * OUTPUTS)
            else:
                oh, ow = _start_of(th, g.dilation_h, OUTPUTS), _start_of(tw, g.dilation_w, OUTPUTS)
            at = ((int64(n) * g.H + oh) * g.W + ow) * g.C + channel
            (addend,) = _load_or(bias, channel, bias.size > 0, float32(0))
            line = int64(t) * PLANES * g.C + channel
            outputs = transform(points_of_tile(number_of_line, (sums, line, int64(g.C))))
            _each(finish, outputs, (oh, ow, at, addend, bias, residual, out, g, activation))

    return _kernel(finish_tiles, NUMBERS, NUMBERS, NUMBERS, NUMBERS, told(Images), int32, int32, int32)


@cuda.jit(device=True)
def _put_tap(i, numbers, target, at, step, rows, columns, width, images):
    """Tap *i* of a piece to its place, where it lies inside the kernel."""
    line = divide(i, TAPS)
    row, column = int32(line * images.stride_h), int32((i - line * TAPS) * images.stride_w)
    if row < rows and column < columns:
        store(target, at + (int64(row) * width + column) * step, numbers)


@lru_cache
def points_to_taps() -> Kernel:
    """The kernel that transforms the sums of grad_weight back."""
    transform, points_of_pair = winograd.transform_grad_taps(OUTPUTS), collect(PLANES)

    def finish_taps(sums, partial, images, KH, KW, outputs, pairs):
        """The taps of a piece, ``G' sums[split, depth, :, oc] G``, for one of the *pairs* (depth, oc) of a split.

        They go to ``partial[split, :, :, ic, oc]``, those inside the kernel.
        """
        g = images
        i = int32(element())
        if i < pairs:
            line = divide(i, outputs)
            oc = int32(i - line * outputs)
            depths = int32(g.pieces_h * g.pieces_w * g.C)
            split = divide(line, depths)
            kh, kw, ic = _place_of(int32(line - split * depths), g)
            start = int64(line) * PLANES * outputs + oc
            taps = transform(points_of_pair(number_of_line, (sums, start, int64(outputs))))
            at = (((int64(split) * KH + kh) * KW + kw) * g.C + ic) * outputs + oc
            place = (partial, at, int64(g.C) * outputs, int32(KH - kh), int32(KW - kw), KW, g)
            _each(_put_tap, taps, place)

    return _kernel(finish_taps, NUMBERS, NUMBERS, told(Images), *(int32,) * 4)
