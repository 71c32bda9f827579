"""Winograd convolution on the GPU, F(2x2, 3x3), in one kernel; the gradient of the weight is that of `conv_winograd`.

Ladder: registers and spilled bytes of a thread (ptxas 13.5), and the share of the products' multiply-adds in the
machine code of the main loop (nvdisasm 13.1), sm_90.  At most 128 registers let a multiprocessor hold two blocks.
`conv_winograd` has the times.

                                                                        registers   spilled   share
    x fetched a turn ahead                                                 128        128        --
    the loads of a turn before the barrier, no turn ahead                  127          0       63%
    four addresses for the exchanged runs of `a`, not one for each line    127          0       67%

sm_75 and sm_80 have 125 and 128 registers and 68%, sm_100 124; 32 KB of shared memory, two blocks of a T4.

F(4x4, 3x3) does not fit: 16 tiles x 32 channels at 36 points, 64 sums a thread as here, are 288 threads, two blocks of
which leave 112 registers to a thread.  Each number that comes from memory or the L2 cache is used 16 times, that of a
direct convolution with a tile of 128 x 128 64 times, which is what the fused kernel can come to wait for.

The transforms add, subtract and halve: whole numbers stay exact, and `winograd.error_bound` is a fifteenth of that of
F(4x4, 3x3).  The CPU has no such algorithm; every output element is the same few sums of the same 16 chains over ic,
wherever its tile lies.
"""

from __future__ import annotations

from typing import Any

from fastconv.cpu.shape import ConvShape, forward_shape, phases, round_up
from fastconv.cpu.winograd_tiles import images_of, tiles_of
from fastconv.cuda.conv_direct_plan import QUAD
from fastconv.cuda.conv_winograd import check, grad_weight as grad_weight
from fastconv.cuda.conv_winograd_plan import (
    FUSED_COLUMNS,
    FUSED_OUTPUTS,
    FUSED_POINTS,
    FUSED_TILES,
    declines as _declines,
    fused_refuses,
)
from fastconv.cuda.device import Engine, flats
from fastconv.cuda.epilogue import RELU, any_activation
from fastconv.cuda.winograd_taps import transformed_weight
from fastconv.geometry import Conv2dGeometry


def refuses(geometry: Conv2dGeometry) -> str | None:
    """Why the kernel cannot compute a problem, or None."""
    return fused_refuses(geometry)


def declines(operation: str, geometry: Conv2dGeometry, images: int | None) -> str | None:
    """Why another algorithm should compute a pass of so many images, or of any number of them, or None."""
    if images is None:
        return 'has bits that no CPU has: taken by name, or with algorithm="fastest"'
    return _declines("winograd_fused", operation, geometry, images)


@any_activation(RELU)
def forward(
    engine: Engine,
    geometry: Conv2dGeometry,
    x: Any,
    weight: Any,
    bias: Any | None,
    residual: Any | None,
    out: Any,
    activation: int,
) -> None:
    """``out = activation(conv2d(x, weight) + bias + residual)`` for contiguous float32 arrays on the device."""
    check(geometry, refuses)
    _run(engine, forward_shape(geometry), x, weight, False, bias, residual, out, activation)


def grad_x(engine: Engine, geometry: Conv2dGeometry, grad_out: Any, weight: Any, out: Any) -> None:
    """``out = the gradient with respect to x``: the forward convolution of grad_out with the kernel turned around."""
    check(geometry, refuses)
    (phase,) = phases(geometry)
    _run(engine, phase.shape, grad_out, weight, True, None, None, out, 0)


def workspace(geometry: Conv2dGeometry, itemsize: int) -> int:
    """Bytes on the device for forward and grad_x: the transformed weight."""
    g = geometry
    numbers = max(g.IC * round_up(g.OC, QUAD), g.OC * round_up(g.IC, QUAD))
    return itemsize * FUSED_POINTS * numbers


def _run(
    engine: Engine,
    shape: ConvShape,
    x: Any,
    weight: Any,
    turned: bool,
    bias: Any | None,
    residual: Any | None,
    out: Any,
    activation: int,
) -> None:
    from fastconv.cuda.kernels import conv_winograd_fused as kernels

    s = shape
    columns = round_up(s.OC, QUAD)
    taps = transformed_weight(engine, s, weight, FUSED_OUTPUTS, columns, swapped=turned, turned=turned)
    arrays = flats(engine, x, taps, bias, residual, out)
    tiles = tiles_of(s, FUSED_OUTPUTS)
    column_blocks = -(-s.OC // FUSED_COLUMNS)
    blocks = -(-tiles // FUSED_TILES) * column_blocks
    problem = *images_of(s, FUSED_OUTPUTS), tiles, columns, column_blocks
    engine.launch(kernels.forward(), blocks, *arrays, *problem, activation)
