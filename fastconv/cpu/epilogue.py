"""What happens to a finished sum of a convolution before it is stored: bias, residual, activation."""

from __future__ import annotations

from fastconv import _jit
from fastconv.cpu import simd, tiles
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


def tile_finisher(rows, vectors):
    """A function that finishes and stores a whole tile, whose rows lie *step* numbers apart in out and residual."""

    @_jit.splice
    def finish(tile, bias, column, residual, out, out_at, step, activation, stream):
        if bias.size > 0:
            tile = tiles.add_row(tile, bias, column)
        if residual.size > 0:
            tile = tiles.add(tile, tiles.load(residual, out_at, step, rows, vectors))
        if activation == RELU:
            tile = tiles.relu(tile)
        tiles.put(tile, out, out_at, step, stream)

    return finish
