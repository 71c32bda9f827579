"""Winograd's algorithms on a GPU: what they can compute, how images are cut, and which of them pays.

Nothing here needs CUDA.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from math import prod
from typing import NamedTuple

from fastconv.cpu import conv_winograd_weight
from fastconv.cpu.chains import chain_count, split_count
from fastconv.cpu.shape import ConvShape, as_product, forward_shape, round_up
from fastconv.cpu.winograd import OUTPUTS, PLANES, TAPS, TRANSFORMS
from fastconv.cpu.winograd_plan import reads_backwards
from fastconv.cpu.winograd_tiles import depths_of, grid_of, images_of, needs, pieces_of, tiles_of
from fastconv.cuda.conv_direct_plan import DEPTH
from fastconv.geometry import Conv2dGeometry

#: Outputs of a tile along one axis in the fused kernel, and its points.
FUSED_OUTPUTS = 2
FUSED_POINTS = TRANSFORMS[FUSED_OUTPUTS].points ** 2
#: Tiles and output channels of a block of the fused kernel.
FUSED_TILES, FUSED_COLUMNS = 32, 32

_BYTES = 4
# Bytes of the points and sums of the tiles that are taken up together: they stay in the L2 cache of a large GPU, and
# the workspace does not grow with the batch.  But at least so many tiles, for every product to fill the GPU; in
# multiples of the rows of a block of the product.
_BYTES_OF_CHUNK = 32 << 20
_FEWEST_TILES, _TILES_OF_BLOCK = 256, 128
# What counts and positions of single numbers must stay below.
_LARGEST = 2**31 - 2**16


def refuses(geometry: Conv2dGeometry) -> str | None:
    """Why the kernels cannot compute a problem, or None."""
    return needs(geometry) or _too_large(geometry, OUTPUTS)


def fused_refuses(geometry: Conv2dGeometry) -> str | None:
    """Why the fused kernel cannot compute a problem, or None."""
    g = geometry
    if not is_plain(forward_shape(g)) or g.G > 1:
        return (
            f"needs a 3x3 kernel without stride, dilation and groups, here {g.KH}x{g.KW}, stride={g.stride}, "
            f"dilation={g.dilation}, groups={g.G}"
        )
    return _too_large(g, FUSED_OUTPUTS)


def _too_large(geometry: Conv2dGeometry, tile: int) -> str | None:
    g = geometry
    pieces = prod(pieces_of((g.KH, g.KW), g.stride))
    tiles = g.N * prod(grid_of(max(g.IH, g.OH), max(g.IW, g.OW), g.dilation, tile))
    weights = PLANES * pieces * max(g.IC * (g.OC + DEPTH), g.OC * (g.IC + DEPTH))
    numbers = max(tiles * pieces * max(g.IC, g.OC), weights)
    if numbers >= _LARGEST:
        return f"needs fewer than {_LARGEST} tiles x channels, and transformed weights, here {numbers}"
    return None


def is_plain(shape: ConvShape) -> bool:
    """Whether a kernel is one piece, and its pixels lie side by side."""
    s = shape
    return (s.KH, s.KW, s.stride_h, s.stride_w, s.dilation_h, s.dilation_w) == (TAPS, TAPS, 1, 1, 1, 1)


def tiles_of_chunk(shape: ConvShape) -> int:
    """4x4 tiles that are taken up together, in equal chunks."""
    inputs, outputs = images_of(shape)
    tiles = tiles_of(shape)
    bytes_of_tile = _BYTES * PLANES * (depths_of(inputs) + outputs.C)
    chunks = max(-(-tiles // max(_BYTES_OF_CHUNK // bytes_of_tile, _FEWEST_TILES)), 1)
    return max(min(round_up(-(-tiles // chunks), _TILES_OF_BLOCK), tiles), 1)


def images_of_chunk(geometry: Conv2dGeometry) -> int:
    """Images that are taken up together where grad_x is computed from tiles of grad_out."""
    g = geometry
    tiles = prod(grid_of(g.OH, g.OW))
    most = max(_BYTES_OF_CHUNK // (_BYTES * PLANES * (g.IC + g.OC)), _FEWEST_TILES) // tiles
    return max(min(g.N, most), 1)


def product_of(shape: ConvShape, tiles: int) -> ConvShape:
    """The products of matrices as a grouped convolution of 1x1: a tile is an image of one pixel, a point a group."""
    inputs, outputs = images_of(shape)
    return ConvShape(
        *(tiles, 1, 1, PLANES * depths_of(inputs), 1, 1, PLANES * outputs.C, 1, 1, PLANES),
        *(1, 1, 1, 1, 0, 0),
        *(1, 1, 0, 0, 1, 1),
    )


class Work(NamedTuple):
    """What an algorithm does for a batch, as far as it takes time."""

    launches: int
    #: Turns of DEPTH numbers of a chain that follow one another: however many blocks there are, they cannot overlap.
    turns: float
    multiply_adds: int
    #: Written to be read again; x and out do not count.
    bytes: int


class Pace(NamedTuple):
    """How fast one of the algorithms works, on an H200: microseconds for a launch and for a turn."""

    launch: float
    turn: float
    #: Millions of multiply-adds, and megabytes, in a microsecond.
    multiply_adds: float
    bytes: float
    #: Whether turns and multiply-adds take the longer of both times; otherwise, both.
    overlap: bool = False

    def microseconds(self, work: Work) -> float:
        waiting, computing = work.turns * self.turn, work.multiply_adds / 1e6 / self.multiply_adds
        together = max(waiting, computing) if self.overlap else waiting + computing
        return work.launches * self.launch + together + work.bytes / 1e6 / self.bytes


#: Fitted to the times in the ladder of `conv_winograd`: the newer ones of Winograd, of which they are within 20%, and
#: those of direct convolutions before their tiles were chosen by time, but for grad_weight, whose chains are short now.
#: For forward and grad_x, and for grad_weight.
_IMAGES = {
    "direct": Pace(4.0, 0.35, 20, 1.2),
    "winograd": Pace(2.5, 0.19, 23, 2.2),
    "winograd_fused": Pace(4.0, 1.35, 13, 8.0, overlap=True),
}
_WEIGHT = {"direct": Pace(2.5, 0.23, 20, 3.2), "winograd": Pace(2.0, 0.27, 26, 4.0)}


@lru_cache(maxsize=1024)
def microseconds(operation: str, geometry: Conv2dGeometry, images: int) -> dict[str, float]:
    """About how long each algorithm takes for so many images, on an H200."""
    if operation == "conv2d_grad_weight":
        return {name: _WEIGHT[name].microseconds(work) for name, work in _work_for_weight(geometry, images).items()}
    work = _work_for_images(geometry, images, operation == "conv2d_grad_x")
    return {name: _IMAGES[name].microseconds(work[name]) for name in work}


def _work_for_images(geometry: Conv2dGeometry, images: int, backwards: bool) -> dict[str, Work]:
    """The work of forward or grad_x; channels are counted in whole turns and blocks.

    ==================  =============  ===============================================================
                        multiply-adds  numbers written and read
    ==================  =============  ===============================================================
    direct              9 an output    none
    winograd            36 a 4x4 tile  36 for each channel, of all pieces, of a tile, and for each weight
    winograd_fused      16 a 2x2 tile  16 for each weight
    ==================  =============  ===============================================================
    """
    g = geometry
    rows, columns, inputs, outputs = (g.IH, g.IW, g.OC, g.IC) if backwards else (g.OH, g.OW, g.IC, g.OC)
    of_grad_out = backwards and reads_backwards(g)
    weights = round_up(inputs, DEPTH) * round_up(outputs, FUSED_COLUMNS)
    turns, taps, twice = -(-inputs // DEPTH), g.KH * g.KW, 2 * _BYTES
    tiles, fused_tiles = (images * prod(grid_of(rows, columns, g.dilation, tile)) for tile in (OUTPUTS, FUSED_OUTPUTS))
    pieces = prod(pieces_of((g.KH, g.KW), g.stride))
    overlapping = 0
    if of_grad_out:
        tiles = images * prod(grid_of(g.OH, g.OW))
        overlapping = PLANES * tiles * outputs
    points = PLANES * (tiles * (pieces * inputs + outputs) + pieces * inputs * outputs) + overlapping
    work = {
        "direct": Work(1 + backwards, taps * turns, images * rows * columns * taps * weights, 0),
        "winograd": Work(4 + of_grad_out, pieces * turns, tiles * PLANES * pieces * weights, twice * points),
    }
    if fused_refuses(geometry) is None:
        numbers = FUSED_POINTS * g.IC * g.OC
        work["winograd_fused"] = Work(2, turns, fused_tiles * FUSED_POINTS * weights, twice * numbers)
    return work


def _work_for_weight(geometry: Conv2dGeometry, images: int) -> dict[str, Work]:
    """The work of grad_weight, whose chains go over the pixels, or tiles, of a split."""
    g = replace(geometry, N=images)
    weights = round_up(g.IC, DEPTH) * round_up(g.OC, FUSED_COLUMNS)
    taps, pieces = g.KH * g.KW, prod(pieces_of((g.KH, g.KW), g.stride))
    pixels, tiles = images * g.OH * g.OW, tiles_of(forward_shape(g))
    shape = as_product(forward_shape(g))
    splits, chains = split_count(shape), chain_count(shape)
    sums = ((chains if chains > splits else 0) + (splits if splits > 1 else 0)) * taps * g.IC * g.OC
    splits_of_tiles = conv_winograd_weight.split_count(g)
    points = PLANES * (tiles * (pieces * g.IC + g.OC) + splits_of_tiles * pieces * g.IC * g.OC)
    twice = 2 * _BYTES
    return {
        "direct": Work(
            1 + (chains > splits) + (splits > 1),
            pixels / (chains * DEPTH),
            pixels * taps * weights,
            twice * sums,
        ),
        "winograd": Work(
            4 + (splits_of_tiles > 1),
            tiles / (splits_of_tiles * DEPTH),
            tiles * PLANES * pieces * weights,
            twice * points,
        ),
    }


def declines(algorithm: str, operation: str, geometry: Conv2dGeometry, images: int) -> str | None:
    """Why another algorithm should compute a pass of so many images, by `microseconds`, or None."""
    found = microseconds(operation, geometry, images)
    if algorithm not in found:
        return f"has no {operation} of its own"
    best = min(found, key=lambda name: found[name])
    if best == algorithm:
        return None
    return f"is to take {found[algorithm] / found[best]:.1f} times as long as {best}"
