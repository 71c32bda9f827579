"""`Sequential`: layers in a row, trained with `fit`."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from rich.console import Console

from fastconv.arrays import FloatArray
from fastconv.keras import losses, optimizers, saving
from fastconv.keras.callbacks import Callback, History, Logs, ProgressBar
from fastconv.keras.layers.base import Layer, positive
from fastconv.keras.metrics import Metric, get as get_metric
from fastconv.keras.network import Network

BATCH_SIZE = 32


class Sequential(Network):
    """A network of layers in a row.

    Parameters
    ----------
    layers : sequence of Layer, optional
        The layers; more can be added with `add`.
    name : str
        Title of the summary.

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

    def __init__(self, layers: Sequence[Layer] | None = None, name: str = "sequential") -> None:
        super().__init__(layers, name)
        self.stop_training = False
        self.optimizer: optimizers.Optimizer | None = None
        self.loss: losses.Loss | None = None
        self.metrics: list[Metric] = []

    def compile(self, optimizer: Any, loss: Any, metrics: Sequence[Any] | None = None) -> None:
        """Choose how to train.

        Parameters
        ----------
        optimizer : str or Optimizer
            ``"sgd"``, ``"adam"`` or an object of `fastconv.keras.optimizers`.
        loss : str or Loss
            ``"sparse_categorical_crossentropy"``, ``"categorical_crossentropy"`` or an object of
            `fastconv.keras.losses`.  A name means ``from_logits=False``: the last activation must be softmax.
        metrics : sequence of str or Metric, optional
            ``"accuracy"``, or objects of `fastconv.keras.metrics`.
        """
        self.optimizer = optimizers.get(optimizer)
        self.loss = losses.get(loss)
        self.metrics = [get_metric(metric, self.loss) for metric in metrics or ()]

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

    def save(self, filepath: str | os.PathLike[str]) -> None:
        """Write layers, weights and compile arguments to a ``.safetensors`` file, which appears whole or not at all."""
        config = {
            "class_name": type(self).__name__,
            "config": self.get_config(),
            "build_config": {"input_shape": self.input_shape},
            "compile_config": self.get_compile_config(),
        }
        saving.write(filepath, config, self._tensors())

    def _tensors(self) -> dict[str, FloatArray]:
        return {f"{layer.name}/{variable.name}": variable.value for layer in self._layers for variable in layer.weights}

    # ---- use ----

    def predict(self, x: ArrayLike, batch_size: int = BATCH_SIZE, verbose: Any = 0) -> FloatArray:
        """Predictions for all samples, computed batch by batch.

        Parameters
        ----------
        x : ndarray of shape (n, ...)
            Samples of any real dtype.
        batch_size : int
            Samples that are in work at once.  It can move no more than the last bits of a dense layer.
        verbose : int
            Accepted for Keras's sake; nothing is printed.

        Returns
        -------
        ndarray of shape (n, ...), the model's dtype
            One prediction per sample.
        """
        samples = self._samples(x)
        out = np.empty((len(samples), *(extent or 0 for extent in self.output_shape[1:])), self._layers[0].dtype)
        for batch in _batches(len(samples), batch_size):
            out[batch] = self(samples[batch])
        return out

    def evaluate(
        self, x: ArrayLike, y: ArrayLike, batch_size: int = BATCH_SIZE, verbose: Any = "auto", return_dict: bool = False
    ) -> float | list[float] | Logs:
        """Loss and metrics over all samples.

        Parameters
        ----------
        x, y : ndarray of shape (n, ...)
            Samples and labels.
        batch_size : int
            Samples that are in work at once.
        verbose : int or "auto"
            0 prints nothing.
        return_dict : bool
            Whether to return the numbers by name.

        Returns
        -------
        float, list of float or dict
            The loss; with metrics, the loss and the metrics.
        """
        loss, _ = self._compiled()
        samples, labels = self._samples(x), np.asarray(y)
        _same_length(samples, labels)
        average = _Average(self.metrics)
        for batch in _batches(len(samples), batch_size):
            logits = self._logits(samples[batch], training=False)
            average.add(loss.mean(labels[batch], logits), labels[batch], logits)
        logs = average.result()
        if verbose:
            text = "  ".join(f"{name} {value:.4f}" for name, value in logs.items())
            Console(file=sys.stdout).print(f"{len(samples):,} samples: {text}", highlight=False)
        return logs if return_dict else _numbers(logs)

    # ---- training ----

    def fit(
        self,
        x: ArrayLike,
        y: ArrayLike,
        batch_size: int = BATCH_SIZE,
        epochs: int = 1,
        verbose: Any = "auto",
        callbacks: Sequence[Callback] | None = None,
        validation_split: float = 0.0,
        validation_data: tuple[ArrayLike, ArrayLike] | None = None,
        shuffle: bool = True,
    ) -> History:
        """Train on all samples, *epochs* times over.

        Parameters
        ----------
        x : ndarray of shape (n, ...)
            Samples of any real dtype; they are converted batch by batch.
        y : ndarray of shape (n,), (n, 1) or (n, C)
            Class numbers or one-hot rows, as the loss wants them.
        batch_size : int
            Samples per update; the last batch of an epoch may be smaller.
        epochs : int
            How often to go through the samples.
        verbose : int or "auto"
            0 prints nothing; anything else one line per epoch, drawn live on a terminal.
        callbacks : sequence of Callback, optional
            Told of every batch and epoch.  ``model.stop_training = True`` ends the epoch after the current batch.
        validation_split : float
            Share of the samples, at the end and before shuffling, to validate on instead of training.
        validation_data : (x, y), optional
            Samples to validate on after each epoch.
        shuffle : bool
            Whether each epoch takes the samples in a new random order.

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
        """
        self._compiled()
        samples, labels = self._samples(x), np.asarray(y)
        _same_length(samples, labels)
        batch_size = positive("batch_size", batch_size)
        if not 0 <= validation_split < 1:
            raise ValueError(f"validation_split must be at least 0 and below 1. Received: {validation_split=}")
        if validation_data is None and validation_split:
            kept = round(len(samples) * (1 - validation_split))
            validation_data = samples[kept:], labels[kept:]
            samples, labels = samples[:kept], labels[:kept]

        history = History()
        listeners = [history, *(callbacks or ()), *([ProgressBar()] if verbose else [])]
        steps = math.ceil(len(samples) / batch_size)
        params = {"epochs": epochs, "steps": steps, "batch_size": batch_size, "samples": len(samples)}
        for listener in listeners:
            listener.model, listener.params = self, params
        self.stop_training = False
        try:
            for listener in listeners:
                listener.on_train_begin()
            for epoch in range(epochs):
                for listener in listeners:
                    listener.on_epoch_begin(epoch)
                order = self.generator.permutation(len(samples)) if shuffle else None
                logs = self._epoch(samples, labels, order, batch_size, listeners)
                if validation_data is not None:
                    scores = self.evaluate(*validation_data, batch_size=batch_size, verbose=0, return_dict=True)
                    assert isinstance(scores, dict)
                    logs |= {f"val_{name}": value for name, value in scores.items()}
                for listener in listeners:
                    listener.on_epoch_end(epoch, logs)
                if self.stop_training:
                    break
        finally:
            for listener in listeners:
                listener.on_train_end()
        return history

    def train_on_batch(self, x: ArrayLike, y: ArrayLike, return_dict: bool = False) -> float | list[float] | Logs:
        """One update; loss and metrics of the batch as it was before."""
        samples, labels = self._samples(x), np.asarray(y)
        _same_length(samples, labels)
        average = _Average(self.metrics)
        self._update(samples, labels, average)
        logs = average.result()
        return logs if return_dict else _numbers(logs)

    def _epoch(
        self,
        samples: NDArray[Any],
        labels: NDArray[Any],
        order: NDArray[np.int64] | None,
        batch_size: int,
        listeners: Sequence[Callback],
    ) -> Logs:
        average = _Average(self.metrics)
        for number, batch in enumerate(_batches(len(samples), batch_size)):
            chosen = batch if order is None else order[batch]
            self._update(samples[chosen], labels[chosen], average)
            logs = average.result()
            for listener in listeners:
                listener.on_train_batch_end(number, logs)
            if self.stop_training:
                break
        return average.result()

    def _update(self, x: NDArray[Any], y: NDArray[Any], average: _Average) -> None:
        loss, optimizer = self._compiled()
        logits = self._logits(x, training=True)
        self._backward(loss.gradient(y, logits))
        optimizer.apply(self.trainable_weights)
        average.add(loss.mean(y, logits), y, logits)

    def _compiled(self) -> tuple[losses.Loss, optimizers.Optimizer]:
        if self.loss is None or self.optimizer is None:
            raise RuntimeError("call compile(optimizer, loss) first")
        if self._layers and self.loss.from_logits == (self._softmax_head is not None):
            wanted = "no softmax at the end of the model" if self.loss.from_logits else "softmax as the last activation"
            raise ValueError(
                f"loss with from_logits={self.loss.from_logits} needs {wanted}. Received: {self.loss.name}"
            )
        return self.loss, self.optimizer


def load_model(filepath: str | os.PathLike[str]) -> Sequential:
    """The model that `Sequential.save` wrote, with its weights, and compiled if it was.

    Parameters
    ----------
    filepath : path
        A ``.safetensors`` file.

    Returns
    -------
    Sequential
        The model.  The optimizer starts afresh: its running averages are not in the file.

    Raises
    ------
    ValueError
        Where the file is not a model of fastconv, or its tensors do not fit its layers.
    """
    config, tensors = saving.read(filepath)
    model = Sequential.from_config(config["config"])
    model.build(tuple(config["build_config"]["input_shape"]))
    names = list(model._tensors())
    if sorted(names) != sorted(tensors):
        raise ValueError(f"filepath must hold the tensors {sorted(names)}. Received: {sorted(tensors)}")
    model.set_weights([tensors[name] for name in names])
    if config["compile_config"] is not None:
        model.compile(**config["compile_config"])
    return model


class _Average:
    """Mean loss over the samples of several batches, and the metrics over the same samples."""

    def __init__(self, of: Sequence[Metric]) -> None:
        self._metrics = of
        self._loss = 0.0
        self._count = 0
        for metric in of:
            metric.reset_state()

    def add(self, loss: float, labels: NDArray[Any], predictions: FloatArray) -> None:
        self._loss += loss * len(labels)
        self._count += len(labels)
        for metric in self._metrics:
            metric.update_state(labels, predictions)

    def result(self) -> Logs:
        loss = self._loss / self._count if self._count else 0.0
        return {"loss": loss, **{metric.name: metric.result() for metric in self._metrics}}


def _numbers(logs: Logs) -> float | list[float]:
    numbers = list(logs.values())
    return numbers if len(numbers) > 1 else numbers[0]


def _batches(count: int, batch_size: int) -> Iterator[slice]:
    for start in range(0, count, positive("batch_size", batch_size)):
        yield slice(start, min(start + batch_size, count))


def _same_length(samples: NDArray[Any], labels: NDArray[Any]) -> None:
    if len(samples) != len(labels):
        raise ValueError(
            f"x and y must have the same number of samples. Received: x.shape={samples.shape}, y.shape={labels.shape}"
        )
