"""When Winograd computes a convolution: what it can compute, and where it is faster than the direct sum.

Figures are times of the direct sum over those of Winograd, one thread, on an AVX-512 and an AVX2 core.
"""

from __future__ import annotations

from math import prod

import numpy as np

from fastconv.cpu.winograd import OUTPUTS, PLANES, TAPS
from fastconv.cpu.winograd_plan import products_of, reads_backwards
from fastconv.cpu.winograd_tiles import grid_of, needs, pieces_of
from fastconv.geometry import Conv2dGeometry, Pair
from fastconv.profile import current as current_profile

# Tiles of all images from which on Winograd is faster than the direct sum, with 32 to 512 channels: 0.7 to 1.1 times
# with 2 tiles, with 4 (one image of 7 x 7 or 8 x 8) 1.0 to 1.6 on an AVX-512 core and 1.0 to 1.4 on an AVX2 core, and
# more where the weights are kept.  Images of 5 x 5 and 6 x 6 have 4 tiles, too, and one of them takes about as long.
_FEWEST_TILES = 4
# Multiplications of the direct sum for each of Winograd's from which on it is faster, on AVX-512 and AVX2 cores, where
# pieces of 3x3 taps are not full.  With 32 or more channels and 16 images, 4x4 taps on 14 x 14 pixels (2.0) are 1.1 to
# 1.6 times as fast, 5x5 on 6 x 6 (2.3) 1.1 to 1.8, on 5 x 5 (1.6) .9 to 1.3.  With 16 channels, 5x5 taps on 14 x 14
# pixels (2.8) 1.1 to 1.3 times, 7x7 (2.5) 1.0 to 1.3, 5x5 on 9 x 9 (2.3) .7 to 1.0.
_LEAST_SAVING, _LEAST_SAVING_OF_FEW_CHANNELS = 1.9, 2.75
# Half of the channels that are asked for pay, too, where there are so many pairs of channels in and out, in squares of
# those asked for.  8 channels to 64, or 12 to 32: 3x3 taps are 1.4 to 1.7 times as fast, 7x7 1.1 to 1.4; 8 to 16: .8 to
# 1.2; 8 to 8, where the direct sum has several pixels in a vector: 25x25 .5 to .6, 15x15 .6 to .9.  AlexNet's first
# layer, 12 channels side by side, to 64: 1.6 to 1.9.
_MANY_PAIRS = 1.5
#: Depths beyond which the workspace of a thread is more than 8 MB.
MOST_DEPTHS = 2560
# Images that "auto" counts on: a few, and more for gradients, which are asked for in training only.  8 images of one
# tile, 3x3 outputs, and 64 channels are 1.1 to 1.4 times as fast as the direct sum, their gradient of x, too, that of
# the weight 1.4 to 1.7 times, 32 of them 1.8 to 2.8 times, a single one half as fast.
_IMAGES, _IMAGES_OF_TRAINING = 4, 8
# The gradient of a weight with many channels pays with less of its tiles filled, because its direct sum is slower: 2x2
# outputs, which fill 36%, are 1.0 to 1.1 times as fast with 8 images and 32 to 128 channels, 1.3 to 1.8 with 32 images.
_FILL_OF_GRAD_WEIGHT = 0.6
# Times the least channels that are many.
_MANY_CHANNELS = 2


def refuses(geometry: Conv2dGeometry, itemsize: int) -> str | None:
    """Why it cannot compute a problem with numbers of so many bytes, or None."""
    if itemsize > np.dtype(np.float32).itemsize:
        return "computes float32 only: float64 is asked for accuracy, which the transforms lose"
    return needs(geometry)


def tiles_of_image(rows: int, columns: int, dilation: Pair = (1, 1)) -> int:
    """4x4 tiles over an image."""
    return prod(grid_of(rows, columns, dilation))


def fill_of_tiles(rows: int, columns: int, dilation: Pair = (1, 1)) -> float:
    """Outputs of an image for each product, those of whole tiles being 1."""
    return rows * columns / OUTPUTS**2 * PLANES / products_of((rows, columns), dilation)


def declines(operation: str, geometry: Conv2dGeometry, images: int | None) -> str | None:
    """Why it should not compute one of `dispatch.OPERATIONS`, or None.

    *images* are those of the batch, or None where they must not count.
    """
    g = geometry
    backwards, of_weight = operation == "conv2d_grad_x", operation == "conv2d_grad_weight"
    if backwards and g.stride != (1, 1):
        return "leaves the gradient of x to the direct sum where there is a stride"
    pieces = prod(pieces_of((g.KH, g.KW), g.stride))
    reason = _too_few_channels(g)
    if reason is not None:
        return reason
    # what is cut into tiles: the images that are written, or grad_out
    rows, columns = (g.IH, g.IW) if backwards and not reads_backwards(g) else (g.OH, g.OW)
    tiles = tiles_of_image(rows, columns, g.dilation)
    # the direct sum for the gradient of x goes over the pixels of grad_out, and leaves out what lies around them
    pixels = min(g.OH * g.OW, rows * columns)
    fill = pixels / (rows * columns) * fill_of_tiles(rows, columns, g.dilation)
    pays, channels = current_profile(), min(g.IC * g.stride[1], g.OC)
    many_channels = channels >= _MANY_CHANNELS * pays.channels
    least_fill = pays.fill * (_FILL_OF_GRAD_WEIGHT if of_weight and many_channels else 1)
    if fill < least_fill:
        return f"pays where pixels fill {least_fill:.0%} of their tiles, here {g.OH}x{g.OW} fill {fill:.0%}"
    saving = pixels * g.KH * g.KW / products_of((rows, columns), g.dilation, (g.KH, g.KW), g.stride)
    least_saving = _LEAST_SAVING if many_channels else _LEAST_SAVING_OF_FEW_CHANNELS
    if g.KH * g.KW < pieces * TAPS * TAPS and saving < least_saving:
        return f"pays where the direct sum multiplies {least_saving} times as often, here {saving:.2f} times"
    depths = pieces * (g.OC if backwards else g.IC)
    if depths > MOST_DEPTHS and not of_weight:
        return f"needs more than 8 MB for the channels of all pieces beyond {MOST_DEPTHS}, here {depths}"
    batch = _IMAGES_OF_TRAINING if of_weight or backwards else _IMAGES
    if images is None and batch * tiles * channels < pays.work:
        return f"{tiles} tiles of {channels} channels do not pay for transforming the weight"
    if images is not None and images * tiles < _FEWEST_TILES:
        return f"{images * tiles} tiles do not pay for transforming the weight"
    return None


def _too_few_channels(geometry: Conv2dGeometry) -> str | None:
    least = current_profile().channels
    # with a stride, pixels side by side are read as one
    inputs, outputs = geometry.IC * geometry.stride[1], geometry.OC
    pairs = round(_MANY_PAIRS * least**2)
    if min(inputs, outputs) >= least // (2 if inputs * outputs >= pairs else 1):
        return None
    return f"pays from {least} channels on, or half of that with {pairs} pairs in and out, here {inputs} and {outputs}"
