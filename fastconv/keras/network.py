"""Layers in a row: the weights, the shapes, and the way forward and back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastconv.arrays import FloatArray
from fastconv.keras import layers as layer_classes
from fastconv.keras.layers.activation import STEPS, ActivatedLayer
from fastconv.keras.layers.base import Layer, Shape
from fastconv.keras.layers.pool import MaxPooling2D
from fastconv.keras.layers.reshape import InputLayer
from fastconv.keras.layers.variable import Variable, assign_all
from fastconv.keras.summary import print_summary
from fastconv.keras.utils import new_generator


class Network:
    """What a `Sequential` is before it is told how to train."""

    def __init__(self, layers: Sequence[Layer] | None = None, name: str = "sequential") -> None:
        self.name = name
        self.generator = new_generator()
        self._layers: list[Layer] = []
        self._built_for: Shape | None = None
        for layer in layers or ():
            self.add(layer)

    # ---- construction ----

    def add(self, layer: Layer) -> None:
        """Put a layer at the end; the model is built as soon as the shape of its input is known."""
        if not isinstance(layer, Layer):
            raise TypeError(f"layer must be a Layer. Received: layer={layer!r}")
        taken = {other.name for other in self._layers}
        if layer in self._layers or (layer.has_own_name and layer.name in taken):
            raise ValueError(f"layer names must be unique in a model. Received: a second layer {layer.name!r}")
        if layer.name in taken:
            layer.name = next(name for i in range(1, len(taken) + 1) if (name := f"{layer.name}_{i}") not in taken)
        if self._layers and layer.dtype != self._layers[0].dtype:
            raise ValueError(
                f"all layers of a model must have one dtype. "
                f"Received: {layer.name}.dtype={layer.dtype} after {self._layers[0].name}.dtype={self._layers[0].dtype}"
            )
        layer.generator = layer.generator or self.generator
        if self._built_for is not None:
            layer.build(self.output_shape)
        self._layers.append(layer)
        if self._built_for is None and self._layers[0].input_shape is not None:
            self.build()

    def build(self, input_shape: Shape | None = None) -> None:
        """Create all weights.

        Parameters
        ----------
        input_shape : tuple, optional
            Shape of a batch, its first extent None; needed where the first layer does not know it.
        """
        if self._built_for is not None:
            return
        if input_shape is None:
            if not self._layers or self._layers[0].input_shape is None:
                raise ValueError("input_shape is needed to build a model whose first layer was given none")
            input_shape = (None, *self._layers[0].input_shape)
        shape = built_for = (None, *input_shape[1:])
        for layer in self._layers:
            if not layer.built:
                layer.build(shape)
            shape = layer.compute_output_shape(shape)
        self._built_for = built_for

    # ---- what the model has ----

    @property
    def layers(self) -> list[Layer]:
        """The layers, without a declared input."""
        return [layer for layer in self._layers if not isinstance(layer, InputLayer)]

    def get_layer(self, name: str) -> Layer:
        """The layer of this name."""
        for layer in self._layers:
            if layer.name == name:
                return layer
        raise ValueError(f"name must be that of a layer of the model. Received: name={name!r}")

    @property
    def built(self) -> bool:
        """Whether the weights exist."""
        return self._built_for is not None

    @property
    def input_shape(self) -> Shape:
        """Shape of a batch, its first extent None."""
        if self._built_for is None:
            raise ValueError("the model has no input shape yet: build it, or call it on data")
        return self._built_for

    @property
    def output_shape(self) -> Shape:
        """Shape of a batch of predictions, its first extent None."""
        return self._layers[-1].output_shape if self._layers else self.input_shape

    @property
    def weights(self) -> list[Variable]:
        """All variables of all layers."""
        return [variable for layer in self._layers for variable in layer.weights]

    @property
    def trainable_weights(self) -> list[Variable]:
        """The variables that the optimizer changes."""
        return [variable for layer in self._layers for variable in layer.trainable_weights]

    @property
    def non_trainable_weights(self) -> list[Variable]:
        """The variables that the optimizer leaves alone."""
        return [variable for layer in self._layers for variable in layer.non_trainable_weights]

    def get_weights(self) -> list[FloatArray]:
        """Copies of all variables' arrays."""
        return [variable.numpy() for variable in self.weights]

    def set_weights(self, weights: list[FloatArray]) -> None:
        """Overwrite all variables, in the order of `get_weights`."""
        assign_all(f"model {self.name}", self.weights, weights)

    def count_params(self) -> int:
        """How many numbers the variables hold."""
        return sum(layer.count_params() for layer in self._layers)

    def summary(self, print_fn: Callable[[str], object] | None = None) -> None:
        """Print a table of layers, output shapes and numbers of parameters.

        Parameters
        ----------
        print_fn : callable, optional
            Receives the text instead of standard output.
        """
        print_summary(self, print_fn)

    def get_config(self) -> dict[str, Any]:
        """Name and layers as plain data."""
        entries = [{"class_name": type(layer).__name__, "config": layer.get_config()} for layer in self._layers]
        return {"name": self.name, "layers": entries}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """A new model with this configuration."""
        return cls([layer_classes.deserialize(entry) for entry in config["layers"]], config["name"])

    # ---- forward and back ----

    def __call__(self, x: ArrayLike, training: bool = False) -> FloatArray:
        """The output for one batch."""
        out = self._enter(x)
        for layer in self._layers:
            out = layer.forward(out, training)
        return out

    @property
    def _softmax_head(self) -> ActivatedLayer | None:
        """The last layer, where its activation is softmax."""
        last = self._layers[-1]
        return last if isinstance(last, ActivatedLayer) and last.activation == "softmax" else None

    def _logits(self, x: NDArray[Any], training: bool) -> FloatArray:
        """The output before a final softmax: a loss computed from these numbers stays finite and exact."""
        out = self._enter(x)
        for layer in self._layers[:-1]:
            out = layer.forward(out, training)
        head = self._softmax_head
        return self._layers[-1].forward(out, training) if head is None else head.linear(out, training)

    def _backward(self, grad_logits: FloatArray) -> None:
        """Leave the gradient of the loss in every trainable variable."""
        learning = [index for index, layer in enumerate(self._layers) if layer.trainable_weights]
        if not learning:
            return
        # Nothing below the first layer with weights needs a gradient, and of that one only the weights do.
        first = self._layers[learning[0]]
        activated = self._softmax_head
        grad: FloatArray | None = grad_logits
        for below, layer in reversed(list(pairwise([None, *self._layers[learning[0] :]]))):
            assert grad is not None
            assert layer is not None
            if layer is activated:  # its activation has been dealt with
                grad = activated.linear_backward(grad, need_grad_x=layer is not first)
            elif isinstance(layer, MaxPooling2D) and isinstance(below, ActivatedLayer) and below.activation in STEPS:
                grad = layer.backward_of_activated(grad, below.activation)
                activated = below
            else:
                grad = layer.backward(grad, need_grad_x=layer is not first)

    def _enter(self, x: ArrayLike) -> FloatArray:
        if not self._layers:
            raise ValueError("the model has no layers")
        array = np.ascontiguousarray(x, dtype=self._layers[0].dtype)
        if self._built_for is None:
            self.build((None, *array.shape[1:]))
        if array.shape[1:] != self.input_shape[1:]:
            raise ValueError(f"x must have shape {self.input_shape}. Received: x.shape={array.shape}")
        return array

    def _samples(self, x: ArrayLike) -> NDArray[Any]:
        """All samples as an array of any dtype, not copied; the first ones seen build the model."""
        samples = np.asarray(x)
        self._enter(samples[:0])
        return samples
