"""The kernels of grad_x from tiles of grad_out: from points to pixels, and the sums where tiles overlap.

    sums      [tile, point, ic]
    pixels    [pixel, tile, ic]: with the lines of sums, a thread would hold on to its 36 addresses

One thread for each channel of a tile, then one for each number of grad_x, channels next to each other.
"""

from __future__ import annotations

from functools import lru_cache

from fastconv.cpu.winograd import INPUTS, OUTPUTS, PLANES, TAPS
from fastconv.cpu.winograd_tiles import Images
from fastconv.cuda.device import Kernel, target
from fastconv.cuda.kernels import winograd
from fastconv.cuda.kernels.conv_winograd import kernel_of_tiles, number_of_line, put_in_line, start_of
from fastconv.cuda.kernels.elements import NUMBERS, element, kernel_of_elements, remainder, split_in_three, told
from fastconv.cuda.kernels.intrinsics import add, collect, divide, for_each, load, store

cuda = target()
types = cuda.types
float32, int32, int64 = types.float32, types.int32, types.int64

_load, _each = load(1), for_each(1)


@lru_cache
def points_to_pixels() -> Kernel:
    """The kernel that transforms sums back to pixels."""
    transform, points_of_tile = winograd.transform_pixels(OUTPUTS), collect(PLANES)

    def transform_sums(sums, pixels, C, numbers):
        """The 6x6 pixels that the outputs of a tile have seen, for one channel."""
        i = int32(element())
        if i < numbers:
            tile = divide(i, C)
            line = int64(tile) * PLANES * C + (i - tile * C)
            found = transform(points_of_tile(number_of_line, (sums, line, int64(C))))
            _each(put_in_line, found, (pixels, int64(i), int64(numbers)))

    return kernel_of_tiles(transform_sums, NUMBERS, NUMBERS, int32, int32)


@cuda.jit(device=True)
def _start_of(place, whole):
    """Where a row, or column, of tiles begins."""
    return start_of(place, int32(1), OUTPUTS, whole)


@cuda.jit(device=True)
def _tiles_at(pixel, whole, grid):
    """(first, last) of the rows, or columns, of tiles with this pixel: two where it is among the last's first two."""
    behind = int32(pixel - whole * OUTPUTS)
    last = divide(pixel, OUTPUTS) if behind < 0 else int32(whole + divide(behind, OUTPUTS - 1))
    last = min(last, int32(grid - 1))
    both = last > 0 and int32(pixel - _start_of(last, whole)) < TAPS - 1
    return int32(last - both), last


@lru_cache
def add_tiles() -> Kernel:
    """The kernel that adds what tiles have for the same pixel."""

    def sum_of_tiles(pixels, out, images, tiles, first_pixel, numbers):
        """``out[n, h, w, c]``, zero and to that the pixel of each tile that has it, in the order of the tiles.

        Each element has one writer.
        """
        g = images
        i = int32(element())
        if i < numbers:
            channel = remainder(i, g.C)
            n, h, w = split_in_three(divide(i, g.C), g.H, g.W)
            h, w = int32(h - g.top), int32(w - g.left)
            row, last_row = _tiles_at(h, g.whole_h, g.grid_h)
            first_column, last_column = _tiles_at(w, g.whole_w, g.grid_w)
            total = (float32(0),)
            while row <= last_row:
                column = first_column
                while column <= last_column:
                    tile = int32((n * g.grid_h + row) * g.grid_w + column)
                    place = int32((h - _start_of(row, g.whole_h)) * INPUTS + w - _start_of(column, g.whole_w))
                    total = add(total, _load(pixels, (int64(place) * tiles + tile) * g.C + channel))
                    column = int32(column + 1)
                row = int32(row + 1)
            store(out, int64(first_pixel) * g.C + i, total)

    return kernel_of_elements(sum_of_tiles, NUMBERS, NUMBERS, told(Images), int32, int32, int32)
