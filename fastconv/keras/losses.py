"""What training makes small: cross-entropy, Keras's classes and names."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from fastconv import functional
from fastconv.arrays import FloatArray
from fastconv.keras.utils import named

# Keras keeps probabilities this far away from 0 before it takes their logarithm.
_SMALLEST_PROBABILITY = 1e-7


class Loss:
    """Mean cross-entropy of a batch.

    Parameters
    ----------
    from_logits : bool
        Whether predictions are logits; if not, they are probabilities, the result of a softmax.
    """

    default_name = "loss"

    def __init__(self, from_logits: bool = False, name: str | None = None) -> None:
        self.from_logits = from_logits
        self.name = name or self.default_name

    def targets(self, y_true: ArrayLike, classes: int) -> Any:
        """The labels in the form that `fastconv.softmax_cross_entropy` takes."""
        raise NotImplementedError

    def __call__(self, y_true: ArrayLike, y_pred: ArrayLike) -> float:
        """The loss of predictions, averaged over the batch; 0 for an empty one."""
        predictions = np.asarray(y_pred)
        if not self.from_logits:
            # softmax(log(p)) is p / sum(p), so one formula serves both.
            predictions = np.log(np.maximum(predictions, _SMALLEST_PROBABILITY))
        return self.mean(y_true, predictions)

    def mean(self, y_true: ArrayLike, logits: FloatArray) -> float:
        """The loss of a batch of logits."""
        losses = functional.softmax_cross_entropy(logits, self.targets(y_true, logits.shape[-1]))
        return float(losses.mean(dtype=np.float64)) if len(losses) else 0.0

    def gradient(self, y_true: ArrayLike, logits: FloatArray) -> FloatArray:
        """The gradient of `mean` with respect to the logits."""
        targets = self.targets(y_true, logits.shape[-1])
        return functional.softmax_cross_entropy_backward(1 / max(len(logits), 1), logits, targets)

    def get_config(self) -> dict[str, Any]:
        """The arguments that make this loss again."""
        return {"from_logits": self.from_logits, "name": self.name}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """The loss with this configuration."""
        return cls(**config)


class SparseCategoricalCrossentropy(Loss):
    """Mean of ``-log(probability of the right class)``, the labels being class numbers of shape (N,) or (N, 1)."""

    default_name = "sparse_categorical_crossentropy"

    def targets(self, y_true: ArrayLike, classes: int) -> Any:
        labels = np.asarray(y_true)
        if labels.ndim == 2 and labels.shape[1] == 1:
            labels = labels[:, 0]
        if labels.ndim != 1:
            raise ValueError(
                f"y must hold class numbers, shape (N,) or (N, 1), for {self.name}; one-hot rows go with "
                f"categorical_crossentropy. Received: y.shape={labels.shape}"
            )
        return labels.astype(np.int64)


class CategoricalCrossentropy(Loss):
    """Mean of ``-sum(target * log(probability))``, the targets being one-hot rows or probabilities of shape (N, C)."""

    default_name = "categorical_crossentropy"

    def targets(self, y_true: ArrayLike, classes: int) -> Any:
        rows = np.asarray(y_true)
        if rows.ndim != 2 or rows.shape[1] != classes:
            raise ValueError(
                f"y must hold one row of {classes} probabilities a sample for {self.name}; class numbers go with "
                f"sparse_categorical_crossentropy. Received: y.shape={rows.shape}"
            )
        return rows


_REGISTRY: dict[str, type[Loss]] = {
    cls.default_name: cls for cls in (SparseCategoricalCrossentropy, CategoricalCrossentropy)
}
_REGISTRY |= {cls.__name__: cls for cls in _REGISTRY.values()}


def get(identifier: Any) -> Loss:
    """The loss that a name, a configuration or a loss stands for."""
    loss: Loss = named("loss", identifier, _REGISTRY, Loss)
    return loss
