"""Winograd convolution on the GPU, F(4x4, 3x3), of kernels in pieces of 3x3 taps, with the CPU's bits.

Tiles, pieces, strides and dilation are those of `cpu.winograd_tiles`.  Products at infinity that do not count are
computed all the same, and change nothing that is written.  Tiles of three outputs and pieces of two taps have run on
the interpreter alone; the ladder, on an H200, is of tiles of four and of 3x3 taps.

Ladder: microseconds on an H200, kernels replayed from a CUDA graph, as many input as output channels, padding 1; cuDNN
beside them in float32.

                                          32 images                        1 image
    channels                         64    128    256    512        64    128    256    512
    image                         56x56  28x28  14x14    7x7     56x56  28x28  14x14    7x7
    forward      direct             216    204    284    408        31     56    109    213
                 this               170    137    128    119        20     26     32    107
                   now              169     96    124    116        17     19     24     57
                 one kernel         141    127    126    160        18     30     51     95
                 cuDNN              269    141    177    308        24     37     66    132
    grad_x       direct             220    208    288    433        34     63    115    231
                 this               172    139    131    128        21     26     35    118
                   now              170     99    127    125        18     20     26     67
                 one kernel         143    129    129    172        19     35     54    108
                 cuDNN              151    130    271    304        25     31     26     44
    grad_weight  direct            1878    719    372    225        40     27     16     13
                 this               170    124     99     96        21     18     18     35
                   now              126    109     98     85        16     14     15     30
                 cuDNN              333    128    106    109        27     17     12     12

"now" is with the tiles for the products that `conv_direct_plan` has since chosen by measured times; direct convolutions
are faster with them as well, most of all for one image.  "one kernel" is `conv_winograd_fused`.  The forward pass of 64
channels has 3699 million multiply-adds in the direct convolution, 925 here, and 284 MB for x, out and what goes from
kernel to kernel: these bytes are most of its time.  With few images every algorithm waits, turn by turn of the chain,
for memory to answer: 9 IC / 8 turns of the direct convolution, IC / 8 here.  `conv_winograd_plan.microseconds` is what
all of this adds up to.

"auto" takes this algorithm where the CPU takes its own Winograd, so a network has the same bits on both.

Registers of a thread (ptxas 13.5, nothing spilled), each kernel with three blocks of 256 threads on a multiprocessor:

                                       sm_75   sm_80   sm_90   sm_100
    x to points                           80      80      80       72
    the same, in pieces                   80      80      80       80
    grad_out to points                    72      80      80       64
    weight to points                      72      80      80       80
    points to out, with the epilogue      60      62      64       64
    points to grad_weight                 64      64      64       64

The 36 products of matrices between the transforms are a grouped convolution of 1x1 over tiles in place of pixels, a
group for each point, so the kernels of `conv_direct` compute them, chains of fused multiply-adds over ic as on the CPU.
The gradient of the weight is that of the same grouped convolution.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fastconv.cpu import conv_winograd_weight
from fastconv.cpu.shape import ConvShape, forward_shape, phases
from fastconv.cpu.winograd import OUTPUTS, PLANES
from fastconv.cpu.winograd_plan import reads_backwards
from fastconv.cpu.winograd_tiles import depths_of, images_of, tiles_of
from fastconv.cuda import conv_direct, conv_winograd_scatter
from fastconv.cuda.chains import add_chains
from fastconv.cuda.conv_direct_plan import starts_of_splits
from fastconv.cuda.conv_winograd_plan import (
    declines as _declines,
    is_plain,
    product_of,
    refuses as refuses,
    tiles_of_chunk,
)
from fastconv.cuda.device import Engine, flat, flats
from fastconv.cuda.epilogue import RELU, any_activation
from fastconv.cuda.winograd_taps import transformed_weight
from fastconv.geometry import Conv2dGeometry


def declines(operation: str, geometry: Conv2dGeometry, images: int) -> str | None:
    """Why another algorithm should compute a pass of so many images, or None."""
    return _declines("winograd", operation, geometry, images)


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
    s = forward_shape(geometry)
    _run(engine, s, x, transformed_weight(engine, s, weight, OUTPUTS), bias, residual, out, activation)


def grad_x(engine: Engine, geometry: Conv2dGeometry, grad_out: Any, weight: Any, out: Any) -> None:
    """``out = the gradient with respect to x``: the forward convolution of grad_out with the kernel turned around.

    With a stride it is that of `conv_direct`, for small images without padding that of `conv_winograd_scatter`.
    """
    check(geometry, refuses)
    if geometry.stride != (1, 1):
        conv_direct.grad_x(engine, geometry, grad_out, weight, out)
        return
    if reads_backwards(geometry):
        conv_winograd_scatter.grad_x(engine, geometry, grad_out, weight, out)
        return
    (phase,) = phases(geometry)
    taps = transformed_weight(engine, phase.shape, weight, OUTPUTS, swapped=True, turned=True)
    _run(engine, phase.shape, grad_out, taps, None, None, out, 0)


def grad_weight(engine: Engine, geometry: Conv2dGeometry, x: Any, grad_out: Any, out: Any) -> None:
    """``out = the gradient with respect to weight``: partial sums over a fixed split of the tiles, added in order."""
    from fastconv.cuda.kernels import conv_winograd as kernels, elements

    check(geometry, refuses)
    s, out = forward_shape(geometry), flat(out)
    inputs, outputs = images_of(s)
    tiles = tiles_of(s)
    splits = conv_winograd_weight.split_count(geometry)
    ins, outs, pairs = tiles * depths_of(inputs), tiles * s.OC, splits * depths_of(inputs) * s.OC
    left, right, sums = (engine.empty((PLANES * lines,), np.float32) for lines in (ins, outs, pairs))
    plain = is_plain(s)
    elements.launch(engine, kernels.input_to_points(plain), ins, flat(x), left, inputs, 0, ins)
    elements.launch(engine, kernels.grad_out_to_points(plain), outs, flat(grad_out), right, outputs, 0, outs)
    conv_direct.write_chains(engine, product_of(s, tiles), left, right, starts_of_splits(tiles, splits), sums)

    def write(taps: Any) -> None:
        elements.launch(engine, kernels.points_to_taps(), pairs, sums, taps, inputs, s.KH, s.KW, s.OC, pairs)

    add_chains(engine, write, starts_of_splits(splits, splits), out)


def workspace(geometry: Conv2dGeometry, itemsize: int) -> int:
    """Bytes on the device: the largest of what the three passes need; that of grad_weight grows with the batch."""
    s = forward_shape(geometry)
    inputs, _ = images_of(s)
    depths: int = depths_of(inputs)
    channels, weights = depths + s.OC, depths * s.OC
    splits = conv_winograd_weight.split_count(geometry)
    of_forward = PLANES * (tiles_of_chunk(s) * channels + weights)
    partial = splits * s.KH * s.KW * s.IC * s.OC if splits > 1 else 0
    of_weight = PLANES * (tiles_of(s) * channels + splits * weights) + partial
    of_grad_x = conv_winograd_scatter.workspace(geometry) if reads_backwards(geometry) else 0
    return itemsize * max(of_forward, of_grad_x, of_weight)


def check(geometry: Conv2dGeometry, refuses: Callable[[Conv2dGeometry], str | None]) -> None:
    """Raise ValueError for a problem that is refused."""
    if reason := refuses(geometry):
        raise ValueError(f"the Winograd kernels of the GPU cannot compute {geometry}: it {reason}")


def _run(
    engine: Engine,
    shape: ConvShape,
    x: Any,
    taps: Any,
    bias: Any | None,
    residual: Any | None,
    out: Any,
    activation: int,
) -> None:
    """Chunk by chunk of tiles: to points, 36 products, back to out."""
    from fastconv.cuda.kernels import conv_winograd as kernels, elements

    s = shape
    x, bias, residual, out = flats(engine, x, bias, residual, out)
    inputs, outputs = images_of(s)
    total, most, plain = tiles_of(s), tiles_of_chunk(s), is_plain(s)
    points, sums = (engine.empty((most * PLANES * depths,), np.float32) for depths in (depths_of(inputs), s.OC))
    for first in range(0, total, most):
        tiles = min(most, total - first)
        ins, outs = tiles * depths_of(inputs), tiles * s.OC
        elements.launch(engine, kernels.input_to_points(plain), ins, x, points, inputs, first, ins)
        conv_direct.run_shape(engine, product_of(s, tiles), points, taps, None, None, sums, 0)
        arguments = sums, bias, residual, out, outputs, first, outs, activation
        elements.launch(engine, kernels.points_to_output(plain), outs, *arguments)
