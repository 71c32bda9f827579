"""Direct convolution on the GPU: forward, grad_x and grad_weight as products of matrices that are never stored.

Ladder: registers and spilled bytes of a thread (ptxas 13.5), and the share of fused multiply-adds in the machine code
of the main loop (nvdisasm 13.5), of the forward kernel with a tile of 128 x 128, four channels at a time, sm_90.  At
most 128 registers let a multiprocessor hold two blocks.

                                                                        registers   spilled   share
    taps from a table, all products of a turn as one operation             158          0      84%
    bound to 128 registers                                                 128        208      81%
    one counter; the block's place worked out again after the loop         128        152      82%
    the rows of a tile finished one after another, not in a loop           126          0      84%
    addresses that move along, in place of arrays and positions            125          0      87%
    what stands for padding is constant, and not in the table              122          0      88%

94% would be the loads of the factors alone.  A loop of four over two depths each, in place of eight depths in a row,
has the products at 88%, but the loads between them bring a whole turn to 69%.  grad_weight with a tile of 128 x 64 came
from 75% to 82% by addresses that move along, and to 85% by threads that load several taps of one pixel, whose place
they work out once, in place of one tap of several pixels.

Measured on an H200 up to there, with turns of 8 numbers for all tiles: forward with 3x3 taps,
64 channels and 32 images of 56 x 56 in 216 us, 34 TFLOP/s (cuBLAS multiplies matrices at 51).  Where a multiprocessor
held few warps, each turn took 700 to 900 cycles, however little there was to multiply: one image of 7 x 7 x 512 213 us,
grad_weight of the first layer here 1878 us.  That is latency, twice in a row in the forward pass: of an entry of the
table, and of the x that it points to.  Since then the entries of deeper turns come a turn earlier, turns of smaller
tiles are deeper, so that more is on its way, and the smallest tile has four warps in place of two, one for each
scheduler: grad_weight of 1x1 taps, 64 channels of the same images, takes 115 us in place of 404 us.

What did not pay, measured: entries a turn ahead with turns of 8, 108.9 us against 118.6 us for 1x1 taps from 64 to 256
channels, same images, and 173 us against 184 us for 256 to 512 channels of 28 x 28, with as many instructions, but 127
registers in place of 122; and turns of 16 wherever tiles are 128 x 64, 101.2 us against 107.5 us (256 to 64 channels),
though with a single block on a multiprocessor a turn of 16 takes little longer than one of 8.  So there are both.
(Two runs; cuDNN, whose kernels were the same, took 1 to 2% longer in the second.)

Neighbouring threads of a warp that have the same columns, in place of the same rows, without any other difference that
can be counted, gave up to 10% with tiles of 128 x 128 (109.7 us -> 99.9 us, 512 to 2048 channels of 7 x 7), 15% with
64 x 64 (248 -> 210) and 25% with 32 x 32 in grad_weight (433 -> 347, 128 to 512 channels of 28 x 28).

Chains of grad_weight as long as a split of the CPU's tasks, or of at most 512 pixels each, as many as 2048 squares of
64 x 64 weights (the CPU has the same); microseconds of an H200, 32 images, and cuDNN's:

                                              whole splits    of 512 pixels    cuDNN
    7x7 stride 2, 3 -> 64, 224 x 224              834              370          447
    1x1, 64 -> 256, 56 x 56                       355               98          140
    1x1, 128 -> 512, 28 x 28                      352               85          166
    3x3 stride 2, 256 -> 256, 28 x 28             342              200          299
    1x1, 512 -> 2048, 7 x 7                        90               92          103
    mean of 31 layers, cuDNN's time over it      0.71             1.22

At most 1024 pixels gave 1.08, 2048 1.07, 512 pixels in 1024 squares 1.17.

The tiles, with registers and shares as above; a thread has 8 x 8 sums, 8 x 4 with 64 x 64 and 64 x 32, 2 x 4 with
32 x 32 and 64 x 4.  `conv_direct_plan` says how many blocks share a multiprocessor, and which tile is chosen:

                                      threads   turn   four channels at a time   one at a time
    forward              128 x 128      256       8          122     88%           125     84%
                         128 x 64       128       8          130     86%           128     79%
                         128 x 64       128      16          165     88%           214     80%
                          64 x 64       128      16          111     83%           128     76%
                          64 x 32        64      16          125     79%           167     69%
                          32 x 32       128      32           89     68%           127     59%
                          64 x 4         32      16          127     45%           167     29%
                          64 x 32 parts  64      16          161     73%           209     63%
                          64 x 4  parts  32      16          127     42%           168     28%
    grad_weight          128 x 128      256       8          128     86%           128     79%
                         128 x 64       128       8          163     85%           167     75%
                         128 x 64       128      16          168     86%           231     76%
                          64 x 64       128      16          125     82%           163     72%
                          64 x 32        64      16          137     78%           167     62%
                          32 x 32       128      64          125     68%           165     54%

    python -m pytest tests/cuda/test_machine_code.py      # registers, spills, and shares in machine code

The bits are those of `cpu.conv_direct`: every element is the same chain of fused multiply-adds from zero, denormals are
zero, padding takes part as zeros.  One difference is left: where the CPU sums the products of each tap apart
(`cpu.conv_scatter`), it skips taps outside the image; here they meet zeros, which shows in weights that are not finite.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastconv.cpu import conv_scatter
from fastconv.cpu.chains import split_count, starts_of_chains
from fastconv.cpu.shape import ConvShape, as_product, forward_shape, phases
from fastconv.cuda.chains import add_chains
from fastconv.cuda.conv_direct_plan import (
    QUAD,
    TURN_OF_PARTS,
    check_size,
    choose_tile,
    forward_problem,
    starts_of_splits,
    table_of_taps,
    tiles_of_forward,
    turns_of_tap,
    vectors_possible,
    weight_problem,
    weight_tile,
)
from fastconv.cuda.device import Engine, aligned, flat, flats
from fastconv.cuda.epilogue import any_activation
from fastconv.geometry import Conv2dGeometry


@any_activation()
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
    run_shape(engine, as_product(forward_shape(geometry)), x, weight, bias, residual, out, activation)


def run_shape(
    engine: Engine,
    shape: ConvShape,
    x: Any,
    weight: Any,
    bias: Any,
    residual: Any,
    out: Any,
    activation: int,
    turns_of_part: int = 0,
) -> None:
    """The forward kernel for any shape: one phase of a gradient, or products of matrices, one for each group."""
    from fastconv.cuda.kernels import conv_direct as kernels

    s = shape
    if s.N == 0:
        return
    check_size(s)
    arrays = flats(engine, x, weight, bias, residual, out)
    columns = s.OC // s.G
    depths = s.KH * s.KW * (s.IC // s.G)
    tile = choose_tile(s.N * s.OH * s.OW, columns, s.G, depths, tiles_of_forward(columns, turns_of_part > 0))
    vector = vectors_possible(s, tile) and aligned(*arrays)
    column_vector = vector or (columns % QUAD == 0 and aligned(*arrays[1:]))
    table = table_of_taps(s, QUAD if vector else 1, tile.depth, turns_of_part)
    problem, blocks = forward_problem(s, tile, turns_of_part)
    kernel = kernels.forward(tile, vector, turns_of_part > 0, column_vector)
    engine.launch(kernel, blocks, *arrays, engine.constant(table.reshape(-1)), problem, activation)


def grad_x(engine: Engine, geometry: Conv2dGeometry, grad_out: Any, weight: Any, out: Any) -> None:
    """``out = the gradient with respect to x``: a forward convolution of grad_out for each phase of the stride.

    Where the CPU sums the products of each tap apart (`cpu.conv_scatter`), so do the kernels here: tap by tap, in the
    order in which it adds them.
    """
    from fastconv.cuda.kernels import conv_direct as kernels, elements

    g = geometry
    if g.N == 0:
        return
    in_parts = conv_scatter.suits(g)
    inputs, outputs = g.IC // g.G, g.OC // g.G
    for shape, taps in phases_with_taps(engine, g, out):
        turns_of_part = turns_of_tap(shape) if in_parts else 0
        lines = turns_of_part * TURN_OF_PARTS or outputs
        swapped = engine.empty((taps.size * lines * g.IC,), np.float32)
        arguments = flat(weight), engine.constant(taps), swapped, inputs, outputs, lines, g.G
        elements.launch(engine, kernels.swap_channels(), swapped.size, *arguments)
        run_shape(engine, as_product(shape), grad_out, swapped, None, None, out, 0, turns_of_part)


def phases_with_taps(
    engine: Engine, geometry: Conv2dGeometry, out: Any
) -> Iterator[tuple[ConvShape, NDArray[np.int32]]]:
    """The shape and the taps of each phase of grad_x; pixels that no tap reaches become zero.

    There are such where the stride is larger than the kernel.
    """
    from fastconv.cuda.kernels import elements

    found = [
        (phase.shape, (phase.rows[:, np.newaxis] * geometry.KW + phase.columns).astype(np.int32).reshape(-1))
        for phase in phases(geometry)
    ]
    if not all(taps.size for _, taps in found):
        elements.launch(engine, elements.fill_zeros(), flat(out).size, flat(out))
    return ((shape, taps) for shape, taps in found if taps.size)


def grad_weight(engine: Engine, geometry: Conv2dGeometry, x: Any, grad_out: Any, out: Any) -> None:
    """``out = the gradient with respect to weight``: chains over parts of the pixels, added in order."""
    from fastconv.cuda.kernels import elements

    s, out = as_product(forward_shape(geometry)), flat(out)
    if geometry.N == 0:
        elements.launch(engine, elements.fill_zeros(), out.size, out)
        return
    starts = starts_of_chains(s)
    splits = starts_of_splits(starts.size - 1, split_count(s))
    add_chains(engine, partial(write_chains, engine, s, x, grad_out, starts), splits, out)


def write_chains(engine: Engine, shape: ConvShape, x: Any, grad_out: Any, starts: NDArray[np.int32], sums: Any) -> None:
    """``sums[chain]``: the gradient with respect to weight, from pixel ``starts[chain]`` up to the next chain."""
    from fastconv.cuda.kernels import conv_direct as kernels

    s = shape
    check_size(s)
    x, grad_out = flat(x), flat(grad_out)
    chains = starts.size - 1
    tile = weight_tile(s, starts)
    vector = vectors_possible(s, tile) and aligned(x, grad_out, sums)
    table = engine.constant(table_of_taps(s, QUAD if vector else 1, tile.depth).reshape(-1))
    problem, blocks = weight_problem(s, tile, chains)
    kernel = kernels.grad_weight(tile, vector)
    engine.launch(kernel, blocks, x, grad_out, sums, table, engine.constant(starts), problem)
