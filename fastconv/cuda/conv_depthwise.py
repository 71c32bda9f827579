"""Depthwise convolution on the GPU, one kernel for each channel: forward, grad_x and grad_weight, with the CPU's bits.

A product needs a number of x and one of the weight, so memory decides, and threads side by side over the channels read
it in whole lines.  Several kernels for each channel (a multiplier) are left to `conv_direct`, which takes any groups.

Ladder: microseconds on an H200, 3x3, 32 images, kernels replayed from a CUDA graph.  Bytes alone take 38, 38, 10.

                                     112 x 112, 32 channels     56 x 56, 128         14 x 14, 512
                                     forward  x   grad_weight   forward  weight      forward  weight
    a thread for each number            375  375     10,621        378    2,672          90     203
    four channels of four pixels,
    grad_weight in short chains          33   32         49         33       52           9      17
    cuDNN                                36   42         37         37       35          10      18

    python bench/gpu_torch.py --net mobilenet_dw
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv.cpu.depthwise_plan import Plan, forward_plan, grad_x_plan
from fastconv.cuda import conv_depthwise_plan as plan
from fastconv.cuda.chains import add_chains
from fastconv.cuda.device import Engine, aligned, flat, flats
from fastconv.cuda.epilogue import any_activation
from fastconv.geometry import Conv2dGeometry

#: Elements and positions are 32-bit integers in the kernels.
_LARGEST = 2**31 - 2**16


def refuses(geometry: Conv2dGeometry) -> str | None:
    """Why these kernels cannot compute a problem, or None."""
    g = geometry
    if not g.is_depthwise or g.OC != g.IC:
        return f"needs one input and one output channel in each group, here {g.IC // g.G} and {g.OC // g.G}"
    numbers = max(g.N * g.IH * g.IW * g.IC, g.N * g.OH * g.OW * g.OC)
    if numbers >= _LARGEST:
        return f"needs fewer than {_LARGEST} numbers in x and in out, here {numbers}"
    return None


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
    _run(engine, geometry, False, x, weight, bias, residual, out, activation)


def grad_x(engine: Engine, geometry: Conv2dGeometry, grad_out: Any, weight: Any, out: Any) -> None:
    """``out = the gradient with respect to x``: the same kernel over grad_out, taps in reverse order."""
    _run(engine, geometry, True, grad_out, weight, None, None, out, 0)


def grad_weight(engine: Engine, geometry: Conv2dGeometry, x: Any, grad_out: Any, out: Any) -> None:
    """``out = the gradient with respect to weight``: chains of a few rows, and splits of them, added in order."""
    from fastconv.cuda.kernels import conv_depthwise as kernels, elements

    _check(geometry)
    g = geometry
    x, grad_out, out = flat(x), flat(grad_out), flat(out)
    if 0 in (x.size, grad_out.size):
        elements.launch(engine, elements.fill_zeros(), out.size, out)
        return
    chains = plan.chains(g)
    problem = kernels.WeightProblem(
        *(g.OC, g.IH, g.IW, g.OH, g.OW, g.KH, g.KW, *g.stride, *g.dilation, g.padding[0][0], g.padding[1][0])
    )

    def write(sums: Any) -> None:
        lanes = _lanes(g, x, grad_out, sums)
        kernel = kernels.grad_weight(*plan.taps_together(g, lanes), lanes)
        rows = engine.constant(chains.rows)
        elements.launch(engine, kernel, plan.threads_of_chains(g, lanes), x, grad_out, sums, rows, problem)

    add_chains(engine, write, chains.splits, out)


def _run(
    engine: Engine,
    geometry: Conv2dGeometry,
    backward: bool,
    x: Any,
    weight: Any,
    bias: Any | None,
    residual: Any | None,
    out: Any,
    activation: int,
) -> None:
    from fastconv.cuda.kernels import conv_depthwise as kernels, elements

    _check(geometry)
    p = grad_x_plan(geometry) if backward else forward_plan(geometry)
    arrays = flats(engine, x, weight, bias, residual, out)
    lanes, windows = _lanes(geometry, *arrays), plan.windows(geometry, backward)
    extents = p.C, p.SOURCE_H, p.SOURCE_W, p.TARGET_H, p.TARGET_W
    if windows is not None and lanes == plan.QUAD:
        blocks = plan.blocks_of_windows(windows, p.N, p.TARGET_H, p.TARGET_W, p.C)
        of_windows = kernels.WindowProblem(*extents, *windows[2:], *blocks[1:])
        kernel = kernels.window(windows.extent, windows.step)
        engine.launch(kernel, blocks.total, *arrays, of_windows, activation)
        return
    problem = kernels.Problem(
        *(*extents, p.KW, p.dilation_h * p.SOURCE_W * p.C, p.dilation_w * p.C),
        *(p.tap_step_h * p.KW * p.C, p.tap_step_w * p.C),
    )
    tables = engine.constant(_table(p.lines)), engine.constant(_table(_columns(p)))
    elements.launch(engine, kernels.forward(lanes), arrays[-1].size // lanes, *arrays, *tables, problem, activation)


def _lanes(geometry: Conv2dGeometry, *arrays: Any) -> int:
    """Channels of a load: four neighbours where they lie in 16 bytes."""
    return plan.lanes_possible(geometry) if aligned(*arrays) else 1


def _check(geometry: Conv2dGeometry) -> None:
    reason = refuses(geometry)
    if reason is not None:
        raise ValueError(f"the depthwise kernels of the GPU cannot compute {geometry}: it {reason}")


def _columns(plan: Plan) -> Any:
    """(source column, tap, taps) for each column of the target: what `Plan.lines` is for rows."""
    columns = np.empty((plan.TARGET_W, 3), np.int64)
    for target, pixels, source, tap, taps in plan.runs.tolist():
        j = np.arange(pixels)
        at = target + j * plan.target_step
        columns[at, 0], columns[at, 1], columns[at, 2] = source + j * plan.source_step, tap, taps
    return columns


def _table(rows: Any) -> Any:
    return np.ascontiguousarray(rows, np.int32).reshape(-1)
