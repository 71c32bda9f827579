"""What training makes small, under Keras's names: cross-entropies and mean errors.

A loss of probabilities is computed from the numbers before the last activation, where that is the one it belongs to
(softmax, sigmoid): this stays finite and exact, and is what the model's `fit` and `evaluate` do.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastconv import functional
from fastconv.arrays import FloatArray
from fastconv.keras.utils import named

# Keras keeps probabilities this far away from 0 and 1 before it takes their logarithm.
_SMALLEST_PROBABILITY = 1e-7


class Loss:
    """The mean of a loss over a batch.

    A loss defines `losses` and `gradient` with operations that take arrays of a device, too.

    Labels and predictions have one shape unless a loss says otherwise; the loss is one number.

    Parameters
    ----------
    name : str, optional
        What it is called in a model's logs.

    Raises
    ------
    ValueError
        If the shapes do not fit together.

    Examples
    --------
    >>> class Cubes(Loss):
    ...     def losses(self, y_true, y_pred):
    ...         return np.abs(y_pred - y_true) ** 3
    ...     def gradient(self, y_true, y_pred):
    ...         return 3 * np.sign(y_pred - y_true) * (y_pred - y_true) ** 2 / y_pred.size
    >>> Cubes()([[1.0], [2.0]], [[2.0], [0.0]])
    4.5
    """

    default_name = "loss"

    def __init__(self, name: str | None = None) -> None:
        self.name = name or self.default_name

    def __call__(self, y_true: ArrayLike, y_pred: ArrayLike) -> float:
        """The loss of predictions, averaged over the batch; 0 for an empty one."""
        losses = self.losses(np.asarray(y_true), np.asarray(y_pred))
        return float(losses.mean(dtype=np.float64)) if losses.size else 0.0

    def losses(self, y_true: NDArray[Any], y_pred: FloatArray) -> FloatArray:
        """The numbers whose mean over a batch is the loss."""
        raise NotImplementedError

    def gradient(self, y_true: NDArray[Any], y_pred: FloatArray) -> FloatArray:
        """The gradient of the loss with respect to the predictions."""
        raise NotImplementedError

    def labels_for_device(self, y_true: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
        """Labels for predictions of this shape as a device takes them, checked here: a device cannot raise an error."""
        return np.ascontiguousarray(y_true, np.float32)

    def get_config(self) -> dict[str, Any]:
        """The arguments that make this loss again."""
        return {"name": self.name}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """The loss with this configuration."""
        return cls(**config)


class Crossentropy(Loss):
    """Base of the cross-entropies: losses of probabilities, the results of an activation, their `link`.

    Parameters
    ----------
    from_logits : bool
        Whether predictions are logits; if not, they are probabilities, the result of `link`.
    label_smoothing : float
        From 0 to 1: the share of the target that is spread evenly over the classes.

    Raises
    ------
    ValueError
        If *label_smoothing* is not from 0 to 1, or labels and predictions do not fit together.

    Examples
    --------
    >>> losses = CategoricalCrossentropy(from_logits=True), CategoricalCrossentropy(label_smoothing=0.5)
    >>> [round(loss([[0, 1]], np.array([[0.25, 0.75]])), 4) for loss in losses]
    [0.4741, 0.5623]
    """

    link: str

    def __init__(self, from_logits: bool = False, label_smoothing: float = 0.0, name: str | None = None) -> None:
        super().__init__(name)
        if not 0 <= label_smoothing <= 1:
            raise ValueError(f"label_smoothing must be from 0 to 1. Received: label_smoothing={label_smoothing!r}")
        self.from_logits = from_logits
        self.label_smoothing = float(label_smoothing)

    @cached_property
    def of_logits(self) -> Crossentropy:
        """The same loss of the numbers that `link` was applied to."""
        return self.from_config({**self.get_config(), "from_logits": True})

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "from_logits": self.from_logits, "label_smoothing": self.label_smoothing}


class CategoricalCrossentropy(Crossentropy):
    """Mean of ``-sum(target * log(probability))``, the targets being one-hot rows or probabilities of shape (..., C).

    Probabilities that do not add up to 1 are divided by their sum.

    Parameters
    ----------
    from_logits, label_smoothing
        As in `Crossentropy`.
    name : str, optional
        What it is called.

    Raises
    ------
    ValueError
        If labels have not the shape of the predictions.

    Examples
    --------
    >>> loss = CategoricalCrossentropy()
    >>> round(loss([[0, 1], [1, 0]], np.array([[0.5, 0.5], [0.25, 0.75]])), 4)
    1.0397
    """

    default_name = "categorical_crossentropy"
    link = "softmax"

    def targets(self, y_true: NDArray[Any], shape: tuple[int, ...]) -> Any:
        """The labels of predictions of this shape in the form that `fastconv.softmax_cross_entropy` takes."""
        if y_true.shape != shape:
            raise ValueError(
                f"y must hold one row of {shape[-1]} probabilities a sample for {self.name}; class numbers go with "
                f"sparse_categorical_crossentropy. Received: y.shape={y_true.shape}"
            )
        return y_true.reshape(-1, shape[-1])

    def labels_for_device(self, y_true: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
        self.targets(y_true, shape)
        if y_true.size and not y_true.min() >= 0:
            raise ValueError(f"y must hold probabilities, none negative or NaN. Received: minimum={y_true.min()}")
        return super().labels_for_device(y_true, shape)

    def losses(self, y_true: NDArray[Any], y_pred: FloatArray) -> FloatArray:
        targets = self.targets(y_true, y_pred.shape)
        logits, _ = self._logits(y_pred)
        return functional.softmax_cross_entropy(logits, targets, label_smoothing=self.label_smoothing)

    def gradient(self, y_true: NDArray[Any], y_pred: FloatArray) -> FloatArray:
        targets = self.targets(y_true, y_pred.shape)
        logits, slopes = self._logits(y_pred)
        gradient = functional.softmax_cross_entropy_backward(
            1 / max(len(logits), 1), logits, targets, label_smoothing=self.label_smoothing
        )
        if slopes is not None:
            gradient *= slopes
        return gradient.reshape(y_pred.shape)

    def _logits(self, y_pred: FloatArray) -> tuple[FloatArray, FloatArray | None]:
        """Rows of logits, and their slopes where predictions are probabilities: softmax(log(p)) is p / sum(p)."""
        rows = y_pred.reshape(-1, y_pred.shape[-1])
        if self.from_logits:
            return rows, None
        clipped = np.maximum(rows, _SMALLEST_PROBABILITY)
        return np.log(clipped), (rows == clipped) / clipped


class SparseCategoricalCrossentropy(CategoricalCrossentropy):
    """Mean of ``-log(probability of the right class)``, the labels being class numbers of shape (...) or (..., 1).

    Parameters
    ----------
    from_logits : bool
        Whether predictions are logits; if not, they are probabilities, the result of a softmax.

    Raises
    ------
    ValueError
        If there is not one class number for each row of predictions, or none of their classes.

    Examples
    --------
    >>> round(SparseCategoricalCrossentropy()([1, 0], np.array([[0.5, 0.5], [0.25, 0.75]])), 4)
    1.0397
    """

    default_name = "sparse_categorical_crossentropy"

    def __init__(self, from_logits: bool = False, name: str | None = None) -> None:
        super().__init__(from_logits, name=name)

    def targets(self, y_true: NDArray[Any], shape: tuple[int, ...]) -> Any:
        if y_true.shape not in (shape[:-1], (*shape[:-1], 1)):
            raise ValueError(
                f"y must hold class numbers, shape (N,) or (N, 1), for {self.name}; one-hot rows go with "
                f"categorical_crossentropy. Received: y.shape={y_true.shape}"
            )
        return y_true.reshape(-1).astype(np.int64, copy=False)

    def labels_for_device(self, y_true: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
        classes = self.targets(y_true, shape)
        if classes.size and not 0 <= classes.min() <= classes.max() < shape[-1]:
            raise ValueError(
                f"y must hold class numbers from 0 to {shape[-1] - 1} for {self.name}. "
                f"Received: smallest={classes.min()}, largest={classes.max()}"
            )
        return np.ascontiguousarray(y_true, np.int64)

    def get_config(self) -> dict[str, Any]:
        return {"name": self.name, "from_logits": self.from_logits}


class BinaryCrossentropy(Crossentropy):
    """Mean of ``-y * log(p) - (1 - y) * log(1 - p)`` over all numbers; labels y from 0 to 1, of the shape of p.

    Parameters
    ----------
    from_logits, label_smoothing
        As in `Crossentropy`.
    name : str, optional
        What it is called.

    Raises
    ------
    ValueError
        If labels have not the shape of the predictions.

    Examples
    --------
    >>> round(BinaryCrossentropy()([1, 0], np.array([0.5, 0.25])), 4)
    0.4904
    """

    default_name = "binary_crossentropy"
    link = "sigmoid"

    def losses(self, y_true: NDArray[Any], y_pred: FloatArray) -> FloatArray:
        targets = self._targets(y_true, y_pred)
        if self.from_logits:
            losses: FloatArray = np.maximum(y_pred, 0) - y_pred * targets + np.log1p(np.exp(-np.abs(y_pred)))
        else:
            p = self._probabilities(y_pred)
            losses = -targets * np.log(p) - (1 - targets) * np.log1p(-p)
        return losses

    def gradient(self, y_true: NDArray[Any], y_pred: FloatArray) -> FloatArray:
        targets = self._targets(y_true, y_pred)
        if self.from_logits:
            gradient = functional.sigmoid(y_pred) - targets
        else:
            p = self._probabilities(y_pred)
            gradient = (p - targets) / (p * (1 - p)) * (p == y_pred)
        return gradient / y_pred.dtype.type(max(y_pred.size, 1))

    def _targets(self, y_true: NDArray[Any], y_pred: FloatArray) -> FloatArray:
        smoothing = self.label_smoothing
        return of_shape(self.name, y_true, y_pred) * y_pred.dtype.type(1 - smoothing) + y_pred.dtype.type(smoothing / 2)

    def _probabilities(self, y_pred: FloatArray) -> FloatArray:
        return np.clip(y_pred, _SMALLEST_PROBABILITY, 1 - _SMALLEST_PROBABILITY)


class MeanSquaredError(Loss):
    """Mean of ``(prediction - label)**2`` over all numbers.

    Labels have the shape of the predictions; one of them may lack a last axis of extent 1.

    Parameters
    ----------
    name : str, optional
        What it is called.

    Raises
    ------
    ValueError
        If the shapes do not fit together.

    Examples
    --------
    >>> MeanSquaredError()([1.0, 2.0], np.array([2.0, 4.0]))
    2.5
    """

    default_name = "mean_squared_error"

    def losses(self, y_true: NDArray[Any], y_pred: FloatArray) -> FloatArray:
        losses: FloatArray = np.square(y_pred - of_shape(self.name, y_true, y_pred))
        return losses

    def gradient(self, y_true: NDArray[Any], y_pred: FloatArray) -> FloatArray:
        errors = y_pred - of_shape(self.name, y_true, y_pred)
        return errors * y_pred.dtype.type(2 / max(errors.size, 1))


class MeanAbsoluteError(Loss):
    """Mean of ``|prediction - label|`` over all numbers; where they are equal the gradient is 0.

    Shapes are those of `MeanSquaredError`.

    Parameters
    ----------
    name : str, optional
        What it is called.

    Raises
    ------
    ValueError
        If the shapes do not fit together.

    Examples
    --------
    >>> MeanAbsoluteError()([1.0, 2.0], np.array([2.0, 4.0]))
    1.5
    """

    default_name = "mean_absolute_error"

    def losses(self, y_true: NDArray[Any], y_pred: FloatArray) -> FloatArray:
        losses: FloatArray = np.abs(y_pred - of_shape(self.name, y_true, y_pred))
        return losses

    def gradient(self, y_true: NDArray[Any], y_pred: FloatArray) -> FloatArray:
        errors = y_pred - of_shape(self.name, y_true, y_pred)
        return np.sign(errors) / y_pred.dtype.type(max(errors.size, 1))


def of_shape(name: str, y_true: NDArray[Any], y_pred: FloatArray) -> FloatArray:
    """Labels as numbers of the predictions' dtype and shape; one of them may lack a last axis of extent 1."""
    labels: FloatArray = y_true.astype(y_pred.dtype, copy=False)
    if labels.shape == y_pred.shape or (*labels.shape, 1) == y_pred.shape or labels.shape == (*y_pred.shape, 1):
        return labels.reshape(y_pred.shape)
    raise ValueError(
        f"y must have the shape of the predictions, {y_pred.shape}, for {name}. Received: y.shape={labels.shape}"
    )


_REGISTRY: dict[str, type[Loss]] = {
    cls.default_name: cls
    for cls in (
        SparseCategoricalCrossentropy,
        CategoricalCrossentropy,
        BinaryCrossentropy,
        MeanSquaredError,
        MeanAbsoluteError,
    )
}
_REGISTRY |= {cls.__name__: cls for cls in _REGISTRY.values()}
_REGISTRY |= {"mse": MeanSquaredError, "mae": MeanAbsoluteError}


def get(identifier: Any) -> Loss:
    """The loss that a name, a configuration or a loss stands for.

    Raises
    ------
    ValueError
        If there is none of this name.

    Examples
    --------
    >>> get("mse").name
    'mean_squared_error'
    """
    loss: Loss = named("loss", identifier, _REGISTRY, Loss)
    return loss
