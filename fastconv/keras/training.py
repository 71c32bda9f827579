"""Training, evaluation and prediction, batch by batch."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from rich.console import Console

from fastconv.arrays import FloatArray
from fastconv.cuda.array import Array
from fastconv.keras import losses, optimizers
from fastconv.keras.batches import (
    ArrayBatches,
    Batch,
    Batches,
    IteratorBatches,
    check_lengths,
    check_no_steps,
    held_back,
    is_iterator,
    of_iterator,
    slices,
    starting_at,
    take,
)
from fastconv.keras.callbacks import Callback, History, Logs, ProgressBar
from fastconv.keras.devices import copied_ahead, placed, sample
from fastconv.keras.layers.base import positive
from fastconv.keras.metrics import Metric, get as get_metric
from fastconv.keras.network import Network
from fastconv.keras.objective import Average, Objective
from fastconv.keras.recorded import Function, Recorded
from fastconv.keras.totals import LateLogs

BATCH_SIZE = 32
# Keras counts an optimizer's number of updates and its learning rate among its variables.
_COUNTERS = (np.dtype(np.int64), np.dtype(np.float32))


class Trainer(Network):
    """A network that learns: `compile`, then `fit`, `evaluate` and `predict`."""

    def __init__(self, name: str, device: Any = "cpu") -> None:
        super().__init__(name, device)
        self.stop_training = False
        self._interrupted = False
        self.optimizer: optimizers.Optimizer | None = None
        self.loss: losses.Loss | None = None
        self.metrics: list[Metric] = []
        #: Of the last `fit`.
        self.history: History | None = None

    def compile(self, optimizer: Any = "rmsprop", loss: Any = None, metrics: Any = None) -> None:
        """Choose how to train.

        Parameters
        ----------
        optimizer : str or Optimizer
            ``"sgd"``, ``"rmsprop"``, ``"adam"``, ``"adamw"`` or an object of `fastconv.keras.optimizers`.
        loss : str or Loss
            Such as ``"sparse_categorical_crossentropy"``, or an object of `fastconv.keras.losses`.
        metrics : str, Metric or sequence of them, optional
            Such as ``"accuracy"``, or objects of `fastconv.keras.metrics`.
        """
        chosen = losses.get(loss)
        wanted = [metrics] if isinstance(metrics, str | Metric) else metrics or ()
        measured = [get_metric(metric, chosen) for metric in wanted]
        self.optimizer, self.loss, self.metrics = optimizers.get(optimizer), chosen, measured

    def to(self, device: Any) -> Self:
        super().to(device)
        if self.optimizer is not None:
            self.optimizer.to(self.engine)
        return self

    @property
    def metrics_names(self) -> list[str]:
        """The names of the numbers that `evaluate` returns."""
        return ["loss", *(metric.name for metric in self.metrics)]

    def get_compile_config(self) -> dict[str, Any] | None:
        """Optimizer, loss and metrics as plain data; None before `compile`."""
        if self.optimizer is None or self.loss is None:
            return None

        def plain(value: Any) -> dict[str, Any]:
            return {"class_name": type(value).__name__, "config": value.get_config()}

        return {
            "optimizer": plain(self.optimizer),
            "loss": plain(self.loss),
            "metrics": [plain(metric) for metric in self.metrics],
        }

    @property
    def optimizer_size(self) -> tuple[int, int]:
        if self.optimizer is None or not self.optimizer.iterations:
            return 0, 0
        averaged = [variable.value for variable in self.trainable_weights for _ in range(self.optimizer.averages)]
        numbers = sum(array.size for array in averaged) + len(_COUNTERS)
        return numbers, sum(array.nbytes for array in averaged) + sum(dtype.itemsize for dtype in _COUNTERS)

    def training_memory(self, batch_size: int) -> dict[str, int]:
        memory = super().training_memory(batch_size)
        if self.optimizer is not None:
            memory["optimizer"] = self.optimizer.averages * memory["gradients"]
        return memory

    # ---- use ----

    def predict(self, x: Any, batch_size: int | None = None, verbose: Any = 0, steps: int | None = None) -> Any:
        """Predictions for all samples, computed batch by batch.

        Parameters
        ----------
        x : ndarray of shape (n, ...) or iterator
            Samples of any real dtype; here and below a list of such arrays where the model has several inputs, or an
            iterator of batches, ``x`` or ``(x, y)``.  `predict` and `evaluate` take those of
            `ImageDataGenerator.flow` from the first on, wherever the iterator stands.
        batch_size : int, default 32
            Samples that are in work at once.  It can move no more than the last bits of a dense layer.
        verbose : int
            Accepted for Keras's sake; nothing is printed.
        steps : int, optional
            Batches to take from an iterator; by default its length.

        Returns
        -------
        ndarray of shape (n, ...), the model's dtype
            One prediction per sample; a list of such arrays where the model has several outputs.
        """
        batches: Iterator[list[Any]]
        if is_iterator(x):
            x = starting_at(x, 0)
            taken = (next(x) for _ in range(of_iterator(x, steps, "steps", self._parts).steps))
            whole = (self._parts(batch[0] if isinstance(batch, tuple) else batch) for batch in taken)
            batches = ([part if type(part) is Array else np.asarray(part) for part in inputs] for inputs in whole)
            parts = [*self._predictions(batches)]
            found = [np.concatenate(outputs) for outputs in zip(*parts, strict=True)]
            return found[0] if len(found) == 1 else found
        check_no_steps("steps", steps)
        samples = self._samples(x)
        count = check_lengths(samples)
        outs = [np.empty((count, *(extent or 0 for extent in tensor.shape[1:])), self.dtype) for tensor in self.outputs]
        parts_of = list(slices(count, _batch_size(batch_size)))
        batches = (take(samples, chosen) for chosen in parts_of)
        for chosen, results in zip(parts_of, self._predictions(batches), strict=True):
            for out, result in zip(outs, results, strict=True):
                out[chosen] = result
        return outs[0] if len(outs) == 1 else outs

    def _predictions(self, batches: Iterator[list[Any]]) -> Iterator[list[FloatArray]]:
        """What each batch gives, in host memory."""
        forward = self._recorded(lambda *arrays: self._graph.forward(arrays, training=False))
        for inputs in self._on_their_way(batches):
            arrays = self._enter(inputs)  # builds the model, if need be
            yield [placed(out, None) for out in forward(*arrays)]

    def evaluate(
        self,
        x: Any,
        y: ArrayLike | None = None,
        batch_size: int | None = None,
        verbose: Any = "auto",
        steps: int | None = None,
        return_dict: bool = False,
    ) -> float | list[float] | Logs:
        """Loss and metrics over all samples.

        Parameters
        ----------
        x, y : ndarray of shape (n, ...)
            Samples and labels; or x alone, an iterator of batches ``(x, y)``.
        batch_size : int, default 32
            Samples that are in work at once.
        verbose : int or "auto"
            0 prints nothing.
        steps : int, optional
            Batches to take from an iterator; by default its length.
        return_dict : bool
            Whether to return the numbers by name.

        Returns
        -------
        float, list of float or dict
            The loss; with metrics, the loss and the metrics.
        """
        batches = self._batches(starting_at(x, 0), y, batch_size, steps, "steps")
        average = Average(self.metrics)
        forward = self._recorded(
            lambda *arrays: self._graph.forward(arrays, training=False, head=self._objective().head)
        )
        for inputs, labels in self._where_the_model_is(batches.epoch()):
            (out,) = forward(*self._enter(inputs))
            average.add(labels, out, self._objective(), self.trainable_weights)
        logs = average.result()
        if verbose:
            text = "  ".join(f"{name} {value:.4f}" for name, value in logs.items())
            Console(file=sys.stdout).print(f"{batches.samples:,} samples: {text}", highlight=False)
        return logs if return_dict else _numbers(logs)

    # ---- training ----

    def fit(
        self,
        x: Any,
        y: ArrayLike | None = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: Any = "auto",
        callbacks: Callback | Sequence[Callback] | None = None,
        validation_split: float = 0.0,
        validation_data: Any = None,
        shuffle: bool = True,
        initial_epoch: int = 0,
        steps_per_epoch: int | None = None,
        validation_steps: int | None = None,
    ) -> History:
        """Train on all samples, epoch after epoch.

        Parameters
        ----------
        x : ndarray of shape (n, ...) or iterator
            Samples of any real dtype, converted batch by batch; or an iterator of batches ``(x, y)``, such as
            `ImageDataGenerator.flow`.
        y : ndarray of shape (n,), (n, 1) or (n, C)
            Class numbers or one-hot rows, as the loss wants them; none with an iterator.
        batch_size : int, default 32
            Samples per update; the last batch of an epoch may be smaller.
        epochs : int
            Number of the last epoch.
        verbose : int or "auto"
            0 prints nothing; anything else one line per epoch, drawn live on a terminal.
        callbacks : Callback or sequence of Callback, optional
            Told of every batch and epoch.  ``model.stop_training = True`` ends the epoch after the current batch.
        validation_split : float
            Share of the samples, at the end and before shuffling, to validate on instead of training.
        validation_data : (x, y) or iterator, optional
            Samples to validate on after each epoch.
        shuffle : bool
            Whether each epoch takes the samples of an array in a new random order.
        initial_epoch : int
            Epochs that were trained before, as with a model from `load_model`; batches of `ImageDataGenerator.flow`
            then begin with this epoch's.
        steps_per_epoch, validation_steps : int, optional
            Batches to take from an iterator; by default its length.

        Returns
        -------
        History
            ``history.history[name]`` has the average of each epoch.

        Raises
        ------
        RuntimeError
            Before `compile`.
        ValueError
            Where numbers of samples and labels differ, or the loss does not fit the last activation.
        KeyboardInterrupt
            After Ctrl-C, once the batch under way is done and callbacks know of the end: no update is left half done.

        Notes
        -----
        The same seed, samples and options give the same weights to the bit, for any number of threads; so does training
        that goes on from a saved model with the *initial_epoch* where it was saved, and an iterator of the same seed.

        On a device, Python goes through the layers twice in an epoch; later batches replay what they launched.  So what
        a callback changes in a layer, besides its weights and `trainable`, counts from the next epoch on.  Models with
        a layer or a loss of your own are gone through for each batch.
        """
        if not 0 <= validation_split < 1:
            raise ValueError(f"validation_split must be at least 0 and below 1. Received: {validation_split=}")
        batches = self._batches(x, y, batch_size, steps_per_epoch, "steps_per_epoch", shuffle)
        if initial_epoch and isinstance(batches, IteratorBatches):
            batches = batches._replace(iterator=starting_at(x, initial_epoch * batches.steps))
        if validation_data is None and validation_split:
            batches, validation_data = held_back(batches, validation_split)
        if not is_iterator(validation_data):
            check_no_steps("validation_steps", validation_steps)
        self.history = history = History()
        given = [callbacks] if isinstance(callbacks, Callback) else callbacks or ()
        listeners = [*given, history, *([ProgressBar()] if verbose else [])]
        params = {
            "epochs": epochs,
            "steps": batches.steps,
            "batch_size": batches.batch_size,
            "samples": batches.samples,
        }
        for listener in listeners:
            listener.model, listener.params = self, params
        self.stop_training = False
        with self._interrupted_between_batches():
            try:
                for listener in listeners:
                    listener.on_train_begin()
                for epoch in range(initial_epoch, epochs):
                    for listener in listeners:
                        listener.on_epoch_begin(epoch)
                    logs = self._epoch(batches, listeners)
                    if validation_data is not None:
                        logs |= self._validate(validation_data, batch_size, validation_steps, listeners)
                    for listener in listeners:
                        listener.on_epoch_end(epoch, logs)
                    if self.stop_training:
                        break
            finally:
                for listener in listeners:
                    listener.on_train_end()
        return history

    def train_on_batch(self, x: Any, y: ArrayLike, return_dict: bool = False) -> float | list[float] | Logs:
        """One update; loss and metrics of the batch as it was before."""
        average = Average(self.metrics)
        for inputs, labels in self._where_the_model_is(iter([(self._parts(x), np.asarray(y))])):
            self._update(inputs, labels, average, self._passes)
        logs = average.result()
        return logs if return_dict else _numbers(logs)

    def _batches(
        self, x: Any, y: ArrayLike | None, batch_size: int | None, steps: int | None, name: str, shuffle: bool = False
    ) -> Batches:
        """The batches of samples and labels, or of an iterator, of which *name* says how many to take."""
        self._compiled()
        if is_iterator(x):
            if y is not None or batch_size is not None:
                raise ValueError("y and batch_size must be left out where x is an iterator of batches (x, y)")
            return of_iterator(x, steps, name, self._parts)
        check_no_steps(name, steps)
        if y is None:
            raise ValueError("y is needed where x is an array")
        samples, labels = self._samples(x), np.asarray(y)
        check_lengths(samples, labels)
        self._objective()
        order = self.generator.permutation if shuffle else None
        return ArrayBatches(samples, labels, _batch_size(batch_size), order)

    def _epoch(self, batches: Batches, listeners: Sequence[Callback]) -> Logs:
        average = Average(self.metrics)
        passes = self._recorded(self._passes)
        for number, (inputs, labels) in enumerate(self._where_the_model_is(batches.epoch())):
            for listener in listeners:
                listener.on_train_batch_begin(number)
            self._update(inputs, labels, average, passes)
            logs = average.result() if self.engine is None else LateLogs(average.result)
            for listener in listeners:
                listener.on_train_batch_end(number, logs)
            if self._interrupted:
                raise KeyboardInterrupt
            if self.stop_training:
                break
        return average.result()

    def _validate(self, data: Any, batch_size: int | None, steps: int | None, listeners: Sequence[Callback]) -> Logs:
        for listener in listeners:
            listener.on_test_begin()
        if is_iterator(data):
            scores = self.evaluate(data, verbose=0, steps=steps, return_dict=True)
        else:
            x, y = data
            scores = self.evaluate(x, y, batch_size, verbose=0, return_dict=True)
        assert isinstance(scores, dict)
        logs = {f"val_{name}": value for name, value in scores.items()}
        for listener in listeners:
            listener.on_test_end(logs)
        return logs

    def _update(self, inputs: list[NDArray[Any]], labels: NDArray[Any], average: Average, passes: Function) -> None:
        """One step of training on a batch; *passes* is `_passes`, or `_recorded` of it."""
        optimizer = self._compiled()
        check_lengths(inputs, labels)
        arrays = self._enter(inputs)
        out, *gradients = passes(labels, *arrays)
        weights = self.trainable_weights
        for variable, gradient in zip(weights, gradients, strict=True):
            variable.gradient = gradient
        average.add(labels, out, self._objective(), weights)
        for variable in weights:
            if variable.regularizer is not None and variable.gradient is not None:
                variable.gradient += variable.regularizer.gradient(variable.value)
        optimizer.apply(weights)

    def _passes(self, labels: NDArray[Any], *arrays: FloatArray) -> list[Any]:
        """Forward and back: what the loss takes of the model's output, and the gradients of the trainable weights."""
        loss, head = self._objective()
        (out,) = self._graph.forward(arrays, training=True, head=head)
        self._graph.backward(loss.gradient(labels, out), head)
        return [out, *(variable.gradient for variable in self.trainable_weights)]

    def _recorded(self, function: Function) -> Function:
        """*function* for many batches; on a device recorded, if no layer or loss is one that the caller has written."""
        ours = all(type(part).__module__.startswith("fastconv.") for part in (*self._layers, self.loss))
        return function if self.engine is None or not ours else Recorded(self.engine, function, self._laid_out)

    def _laid_out(self) -> list[Any]:
        """What a batch's launches depend on besides its shape: where weights lie, and which of them learn."""
        return [*(variable.array for variable in self.weights), *(layer.trainable for layer in self._layers)]

    def _where_the_model_is(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """The batches, on a device those that have been copied to it."""
        engine, loss = self.engine, self.loss
        if engine is None or loss is None:
            yield from batches
            return

        def ready_to_travel() -> Iterator[list[NDArray[Any]]]:
            for inputs, labels in batches:
                check_lengths(inputs, labels)
                samples = map(sample, self._fitting(list(inputs)))
                yield [*samples, loss.labels_for_device(labels, (len(labels), *self.output_shape[1:]))]

        for *inputs, labels in copied_ahead(ready_to_travel(), engine):
            yield inputs, labels

    def _on_their_way(self, batches: Iterator[list[Any]]) -> Iterator[list[Any]]:
        """The batches of samples without labels, likewise."""
        engine = self.engine
        if engine is None:
            return batches
        fitting = (self._fitting(list(inputs)) for inputs in batches)
        return copied_ahead(([sample(values) for values in inputs] for inputs in fitting), engine)

    def _compiled(self) -> optimizers.Optimizer:
        if self.loss is None or self.optimizer is None:
            raise RuntimeError("call compile(optimizer, loss) first")
        return self.optimizer

    def _objective(self) -> Objective:
        """The loss of a built model, and the layer whose activation it takes in."""
        assert self.loss is not None
        if len(self.outputs) > 1:
            raise ValueError(f"a model that is trained has one output. Received: outputs={self.outputs}")
        loss = self.loss
        if not isinstance(loss, losses.Crossentropy):
            return Objective(loss, None)
        head = self._graph.head(loss.link)
        if self.engine is not None and head is None and not loss.from_logits:
            raise TypeError(
                f"loss {loss.name} of probabilities is computed on the CPU only: end the model in {loss.link}, or in "
                f"logits with from_logits=True. Received: outputs={self.outputs}"
            )
        if loss.from_logits == (head is not None) and (loss.from_logits or self._graph.head("linear") is not None):
            wanted = (
                f"no {loss.link} at the end of the model" if loss.from_logits else f"{loss.link} as the last activation"
            )
            raise ValueError(f"loss with from_logits={loss.from_logits} needs {wanted}. Received: {loss.name}")
        return Objective(loss if head is None else loss.of_logits, head)

    @contextmanager
    def _interrupted_between_batches(self) -> Iterator[None]:
        """Let the first Ctrl-C wait until `_epoch` has done the batch under way; a second one is raised at once."""
        before = signal.getsignal(signal.SIGINT)
        self._interrupted = False
        in_main_thread = threading.current_thread() is threading.main_thread()
        if not in_main_thread or before is not signal.default_int_handler:
            yield
            return

        def note(number: int, frame: Any) -> None:
            if self._interrupted:
                raise KeyboardInterrupt
            self._interrupted = True

        signal.signal(signal.SIGINT, note)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)


def _batch_size(given: int | None) -> int:
    return BATCH_SIZE if given is None else positive("batch_size", given)


def _numbers(logs: Logs) -> float | list[float]:
    numbers = list(logs.values())
    return numbers if len(numbers) > 1 else numbers[0]
