"""A tensor without values: what a layer will put out, and from what, so that a model can be drawn before it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from fastconv.keras.layers.base import Layer, Shape


class KerasTensor:
    """The output of *layer* for *inputs*, known by its shape only.

    Calling a layer on it gives the next one; `Model` follows them back from its outputs to its inputs.

    Parameters
    ----------
    layer : Layer
        Where it comes from.
    inputs : tuple of KerasTensor
        What the layer was called on; nothing for a declared input.
    shape : tuple
        Shape of a batch, its first extent None.
    """

    def __init__(self, layer: Layer, inputs: tuple[KerasTensor, ...], shape: Shape) -> None:
        self.layer = layer
        self.inputs = inputs
        self.shape = shape
        self.dtype = layer.dtype

    def __array__(self, *_: Any, **__: Any) -> NoReturn:
        raise TypeError(f"{self!r} has no values: call a layer or `Model` on it, and the model on arrays")

    def __repr__(self) -> str:
        return f"<KerasTensor of {self.layer.name}, shape={self.shape}, dtype={self.dtype}>"
