"""Which activations the kernels of a convolution apply to a finished sum, and what becomes of the others.

Those with a corner, up to leaky_relu, cost a few selections for each number that is stored, after the main loop.  The
others are chains of thirty instructions, which for the 64 sums of a thread would be most of a kernel's code; a second
kernel applies them, in place, and the result is read and written once more.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from fastconv.cpu.activation import ACTIVATIONS
from fastconv.cuda.activation import activation_forward
from fastconv.cuda.device import Engine

LINEAR, RELU, LEAKY_RELU = (ACTIVATIONS[name] for name in ("linear", "relu", "leaky_relu"))


def any_activation(last: int = LEAKY_RELU) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a forward pass whose kernels know activations up to code *last* one that takes all of them."""

    def decorate(forward: Callable[..., None]) -> Callable[..., None]:
        @wraps(forward)
        def forward_and_activation(
            engine: Engine,
            geometry: Any,
            x: Any,
            weight: Any,
            bias: Any,
            residual: Any,
            out: Any,
            activation: int,
            **options: Any,
        ) -> None:
            in_kernel = activation <= last
            forward(engine, geometry, x, weight, bias, residual, out, activation if in_kernel else LINEAR, **options)
            if not in_kernel:
                activation_forward(engine, out, None, out, activation)

        return forward_and_activation

    return decorate
