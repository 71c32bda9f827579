"""Activation functions on the GPU, forward and backward, with the bits of `fastconv.cpu.activation`."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv.cuda.device import Engine, flat


def activation_forward(engine: Engine, x: Any, bias: Any, out: Any, code: int) -> None:
    """``out = activation(x + bias)`` for contiguous arrays; *bias*, or None, is along the last axis.

    *out* may be *x*.
    """
    from fastconv.cuda.kernels import activation as kernels, elements

    x, out = flat(x), flat(out)
    bias = engine.empty((0,), np.float32) if bias is None else flat(bias)
    if bias.size:
        elements.check_size(out)
    elements.launch(engine, kernels.forward(code), out.size, x, bias, out)


def activation_backward(engine: Engine, grad_out: Any, x: Any, grad_x: Any, code: int) -> None:
    """``grad_x = grad_out * slope(x)`` for contiguous arrays of one shape."""
    from fastconv.cuda.kernels import activation as kernels, elements

    grad_x = flat(grad_x)
    elements.launch(engine, kernels.backward(code), grad_x.size, flat(grad_out), flat(x), grad_x)
