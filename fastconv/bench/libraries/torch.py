"""Who runs: `COMPETITORS[pass][library][variant]` prepares one way to compute a pass of a convolution.

Everything that a library may do ahead (its own layout, its own copies of the inputs, workspace) is done while
preparing, outside the timed call.  Where a library has several variants, all are checked and the fastest counts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy_conv
import numpy_taps
from problems import Array, Problem

from fastconv.functional.conv import conv2d, conv2d_grad_weight, conv2d_grad_x

try:
    import torch as torch
except ImportError:
    torch = None  # type: ignore[assignment]

OURS = "fastconv"


class Contender(NamedTuple):
    """One way to compute a pass: `compute` takes the number of a copy of the inputs, `as_ours` is not timed."""

    compute: Callable[[int], Any]
    as_ours: Callable[[Any], Array] = np.asarray


Prepare = Callable[[Problem], Contender]


def options(problem: Problem) -> dict[str, Any]:
    """The keyword arguments of fastconv's functions."""
    g = problem.geometry
    return {"stride": g.stride, "padding": g.padding, "dilation": g.dilation, "groups": g.G}


def _ours_forward(problem: Problem) -> Contender:
    p, arguments = problem, options(problem)
    return Contender(lambda copy: conv2d(p.x[copy], p.weight[copy], **arguments))


def _ours_grad_x(problem: Problem) -> Contender:
    p, arguments, shape = problem, options(problem), problem.geometry.x_shape
    return Contender(lambda copy: conv2d_grad_x(p.grad_out[copy], p.weight[copy], shape, **arguments))


def _ours_grad_weight(problem: Problem) -> Contender:
    p, arguments, shape = problem, options(problem), problem.geometry.weight_shape
    return Contender(lambda copy: conv2d_grad_weight(p.grad_out[copy], p.x[copy], shape, **arguments))


def _numpy(prepare: Callable[[Problem], numpy_conv.Compute]) -> Prepare:
    return lambda problem: Contender(prepare(problem))


def _torch(direction: str, channels_last: bool) -> Prepare:
    """PyTorch on tensors that already have the layout that it computes in."""

    def prepare(problem: Problem) -> Contender:
        g = problem.geometry
        (top, bottom), (left, right) = g.padding
        if (top, left) != (bottom, right):
            raise ValueError(f"padding must be the same on opposite sides for PyTorch. Received: {g}")
        layout = torch.channels_last if channels_last else torch.contiguous_format

        def tensors(arrays: list[Array], axes: tuple[int, ...]) -> list[Any]:
            return [torch.from_numpy(array.transpose(axes)).contiguous(memory_format=layout) for array in arrays]

        image_axes, weight_axes = (0, 3, 1, 2), (3, 2, 0, 1)
        x, grad_out = tensors(problem.x, image_axes), tensors(problem.grad_out, image_axes)
        weight = tensors(problem.weight, weight_axes)
        place = (g.stride, (top, left), g.dilation)

        def forward(copy: int) -> Any:
            return torch.nn.functional.conv2d(x[copy], weight[copy], None, *place, g.G)

        def backward(copy: int) -> Any:
            wanted = [direction == "grad_x", direction == "grad_weight", False]
            gradients = torch.ops.aten.convolution_backward(
                grad_out[copy], x[copy], weight[copy], None, *place, False, (0, 0), g.G, wanted
            )
            return gradients[wanted.index(True)]

        def as_ours(tensor: Any) -> Array:
            axes = (2, 3, 1, 0) if direction == "grad_weight" else (0, 2, 3, 1)
            array: Array = tensor.numpy().transpose(axes)
            return array

        return Contender(forward if direction == "forward" else backward, as_ours)

    return prepare


def _torch_variants(direction: str) -> dict[str, Prepare]:
    if torch is None:
        return {}
    return {"channels_last": _torch(direction, True), "NCHW": _torch(direction, False)}


#: A library without variants is not installed.
COMPETITORS: dict[str, dict[str, dict[str, Prepare]]] = {
    "forward": {
        OURS: {"auto": _ours_forward},
        "numpy": {
            "columns": _numpy(numpy_conv.forward_columns),
            "taps": _numpy(numpy_taps.forward),
            "windows": _numpy(numpy_conv.forward_windows),
        },
        "torch": _torch_variants("forward"),
    },
    "grad_x": {
        OURS: {"auto": _ours_grad_x},
        "numpy": {
            "columns": _numpy(numpy_conv.grad_x_columns),
            "taps": _numpy(numpy_taps.grad_x),
            "windows": _numpy(numpy_conv.grad_x_windows),
        },
        "torch": _torch_variants("grad_x"),
    },
    "grad_weight": {
        OURS: {"auto": _ours_grad_weight},
        "numpy": {
            "columns": _numpy(numpy_conv.grad_weight_columns),
            "taps": _numpy(numpy_taps.grad_weight),
            "windows": _numpy(numpy_conv.grad_weight_windows),
        },
        "torch": _torch_variants("grad_weight"),
    },
}
PASSES = tuple(COMPETITORS)
LIBRARIES = tuple(library for library in COMPETITORS["forward"] if library != OURS)
