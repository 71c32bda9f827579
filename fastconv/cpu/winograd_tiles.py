"""Tiles of images on their way to Winograd's points: where a tile lies, and what it holds at the border."""

from __future__ import annotations

from typing import Any, NamedTuple

from fastconv import _jit
from fastconv.cpu import product, simd
from fastconv.cpu.product import LINE
from fastconv.cpu.winograd import INPUTS, OUTPUTS, transform_grad_out, transform_input


class Images(NamedTuple):
    """A batch of H x W images of C channels, cut into grid_h x grid_w tiles each, the first from (top, left) on."""

    H: int
    W: int
    C: int
    grid_h: int
    grid_w: int
    top: int
    left: int


class Points(NamedTuple):
    """Where transformed tiles go: 36 planes, in each a row of numbers for every tile, in blocks of channels.

    Channel c of tile t lies at ``c // channels * block + t * row + c % channels`` of a plane.
    """

    channels: int
    block: int
    row: int
    plane: int


@_jit.inline
def ceil_div(a, b):
    return (a + b - 1) // b


@_jit.inline
def plane_size(numbers):
    """Numbers from a plane to the next: an odd count of cache lines, or all 36 would compete for one set of the L1."""
    return ceil_div(numbers, LINE) // 2 * 2 * LINE + LINE


@_jit.inline
def outputs_of(tile, images):
    """(n, oh, ow) of the first output of a tile."""
    i = images
    return tile // (i.grid_h * i.grid_w), tile // i.grid_w % i.grid_h * OUTPUTS, tile % i.grid_w * OUTPUTS


def _to_points(size: int, transform: Any) -> Any:
    """The transform of tiles of *size* x *size* pixels."""

    @_jit.inline
    def gather(x, images, n, h, w, first_channel, channels, padded, row):
        """The pixels of one tile, with zeros outside the image and behind the last channel."""
        for i in range(size):
            for j in range(size):
                to = (i * size + j) * row
                if 0 <= h + i < images.H and 0 <= w + j < images.W:
                    at = ((n * images.H + h + i) * images.W + w + j) * images.C + first_channel
                    product.copy_run(x, at, padded, to, channels)
                else:
                    product.fill_zeros(padded, to, channels)

    @_jit.inline
    def transform_tiles(x, images, first_tile, tiles, first_channel, channels, padded, target, points):
        """Transform *channels* of *tiles* tiles, one vector of channels after the other.

        A tile inside the image is read in place; one at the border, or with a rest of channels, passes through
        *padded*.  Each element of *target* has one writer.
        """
        lanes = simd.lane_count(target)
        row = ceil_div(channels, lanes) * lanes
        for tile in range(tiles):
            n, h, w = outputs_of(first_tile + tile, images)
            h += images.top
            w += images.left
            inside = 0 <= h <= images.H - size and 0 <= w <= images.W - size
            if inside and row == channels:
                source, at = x, ((n * images.H + h) * images.W + w) * images.C + first_channel
                row_stride, pixel_stride = images.W * images.C, images.C
            else:
                gather(x, images, n, h, w, first_channel, channels, padded, row)
                source, at = padded, 0
                row_stride, pixel_stride = size * row, row
            for channel in range(0, row, lanes):
                to = channel // points.channels * points.block + tile * points.row + channel % points.channels
                transform(source, at + channel, row_stride, pixel_stride, target, to, points.plane)

    return transform_tiles


transform_input_tiles = _to_points(INPUTS, transform_input)
transform_grad_out_tiles = _to_points(OUTPUTS, transform_grad_out)
