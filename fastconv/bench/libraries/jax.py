"""JAX: compiled by XLA, in NHWC or NCHW."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from fastconv.bench.libraries import Contender, Library, Prepare, cores, require_cores, with_all
from fastconv.bench.problems import ConvProblem

#: Names of the layouts, and where an array of ours has their axes.
LAYOUTS = {
    "NHWC": (("NHWC", "HWIO", "NHWC"), (0, 1, 2, 3), (0, 1, 2, 3)),
    "NCHW": (("NCHW", "OIHW", "NCHW"), (0, 3, 1, 2), (3, 2, 0, 1)),
}


def _convolution(direction: str, layout: str) -> Prepare:
    def prepare(problem: ConvProblem, threads: int) -> Contender:
        g = problem.geometry
        numbers, image_axes, weight_axes = LAYOUTS[layout]

        def convolve(x: Any, weight: Any) -> Any:
            return jax.lax.conv_general_dilated(
                x,
                weight,
                window_strides=g.stride,
                padding=g.padding,
                rhs_dilation=g.dilation,
                dimension_numbers=numbers,
                feature_group_count=g.G,
            )

        def gradient(argument: int) -> Any:
            return lambda x, weight, grad_out: jax.vjp(convolve, x, weight)[1](grad_out)[argument]

        x, grad_out, weight = (
            [jax.device_put(np.ascontiguousarray(array.transpose(axes))) for array in arrays]
            for arrays, axes in (
                (problem.x, image_axes),
                (problem.grad_out, image_axes),
                (problem.weight, weight_axes),
            )
        )
        back = np.argsort(weight_axes if direction == "grad_weight" else image_axes)
        if direction == "forward":
            forward = jax.jit(convolve)
            return Contender(
                lambda copy: forward(x[copy], weight[copy]).block_until_ready(),
                lambda result: np.asarray(result).transpose(back),
            )
        backward = jax.jit(gradient(0 if direction == "grad_x" else 1))
        return Contender(
            lambda copy: backward(x[copy], weight[copy], grad_out[copy]).block_until_ready(),
            lambda result: np.asarray(result).transpose(back),
        )

    return prepare


require_cores()
LIBRARY = Library(
    ("jax", "jaxlib"),
    with_all(
        {
            ("conv2d", direction): {layout: _convolution(direction, layout) for layout in LAYOUTS}
            for direction in ("forward", "grad_x", "grad_weight")
        }
    ),
    cores,
)
