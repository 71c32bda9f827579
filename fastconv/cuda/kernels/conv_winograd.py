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


def kernel_of_tiles(function: Any, *arguments: Any) -> Kernel:
    """The kernel that runs *function* for each channel of a tile, or pair of channels."""
    return Kernel(function, types.void(*arguments), THREADS, _RESIDENTS)


@cuda.jit(device=True)
def number_of_line(i, source, at, step):
    """Number *i* of a line of numbers one *step* apart."""
    (number,) = _load(source, at + i * step)
    return number


@cuda.jit(device=True)
def put_in_line(i, numbers, target, at, step):
    """The same line, written."""
    store(target, at + i * step, numbers)


@cuda.jit(device=True)
def start_of(place, apart, length, whole):
    """Where a row, or column, of pieces or tiles begins: `winograd_tiles.start_of`."""
    group = divide(place, apart)
    short = max(int32(group - divide(whole, apart)), int32(0))
    return int32((group * length - short) * apart + place - group * apart)


@cuda.jit(device=True)
def _end_of(start, extent, place, apart, length, whole):
    """Where its numbers end, or the extent where they are."""
    return min(extent, int32(start + (length - (place >= whole)) * apart))


@cuda.jit(device=True)
def _place_of(depth, images):
    """(row, column, channel) of a depth, for those of its piece."""
    g = images
    piece = divide(depth, g.C)
    row = divide(piece, g.pieces_w)
    return row, int32(piece - row * g.pieces_w), int32(depth - piece * g.C)


@cuda.jit(device=True)
def _taps_of(row, column, KH, KW, images):
    """(first row, first column, rows, columns) of the taps of a piece; so many lie between the first and the end."""
    g = images
    kh, kw = start_of(row, g.stride_h, TAPS, g.long_h), start_of(column, g.stride_w, TAPS, g.long_w)
    bottom = _end_of(kh, KH, row, g.stride_h, TAPS, g.long_h)
    return kh, kw, int32(bottom - kh), int32(_end_of(kw, KW, column, g.stride_w, TAPS, g.long_w) - kw)


@lru_cache
def _outputs_of(plain: bool) -> Any:
    """A device function for where the outputs of a tile lie."""

    @cuda.jit(device=True)
    def outputs_of_tile(th, tw, images):
        """(first row, first column, end of the rows, end of the columns); an image is as large as its outputs."""
        g = images
        apart_h, apart_w = (int32(1), int32(1)) if plain else (g.dilation_h, g.dilation_w)
        oh, ow = start_of(th, apart_h, OUTPUTS, g.whole_h), start_of(tw, apart_w, OUTPUTS, g.whole_w)
        bottom = _end_of(oh, g.H, th, apart_h, OUTPUTS, g.whole_h)
        return oh, ow, bottom, _end_of(ow, g.W, tw, apart_w, OUTPUTS, g.whole_w)

    return outputs_of_tile


@lru_cache
def pixel_of(size: int, plain: bool) -> Any:
    """A device function that loads one pixel of a tile of *size* x *size*."""

    @cuda.jit(device=True)
    def pixel_of_tile(i, x, at, h, w, bottom, right, images):
        """Pixel *i* of the tile from (h, w) on, which lies at *at*; zero before (0, 0) and from (bottom, right) on."""
        row = divide(i, size)
        column = int32(i - row * size)
        if not plain:
            row = int32(row * images.stride_h * images.dilation_h)
            column = int32(column * images.stride_w * images.dilation_w)
        there = within(int32(h + row), bottom) & within(int32(w + column), right)
        (number,) = _load_or(x, at + (int64(row) * images.W + column) * images.C, there, float32(0))
        return number

    return pixel_of_tile


def _to_points(size: int, transform: Any, plain: bool) -> Kernel:
    pixel_of_tile, outputs_of_tile, pixels = pixel_of(size, plain), _outputs_of(plain), collect(size * size)

    def transform_tiles(x, transformed, images, first_tile, numbers):
        """``transformed[t, :, d]``: the points of depth d of tile ``first_tile + t``."""
        g = images
        i = int32(element())
        if i < numbers:
            depths = g.C if plain else int32(g.pieces_h * g.pieces_w * g.C)
            t = divide(i, depths)
            depth = int32(i - t * depths)
            n, th, tw = split_in_three(int32(first_tile + t), g.grid_h, g.grid_w)
            oh, ow, bottom, right = outputs_of_tile(th, tw, g)
            if size > OUTPUTS:  # of x a tile may see more than it needs
                bottom, right = g.H, g.W
            if plain:
                h, w, channel = int32(g.top + oh), int32(g.left + ow), depth
            else:
                row, column, channel = _place_of(depth, g)
                kh, kw = start_of(row, g.stride_h, TAPS, g.long_h), start_of(column, g.stride_w, TAPS, g.long_w)
                h = int32(g.top + oh * g.stride_h + kh * g.dilation_h)
                w = int32(g.left + ow * g.stride_w + kw * g.dilation_w)
            at = ((int64(n) * g.H + h) * g.W + w) * g.C + channel
            points = transform(pixels(pixel_of_tile, (x, at, h, w, bottom, right, g)))
            _each(put_in_line, points, (transformed, int64(t) * PLANES * depths + depth, int64(depths)))

    return kernel_of_tiles(transform_tiles, NUMBERS, NUMBERS, told(Images), int32, int32)


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
            row, column, channel = _place_of(depth, images)
            kh, kw, rows, taps_of_row = _taps_of(row, column, KH, KW, images)
            start = int64(first) + int64(channel) * input_step + int64(o) * output_step
            start += (int64(kh) * KW + kw) * tap_step
            piece = (weight, start, int64(tap_step), rows, taps_of_row, KW, images)
            found = transform(taps_of_piece(_tap_of, piece))
            _each(put_in_line, found, (taps, int64(depth) * points * columns + o, int64(columns)))

    return kernel_of_tiles(transform_weight, NUMBERS, NUMBERS, *(int32,) * 4, told(Images), *(int32,) * 5)


@lru_cache
def finish_output(tile: int, plain: bool) -> Any:
    """A device function that finishes one output of a tile and stores it."""

    @cuda.jit(device=True)
    def finish(i, numbers, oh, ow, bottom, right, at, addend, bias, residual, out, images, activation):
        """Bias, residual and relu for output *i* of the tile that starts at (oh, ow) and ends at (bottom, right)."""
        row = divide(i, tile)
        column = int32(i - row * tile)
        if not plain:
            row, column = int32(row * images.dilation_h), int32(column * images.dilation_w)
        if int32(oh + row) < bottom and int32(ow + column) < right:
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
    outputs_of_tile, finish = _outputs_of(plain), finish_output(OUTPUTS, plain)

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
            oh, ow, bottom, right = outputs_of_tile(th, tw, g)
            at = ((int64(n) * g.H + oh) * g.W + ow) * g.C + channel
            (addend,) = _load_or(bias, channel, bias.size > 0, float32(0))
            line = int64(t) * PLANES * g.C + channel
            outputs = transform(points_of_tile(number_of_line, (sums, line, int64(g.C))))
            _each(finish, outputs, (oh, ow, bottom, right, at, addend, bias, residual, out, g, activation))

    return kernel_of_tiles(finish_tiles, NUMBERS, NUMBERS, NUMBERS, NUMBERS, told(Images), int32, int32, int32)


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
            row, column, ic = _place_of(int32(line - split * depths), g)
            kh, kw, rows, taps_of_row = _taps_of(row, column, KH, KW, g)
            start = int64(line) * PLANES * outputs + oc
            taps = transform(points_of_pair(number_of_line, (sums, start, int64(outputs))))
            at = (((int64(split) * KH + kh) * KW + kw) * g.C + ic) * outputs + oc
            place = (partial, at, int64(g.C) * outputs, rows, taps_of_row, KW, g)
            _each(_put_tap, taps, place)

    return kernel_of_tiles(finish_taps, NUMBERS, NUMBERS, told(Images), *(int32,) * 4)
