"""Softmax along the rows of a matrix on the GPU, its logarithm, its gradient, and the cross-entropy with labels.

The bits of `fastconv.cpu.softmax`, whose order of summation is kept: the numbers of a row pass through the lanes of a
warp, and every lane adds them in the order of the row.  The one exception is the logarithm: it is NVIDIA's in float64,
not the C library's, and the two can round to different float32 numbers once in some hundred million rows.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from fastconv.cuda.device import Engine, flat


def softmax_forward(engine: Engine, x: Any, *, logarithm: bool = False) -> Any:
    """Softmax, or its logarithm, over the last axis of a contiguous float32 array."""
    from fastconv.cuda.kernels import softmax as kernels

    out = engine.empty(x.shape, np.float32)
    _launch_rows(engine, kernels.forward(logarithm), x.shape, flat(x), flat(out))
    return out


def softmax_backward(engine: Engine, grad_out: Any, out: Any) -> Any:
    """The gradient of `softmax_forward`'s input from its output *out*; contiguous float32 arrays of one shape."""
    from fastconv.cuda.kernels import softmax as kernels

    grad_x = engine.empty(out.shape, np.float32)
    _launch_rows(engine, kernels.backward(), out.shape, flat(grad_out), flat(out), flat(grad_x))
    return grad_x


def cross_entropy(engine: Engine, logits: Any, labels: Any, label_smoothing: float = 0.0) -> Any:
    """``-sum over c of target[n, c] * log(softmax(logits[n]))[c]`` for each row of (N, C) *logits*.

    *labels* are class numbers (N,), int64, or probabilities (N, C), float32; the target is ``(1 - label_smoothing) *
    labels + label_smoothing / C``.  A number that is no class makes the row's loss NaN, and so its gradient: only the
    host can raise an error.
    """
    from fastconv.cuda.kernels import softmax as kernels

    log_softmax = softmax_forward(engine, logits, logarithm=True)
    sparse, values = _labels(labels)
    losses = engine.empty(logits.shape[:1], np.float32)
    arguments = flat(log_softmax), values, *_smoothing(label_smoothing, logits.shape[1]), losses
    _launch_rows(engine, kernels.losses(sparse), logits.shape, *arguments)
    return losses


def cross_entropy_backward(
    engine: Engine, grad_losses: Any, logits: Any, labels: Any, label_smoothing: float = 0.0
) -> Any:
    """``(softmax(logits) * sum(target) - target) * grad_losses``: *grad_losses* is a number, or an array (N,)."""
    from fastconv.cuda.kernels import softmax as kernels

    probabilities = softmax_forward(engine, logits)
    sparse, values = _labels(labels)
    grad_logits = engine.empty(logits.shape, np.float32)
    is_number = isinstance(grad_losses, float | int | np.number)
    factor = np.float32(grad_losses if is_number else 1)
    factors = engine.empty((0,), np.float32) if is_number else flat(grad_losses)
    smoothing = _smoothing(label_smoothing, logits.shape[1])
    arguments = flat(probabilities), values, *smoothing, factor, factors, flat(grad_logits)
    _launch_rows(engine, kernels.logit_gradients(sparse), logits.shape, *arguments)
    return grad_logits


def _launch_rows(engine: Engine, kernel: Any, shape: tuple[int, ...], *arguments: Any) -> None:
    """Run *kernel* with a warp for each row of the last axis."""
    from fastconv.cuda.kernels import elements, softmax as kernels

    C = shape[-1]
    rows = prod(shape[:-1]) if C else 0
    elements.launch(engine, kernel, rows * kernels.WARP, *arguments, C)


def _labels(labels: Any) -> tuple[bool, Any]:
    """Whether labels are class numbers, and their memory."""
    sparse = len(labels.shape) == 1
    return sparse, flat(labels, np.int64 if sparse else np.float32)


def _smoothing(label_smoothing: float, C: int) -> tuple[Any, Any]:
    """What a label is multiplied by, and what is added, to make it a target."""
    return np.float32(1 - label_smoothing), np.float32(label_smoothing / C)
