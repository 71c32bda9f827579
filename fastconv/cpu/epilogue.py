"""What happens to a finished sum of a convolution before it is stored: bias, residual, activation."""

from __future__ import annotations

from fastconv import _jit
from fastconv.cpu import simd
from fastconv.cpu.activation import ACTIVATIONS

#: The activation done on registers; those with a higher code are applied afterwards, by `activation.activate`.
RELU = ACTIVATIONS["relu"]


@_jit.inline
def finish_vector(value, bias, bias_at, residual, out_at, count, activation):
    """``activation(value + bias + residual)`` of *count* lanes, as far as it can be done on a register."""
    if bias.size > 0:
        value = simd.add(value, simd.load_first(bias, bias_at, count))
    if residual.size > 0:
        value = simd.add(value, simd.load_first(residual, out_at, count))
    if activation == RELU:
        value = simd.relu(value)
    return value
