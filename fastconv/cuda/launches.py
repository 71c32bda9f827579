"""Which kernels an operation launches, and how much each of them does: what `roofline` needs, without CUDA.

The same plans as behind the operations themselves, whose launches a test compares with these.
"""

from __future__ import annotations

from math import prod

import numpy as np

from fastconv.cpu import conv_scatter
from fastconv.cpu.chains import split_count, starts_of_chains
from fastconv.cpu.shape import ConvShape, as_product, forward_shape, phases
from fastconv.cuda import conv_depthwise, conv_depthwise_plan, resources
from fastconv.cuda.conv_direct_plan import (
    TURN_OF_PARTS,
    choose_tile,
    forward_problem,
    tiles_of_forward,
    turns_of_tap,
    vectors_possible,
    weight_problem,
    weight_tile,
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
        return [_depthwise(geometry, backward=operation == "grad_x")]
    if operation == "forward":
        return [_product(as_product(forward_shape(geometry)))]
    return _direct_grad_x(geometry)


def pool2d(average: bool, outputs: int, window: int, moved: int) -> list[Launch]:
    """The launch of a pooling with so many numbers in its result, pixels in a window and bytes to move.

    Four channels are loaded at a time.
    """
    code = resources.POOL_AVERAGE if average else resources.POOL_EXTREME
    # each pixel of a window takes one of the lanes, which could do the two operations of a multiply-add
    threads = outputs // conv_depthwise_plan.QUAD
    return [_elements("average pool" if average else "extreme pool", threads, code, moved, 2 * outputs * window)]


def _product(shape: ConvShape, turns_of_part: int = 0) -> Launch:
    """The forward kernel on one shape."""
    s = shape
    columns = s.OC // s.G
    depths = s.KH * s.KW * (s.IC // s.G)
    tile = choose_tile(s.N * s.OH * s.OW, columns, s.G, depths, tiles_of_forward(columns, turns_of_part > 0))
    vector = vectors_possible(s, tile)
    codes = resources.FORWARD_IN_PARTS if turns_of_part else resources.FORWARD
    problem, blocks = forward_problem(s, tile, turns_of_part)
    numbers = s.N * s.IH * s.IW * s.IC + s.KH * s.KW * (s.IC // s.G) * s.OC + s.N * s.OH * s.OW * s.OC
    return Launch(
        f"direct, tiles of {tile.rows} x {tile.columns}{', tap by tap' * (turns_of_part > 0)}",
        blocks,
        tile.threads,
        *codes[tile, vector],
        flops=s.flops,
        executed=2 * blocks * tile.rows * tile.columns * problem.turns * tile.depth,
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
            swapped = taps * (turns_of_part * TURN_OF_PARTS or outputs) * g.IC
            read = taps * outputs * g.IC
            found.append(
                _elements("swap channels", swapped, resources.SWAP_CHANNELS, _ITEMSIZE * (swapped + read)),
            )
            found.append(_product(as_product(phase.shape), turns_of_part))
    return found


def _direct_grad_weight(geometry: Conv2dGeometry) -> list[Launch]:
    s = as_product(forward_shape(geometry))
    starts = starts_of_chains(s)
    splits, chains = split_count(s), starts.size - 1
    pixels, weights = s.N * s.OH * s.OW, s.KH * s.KW * (s.IC // s.G) * s.OC
    tile = weight_tile(s, starts)
    vector = vectors_possible(s, tile)
    _, blocks = weight_problem(s, tile, chains)
    turns = int((-(-np.diff(starts) // tile.depth)).sum())
    product = Launch(
        f"direct grad_weight, tiles of {tile.rows} x {tile.columns}, {chains} partial sums",
        blocks,
        tile.threads,
        *resources.GRAD_WEIGHT[tile, vector],
        flops=s.flops,
        executed=2 * blocks // chains * tile.rows * tile.columns * turns * tile.depth,
        bytes=_ITEMSIZE * (s.N * s.IH * s.IW * s.IC + pixels * s.OC + chains * weights),
    )
    return [product, *_sum_of_chains(splits, chains, weights), *_sum_of_parts(splits, weights)]


def _depthwise(geometry: Conv2dGeometry, backward: bool) -> Launch:
    """The forward pass or grad_x, from arrays whose addresses do not forbid loads of four channels."""
    g, plan = geometry, conv_depthwise_plan
    lanes, windows = plan.lanes_possible(g), plan.windows(g, backward)
    N, height, width, C = g.x_shape if backward else g.out_shape
    moved = g.bytes(_ITEMSIZE)
    if windows is None or lanes < plan.QUAD:
        return _elements("depthwise", N * height * width * C // lanes, resources.DEPTHWISE[lanes], moved, g.flops)
    form = windows.extent, windows.step
    name = f"depthwise, {windows.extent} x {windows.extent} taps for {plan.PIXELS} pixels of 4 channels"
    blocks = plan.blocks_of_windows(windows, N, height, width, C).total
    threads, code = plan.THREADS, resources.DEPTHWISE_WINDOWS[form]
    return Launch(name, blocks, threads, *code, flops=g.flops, executed=g.flops, bytes=moved)


def _depthwise_grad_weight(geometry: Conv2dGeometry) -> list[Launch]:
    g, plan = geometry, conv_depthwise_plan
    lanes, chains, weights = plan.lanes_possible(g), plan.chains(g), prod(g.weight_shape)
    splits = chains.splits.size - 1
    code = resources.DEPTHWISE_GRAD_WEIGHT[(*plan.taps_together(g, lanes), lanes)]
    moved = g.bytes(_ITEMSIZE) + _ITEMSIZE * (chains.total - 1) * weights
    threads = plan.threads_of_chains(g, lanes)
    return [
        _elements(f"depthwise grad_weight, {chains.total} chains", threads, code, moved, g.flops),
        *_sum_of_chains(splits, chains.total, weights),
        *_sum_of_parts(splits, weights),
    ]


def _sum_of_chains(splits: int, chains: int, weights: int) -> list[Launch]:
    if splits == chains:
        return []
    return [_elements("sum of chains", splits * weights, resources.SUM_CHAINS, _ITEMSIZE * (chains + splits) * weights)]


def _sum_of_parts(splits: int, weights: int) -> list[Launch]:
    if splits == 1:
        return []
    return [_elements("sum of parts", weights, resources.SUM_PARTS, _ITEMSIZE * (splits + 1) * weights)]


def _elements(kernel: str, elements: int, code: Code, moved: int, flops: int = 0) -> Launch:
    """A kernel with a thread for each element; without *flops*, memory alone counts."""
    blocks = -(-elements // _THREADS_OF_ELEMENTS)
    return Launch(kernel, blocks, _THREADS_OF_ELEMENTS, *code, flops=flops, executed=flops, bytes=moved)
