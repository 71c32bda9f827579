"""Batch normalisation on the GPU: its two passes, with the bits of `fastconv.cpu.normalization`, and what lies between.

The vectors of one number for each channel are computed on the device too, by one kernel with a thread for each channel,
in the order of operations of `fastconv.functional.normalization`: a training step needs nothing from the host.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv.cuda.device import Engine, flat
from fastconv.cuda.reduction import column_products, column_sums


def normalize(engine: Engine, x: Any, mean: Any, scale: Any, offset: Any) -> Any:
    """``(x - mean) * scale + offset`` for a contiguous float32 (rows, C) matrix and vectors (C,)."""
    from fastconv.cuda.kernels import elements, normalization as kernels

    out = engine.empty(x.shape, np.float32)
    arrays = [flat(array) for array in (x, mean, scale, offset, out)]
    elements.check_size(arrays[0])
    elements.launch(engine, kernels.normalize(), out.size, *arrays)
    return out


def normalize_backward(engine: Engine, grad_out: Any, x: Any, mean: Any, scale: Any, slope: Any, offset: Any) -> Any:
    """``grad_out * scale + (x - mean) * slope + offset``: float32 matrices (rows, C) and vectors (C,)."""
    from fastconv.cuda.kernels import elements, normalization as kernels

    grad_x = engine.empty(x.shape, np.float32)
    arrays = [flat(array) for array in (grad_out, x, mean, scale, slope, offset, grad_x)]
    elements.check_size(arrays[0])
    elements.launch(engine, kernels.normalize_backward(), grad_x.size, *arrays)
    return grad_x


def batch_norm(engine: Engine, x: Any, gamma: Any, beta: Any, mean: Any, variance: Any, epsilon: float) -> Any:
    """``gamma * (x - mean) / sqrt(variance + epsilon) + beta`` with given statistics."""
    return normalize(engine, x, mean, _scale(engine, gamma, variance, epsilon), beta)


def batch_norm_training(engine: Engine, x: Any, gamma: Any, beta: Any, epsilon: float) -> tuple[Any, Any, Any]:
    """The same with the statistics of the (rows, C) matrix itself; (out, mean, variance)."""
    count = np.float32(max(1, x.shape[0]))
    mean = _quotient(engine, column_sums(engine, x), count)
    variance = _quotient(engine, column_products(engine, x, x, mean, mean), count)
    return batch_norm(engine, x, gamma, beta, mean, variance, epsilon), mean, variance


def batch_norm_backward(
    engine: Engine, grad_out: Any, x: Any, gamma: Any, mean: Any, variance: Any, epsilon: float
) -> tuple[Any, Any, Any]:
    """Gradients of `batch_norm_training`: (grad_x, grad_gamma, grad_beta)."""
    from fastconv.cuda.kernels import elements, normalization as kernels

    C = x.shape[1]
    zeros = engine.constant(np.zeros(C, np.float32))
    grad_beta = column_sums(engine, grad_out)
    products = column_products(engine, grad_out, x, zeros, mean)
    grad_gamma, scale, slope, offset = (engine.empty((C,), np.float32) for _ in range(4))
    numbers = np.float32(epsilon), np.float32(max(1, x.shape[0]))
    arrays = [flat(array) for array in (gamma, variance, products, grad_beta, grad_gamma, scale, slope, offset)]
    elements.launch(engine, kernels.slopes(), C, *arrays, *numbers)
    return normalize_backward(engine, grad_out, x, mean, scale, slope, offset), grad_gamma, grad_beta


def _scale(engine: Engine, gamma: Any, variance: Any, epsilon: float) -> Any:
    from fastconv.cuda.kernels import elements, normalization as kernels

    out = engine.empty(gamma.shape, np.float32)
    elements.launch(engine, kernels.scale(), out.size, flat(gamma), flat(variance), flat(out), np.float32(epsilon))
    return out


def _quotient(engine: Engine, sums: Any, count: Any) -> Any:
    from fastconv.cuda.kernels import elements, normalization as kernels

    out = engine.empty(sums.shape, np.float32)
    elements.launch(engine, kernels.mean(), out.size, flat(sums), flat(out), count)
    return out
