"""What every layer has in common: a name, weights, a shape, a configuration, and `forward` beside `backward`."""

from __future__ import annotations

import inspect
import re
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from fastconv.arrays import FloatArray
from fastconv.keras import initializers
from fastconv.keras.layers.variable import Variable, assign_all
from fastconv.keras.utils import new_generator

#: A shape with the batch axis, whose extent is None while it is not known.
Shape = tuple[int | None, ...]


class Layer:
    """One step of a network.

    A layer is built for a shape of input, then maps arrays with `forward`.  With ``training=True`` it keeps what
    `backward` needs to turn the gradient of its output into the gradient of its input, and `backward` leaves each
    weight's gradient in its `Variable`.  Without it only the weights that kernels have packed are kept, until the next
    change of the weights, so several threads may predict at once.

    Parameters
    ----------
    name : str, optional
        Unique in a model; derived from the class if left out.
    trainable : bool
        Whether an optimizer may change the weights.
    dtype : str
        ``"float32"`` or ``"float64"``, of the weights and of the arrays that pass through.
    input_shape : tuple of int, optional
        Shape of one sample, for the first layer of a model that is to be built before it sees data.
    """

    def __init__(
        self,
        *,
        name: str | None = None,
        trainable: bool = True,
        dtype: str = "float32",
        input_shape: tuple[int, ...] | None = None,
    ) -> None:
        if np.dtype(dtype) not in (np.float32, np.float64):
            raise TypeError(f"dtype must be float32 or float64. Received: dtype={dtype!r}")
        self.name = name or snake_case(type(self).__name__)
        self.has_own_name = name is not None
        self.trainable = trainable
        self.dtype = np.dtype(dtype).name
        self.input_shape = None if input_shape is None else tuple(input_shape)
        self.variables: list[Variable] = []
        self.generator: np.random.Generator | None = None
        self._built_for: Shape | None = None

    # ---- what a layer defines ----

    def build(self, input_shape: Shape) -> None:
        """Create the weights for inputs of this shape."""
        self.compute_output_shape(input_shape)
        self._built_for = tuple(input_shape)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Shape of the output for an input of this shape; an input that does not fit raises ValueError."""
        return input_shape

    def forward(self, x: FloatArray, training: bool = False) -> FloatArray:
        """The layer's output."""
        raise NotImplementedError

    def backward(self, grad_out: FloatArray, need_grad_x: bool = True) -> FloatArray | None:
        """The gradient of the last training input; None where *need_grad_x* is false and only the weights matter."""
        raise NotImplementedError

    # ---- what a layer has ----

    def __call__(self, x: ArrayLike, training: bool = False) -> FloatArray:
        """The output for *x*; the first call builds the layer."""
        array = np.asarray(x, dtype=self.dtype)
        if not self.built:
            self.build((None, *array.shape[1:]))
        return self.forward(array, training)

    def add_weight(
        self, name: str, shape: tuple[int, ...], initializer: initializers.Initializer, trainable: bool = True
    ) -> Variable:
        """Create a variable of this layer."""
        self.generator = self.generator or new_generator()
        variable = Variable(name, initializer(shape, self.dtype, self.generator), trainable)
        self.variables.append(variable)
        return variable

    @property
    def built(self) -> bool:
        """Whether the layer has its weights."""
        return self._built_for is not None

    @property
    def output_shape(self) -> Shape:
        """Shape of the output, the batch axis None."""
        if self._built_for is None:
            raise ValueError(f"layer {self.name} has no output shape yet: build the model, or call it on data")
        return self.compute_output_shape(self._built_for)

    @property
    def weights(self) -> list[Variable]:
        """All variables of the layer."""
        return self.variables

    @property
    def trainable_weights(self) -> list[Variable]:
        """The variables that an optimizer changes."""
        return [variable for variable in self.variables if variable.trainable and self.trainable]

    @property
    def non_trainable_weights(self) -> list[Variable]:
        """The variables that no optimizer changes."""
        return [variable for variable in self.variables if not (variable.trainable and self.trainable)]

    def get_weights(self) -> list[FloatArray]:
        """Copies of the variables' arrays."""
        return [variable.numpy() for variable in self.variables]

    def set_weights(self, weights: list[FloatArray]) -> None:
        """Overwrite the variables, in the order of `get_weights`."""
        assign_all(self.name, self.variables, weights)

    def count_params(self) -> int:
        """How many numbers the variables hold."""
        return sum(variable.value.size for variable in self.variables)

    # ---- configuration ----

    def get_config(self) -> dict[str, Any]:
        """The arguments that make this layer again.  Every constructor argument is an attribute of the same name."""
        names = [
            name
            for cls in reversed(type(self).__mro__[:-1])
            for name, parameter in inspect.signature(cls).parameters.items()
            if parameter.kind is not parameter.VAR_KEYWORD
        ]
        return {name: _plain(getattr(self, name)) for name in dict.fromkeys(names)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """The layer with this configuration."""
        return cls(**config)


def positive(name: str, value: Any) -> int:
    """*value* as an int that is at least 1."""
    if not isinstance(value, int | np.integer) or value < 1:
        raise ValueError(f"{name} must be an int >= 1. Received: {name}={value!r}")
    return int(value)


def snake_case(name: str) -> str:
    """``MaxPooling2D`` -> ``max_pooling2d``."""
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", name)).lower()


def _plain(value: Any) -> Any:
    if isinstance(value, initializers.Initializer):
        return {"class_name": type(value).__name__, "config": value.get_config()}
    return list(value) if isinstance(value, tuple) else value
