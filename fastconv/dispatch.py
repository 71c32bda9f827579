"""Which implementation computes a convolution, and why.

Every operation has an ordered list of implementations, the fastest first, the reference last.  Each accepts a problem,
refuses it, or declines it, because the next one is faster or more accurate, with a sentence.  Under
``algorithm="auto"`` the first that accepts is taken; the choice looks at the geometry but neither at the batch size nor
at the number of threads, so that it cannot change the bits of a result.  ``algorithm="fastest"`` looks at the batch as
well.  There is a list for the CPU, `CONV2D`, and one for GPUs, `conv2d_on_gpu`; under "auto" both take an algorithm
with the same bits.

``FASTCONV_VERBOSE=dispatch`` in the environment prints every new choice; `explain` tells more about one.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fastconv import winograd_choice
from fastconv.cpu import conv_depthwise, conv_direct, conv_winograd
from fastconv.cpu.activation import activation_forward
from fastconv.cpu.shape import Forms
from fastconv.cuda.device import Engine
from fastconv.geometry import Conv2dGeometry, IntOrPair, Padding, conv2d_geometry
from fastconv.reference import conv as reference

OPERATIONS = ("conv2d_forward", "conv2d_grad_x", "conv2d_grad_weight")


@dataclass(frozen=True)
class Implementation:
    """One algorithm for the three passes of a convolution; arguments as in `cpu.conv_direct` or `cuda.conv_direct`."""

    name: str
    idea: str
    #: Why it cannot compute this problem with numbers of so many bytes, or None.
    refuses: Callable[[Conv2dGeometry, int], str | None]
    #: Why it should not compute one of `OPERATIONS`, given the images, or None where those must not count; or None.
    declines: Callable[[str, Conv2dGeometry, int | None], str | None]
    conv2d_forward: Callable[..., None]
    conv2d_grad_x: Callable[..., None]
    conv2d_grad_weight: Callable[..., None]
    #: Bytes per thread, or on a GPU in all, for a geometry and the bytes of a number.
    workspace: Callable[[Conv2dGeometry, int], int]


def _never(*problem: object) -> None:
    return None


def _depthwise_refuses(geometry: Conv2dGeometry, itemsize: int) -> str | None:
    if geometry.is_depthwise:
        return None
    return f"needs one input channel in each group, here {geometry.IC // geometry.G} (groups={geometry.G})"


def _reference_forward(
    geometry: Conv2dGeometry,
    x: NDArray[Any],
    weight: NDArray[Any],
    bias: NDArray[Any] | None,
    residual: NDArray[Any] | None,
    out: NDArray[Any],
    activation: int,
    forms: Forms | None = None,
) -> None:
    out[...] = reference.conv2d(geometry, x, weight)
    if bias is not None:
        out += bias
    if residual is not None:
        out += residual
    activation_forward(out, None, out, activation)


def _reference_grad_x(
    geometry: Conv2dGeometry,
    grad_out: NDArray[Any],
    weight: NDArray[Any],
    out: NDArray[Any],
    forms: Forms | None = None,
) -> None:
    out[...] = reference.conv2d_grad_x(geometry, grad_out, weight)


def _reference_grad_weight(
    geometry: Conv2dGeometry, x: NDArray[Any], grad_out: NDArray[Any], out: NDArray[Any]
) -> None:
    out[...] = reference.conv2d_grad_weight(geometry, x, grad_out)


def _padded_copy(geometry: Conv2dGeometry, itemsize: int) -> int:
    g = geometry
    return g.N * (g.IH + sum(g.padding[0])) * (g.IW + sum(g.padding[1])) * g.IC * itemsize


CONV2D = (
    Implementation(
        "depthwise",
        "vectors of channels, one kernel each",
        _depthwise_refuses,
        _never,
        conv_depthwise.forward,
        conv_depthwise.grad_x,
        conv_depthwise.grad_weight,
        conv_depthwise.workspace,
    ),
    Implementation(
        "winograd",
        "4x4 outputs of 3x3 taps from 36 products in place of 144, after transforms of x and weight",
        winograd_choice.refuses,
        winograd_choice.declines,
        conv_winograd.forward,
        conv_winograd.grad_x,
        conv_winograd.grad_weight,
        conv_winograd.workspace,
    ),
    Implementation(
        "direct",
        "patches of x times the weight, register tile by register tile",
        _never,
        _never,
        conv_direct.forward,
        conv_direct.grad_x,
        conv_direct.grad_weight,
        conv_direct.workspace,
    ),
    Implementation(
        "reference",
        "NumPy, one tap of the kernel at a time",
        _never,
        _never,
        _reference_forward,
        _reference_grad_x,
        _reference_grad_weight,
        _padded_copy,
    ),
)


@lru_cache(maxsize=1)
def conv2d_on_gpu() -> tuple[Implementation, ...]:
    """The list for GPUs; made when it is first asked for, because few programs have one."""
    from fastconv.cuda import (
        conv_depthwise as depthwise,
        conv_direct as direct,
        conv_winograd as winograd,
        conv_winograd_fused as winograd_fused,
    )

    return (
        Implementation(
            "depthwise",
            "four channels of neighbouring pixels in each thread",
            _in_float32(depthwise.refuses),
            _never,
            depthwise.forward,
            depthwise.grad_x,
            depthwise.grad_weight,
            _no_workspace,
        ),
        Implementation(
            "winograd_fused",
            "2x2 outputs from 16 products in place of 36, in one kernel",
            _in_float32(winograd_fused.refuses),
            winograd_fused.declines,
            winograd_fused.forward,
            winograd_fused.grad_x,
            winograd_fused.grad_weight,
            winograd_fused.workspace,
        ),
        Implementation(
            "winograd",
            "4x4 outputs of 3x3 taps from 36 products in place of 144, between transforms of x, weight and out",
            _in_float32(winograd.refuses),
            _winograd_on_gpu_declines,
            winograd.forward,
            winograd.grad_x,
            winograd.grad_weight,
            winograd.workspace,
        ),
        Implementation(
            "direct",
            "patches of x times the weight, tile by tile, as a product of matrices",
            _never,
            _never,
            direct.forward,
            direct.grad_x,
            direct.grad_weight,
            _no_workspace,
        ),
    )


def _winograd_on_gpu_declines(operation: str, geometry: Conv2dGeometry, images: int | None) -> str | None:
    """The rule of "auto" is the CPU's: Winograd has its bits on a GPU, and pays there in at least as many problems."""
    if images is None:
        return winograd_choice.declines(operation, geometry, None)
    from fastconv.cuda import conv_winograd as winograd

    return winograd.declines(operation, geometry, images)


def _in_float32(refuses: Callable[[Conv2dGeometry], str | None]) -> Callable[[Conv2dGeometry, int], str | None]:
    """The rule of kernels for a GPU, where all arrays are float32, with the arguments of those for the CPU."""

    def refuses_bytes(geometry: Conv2dGeometry, itemsize: int) -> str | None:
        return refuses(geometry)

    return refuses_bytes


def _no_workspace(geometry: Conv2dGeometry, itemsize: int) -> int:
    return 0


def _on_tensor_cores(
    operation: str, geometry: Conv2dGeometry, algorithm: str, engine: Engine | None, precision: str
) -> Callable[..., None]:
    """The function that computes *operation* with factors rounded to *precision*."""
    from fastconv.cuda import conv_tensorcore

    if engine is None:
        raise ValueError(f"precision is for arrays on a GPU, whose tensor cores round. Received: {precision=}")
    if algorithm != "auto":
        raise ValueError(f'precision takes the algorithm of the tensor cores, "auto". Received: {algorithm=}')
    if reason := conv_tensorcore.refuses(geometry, precision, engine.capability):
        raise ValueError(f"precision={precision!r} {reason}. Received: {geometry}")
    function = getattr(conv_tensorcore, operation.removeprefix("conv2d_"))
    return _with_engine(engine, operation, partial(function, precision=precision))


#: Arguments of the functions for a GPU after the engine: what the CPU keeps of a weight is not for them.
_ARGUMENTS = {"conv2d_forward": 7, "conv2d_grad_x": 4, "conv2d_grad_weight": 4}


def _with_engine(engine: Engine, operation: str, function: Callable[..., None]) -> Callable[..., None]:
    """A function for a GPU with the arguments of those for the CPU."""
    arguments = _ARGUMENTS[operation]

    def compute(*given: Any) -> None:
        function(engine, *given[:arguments])

    return compute


@lru_cache(maxsize=4096)
def choose(
    operation: str,
    geometry: Conv2dGeometry,
    itemsize: int,
    algorithm: str,
    engine: Engine | None = None,
    precision: str | None = None,
) -> Callable[..., None]:
    """The function that computes *operation* on this geometry with *algorithm* (a name, "auto" or "fastest").

    With *engine* it takes arrays on that engine's device, otherwise NumPy arrays.
    """
    if precision is not None:
        return _on_tensor_cores(operation, geometry, algorithm, engine, precision)
    candidates = CONV2D if engine is None else conv2d_on_gpu()
    if algorithm in ("auto", "fastest"):
        images = geometry.N if algorithm == "fastest" else None
        chosen = next(
            one
            for one in candidates
            if not (one.refuses(geometry, itemsize) or one.declines(operation, geometry, images))
        )
    else:
        by_name = {candidate.name: candidate for candidate in candidates}
        if algorithm not in by_name:
            names = ", ".join(f'"{name}"' for name in ("auto", "fastest", *by_name))
            raise ValueError(f"algorithm must be one of {names}. Received: algorithm={algorithm!r}")
        chosen = by_name[algorithm]
        if reason := chosen.refuses(geometry, itemsize):
            raise ValueError(f'algorithm="{algorithm}" {reason}. Received: {geometry}')
    if os.environ.get("FASTCONV_VERBOSE") == "dispatch":
        place = "" if engine is None else " on a GPU"
        sys.stderr.write(f"fastconv: {operation} {geometry} -> {chosen.name}{place}\n")
    function: Callable[..., None] = getattr(chosen, operation)
    return function if engine is None else _with_engine(engine, operation, function)


def explain(
    x_shape: tuple[int, ...],
    weight_shape: tuple[int, ...],
    *,
    stride: IntOrPair = 1,
    padding: Padding = 0,
    dilation: IntOrPair = 1,
    groups: int = 1,
    dtype: DTypeLike = np.float32,
    device: str = "cpu",
) -> str:
    """Tell which algorithm computes a convolution, why not the others, and what it costs.

    Parameters
    ----------
    x_shape : tuple of int
        (N, IH, IW, IC)
    weight_shape : tuple of int
        (KH, KW, IC / groups, OC)
    stride, padding, dilation, groups
        As in `conv2d`.
    dtype : dtype, default float32
        float32 or float64.
    device : str, default "cpu"
        Or a GPU, which need not be there: "cuda:T4", "cuda:A100", "cuda:H100", "cuda:H200", or "cuda:sm_75",
        "cuda:sm_80", "cuda:sm_90".  The text then tells the least possible time of each kernel, and what it is made of.

    Returns
    -------
    str
        A few lines of text.

    Raises
    ------
    ValueError
        If the shapes do not fit together, or the device is none of these.

    Examples
    --------
    >>> print(explain((1, 32, 32, 16), (3, 3, 16, 32), padding="same"))  # doctest: +ELLIPSIS
    x=(1, 32, 32, 16) weight=(3, 3, 16, 32) out=(1, 32, 32, 32) stride=(1, 1) ...
      depthwise  refuses: needs one input channel in each group, here 16 (groups=1)
      winograd   chosen: 4x4 outputs of 3x3 taps from 36 products in place of 144, after transforms of x and weight
      direct     not needed: patches of x times the weight, register tile by register tile
      reference  not needed: NumPy, one tap of the kernel at a time
      arithmetic 9.4 MFLOP, 44 FLOP per byte of x, weight and out
      workspace  ... MB per thread
      error      about 1e-06 of a typical output (eps * sqrt(KH * KW * IC / groups))
    """
    g = conv2d_geometry(x_shape, weight_shape, stride=stride, padding=padding, dilation=dilation, groups=groups)
    itemsize = np.dtype(dtype).itemsize
    if device != "cpu":
        from fastconv.cuda.explain import rooflines

        told, _ = _verdicts(conv2d_on_gpu(), g, itemsize)
        return "\n".join([str(g), *told, *rooflines(g, device)])
    told, chosen = _verdicts(CONV2D, g, itemsize)
    moved = g.bytes(itemsize)
    error = np.finfo(dtype).eps * (g.KH * g.KW * (g.IC // g.G)) ** 0.5
    return "\n".join(
        [
            str(g),
            *told,
            f"  arithmetic {g.flops / 1e6:.1f} MFLOP, {g.flops / moved:.0f} FLOP per byte of x, weight and out",
            f"  workspace  {chosen.workspace(g, itemsize) / 1e6:.1f} MB per thread",
            f"  error      about {error:.0e} of a typical output (eps * sqrt(KH * KW * IC / groups))",
        ]
    )


def _verdicts(
    candidates: Sequence[Implementation], geometry: Conv2dGeometry, itemsize: int
) -> tuple[list[str], Implementation]:
    """A line about each implementation, and the one that "auto" takes for the forward pass."""
    lines, chosen = [], None
    width = max(len(one.name) for one in candidates) + 1
    for one in candidates:
        if reason := one.refuses(geometry, itemsize):
            verdict = f"refuses: {reason}"
        elif chosen is None and (reason := one.declines(OPERATIONS[0], geometry, None)):
            verdict = f"declines: {reason}"
        else:
            verdict = f"{'not needed' if chosen else 'chosen'}: {one.idea}"
            chosen = chosen or one
        lines.append(f"  {one.name:{width}} {verdict}")
    assert chosen is not None
    return lines, chosen
