"""What every model has: layers, weights and shapes, and the way forward and back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from fastconv.arrays import FloatArray
from fastconv.cuda.array import Array
from fastconv.cuda.device import Engine
from fastconv.keras.devices import engine_of, entered, placed
from fastconv.keras.graph import Graph
from fastconv.keras.layers.base import Layer, Shape
from fastconv.keras.layers.tensor import KerasTensor
from fastconv.keras.layers.variable import Variable, assign_all
from fastconv.keras.summary import html_summary, print_summary
from fastconv.keras.utils import new_generator


class Network:
    """A graph of layers, before it is told how to train.

    Attributes
    ----------
    inputs, outputs : list of KerasTensor
        Where the graph begins and ends; empty until the shape of the input is known.
    """

    def __init__(self, name: str, device: Any = "cpu") -> None:
        self.name = name
        self._engine = engine_of(device)
        self.generator = new_generator()
        self.inputs: list[KerasTensor] = []
        self.outputs: list[KerasTensor] = []
        self._layers: list[Layer] = []

    def _connect(self, inputs: Sequence[KerasTensor], outputs: Sequence[KerasTensor]) -> None:
        """Make the graph between *inputs* and *outputs* the one that runs."""
        self._graph = Graph(inputs, outputs)
        self.inputs, self.outputs = list(inputs), list(outputs)

    def build(self, input_shape: Shape | None = None) -> None:
        """Create all weights."""

    # ---- where it works ----

    @property
    def engine(self) -> Engine | None:
        """The engine of the device on which the model works, None for the CPU."""
        return self._layers[0].engine if self._layers else self._engine

    def to(self, device: Any) -> Self:
        """Move all variables to a device, or back, and work there from now on.

        Parameters
        ----------
        device : {"cpu", "cuda", "cuda:1", ...} or Engine
            With "cuda" everything between a batch of samples and the weights stays on the GPU.

        Returns
        -------
        Model
            Itself.

        Raises
        ------
        RuntimeError
            Where there is no GPU, with what is missing.
        TypeError
            Where a layer, the loss or a metric has no kernels for a GPU, or a dtype is not float32; nothing has changed
            then.
        """
        engine = engine_of(device)
        inputs = [tensor.layer for tensor in self.inputs]
        layers = dict.fromkeys([*self._layers, *inputs])
        if engine is not None:
            for layer in layers:
                layer.check_fits_device()
        self._engine = engine
        for layer in layers:
            layer.to(engine)
        return self

    # ---- what the model has ----

    @property
    def layers(self) -> list[Layer]:
        """The layers, in the order in which they run."""
        return list(self._layers)

    def get_layer(self, name: str | None = None, index: int | None = None) -> Layer:
        """The layer of this name, or at this place in `layers`."""
        if index is not None:
            return self.layers[index]
        for layer in self._layers:
            if layer.name == name:
                return layer
        raise ValueError(f"name must be that of a layer of the model. Received: name={name!r}")

    @property
    def built(self) -> bool:
        """Whether the weights exist."""
        return bool(self.inputs)

    @property
    def input(self) -> Any:
        """The `KerasTensor` of the input; a list of several."""
        return _one_or_list(self.inputs)

    @property
    def output(self) -> Any:
        """The `KerasTensor` of the output; a list of several."""
        return _one_or_list(self.outputs)

    @property
    def input_shape(self) -> Any:
        """Shape of a batch, its first extent None; a list of shapes where there are several inputs."""
        if not self.inputs:
            raise ValueError("the model has no input shape yet: build it, or call it on data")
        return _one_or_list([tensor.shape for tensor in self.inputs])

    @property
    def output_shape(self) -> Any:
        """Shape of a batch of predictions, its first extent None; a list of shapes where there are several outputs."""
        if not self.outputs:
            raise ValueError("the model has no output shape yet: build it, or call it on data")
        return _one_or_list([tensor.shape for tensor in self.outputs])

    @property
    def dtype(self) -> str:
        """dtype of all arrays in the model."""
        return self._layers[0].dtype

    @property
    def trainable(self) -> bool:
        """Whether any layer may learn; setting it sets all of them."""
        return any(layer.trainable for layer in self._layers)

    @trainable.setter
    def trainable(self, value: bool) -> None:
        for layer in self._layers:
            layer.trainable = value

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

    def summary(
        self,
        line_length: int | None = None,
        print_fn: Callable[[str], object] | None = None,
        show_trainable: bool = False,
        batch_size: int | None = None,
    ) -> None:
        """Print a table of layers, output shapes and numbers of parameters.

        Parameters
        ----------
        line_length : int, optional
            Width of the table; Keras's, or what fits the terminal, if left out.
        print_fn : callable, optional
            Receives the text instead of standard output.
        show_trainable : bool
            Whether to add a column that says which layers learn.
        batch_size : int, optional
            Add the memory of a training step with so many samples.
        """
        print_summary(self, line_length, print_fn, show_trainable, batch_size)

    def _repr_html_(self) -> str:
        """What a notebook shows for the model: the table of `summary`."""
        return html_summary(self)

    @property
    def is_chain(self) -> bool:
        """Whether the layers stand in a row."""
        return self._graph.is_chain

    def sources_of(self, layer: Layer) -> list[Layer]:
        """The layers whose results *layer* takes."""
        steps = self._graph.steps
        return [steps[source].layer for step in steps if step.layer is layer for source in step.sources]

    def output_of(self, layer: Layer) -> KerasTensor:
        """What *layer* puts out in this model."""
        for tensor in self._graph.tensors:
            if tensor.layer is layer:
                return tensor
        raise ValueError(f"layer must be one of the model's. Received: layer={layer.name}")

    @property
    def optimizer_size(self) -> tuple[int, int]:
        """How many numbers and bytes an optimizer keeps, as Keras counts them; none before its first update."""
        return 0, 0

    def training_memory(self, batch_size: int) -> dict[str, int]:
        """Bytes that a training step on *batch_size* samples needs for each purpose, scratch space apart."""
        weights = sum(variable.value.nbytes for variable in self.weights)
        gradients = sum(variable.value.nbytes for variable in self.trainable_weights)
        return {"weights": weights, "gradients": gradients, "activations": self._graph.training_bytes(batch_size)}

    # ---- forward and back ----

    def __call__(self, x: Any, training: bool = False) -> Any:
        """The output for one batch; a list where there are several outputs.

        On a device NumPy arrays in give NumPy arrays out, and arrays of the device give arrays of the device.
        """
        if isinstance(x, KerasTensor):
            raise TypeError(f"a model is called on arrays; its layers can be called on KerasTensors. Received: x={x!r}")
        arrays = self._enter(x)  # builds a model that needs the shape, and with it the graph
        outputs = self._graph.forward(arrays, training)
        stays = self.engine is None or any(type(part) is Array for part in self._parts(x))
        return _one_or_list(outputs if stays else [placed(output, None) for output in outputs])

    def _enter(self, x: Any) -> list[FloatArray]:
        """One batch of each input, in the model's dtype and where its weights lie."""
        engine = self.engine
        if engine is not None:
            return self._fitting([entered(part, engine) for part in self._parts(x)])
        return self._fitting([np.ascontiguousarray(part, dtype=self.dtype) for part in self._parts(x)])

    def _fitting(self, arrays: list[NDArray[Any]]) -> list[NDArray[Any]]:
        """The arrays in the shapes of the inputs; the first ones seen build a model that needs their shape."""
        if not self.built:
            self.build((None, *arrays[0].shape[1:]))
        for index, tensor in enumerate(self.inputs):
            if (*arrays[index].shape[1:], 1) == tensor.shape[1:]:  # grey images without their axis of one channel
                arrays[index] = arrays[index][..., np.newaxis]
            if arrays[index].shape[1:] != tensor.shape[1:]:
                raise ValueError(f"x must have shape {tensor.shape}. Received: x.shape={arrays[index].shape}")
        return arrays

    def _parts(self, x: Any) -> list[Any]:
        """The arrays for the inputs: *x* itself, or what the list *x* holds."""
        if not self._layers:
            raise ValueError("the model has no layers")
        count = len(self.inputs) or 1
        is_list = isinstance(x, list | tuple) and (count > 1 or (len(x) == 1 and isinstance(x[0], np.ndarray | Array)))
        parts = list(x) if is_list else [x]
        if len(parts) != count:
            raise ValueError(f"x must be a list of {count} arrays, one for each input. Received: {len(parts)}")
        return parts

    def _samples(self, x: Any) -> list[NDArray[Any]]:
        """All samples of each input as arrays of any dtype, not copied; the first ones seen build the model."""
        return self._fitting([np.asarray(part) for part in self._parts(x)])


def name_layers(layers: Iterable[Layer], taken: set[str]) -> None:
    """Give layers without a name of their own Keras's: conv2d, conv2d_1, and so on, beside the names *taken*."""
    for layer in layers:
        if layer.name in taken and not layer.has_own_name:
            layer.name = next(name for i in range(1, len(taken) + 1) if (name := f"{layer.name}_{i}") not in taken)
        if layer.name in taken:
            raise ValueError(f"layer names must be unique in a model. Received: a second layer {layer.name!r}")
        layer.has_own_name = True
        taken.add(layer.name)


def _one_or_list(parts: list[Any]) -> Any:
    return parts[0] if len(parts) == 1 else parts
