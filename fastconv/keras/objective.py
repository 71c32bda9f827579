"""What training makes small, and its mean over batches, with the metrics beside it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from numpy.typing import NDArray

from fastconv.arrays import FloatArray
from fastconv.keras import losses
from fastconv.keras.callbacks import Logs
from fastconv.keras.layers.activation import ActivatedLayer
from fastconv.keras.layers.variable import Variable
from fastconv.keras.metrics import Metric
from fastconv.keras.totals import Total


class Objective(NamedTuple):
    """What training makes small: *loss* of the output, or of what the activation of *head* is applied to."""

    loss: losses.Loss
    head: ActivatedLayer | None

    def predictions(self, out: FloatArray) -> FloatArray:
        """The model's output, where *out* is what the loss takes."""
        return out if self.head is None else self.head.activate(out)


class Average:
    """Mean loss over the samples of several batches, and the metrics over the same samples."""

    def __init__(self, of: Sequence[Metric]) -> None:
        self._metrics = of
        self._loss = Total()
        self._count = 0
        for metric in of:
            metric.reset_state()

    def add(self, labels: NDArray[Any], out: FloatArray, objective: Objective, weights: Sequence[Variable]) -> None:
        """Add a batch, of which *out* is what the loss takes, and the penalties of the *weights*."""
        count = len(labels)
        terms = objective.loss.losses(labels, out)
        self._loss.add(terms, count / max(terms.size, 1))
        for weight in weights:
            if weight.regularizer is not None:
                for factor, numbers in weight.regularizer.terms(weight.value):
                    self._loss.add(numbers, factor * count)
        self._count += count
        if self._metrics:
            predictions = objective.predictions(out)
            for metric in self._metrics:
                metric.add(labels, predictions)

    def result(self) -> Logs:
        """The means so far, by name."""
        loss = self._loss.value() / self._count if self._count else 0.0
        return {"loss": loss, **{metric.name: metric.result() for metric in self._metrics}}
