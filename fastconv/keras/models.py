"""`Model`, a graph of layers, and `Sequential`, layers in a row."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Self

from fastconv.arrays import FloatArray
from fastconv.keras import import_keras, layers as layer_classes, saving
from fastconv.keras.devices import placed
from fastconv.keras.layers.base import Layer, Shape
from fastconv.keras.layers.input import Input, InputLayer
from fastconv.keras.layers.tensor import KerasTensor
from fastconv.keras.layers.variable import Variable
from fastconv.keras.network import name_layers
from fastconv.keras.optimizers import Optimizer
from fastconv.keras.training import Trainer

# Begins the names of the optimizer's tensors in a file, and of no layer's.
_OPTIMIZER = "optimizer::"


class Model(Trainer):
    """The layers between *inputs* and *outputs*.

    A batch (N, *shape of an input) goes in, (N, *shape of an output) comes out.

    Parameters
    ----------
    inputs : KerasTensor or list of KerasTensor
        What `Input` returned.
    outputs : KerasTensor or list of KerasTensor
        What layers returned that were called on the inputs and on each other's results.  A model with several outputs
        predicts; it cannot be trained.
    name : str
        Title of the summary.
    device : {"cpu", "cuda", "cuda:1", ...} or Engine, optional
        Where to work, as in `to`; by default where the layers are.

    Raises
    ------
    ValueError
        If inputs and outputs are not the two ends of one graph, or two layers have one name.
    TypeError
        If they are no tensors of `Input` and layers, or a subclass defines Keras's ``call``.

    Notes
    -----
    A layer stands in one place of a model.  It may be part of several models, which then share its weights:
    ``Model(model.input, [layer.output for layer in model.layers])`` shows what each layer of *model* makes of an image.
    Shuffling and dropout draw from one generator per model, so after `fastconv.keras.utils.set_random_seed` the
    same program gives the same weights on the same machine, bit for bit.

    Examples
    --------
    >>> from fastconv.keras import Input, Model, layers
    >>> inputs = Input((8, 8, 4))
    >>> x = layers.Conv2D(4, 3, padding="same", activation="relu")(inputs)
    >>> model = Model(inputs, layers.Add()([x, inputs]))
    >>> model.output_shape, model.count_params()
    ((None, 8, 8, 4), 148)
    """

    def __init_subclass__(cls) -> None:
        if "call" in vars(cls):
            raise TypeError(
                f"a model is made of layers, by Sequential([...]) or Model(inputs, outputs), not of a function: "
                f"nothing derives the way back from one here. Received: {cls.__name__}.call"
            )

    def __init__(self, inputs: Any, outputs: Any, name: str = "functional", device: Any = None) -> None:
        super().__init__(name)
        self._connect(_tensors("inputs", inputs), _tensors("outputs", outputs))
        self._layers = [step.layer for step in self._graph.steps]
        # Keras counts layers as they are made, and so do we; a name that somebody chose comes first.
        name_layers(sorted(self._layers, key=lambda layer: (not layer.has_own_name, layer.creation)), set())
        for layer in self._layers:
            layer.generator = layer.generator or self.generator
        if device is not None:
            self.to(device)

    def get_config(self) -> dict[str, Any]:
        """Name, layers and connections as plain data."""

        def names(tensors: Sequence[KerasTensor]) -> list[str]:
            return [tensor.layer.name for tensor in tensors]

        layers = [
            {**_entry(layer), "inbound": [self._layers[source].name for source in sources]}
            for layer, sources in self._graph.steps
        ]
        return {"name": self.name, "layers": layers, "inputs": names(self.inputs), "outputs": names(self.outputs)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """A new model with this configuration."""
        tensors: dict[str, KerasTensor] = {}
        for entry in config["layers"]:
            layer = layer_classes.deserialize(entry)
            sources = [tensors[name] for name in entry["inbound"]]
            tensors[layer.name] = layer(sources if layer.merges else sources[0]) if sources else layer.output
        inputs, outputs = ([tensors[name] for name in config[side]] for side in ("inputs", "outputs"))
        return cls(inputs, outputs, config["name"])

    def save(self, filepath: str | os.PathLike[str], include_optimizer: bool = True) -> None:
        """Write the model to a ``.safetensors`` file, which appears whole or not at all.

        Parameters
        ----------
        filepath : path
            Ends in ``.safetensors``.
        include_optimizer : bool
            Whether to write the optimizer's arrays and the state of the random numbers beside layers, weights and
            compile arguments, so that training can go on to the same bits.
        """
        config = {
            "class_name": type(self).__name__,
            "config": self.get_config(),
            "build_config": {"input_shape": self.input_shape},
            "compile_config": self.get_compile_config(),
        }
        tensors = self._tensors()
        if include_optimizer and self.optimizer is not None:
            config["training"] = {
                "iterations": self.optimizer.iterations,
                "generator": self.generator.bit_generator.state,
            }
            tensors |= self._optimizer_tensors(self.optimizer)
        saving.write(filepath, config, tensors)

    def save_weights(self, filepath: str | os.PathLike[str]) -> None:
        """Write the weights alone to a ``.safetensors`` file, which appears whole or not at all."""
        saving.write(filepath, {}, self._tensors())

    def load_weights(self, filepath: str | os.PathLike[str]) -> None:
        """Take the weights from a file.

        Parameters
        ----------
        filepath : str or path
            A file of `save_weights` or `save`, for layers of the same names; or one that Keras wrote, which ends in
            ``.weights.h5`` or ``.keras``, for layers of the same classes in the same order.

        Raises
        ------
        ValueError
            Where the file is of neither kind, or its arrays do not fit the layers; nothing has changed then.
        """
        if not import_keras.is_of_keras(filepath):
            self._set_tensors(saving.read(filepath)[1])
        elif self.built:
            self.set_weights(import_keras.read_weights(filepath, self._layers))
        else:
            raise ValueError("the model has no weights yet: build it, or call it on data")

    def _tensors(self) -> dict[str, FloatArray]:
        return {name: placed(variable.value, None) for name, variable in self._named_weights().items()}

    def _named_weights(self) -> dict[str, Variable]:
        return {f"{layer.name}/{variable.name}": variable for layer in self._layers for variable in layer.weights}

    def _set_tensors(self, tensors: dict[str, FloatArray]) -> None:
        given = {name: tensor for name, tensor in tensors.items() if not name.startswith(_OPTIMIZER)}
        names = list(self._named_weights())
        if sorted(names) != sorted(given):
            raise ValueError(f"filepath must hold the tensors {sorted(names)}. Received: {sorted(given)}")
        self.set_weights([given[name] for name in names])

    def _optimizer_tensors(self, optimizer: Optimizer) -> dict[str, FloatArray]:
        return {
            f"{_OPTIMIZER}{layer.name}/{variable.name}/{number}": placed(array, None)
            for layer in self._layers
            for variable in layer.trainable_weights
            for number, array in enumerate(optimizer.state(variable))
        }

    def _restore_training(self, training: dict[str, Any], tensors: dict[str, FloatArray]) -> None:
        assert self.optimizer is not None
        names = iter(self._optimizer_tensors(self.optimizer))
        states = {
            variable: [tensors[next(names)] for _ in range(self.optimizer.averages)]
            for variable in self.trainable_weights
        }
        self.optimizer.restore(training["iterations"], states)
        self.generator.bit_generator.state = training["generator"]


class Sequential(Model):
    """A network of layers in a row.

    Shapes are those of the first and of the last layer.

    Parameters
    ----------
    layers : sequence of Layer, optional
        The layers; more can be added with `add`.  The first may be an `Input`.
    name : str
        Title of the summary.
    device : {"cpu", "cuda", "cuda:1", ...} or Engine
        Where to work, as in `to`.

    Raises
    ------
    ValueError
        If a layer does not fit the one before it, or two have one name.
    TypeError
        If something is no layer.

    Notes
    -----
    Initial weights, shuffling and dropout draw from one generator per model, so after
    `fastconv.keras.utils.set_random_seed` the same program gives the same weights on the same machine, bit for bit.

    Examples
    --------
    >>> from fastconv.keras import Sequential, layers
    >>> model = Sequential([layers.Input((28, 28, 1)), layers.Conv2D(32, 3, activation="relu"), layers.Flatten()])
    >>> model.output_shape, model.count_params()
    ((None, 21632), 320)
    """

    def __init__(
        self, layers: Sequence[Layer | KerasTensor] | None = None, name: str = "sequential", device: Any = "cpu"
    ) -> None:
        Trainer.__init__(self, name, device)  # there is no graph before the shape of the input is known
        for layer in layers or ():
            self.add(layer)

    def add(self, layer: Layer | KerasTensor) -> None:
        """Put a layer at the end; the model is built as soon as the shape of its input is known."""
        if isinstance(layer, KerasTensor) and isinstance(layer.layer, InputLayer):
            layer = layer.layer
        if isinstance(layer, Model):
            raise TypeError(
                f"a model is no layer: take its layers, as in Sequential([*{layer.name}.layers, ...]), or "
                f"go on from {layer.name}.output to a Model. Received: layer={layer!r}"
            )
        if not isinstance(layer, Layer):
            raise TypeError(f"layer must be a Layer. Received: layer={layer!r}")
        name_layers([layer], {other.name for other in self._layers})
        if self.engine is not None:
            layer.check_fits_device()
            layer.to(self.engine)
        layer.generator = layer.generator or self.generator
        if self.built:
            self._connect(self.inputs, [layer(self.outputs[0])])
        self._layers.append(layer)
        if not self.built and self._layers[0].input_shape is not None:
            self.build()

    def build(self, input_shape: Shape | None = None) -> None:
        """Create all weights.

        Parameters
        ----------
        input_shape : tuple, optional
            Shape of a batch, its first extent None; needed where the first layer does not know it.
        """
        if self.built:
            return
        if not self._layers:
            raise ValueError("the model has no layers")
        first = self._layers[0]
        sample = first.input_shape if input_shape is None else tuple(extent or 0 for extent in input_shape[1:])
        if sample is None:
            raise ValueError("input_shape is needed to build a model whose first layer was given none")
        tensor = source = first.output if isinstance(first, InputLayer) else Input(sample, dtype=first.dtype)
        source.layer.to(self.engine)
        for layer in self._layers:
            if layer is not source.layer:
                tensor = layer(tensor)
        self._connect([source], [tensor])

    @property
    def layers(self) -> list[Layer]:
        """The layers, without a declared input."""
        return [layer for layer in self._layers if not isinstance(layer, InputLayer)]

    def get_config(self) -> dict[str, Any]:
        """Name and layers as plain data."""
        return {"name": self.name, "layers": [_entry(layer) for layer in self._layers]}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """A new model with this configuration."""
        return cls([layer_classes.deserialize(entry) for entry in config["layers"]], config["name"])


_CLASSES: dict[str, type[Model]] = {"Model": Model, "Sequential": Sequential}


def load_model(filepath: str | os.PathLike[str], device: Any = "cpu") -> Model:
    """The model that `Model.save` wrote, with its weights, and compiled if it was.

    Parameters
    ----------
    filepath : path
        A ``.safetensors`` file, whatever device the model was saved from.
    device : {"cpu", "cuda", "cuda:1", ...} or Engine
        Where it is to work.

    Returns
    -------
    Model or Sequential
        The model; where its optimizer was saved as well, training goes on to the same bits as if it had never stopped.

    Raises
    ------
    ValueError
        Where the file is not a model of fastconv, or its tensors do not fit its layers.

    Examples
    --------
    >>> from fastconv.keras import layers
    >>> Sequential([layers.Input((4,)), layers.Dense(2)], name="small").save("small.safetensors")
    >>> load_model("small.safetensors").name
    'small'
    """
    if import_keras.is_of_keras(filepath):
        raise ValueError(
            f"filepath must be a model saved by fastconv; of Keras's files the weights can be taken: make the model, "
            f"then model.load_weights(filepath). Received: filepath={str(filepath)!r}"
        )
    config, tensors = saving.read(filepath)
    try:
        model = _CLASSES[config["class_name"]].from_config(config["config"])
        if not model.built:
            model.build(tuple(config["build_config"]["input_shape"]))
        model._set_tensors(tensors)
        if config["compile_config"] is not None:
            model.compile(**config["compile_config"])
        if "training" in config:
            model._restore_training(config["training"], tensors)
    except (ArithmeticError, AttributeError, LookupError, MemoryError, RecursionError, TypeError) as error:
        raise ValueError(
            f"filepath must describe a model of fastconv. Received: {str(filepath)!r}, {error!r}"
        ) from error
    return model.to(device)


def _entry(layer: Layer) -> dict[str, Any]:
    return {"class_name": type(layer).__name__, "config": layer.get_config()}


def _tensors(name: str, value: Any) -> list[KerasTensor]:
    tensors = list(value) if isinstance(value, list | tuple) else [value]
    if not tensors or not all(isinstance(tensor, KerasTensor) for tensor in tensors):
        raise TypeError(f"{name} must be a KerasTensor or a list of them. Received: {name}={value!r}")
    return tensors
