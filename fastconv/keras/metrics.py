"""What training reports besides the loss: accuracy."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastconv.keras.losses import CategoricalCrossentropy, Loss
from fastconv.keras.utils import named


class SparseCategoricalAccuracy:
    """Share of the samples whose largest prediction is at the place that the label, a class number, names.

    Examples
    --------
    >>> metric = SparseCategoricalAccuracy()
    >>> metric.update_state([1, 0], [[0.2, 0.8], [0.3, 0.7]])
    >>> metric.result()
    0.5
    """

    def __init__(self, name: str = "sparse_categorical_accuracy") -> None:
        self.name = name
        self.reset_state()

    def reset_state(self) -> None:
        """Forget all samples."""
        self._right = 0
        self._count = 0

    def update_state(self, y_true: ArrayLike, y_pred: ArrayLike) -> None:
        """Count a batch of predictions, probabilities or logits of shape (N, C)."""
        labels = self.class_numbers(np.asarray(y_true))
        predictions = np.asarray(y_pred)
        self._right += int(np.count_nonzero(predictions.argmax(axis=-1) == labels)) if len(labels) else 0
        self._count += len(labels)

    def class_numbers(self, y_true: Any) -> Any:
        """The labels as class numbers of shape (N,)."""
        return y_true.reshape(-1)

    def result(self) -> float:
        """The share so far; 0 before any sample."""
        return self._right / self._count if self._count else 0.0

    def get_config(self) -> dict[str, Any]:
        """The arguments that make this metric again."""
        return {"name": self.name}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> SparseCategoricalAccuracy:
        """The metric with this configuration."""
        return cls(**config)


class CategoricalAccuracy(SparseCategoricalAccuracy):
    """The same for labels that are one-hot rows of shape (N, C)."""

    def __init__(self, name: str = "categorical_accuracy") -> None:
        super().__init__(name)

    def class_numbers(self, y_true: Any) -> Any:
        return y_true.argmax(axis=-1)


Metric = SparseCategoricalAccuracy

_REGISTRY: dict[str, type[Metric]] = {
    "sparse_categorical_accuracy": SparseCategoricalAccuracy,
    "categorical_accuracy": CategoricalAccuracy,
    "SparseCategoricalAccuracy": SparseCategoricalAccuracy,
    "CategoricalAccuracy": CategoricalAccuracy,
}


def get(identifier: Any, loss: Loss) -> Metric:
    """The metric that a name, a configuration or a metric stands for; ``"accuracy"`` fits itself to *loss*."""
    if identifier in ("accuracy", "acc"):
        kind = CategoricalAccuracy if isinstance(loss, CategoricalCrossentropy) else SparseCategoricalAccuracy
        return kind(name=identifier)
    metric: Metric = named("metric", identifier, _REGISTRY, Metric)
    return metric
