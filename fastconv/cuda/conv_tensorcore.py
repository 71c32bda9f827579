"""ladder to come"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastconv.cpu.epilogue import RELU
from fastconv.cpu.shape import ConvShape, as_product, forward_shape, phases
from fastconv.cuda.conv_direct_plan import QUAD, check_size
from fastconv.cuda.conv_tensorcore_plan import (
    CHUNK_BYTES,
    FRAGMENT,
    PRECISIONS,
    TF32,
    TILES,
    TILES_BY_REGISTERS,
    WORDS,
    Precision,
    choose_tile,
    forward_problem,
    packing,
    table_of_chunks,
)
from fastconv.cuda.device import Engine, address, flat
from fastconv.geometry import Conv2dGeometry

#: The first compute capability with asynchronous copies.
ASYNCHRONOUS = (8, 0)
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
    chunks = max(g.N * g.IH * g.IW * g.IC, g.N * g.OH * g.OW * g.OC) // kind.channels
    if chunks >= _LARGEST:
        return f"needs fewer than {_LARGEST} chunks in x and in out, here {chunks}"
    return None


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
    capability: tuple[int, int],
) -> None:
    """``out = activation(conv2d(x, weight) + bias + residual)`` for contiguous float32 arrays on the device."""
    if activation > RELU:
        raise NotImplementedError(f"the GPU kernels fuse relu only. Received: activation={activation}")
    _check(geometry, precision, capability)
    g, kind = geometry, PRECISIONS[precision]
    if g.N == 0:
        return
    taps = np.arange(g.KH * g.KW, dtype=np.int32)
    last = bias, residual, out, activation
    shape = as_product(forward_shape(g))
    _run(engine, shape, _chunks(engine, x, kind), weight, taps, g.OC, False, last, kind, capability)


def grad_x(
    engine: Engine,
    geometry: Conv2dGeometry,
    grad_out: Any,
    weight: Any,
    out: Any,
    precision: str,
    capability: tuple[int, int],
) -> None:
    """``out = the gradient with respect to x``: a forward convolution of grad_out for each phase of the stride."""
    from fastconv.cuda import elements

    _check(geometry, precision, capability)
    g, kind = geometry, PRECISIONS[precision]
    if g.N == 0:
        return
    parts = phases(g)
    if any(phase.rows.size * phase.columns.size == 0 for phase in parts):
        # where the stride is larger than the kernel, some pixels have no tap
        elements.launch(engine, elements.fill_zeros(), flat(out).size, flat(out))
    chunks = _chunks(engine, grad_out, kind)
    for phase in parts:
        taps = (phase.rows[:, np.newaxis] * g.KW + phase.columns).astype(np.int32).reshape(-1)
        if taps.size:
            shape, last = as_product(phase.shape), (None, None, out, 0)
            _run(engine, shape, chunks, weight, taps, g.OC, True, last, kind, capability)


def _check(geometry: Conv2dGeometry, precision: str, capability: tuple[int, int]) -> None:
    reason = refuses(geometry, precision, capability)
    if reason is not None:
        raise ValueError(f"the tensor core kernels cannot compute {geometry}: it {reason}")


def _aligned(array: Any) -> Any:
    """A flat array whose pairs and quads of numbers are aligned."""
    if array is not None and address(array) % CHUNK_BYTES:
        raise ValueError(
            f"the tensor core kernels take arrays that begin at a multiple of {CHUNK_BYTES} bytes. "
            f"Received: {address(array)}, shape {array.shape}"
        )
    return flat(array)


def _chunks(engine: Engine, x: Any, precision: Precision) -> Any:
    """x as the kernel copies it: rounded to 16 bits, or as it is, to be rounded to tf32 on its way to the products."""
    from fastconv.cuda import conv_tensorcore_kernels as kernels, elements

    numbers = _aligned(x)
    if precision == TF32:
        return numbers
    words = engine.empty((numbers.size // 2,), np.float32)
    elements.launch(engine, kernels.convert(precision.name), words.size // 2, numbers, words)
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
    capability: tuple[int, int],
) -> None:
    """One convolution of *chunks*; *last*: bias, residual, out and activation."""
    from fastconv.cuda import conv_tensorcore_kernels as kernels, elements

    s = shape
    check_size(s)
    asynchronous = capability >= ASYNCHRONOUS
    tile = choose_tile(TILES if asynchronous else TILES_BY_REGISTERS, s.N * s.OH * s.OW, s.OC // s.G, s.G)
    order = packing(s, tile, precision, width, transposed)
    packed = engine.empty((s.G * order.packed_chunks * order.packed_columns * WORDS,), np.float32)
    quads = packed.size // WORDS * (precision.channels // QUAD)
    pack = kernels.pack_weight(precision, transposed)
    elements.launch(engine, pack, quads, _aligned(weight), engine.constant(taps), packed, order)

    absent = engine.empty((0,), np.float32)
    *arrays, activation = last
    arrays = [absent if array is None else _aligned(array) for array in arrays]
    table = engine.constant(table_of_chunks(s, precision).reshape(-1))
    problem, blocks = forward_problem(s, tile, precision)
    kernel = kernels.forward(tile, precision.name, asynchronous)
    engine.launch(kernel, blocks, chunks, packed, *arrays, table, problem, activation)
