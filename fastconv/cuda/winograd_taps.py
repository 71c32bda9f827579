"""The transform of a weight to Winograd's points on the GPU."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv.cpu.shape import ConvShape
from fastconv.cpu.winograd_tiles import depths_of, images_of
from fastconv.cuda.device import Engine, flat


def transformed_weight(
    engine: Engine,
    shape: ConvShape,
    weight: Any,
    tile: int,
    columns: int | None = None,
    swapped: bool = False,
    turned: bool = False,
) -> Any:
    """``taps[depth, point, oc]``, with *columns* from a point to the next: OC or more.

    For grad_x input and output channels are *swapped*, and for a convolution of grad_out taps are *turned*, too: in
    reverse order.
    """
    from fastconv.cuda.kernels import conv_winograd as kernels, elements

    s, columns = shape, columns or shape.OC
    inputs, _ = images_of(s, tile)
    tap, pairs = s.IC * s.OC, depths_of(inputs) * s.OC
    first, tap_step = ((s.KH * s.KW - 1) * tap, -tap) if turned else (0, tap)
    steps = first, tap_step, *((1, s.IC) if swapped else (s.OC, 1))
    taps = engine.empty((depths_of(inputs) * kernels.points_of(tile) * columns,), np.float32)
    problem = *steps, inputs, s.KH, s.KW, s.OC, columns, pairs
    elements.launch(engine, kernels.taps_to_points(tile), pairs, flat(weight), taps, *problem)
    return taps
