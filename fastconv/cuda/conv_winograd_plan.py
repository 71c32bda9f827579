"""Winograd's algorithms on a GPU: what they can compute, how images are cut, and which of them pays, by counting.

Nothing here needs CUDA.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from fastconv.cpu.shape import ConvShape, round_up
from fastconv.cpu.winograd import OUTPUTS, PLANES, TAPS, TRANSFORMS
from fastconv.cpu.winograd_tiles import Images
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

# Multiply-adds in the time of one byte of memory: a T4 has 13 and an A100 6, an H100 10.
_PER_BYTE = 10
# Multiply-adds in the main loop of the products, and of the fused kernel, as a share of all instructions.
_SHARE, _FUSED_SHARE = 0.88, 0.68


def refuses(geometry: Conv2dGeometry) -> str | None:
    """Why the kernels cannot compute a problem, or None."""
    g = geometry
    if (g.KH, g.KW, *g.stride, *g.dilation, g.G) != (TAPS, TAPS, 1, 1, 1, 1, 1):
        return (
            f"needs a 3x3 kernel without stride, dilation and groups, here {g.KH}x{g.KW}, stride={g.stride}, "
            f"dilation={g.dilation}, groups={g.G}"
        )
    rows, columns = max(g.IH, g.OH), max(g.IW, g.OW)
    numbers = max(tiles_of_image(rows, columns, FUSED_OUTPUTS) * g.N * max(g.IC, g.OC), PLANES * g.IC * (g.OC + DEPTH))
    if numbers >= _LARGEST:
        return f"needs fewer than {_LARGEST} tiles x channels, and transformed weights, here {numbers}"
    return None


def tiles_of_image(rows: int, columns: int, tile: int) -> int:
    """Tiles of *tile* x *tile* over an image."""
    return -(-rows // tile) * -(-columns // tile)


def images_of(shape: ConvShape, tile: int) -> tuple[Images, Images]:
    """How x and out are cut into tiles."""
    s = shape
    grid = -(-s.OH // tile), -(-s.OW // tile)
    return Images(s.IH, s.IW, s.IC, *grid, -s.pad_top, -s.pad_left), Images(s.OH, s.OW, s.OC, *grid, 0, 0)


def tiles_of_chunk(shape: ConvShape) -> int:
    """4x4 tiles that are taken up together, in equal chunks."""
    s = shape
    tiles = s.N * tiles_of_image(s.OH, s.OW, OUTPUTS)
    bytes_of_tile = _BYTES * PLANES * (s.IC + s.OC)
    chunks = max(-(-tiles // max(_BYTES_OF_CHUNK // bytes_of_tile, _FEWEST_TILES)), 1)
    return max(min(round_up(-(-tiles // chunks), _TILES_OF_BLOCK), tiles), 1)


def product_of(shape: ConvShape, tiles: int) -> ConvShape:
    """The products of matrices as a grouped convolution of 1x1: a tile is an image of one pixel, a point a group."""
    s = shape
    return ConvShape(
        *(tiles, 1, 1, PLANES * s.IC, 1, 1, PLANES * s.OC, 1, 1, PLANES),
        *(1, 1, 1, 1, 0, 0),
        *(1, 1, 0, 0, 1, 1),
    )


class Cost(NamedTuple):
    """What a pass of a batch asks for beyond x and out: issued multiply-adds, and bytes written to be read again."""

    multiply_adds: int
    bytes: int
    #: Of all instructions of the main loop.
    share: float

    @property
    def instructions(self) -> float:
        """Both in one number: instructions that could be issued meanwhile."""
        return self.multiply_adds / self.share + self.bytes * _PER_BYTE


@lru_cache(maxsize=1024)
def costs(operation: str, geometry: Conv2dGeometry, images: int) -> dict[str, Cost]:
    """What each algorithm asks for, for so many images; channels are counted in whole turns and blocks.

    ==================  =============  =====================================================
                        multiply-adds  numbers written and read
    ==================  =============  =====================================================
    direct              9 an output    none
    winograd            36 a 4x4 tile  36 for each channel of a tile, and for each weight
    winograd_fused      16 a 2x2 tile  16 for each weight
    ==================  =============  =====================================================
    """
    g = geometry
    rows, columns = (g.IH, g.IW) if operation == "conv2d_grad_x" else (g.OH, g.OW)
    weights = round_up(g.IC, DEPTH) * round_up(g.OC, FUSED_COLUMNS)
    tiles, fused_tiles = (images * tiles_of_image(rows, columns, tile) for tile in (OUTPUTS, FUSED_OUTPUTS))
    twice = 2 * _BYTES
    found = {
        "direct": Cost(images * rows * columns * TAPS * TAPS * weights, 0, _SHARE),
        "winograd": Cost(tiles * PLANES * weights, twice * PLANES * (tiles * (g.IC + g.OC) + g.IC * g.OC), _SHARE),
    }
    if operation != "conv2d_grad_weight":
        multiply_adds = fused_tiles * FUSED_POINTS * weights
        found["winograd_fused"] = Cost(multiply_adds, twice * FUSED_POINTS * g.IC * g.OC, _FUSED_SHARE)
    return found


def declines(algorithm: str, operation: str, geometry: Conv2dGeometry, images: int | None) -> str | None:
    """Why another algorithm should compute a pass of so many images, by `costs`, or None.

    Where the number of images must not count, the answer is that of "auto": these kernels wait for their first GPU.
    """
    if images is None:
        return 'has not been timed on a GPU yet: taken by name, or with algorithm="fastest" where it should pay'
    counted = costs(operation, geometry, images)
    if algorithm not in counted:
        return f"has no {operation} of its own"
    found = {name: cost.instructions for name, cost in counted.items()}
    best = min(found, key=lambda name: found[name])
    if best == algorithm:
        return None
    return f"is counted to take {found[algorithm] / found[best]:.1f} times as long as {best}"
