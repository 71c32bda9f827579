"""Convolution on tensor cores: forward, grad_x and grad_weight with factors of fewer bits and float32 sums.

``precision`` is "tf32" or "bf16" (compute capability 8.0 and newer) or "fp16" (7.5 and newer).  x, weight and results
stay float32 arrays; only the factors of each product are rounded, to nearest.  Nothing here is ever chosen for a caller
who has not named a precision.

Accuracy.  Products are exact, and with u = 2^-11 (tf32, fp16) or 2^-8 (bf16) every sum of *depths* of them satisfies

    |computed - exact| <= (2 u + u^2 + depths * 2^-22) * sum |x| |weight|

where the numbers are within the range of the format: fp16 ends at 65504, above which numbers are infinite, and has
fewer bits below 2^-14; the others have float32's range.  The second term allows for tensor cores that cut off what they
add instead of rounding it; NVIDIA documents neither.  Where no factor needs rounding and every sum is a whole number
below 2^24, the result is exact.

Bits.  A chain goes over (kh, kw, ic), in grad_weight over pixels, in steps of one ``mma`` each: the same for every tile
and batch.  sm_75, whose ``mma`` takes half as many numbers, rounds between the halves and may differ from the others.

Bytes decide where rounding happens.  For each number of x, a 3x3 convolution with one block of columns moves from
memory and second-level cache

    16 bits, rounded on the way to shared memory, through registers    9 * 4 = 36 bytes
    16 bits, rounded to a copy first                           4 + 2 + 9 * 2 = 24 bytes, and copies are asynchronous
    tf32, rounded to a copy first                              4 + 4 + 9 * 4 = 44 bytes
    tf32, rounded in registers, just before the product                9 * 4 = 36 bytes, two instructions a number

so x is copied for 16 bits (1x1 with one block of columns would rather not: 8 bytes in place of 4) and not for tf32.
The weight is small, and has to be turned over anyway.

Ladder: microseconds of a forward pass on an H200, 32 images, kernels replayed from a CUDA graph; cuDNN beside them, in
16 bits on arrays of 16 bits, which save it the kernel that rounds.

                                        3x3    64      128      256      512    1x1    64 to 256 channels
                                            56 x 56  28 x 28  14 x 14   7 x 7          56 x 56
    three stages, taps from a table    tf32   144      105      155      175                80
                                       fp16   107       65       87       88                78
    all four of the below              tf32    71       79       92      113                64
    cuDNN                              tf32    45       33       28       37                43
                                       fp16    25       18       18       17                24

No unit was near its limit in these: a tensor core got an ``mma`` in 40 cycles and takes 4.  By counting, these were:

  - Every block read the same 64 bytes of the table of taps in every turn, from one slice of the second-level cache, and
    these came one turn before they were needed: 600 cycles a turn where a block has a multiprocessor for itself.  Now a
    thread works out where its next chunk lies, in 10 instructions more and 3 registers fewer.
  - With 64 channels there is one block of columns, so all 528 blocks at work read the same 4 KB of the weight in every
    turn, 2 MB from 32 lines of that cache.  Now they pass through the first-level cache, which serves the blocks of one
    multiprocessor together; so does x, which 9 taps read.
  - With 256 and 512 channels, 784 and 400 blocks of 64 x 32 asked for 350 MB (tf32: 700) at 4.5 TB/s, about all that
    this cache gives.  Now the tile is 128 x 128, 113 MB, and 128 x 64, 180 MB: fewer blocks than multiprocessors, but
    the busiest one copies least.
  - The smallest tile had two warps, which wait for their own instructions; now it has four.

They were timed together, and in tf32 only.

Instructions of the main loop, in PTX, for 32 ``mma`` of fp16 (sm_80, 128 x 128):

    one counter of turns, one barrier a turn, taps from a table           112
    addresses in shared memory as 32-bit numbers, chunks as positions     106
    taps worked out                                                       118

With a warp's tile of 64 x 32, the loads that wait in registers on sm_75 made it spill 48 bytes at 128 registers; with
32 x 32 it has 101 and none.

In machine code, a turn of a warp (nvdisasm 13.1), registers (ptxas 13.5), and blocks that share a multiprocessor:

                                      mma   instructions   registers   shared   blocks
    forward      128 x 128   16 bits   32       110           123        48 KB     2     sm_80
                             tf32      32       175           116        48 KB     2
                 128 x 64    16 bits   32       126           138        48 KB     3
                             tf32      32       191           122        48 KB     3
                  64 x 32    16 bits    8        74            63        24 KB     6
                             tf32       8       108            61        24 KB     6
    grad_weight  128 x 128   16 bits   32       140           127        48 KB     2
                             tf32      32       287           121        48 KB     2
                  64 x 64    16 bits   16       118            92        32 KB     4
                             tf32      16       211            87        32 KB     4
    forward      128 x 64    fp16      32        97           101        24 KB     2     sm_75
                  64 x 32    fp16      32       125           120        12 KB     5
    grad_weight   64 x 64    fp16      32       136           108        16 KB     4

An ``mma`` of these keeps a tensor core of an A100 busy for 8 cycles, of an H100 for 4, and a scheduler issues one
instruction a cycle: of the largest tiles, forward in 16 bits would wait for tensor cores on both, tf32 on an A100.
Shared memory is closer: a turn of the largest tile moves 512 times 128 bytes without a conflict (8 warps read 12 x 4
each, copies write 128), one a cycle, as many cycles as the products of the turn take on an A100, and twice those of an
H100.  A warp's tile of 64 x 64 would move 384, with half as many warps and 210 registers.

    python -m pytest tests/cuda/test_conv_tensorcore_code.py    # instructions of PTX, registers, spills
    nvdisasm -c kernel.cubin                                    # of what ptxas makes of the same PTX
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastconv.cpu.shape import ConvShape, as_product, forward_shape
from fastconv.cuda.chains import add_chains
from fastconv.cuda.conv_direct import phases_with_taps
from fastconv.cuda.conv_direct_plan import QUAD, check_size, starts_of_splits
from fastconv.cuda.conv_tensorcore_plan import (
    CHUNK_BYTES,
    FRAGMENT,
    PRECISIONS,
    TF32,
    TILES,
    TILES_BY_REGISTERS,
    WEIGHT_TILES,
    WORDS,
    Precision,
    choose_tile,
    choose_weight_tile,
    forward_problem,
    packed_chunks,
    packing,
    table_of_chunks,
    weight_problem,
)
from fastconv.cuda.device import Engine, address, flat
from fastconv.cuda.epilogue import RELU, any_activation
from fastconv.geometry import Conv2dGeometry

#: The first compute capability with asynchronous copies.
_ASYNCHRONOUS = (8, 0)
#: Positions in the kernels are 32-bit integers, of chunks.
_LARGEST = 2**31 - 2**16


def refuses(geometry: Conv2dGeometry, precision: str, capability: tuple[int, int]) -> str | None:
    """Why these kernels cannot compute a problem on a GPU of this compute capability, or None."""
    g = geometry
    if precision not in PRECISIONS:
        return f"needs a precision of {', '.join(PRECISIONS)}, here {precision!r}"
    kind = PRECISIONS[precision]
    if capability < kind.capability:
        major, minor = kind.capability
        return (
            f"needs compute capability {major}.{minor} or newer for {precision}, here {capability[0]}.{capability[1]}"
        )
    of_group = g.IC // g.G, g.OC // g.G
    if any(channels % FRAGMENT for channels in of_group):
        return f"needs multiples of {FRAGMENT} input and output channels in each group, here {of_group}"
    chunks = max(
        g.N * g.IH * g.IW * g.IC // kind.channels,
        g.N * g.OH * g.OW * g.OC // kind.channels,
        *(2 * packed_chunks(g, kind, *channels) for channels in (of_group, of_group[::-1])),
    )
    if chunks >= _LARGEST:
        return f"needs fewer than {_LARGEST} chunks in x, in out, and twice those in the weight, here {chunks}"
    return None


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
    precision: str,
) -> None:
    """``out = activation(conv2d(x, weight) + bias + residual)`` for contiguous float32 arrays on the device."""
    _check(geometry, precision, engine.capability)
    g, kind = geometry, PRECISIONS[precision]
    if g.N == 0:
        return
    taps = np.arange(g.KH * g.KW, dtype=np.int32)
    last = bias, residual, out, activation
    shape = as_product(forward_shape(g))
    _run(engine, shape, _chunks(engine, x, kind), weight, taps, g.OC, False, last, kind)


def grad_x(
    engine: Engine,
    geometry: Conv2dGeometry,
    grad_out: Any,
    weight: Any,
    out: Any,
    precision: str,
) -> None:
    """``out = the gradient with respect to x``: a forward convolution of grad_out for each phase of the stride."""
    _check(geometry, precision, engine.capability)
    g, kind = geometry, PRECISIONS[precision]
    if g.N == 0:
        return
    chunks = _chunks(engine, grad_out, kind)
    for shape, taps in phases_with_taps(engine, g, out):
        _run(engine, as_product(shape), chunks, weight, taps, g.OC, True, (None, None, out, 0), kind)


def grad_weight(
    engine: Engine,
    geometry: Conv2dGeometry,
    x: Any,
    grad_out: Any,
    out: Any,
    precision: str,
) -> None:
    """``out = the gradient with respect to weight``: partial sums over a fixed split of the pixels, added in order."""
    from fastconv.cuda.kernels import conv_tensorcore as kernels, elements

    _check(geometry, precision, engine.capability)
    kind, s = PRECISIONS[precision], as_product(forward_shape(geometry))
    out = _aligned(out)
    if geometry.N == 0:
        elements.launch(engine, elements.fill_zeros(), out.size, out)
        return
    check_size(s)
    asynchronous = engine.capability >= _ASYNCHRONOUS
    tiles = WEIGHT_TILES if asynchronous else WEIGHT_TILES[1:]
    tile = choose_weight_tile(tiles, s.KH * s.KW * (s.IC // s.G), s.OC // s.G)
    problem, blocks = weight_problem(s, tile, kind)
    pixels = s.N * s.OH * s.OW
    starts = engine.constant(starts_of_splits(pixels, problem.splits))
    table = engine.constant(table_of_chunks(s, kind).reshape(-1))
    kernel = kernels.grad_weight(tile, kind, asynchronous)
    factors = _chunks(engine, x, kind), _chunks(engine, grad_out, kind)

    def write(sums: Any) -> None:
        engine.launch(kernel, blocks, *factors, sums, table, starts, problem)

    add_chains(engine, write, starts_of_splits(problem.splits, problem.splits), out)


def _check(geometry: Conv2dGeometry, precision: str, capability: tuple[int, int]) -> None:
    reason = refuses(geometry, precision, capability)
    if reason is not None:
        raise ValueError(f"the tensor core kernels cannot compute {geometry}: it {reason}")


def _aligned(array: Any) -> Any:
    """A flat array whose pairs and quads of numbers are aligned."""
    numbers = flat(array)
    if numbers.size and address(numbers) % CHUNK_BYTES:
        raise ValueError(
            f"the tensor core kernels take arrays that begin at a multiple of {CHUNK_BYTES} bytes. "
            f"Received: {address(numbers)}, shape {array.shape}"
        )
    return numbers


def _chunks(engine: Engine, x: Any, precision: Precision) -> Any:
    """x as the kernel copies it: rounded to 16 bits, or as it is, to be rounded to tf32 on its way to the products."""
    from fastconv.cuda.kernels import conv_tensorcore as kernels, elements

    numbers = _aligned(x)
    if precision == TF32:
        return numbers
    words = engine.empty((numbers.size // 2,), np.float32)
    elements.launch(engine, kernels.convert(precision), words.size // 2, numbers, words)
    return words


def _run(
    engine: Engine,
    shape: ConvShape,
    chunks: Any,
    weight: Any,
    taps: NDArray[np.int32],
    width: int,
    transposed: bool,
    last: tuple[Any, Any, Any, int],
    precision: Precision,
) -> None:
    """One convolution of *chunks* with the *taps* of a weight of *width* output channels, prepared for its tile.

    *transposed*, those output channels are the inputs; *last* are bias, residual, out and activation.
    """
    from fastconv.cuda.kernels import conv_tensorcore as kernels, elements

    s = shape
    check_size(s)
    asynchronous = engine.capability >= _ASYNCHRONOUS
    tile = choose_tile(TILES if asynchronous else TILES_BY_REGISTERS, s.N * s.OH * s.OW, s.OC // s.G, s.G)
    order = packing(s, tile, precision, width, transposed)
    packed = engine.empty((s.G * order.packed_chunks * order.packed_columns * WORDS,), np.float32)
    quads = packed.size // WORDS * (precision.channels // QUAD)
    pack = kernels.pack_weight(precision, transposed)
    elements.launch(engine, pack, quads, _aligned(weight), engine.constant(taps), packed, order)

    absent = engine.empty((0,), np.float32)
    *arrays, activation = last
    arrays = [absent if array is None else _aligned(array) for array in arrays]
    problem, blocks = forward_problem(s, tile, precision)
    kernel = kernels.forward(tile, precision, asynchronous)
    engine.launch(kernel, blocks, chunks, packed, *arrays, problem, activation)
