"""A network as a list of steps, each layer behind all that it takes: the order of running it forward and back."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from fastconv.arrays import FloatArray
from fastconv.keras.layers.activation import STEPS, ActivatedLayer, Activation
from fastconv.keras.layers.base import Layer
from fastconv.keras.layers.dropout import Dropout
from fastconv.keras.layers.pool import MaxPooling2D
from fastconv.keras.layers.tensor import KerasTensor


class Step(NamedTuple):
    """A layer, and the numbers of the steps whose results it takes."""

    layer: Layer
    sources: tuple[int, ...]


class Graph:
    """What lies between *inputs* and *outputs*.

    Attributes
    ----------
    steps : tuple of Step
        Keras's order: by the longest way to an output, longest first, then as met on the way back from the outputs.
    inputs, outputs : tuple of int
        The numbers of the steps whose results they are.
    users : tuple of tuple of int
        For each step, the numbers of the steps that take its result.
    tensors : tuple of KerasTensor
        What each step puts out.
    """

    def __init__(self, inputs: Sequence[KerasTensor], outputs: Sequence[KerasTensor]) -> None:
        self.tensors = ordered = tuple(_in_order(outputs))
        number = {tensor: index for index, tensor in enumerate(ordered)}
        self.steps = tuple(Step(tensor.layer, tuple(number[source] for source in tensor.inputs)) for tensor in ordered)
        _check(ordered, inputs)
        self.inputs = tuple(number[tensor] for tensor in inputs)
        self.outputs = tuple(number[tensor] for tensor in outputs)
        users: list[list[int]] = [[] for _ in ordered]
        for index, step in enumerate(self.steps):
            for source in step.sources:
                users[source].append(index)
        self.users = tuple(tuple(numbers) for numbers in users)
        finished: list[list[int]] = [[] for _ in ordered]
        for source, numbers in enumerate(self.users):
            if numbers and source not in self.outputs:
                finished[numbers[-1]].append(source)
        self._finished = tuple(tuple(numbers) for numbers in finished)

    @property
    def is_chain(self) -> bool:
        """Whether each step takes the result of the one before it and of no other."""
        return all(step.sources == ((index - 1,) if index else ()) for index, step in enumerate(self.steps))

    def head(self, activation: str | None) -> ActivatedLayer | None:
        """The layer of the only output, where it ends in this activation."""
        last = self.steps[self.outputs[0]].layer
        alone = len(self.outputs) == 1
        return last if alone and isinstance(last, ActivatedLayer) and last.ends_in(activation) else None

    def forward(
        self, arrays: Sequence[FloatArray], training: bool, head: ActivatedLayer | None = None
    ) -> list[FloatArray]:
        """The outputs for one batch, that of *head* before its activation.

        A result is let go behind its last user.  While training the layers hold on to what `backward` needs.
        """
        results = dict(zip(self.inputs, arrays, strict=True))
        for index, (layer, sources) in enumerate(self.steps):
            if layer is head:
                results[index] = head.linear(results[sources[0]], training)
            elif layer.merges:
                results[index] = layer.forward([results[source] for source in sources], training)
            elif sources:
                results[index] = layer.forward(results[sources[0]], training)
            for source in self._finished[index]:
                del results[source]
        return [results[output] for output in self.outputs]

    def backward(self, grad_out: FloatArray, head: ActivatedLayer | None = None) -> None:
        """Leave the gradient of the loss in every trainable variable, given that of `forward`'s only output.

        A step whose result went to several users receives the sum of their gradients, the last user's first.  Nothing
        above the first layers with weights needs a gradient, and of those only the weights do.
        """
        self._go_back(grad_out, head, self._leading_to(lambda layer: bool(layer.trainable_weights)))

    def gradient_at(self, number: int, grad_out: FloatArray, head: ActivatedLayer | None = None) -> FloatArray:
        """The gradient at the result of step *number*, an output of the graph, given that of `forward`'s first output.

        Gradients of weights behind that step are overwritten on the way.
        """
        wanted = self.steps[number].layer
        return self._go_back(grad_out, head, self._leading_to(lambda layer: layer is wanted), number + 1)[number]

    def at_rest(self) -> Graph:
        """The same graph for going back through a prediction: told to train, it computes what it does in prediction.

        Its layers are others with the same weights, so what the layers of this one keep and draw is left alone.
        """
        twin = copy.copy(self)
        twin.steps = tuple(Step(_at_rest(layer), sources) for layer, sources in self.steps)
        return twin

    def _go_back(
        self, grad_out: FloatArray, head: ActivatedLayer | None, needed: list[bool], end: int = 0
    ) -> dict[int, FloatArray]:
        """Go back over the steps down to number *end*; returns the gradients that have arrived in front of them."""
        gradients = {self.outputs[0]: grad_out}
        # Steps whose activation has been dealt with: only their linear part is left.
        activated = {self.outputs[0]} if head else set()
        for index in reversed(range(end, len(self.steps))):
            layer, sources = self.steps[index]
            if index not in gradients or not needed[index]:
                continue
            gradient = gradients.pop(index)
            found: Any
            need_grad_x = any(needed[source] for source in sources)
            if index in activated:
                assert isinstance(layer, ActivatedLayer)
                found = layer.linear_backward(gradient, need_grad_x)
            elif isinstance(layer, MaxPooling2D) and (activation := self._pooled_activation(sources[0])):
                found = layer.backward_of_activated(gradient, activation)
                activated.add(sources[0])
            else:
                found = layer.backward(gradient, need_grad_x)
            for source, part in zip(sources, found if layer.merges else [found], strict=True):
                if needed[source]:
                    gradients[source] = gradients[source] + part if source in gradients else part
        return gradients

    def training_bytes(self, batch_size: int) -> int:
        """Bytes of all arrays between the layers: what each keeps, and the gradients before and behind one of them."""
        kept = in_flight = 0
        for layer, sources in self.steps:
            shapes = [(batch_size, *self.steps[source].layer.output_shape[1:]) for source in sources]
            result = (batch_size, *layer.output_shape[1:])
            kept += layer.training_bytes(shapes if layer.merges else shapes[0] if shapes else result)
            in_flight = max(in_flight, sum(layer.bytes_of(shape) for shape in (*shapes, result)))
        return kept + in_flight

    def _leading_to(self, wanted: Callable[[Layer], bool]) -> list[bool]:
        """For each step, whether a *wanted* layer lies in it or in front of it."""
        needed: list[bool] = []
        for layer, sources in self.steps:
            needed.append(wanted(layer) or any(needed[source] for source in sources))
        return needed

    def _pooled_activation(self, number: int) -> str | None:
        """The activation behind which a step's result goes to a pooling and nowhere else, if its slopes are 0 and 1."""
        layer = self.steps[number].layer
        alone = len(self.users[number]) == 1 and number not in self.outputs
        return layer.activation if alone and isinstance(layer, ActivatedLayer) and layer.activation in STEPS else None


def _in_order(outputs: Sequence[KerasTensor]) -> list[KerasTensor]:
    """All tensors that *outputs* come from, each behind its inputs."""
    met: dict[KerasTensor, int] = {}
    finished: dict[KerasTensor, None] = {}
    stack = [*reversed(outputs)]
    while stack:
        tensor = stack[-1]
        met.setdefault(tensor, len(met))
        waiting = [source for source in tensor.inputs if source not in finished]
        if waiting:
            stack.append(waiting[0])
        else:
            finished[tensor] = None
            stack.pop()
    distance = dict.fromkeys(finished, 0)
    for tensor in reversed(finished):
        for source in tensor.inputs:
            distance[source] = max(distance[source], distance[tensor] + 1)
    return sorted(finished, key=lambda tensor: (-distance[tensor], met[tensor]))


def _at_rest(layer: Layer) -> Layer:
    """A layer of the same weights that computes what *layer* does in prediction, and keeps what `backward` needs."""
    if isinstance(layer, Dropout):
        return Activation("linear")
    twin = copy.copy(layer)
    twin.trainable = False  # a normalisation with the statistics it has
    return twin


def _check(tensors: Sequence[KerasTensor], inputs: Sequence[KerasTensor]) -> None:
    for tensor in inputs:
        if tensor.inputs:
            raise ValueError(f"inputs must come from Input(). Received: inputs={list(inputs)}")
        if tensor not in tensors:
            raise ValueError(f"outputs must depend on every input. Received: {tensor!r}, which no output comes from")
    layers = set()
    for tensor in tensors:
        if not tensor.inputs and tensor not in inputs:
            raise ValueError(f"inputs must hold all inputs of the outputs. Received: inputs without {tensor!r}")
        if tensor.layer in layers:
            raise ValueError(
                f"a layer may stand in one place of a model: make a second one. Received: {tensor.layer.name} twice"
            )
        layers.add(tensor.layer)
