"""Which kernels an operation launches, and how much each of them does: what `roofline` needs, without CUDA.

The same plans as behind the operations themselves, whose launches a test compares with these.
"""

from __future__ import annotations

from math import prod

from fastconv.cpu import conv_depthwise_weight, conv_direct_weight, conv_scatter
from fastconv.cpu.shape import ConvShape, as_product, forward_shape, phases
from fastconv.cuda import conv_depthwise, resources
from fastconv.cuda.conv_direct_plan import (
    DEPTH,
    TILE_IN_PARTS,
    choose_tile,
    forward_problem,
    turns_of_tap,
    vectors_possible,
    weight_problem,
)
from fastconv.cuda.resources import Code
from fastconv.cuda.roofline import Launch
from fastconv.geometry import Conv2dGeometry

_ITEMSIZE = 4
#: Threads of a block of the kernels with a thread for each element.
_THREADS_OF_ELEMENTS = 256


def algorithm(geometry: Conv2dGeometry) -> str:
    """The algorithm whose kernels are told here: the one of plain sums, also where "auto" takes Winograd's."""
    return "direct" if conv_depthwise.refuses(geometry) else "depthwise"


def conv2d(operation: str, geometry: Conv2dGeometry) -> list[Launch]:
    """The launches of "forward", "grad_x" or "grad_weight"."""
    if geometry.N == 0:
        return []
    depthwise = algorithm(geometry) == "depthwise"
    if operation == "grad_weight":
        return _depthwise_grad_weight(geometry) if depthwise else _direct_grad_weight(geometry)
    if depthwise:
        out = geometry.out_shape if operation == "forward" else geometry.x_shape
        kernel = _elements("depthwise", prod(out), resources.DEPTHWISE, geometry.bytes(_ITEMSIZE), geometry.flops)
        return [kernel]
    if operation == "forward":
        return [_product(as_product(forward_shape(geometry)))]
    return _direct_grad_x(geometry)


def pool2d(average: bool, outputs: int, window: int, moved: int) -> list[Launch]:
    """The launch of a pooling with so many numbers in its result, pixels in a window and bytes to move."""
    code = resources.POOL_AVERAGE if average else resources.POOL_EXTREME
    # each pixel of a window takes one of the lanes, which could do the two operations of a multiply-add
    return [_elements("average pool" if average else "extreme pool", outputs, code, moved, 2 * outputs * window)]


def _product(shape: ConvShape, turns_of_part: int = 0) -> Launch:
    """The forward kernel on one shape."""
    s = shape
    vector = vectors_possible(s)
    tile = TILE_IN_PARTS if turns_of_part else choose_tile(s.N * s.OH * s.OW, s.OC // s.G, s.G)
    codes = resources.FORWARD_IN_PARTS if turns_of_part else resources.FORWARD
    problem, blocks = forward_problem(s, tile, turns_of_part)
    numbers = s.N * s.IH * s.IW * s.IC + s.KH * s.KW * (s.IC // s.G) * s.OC + s.N * s.OH * s.OW * s.OC
    return Launch(
        f"direct, tiles of {tile.rows} x {tile.columns}{', tap by tap' * (turns_of_part > 0)}",
        blocks,
        tile.threads,
        *codes[tile, vector],
        flops=s.flops,
        executed=2 * blocks * tile.rows * tile.columns * problem.turns * DEPTH,
        bytes=_ITEMSIZE * numbers,
    )


def _direct_grad_x(geometry: Conv2dGeometry) -> list[Launch]:
    g = geometry
    parts = phases(g)
    in_parts = conv_scatter.suits(g)
    found = []
    if any(phase.rows.size * phase.columns.size == 0 for phase in parts):
        found.append(_elements("fill with zeros", prod(g.x_shape), resources.FILL_ZEROS, _ITEMSIZE * prod(g.x_shape)))
    for phase in parts:
        taps = phase.rows.size * phase.columns.size
        if taps:
            outputs = g.OC // g.G
            turns_of_part = turns_of_tap(phase.shape) if in_parts else 0
            swapped = taps * (turns_of_part * DEPTH or outputs) * g.IC
            read = taps * outputs * g.IC
            found.append(
                _elements("swap channels", swapped, resources.SWAP_CHANNELS, _ITEMSIZE * (swapped + read)),
            )
            found.append(_product(as_product(phase.shape), turns_of_part))
    return found


def _direct_grad_weight(geometry: Conv2dGeometry) -> list[Launch]:
    s = as_product(forward_shape(geometry))
    splits = conv_direct_weight.split_count(s)
    depths, columns, pixels = s.KH * s.KW * (s.IC // s.G), s.OC // s.G, s.N * s.OH * s.OW
    vector = vectors_possible(s)
    tile = choose_tile(depths, columns, s.G * splits)
    _, blocks = weight_problem(s, tile, splits)
    turns = sum(-(-(pixels * (i + 1) // splits - pixels * i // splits) // DEPTH) for i in range(splits))
    weights = depths * s.OC
    product = Launch(
        f"direct grad_weight, tiles of {tile.rows} x {tile.columns}, {splits} partial sums",
        blocks,
        tile.threads,
        *resources.GRAD_WEIGHT[tile, vector],
        flops=s.flops,
        executed=2 * blocks // splits * tile.rows * tile.columns * turns * DEPTH,
        bytes=_ITEMSIZE * (s.N * s.IH * s.IW * s.IC + pixels * s.OC + splits * weights),
    )
    return [product, *_sum_of_parts(splits, weights)]


def _depthwise_grad_weight(geometry: Conv2dGeometry) -> list[Launch]:
    g = geometry
    splits = max(conv_depthwise_weight.split_count(g), 1)
    weights = prod(g.weight_shape)
    moved = g.bytes(_ITEMSIZE) + _ITEMSIZE * (splits - 1) * weights
    code = resources.DEPTHWISE_GRAD_WEIGHT
    partial = _elements(f"depthwise grad_weight, {splits} partial sums", splits * weights, code, moved, g.flops)
    return [partial, *_sum_of_parts(splits, weights)]


def _sum_of_parts(splits: int, weights: int) -> list[Launch]:
    if splits == 1:
        return []
    return [_elements("sum of parts", weights, resources.SUM_PARTS, _ITEMSIZE * (splits + 1) * weights)]


def _elements(kernel: str, elements: int, code: Code, moved: int, flops: int = 0) -> Launch:
    """A kernel with a thread for each element; without *flops*, memory alone counts."""
    blocks = -(-elements // _THREADS_OF_ELEMENTS)
    return Launch(kernel, blocks, _THREADS_OF_ELEMENTS, *code, flops=flops, executed=flops, bytes=moved)
