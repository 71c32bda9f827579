"""What every layer has in common: a name, weights, a shape, a configuration, and `forward` beside `backward`."""

from __future__ import annotations

import inspect
import itertools
import math
import re
from typing import Any, Self

import numpy as np

from fastconv.arrays import FloatArray
from fastconv.cuda.array import Array
from fastconv.cuda.device import Engine
from fastconv.keras import initializers, regularizers
from fastconv.keras.devices import placed
from fastconv.keras.layers.tensor import KerasTensor
from fastconv.keras.layers.variable import Variable, assign_all
from fastconv.keras.utils import new_generator

#: A shape with the batch axis, whose extent is None while it is not known.
Shape = tuple[int | None, ...]

_creation = itertools.count()


class Layer:
    """One step of a network.

    A layer is built for a shape of input, then maps arrays with `forward`.  With ``training=True`` it keeps what
    `backward` needs to turn the gradient of its output into the gradient of its input, and `backward` leaves each
    weight's gradient in its `Variable`.  Without it only the weights that kernels have packed are kept, until the next
    change of the weights, so several threads may predict at once.

    Arrays of the layer's shapes go through `forward`; a subclass that changes the shape says so in
    `compute_output_shape`.

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

    Raises
    ------
    TypeError
        If *dtype* is another one, or a subclass defines Keras's ``call``.
    ValueError
        If weights are set that have other shapes.

    Examples
    --------
    >>> import numpy as np
    >>> class Double(Layer):
    ...     def forward(self, x, training=False):
    ...         return 2 * x
    ...     def backward(self, grad_out, need_grad_x=True):
    ...         return 2 * grad_out
    >>> Double()(np.ones((1, 2)))
    array([[2., 2.]], dtype=float32)
    """

    #: Whether the layer takes a list of arrays, of any length, and `backward` returns one of gradients.
    merges = False
    #: The engine of the device on which the layer works, None for the CPU.
    engine: Engine | None = None

    def __init_subclass__(cls) -> None:
        if "call" in vars(cls):
            raise TypeError(
                f"a layer defines forward, and backward beside it, in place of Keras's call: nothing derives the one "
                f"from the other here. Received: {cls.__name__}.call"
            )

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
        self.creation = next(_creation)
        self.trainable = trainable
        self.dtype = np.dtype(dtype).name
        self.input_shape = None if input_shape is None else tuple(input_shape)
        self.variables: list[Variable] = []
        self.generator: np.random.Generator | None = None
        self._built_for: Any = None
        self._output: KerasTensor | None = None

    # ---- what a layer defines ----

    def build(self, input_shape: Any) -> None:
        """Create the weights for inputs of this shape, or of these shapes where the layer merges several."""
        self.compute_output_shape(input_shape)
        self._built_for = input_shape

    def compute_output_shape(self, input_shape: Any) -> Shape:
        """Shape of the output for an input of this shape; an input that does not fit raises ValueError."""
        shape: Shape = input_shape
        return shape

    def forward(self, x: Any, training: bool = False) -> FloatArray:
        """The layer's output."""
        raise NotImplementedError

    def backward(self, grad_out: FloatArray, need_grad_x: bool = True) -> Any:
        """The gradient of the last training input; None where *need_grad_x* is false and only the weights matter."""
        raise NotImplementedError

    def training_bytes(self, input_shape: Any) -> int:
        """Bytes that a training step makes for a batch of this shape and keeps until it has gone back."""
        return self.bytes_of(self.compute_output_shape(input_shape))

    # ---- what a layer has ----

    def bytes_of(self, shape: Shape) -> int:
        """Bytes of an array of this shape in the layer's dtype."""
        return math.prod(extent or 0 for extent in shape) * np.dtype(self.dtype).itemsize

    def __call__(self, x: Any, training: bool = False) -> Any:
        """The output for *x*, an array or, for a layer that merges, a list of arrays; the first call builds the layer.

        A `KerasTensor` in place of an array gives the `KerasTensor` of the output, from which `Model` is made.
        """
        parts = list(x) if self.merges else [x]
        if any(isinstance(part, KerasTensor) for part in parts):
            return self._promise(parts)
        arrays = [part if type(part) is Array else np.asarray(part, dtype=self.dtype) for part in parts]
        if not self.built:
            self.build(self._one_or_list([(None, *array.shape[1:]) for array in arrays]))
        return self.forward(self._one_or_list(arrays), training)

    def _promise(self, tensors: list[Any]) -> KerasTensor:
        for tensor in tensors:
            if not isinstance(tensor, KerasTensor):
                raise TypeError(f"layer {self.name} takes arrays or KerasTensors, not both. Received: {tensors}")
            if tensor.dtype != self.dtype:
                raise ValueError(
                    f"all layers of a model must have one dtype. "
                    f"Received: {self.name}.dtype={self.dtype} after {tensor.layer.name}.dtype={tensor.dtype}"
                )
        shapes = self._one_or_list([tensor.shape for tensor in tensors])
        if not self.built:
            self.build(shapes)
        promise = KerasTensor(self, tuple(tensors), self.compute_output_shape(shapes))
        self._output = self._output or promise
        return promise

    def _one_or_list(self, parts: list[Any]) -> Any:
        return parts if self.merges else parts[0]

    def add_weight(
        self,
        name: str,
        shape: tuple[int, ...],
        initializer: initializers.Initializer,
        trainable: bool = True,
        regularizer: regularizers.Regularizer | None = None,
    ) -> Variable:
        """Create a variable of this layer."""
        self.generator = self.generator or new_generator()
        value = placed(initializer(shape, self.dtype, self.generator), self.engine)
        variable = Variable(name, value, trainable, regularizer)
        self.variables.append(variable)
        return variable

    def check_fits_device(self) -> None:
        """Raise TypeError where the layer cannot work on a device, and say why."""
        if self.dtype != "float32":
            raise TypeError(
                f"layer {self.name} ({type(self).__name__}) works on the CPU only: its dtype is {self.dtype}, and the "
                "kernels take float32"
            )

    def to(self, engine: Engine | None) -> None:
        """Let the layer work on a device, or on the CPU: move its variables there."""
        self.engine = engine
        for variable in self.variables:
            variable.to(engine)

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
    def output(self) -> KerasTensor:
        """What the layer puts out in its first model: ``Model(model.input, layer.output)`` computes it."""
        if self._output is None:
            raise ValueError(
                f"layer {self.name} has no output yet: build the model, or call the layer on a KerasTensor"
            )
        return self._output

    @property
    def input(self) -> Any:
        """What the layer takes in its first model; a list where it merges several."""
        return self._one_or_list(list(self.output.inputs))

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
    if isinstance(value, initializers.Initializer | regularizers.Regularizer):
        return {"class_name": type(value).__name__, "config": value.get_config()}
    return [_plain(part) for part in value] if isinstance(value, tuple) else value
