"""Winograd's gradient of x for small images without padding on the GPU, with the CPU's bits.

The forward pass read backwards, as in `cpu.conv_winograd_scatter`: grad_out to points, 36 products with the weight,
back to 6x6 pixels of each tile; then every number of grad_x is the sum of those of at most four tiles.  It has run on
the interpreter alone.

Registers of a thread, sm_75 to sm_100, nothing spilled: points to pixels 80, three blocks of 256 threads on a
multiprocessor; sums of tiles 35 to 38, four of them.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from fastconv.cpu.shape import forward_shape, phases
from fastconv.cpu.winograd import OUTPUTS, PLANES, TAPS
from fastconv.cpu.winograd_tiles import grid_of, images_of
from fastconv.cuda import conv_direct
from fastconv.cuda.conv_winograd_plan import images_of_chunk, is_plain, product_of
from fastconv.cuda.device import Engine, flat
from fastconv.cuda.winograd_taps import transformed_weight
from fastconv.geometry import Conv2dGeometry


def grad_x(engine: Engine, geometry: Conv2dGeometry, grad_out: Any, weight: Any, out: Any) -> None:
    """``out = the gradient with respect to x`` where `winograd_plan.reads_backwards`: chunk by chunk of images."""
    from fastconv.cuda.kernels import conv_winograd, conv_winograd_scatter as kernels, elements

    (phase,) = phases(geometry)
    s, (_, images) = phase.shape, images_of(forward_shape(geometry))
    tiles_of_image, pixels_of_image, most = images.grid_h * images.grid_w, s.OH * s.OW, images_of_chunk(geometry)
    taps = transformed_weight(engine, s, weight, OUTPUTS, swapped=True)
    of_tiles = most * tiles_of_image * PLANES
    # points of grad_out, then pixels of grad_x, the images that the tiles have *seen*
    points, sums = (engine.empty((of_tiles * channels,), np.float32) for channels in (max(s.IC, s.OC), s.OC))
    seen = images._replace(H=s.OH, W=s.OW, C=s.OC, top=s.pad_top - (TAPS - 1), left=s.pad_left - (TAPS - 1))
    grad_out, out = flat(grad_out), flat(out)
    for first in range(0, s.N, most):
        count = min(most, s.N - first)
        tiles = count * tiles_of_image
        ins, outs, numbers = tiles * s.IC, tiles * s.OC, count * pixels_of_image * s.OC
        to_points = conv_winograd.grad_out_to_points(is_plain(s))
        elements.launch(engine, to_points, ins, grad_out, points, images, first * tiles_of_image, ins)
        conv_direct.run_shape(engine, product_of(s, tiles), points, taps, None, None, sums, 0)
        elements.launch(engine, kernels.points_to_pixels(), outs, sums, points, s.OC, outs)
        last = points, out, seen, tiles, first * pixels_of_image, numbers
        elements.launch(engine, kernels.add_tiles(), numbers, *last)


def workspace(geometry: Conv2dGeometry) -> int:
    """Numbers in memory of the device: the weight, and a chunk of images."""
    g = geometry
    tiles = images_of_chunk(g) * prod(grid_of(g.OH, g.OW))
    return PLANES * (tiles * (max(g.IC, g.OC) + g.IC) + g.IC * g.OC)
