"""What training reports besides the loss, under Keras's names."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastconv.keras import losses
from fastconv.keras.losses import Loss, of_shape
from fastconv.keras.totals import Total
from fastconv.keras.utils import named
from fastconv.rooms import room

# Keeps a quotient finite where there is nothing to divide by: Keras gives 0 there.
_NOTHING = 1
# Where a probability counts as positive unless something else is asked for.
_MIDDLE = 0.5


class Metric:
    """The mean of a number over all samples of several batches.

    Predictions are of shape (N, ...), labels as each metric says; the result is one number.

    Parameters
    ----------
    name : str, optional
        What it is called in a model's logs.

    Raises
    ------
    ValueError
        If labels and predictions do not fit together.

    Examples
    --------
    >>> class Largest(Metric):
    ...     def numbers(self, y_true, y_pred):
    ...         return y_pred.max(axis=-1)
    >>> metric = Largest()
    >>> metric.update_state([0, 0], [[0.5, 1.0], [2.0, 1.0]])
    >>> metric.result()
    1.5
    """

    default_name = "metric"

    def __init__(self, name: str | None = None) -> None:
        self.name = name or self.default_name
        self.reset_state()

    def reset_state(self) -> None:
        """Forget all samples."""
        self._sum = Total()
        self._count = 0

    def update_state(self, y_true: ArrayLike, y_pred: ArrayLike) -> None:
        """Count a batch of predictions."""
        self.add(np.asarray(y_true), np.asarray(y_pred))

    def add(self, y_true: NDArray[Any], y_pred: NDArray[Any]) -> None:
        """Count a batch of predictions, arrays in host memory or on a device."""
        numbers = self.numbers(y_true, y_pred)
        self._sum.add(numbers)
        self._count += numbers.size

    def numbers(self, y_true: NDArray[Any], y_pred: NDArray[Any]) -> Any:
        """What the mean is taken of."""
        raise NotImplementedError

    def result(self) -> float:
        """The mean so far; 0 before any sample."""
        return self._sum.value() / (self._count or _NOTHING)

    def get_config(self) -> dict[str, Any]:
        """The arguments that make this metric again."""
        return {"name": self.name}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """The metric with this configuration."""
        return cls(**config)


class SparseCategoricalAccuracy(Metric):
    """Share of the samples whose largest prediction is at the place that the label, a class number, names.

    Labels are of shape (...) or (..., 1), predictions of shape (..., C).

    Parameters
    ----------
    name : str, optional
        What it is called in a model's logs.

    Raises
    ------
    ValueError
        If labels and predictions do not fit together.

    Examples
    --------
    >>> metric = SparseCategoricalAccuracy()
    >>> metric.update_state([1, 0], [[0.2, 0.8], [0.3, 0.7]])
    >>> metric.result()
    0.5
    """

    default_name = "sparse_categorical_accuracy"

    def numbers(self, y_true: NDArray[Any], y_pred: NDArray[Any]) -> Any:
        return room(y_pred).scores.right_class(y_pred, y_true.reshape(y_pred.shape[:-1]))


class CategoricalAccuracy(Metric):
    """Share of the samples whose largest prediction is at the place of the label's 1.

    Labels are one-hot rows, of the shape (..., C) of the predictions.

    Parameters
    ----------
    name : str, optional
        What it is called in a model's logs.

    Raises
    ------
    ValueError
        If labels and predictions do not fit together.

    Examples
    --------
    >>> metric = CategoricalAccuracy()
    >>> metric.update_state([[0, 1], [0, 1]], [[0.2, 0.8], [0.7, 0.3]])
    >>> metric.result()
    0.5
    """

    default_name = "categorical_accuracy"

    def numbers(self, y_true: NDArray[Any], y_pred: NDArray[Any]) -> Any:
        if y_true.shape != y_pred.shape or y_pred.shape[-1] < 2:
            raise ValueError(
                f"y must hold one-hot rows of two classes or more, of the shape of the predictions, for {self.name}; "
                f"one column goes with binary_accuracy. Received: y.shape={y_true.shape}, predictions {y_pred.shape}"
            )
        return room(y_pred).scores.right_class(y_pred, y_true)


class BinaryAccuracy(Metric):
    """Share of the predictions on the label's side of *threshold*, labels being 0 or 1.

    Labels have the shape of the predictions; one of them may lack a last axis of extent 1.

    Parameters
    ----------
    name : str, optional
        What it is called in a model's logs.
    threshold : float
        From where on a prediction is taken for 1.

    Raises
    ------
    ValueError
        If labels and predictions do not fit together.

    Examples
    --------
    >>> metric = BinaryAccuracy()
    >>> metric.update_state([1, 0, 1, 1], [0.9, 0.2, 0.3, 0.8])
    >>> metric.result()
    0.75
    """

    default_name = "binary_accuracy"

    def __init__(self, name: str | None = None, threshold: float = 0.5) -> None:
        super().__init__(name)
        self.threshold = threshold

    def numbers(self, y_true: NDArray[Any], y_pred: NDArray[Any]) -> Any:
        return room(y_pred).scores.right_side(y_pred, of_shape(self.name, y_true, y_pred), self.threshold)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "threshold": self.threshold}


class SparseTopKCategoricalAccuracy(Metric):
    """Share of the samples whose label, a class number, is among the *k* largest predictions.

    A prediction as large as the label's own counts against it only where more than *k* are at least as large.

    Labels are of shape (...) or (..., 1), predictions of shape (..., C).

    Parameters
    ----------
    k : int
        How many predictions of a sample count.
    name : str, optional
        What it is called in a model's logs.

    Raises
    ------
    ValueError
        If labels and predictions do not fit together.

    Examples
    --------
    >>> metric = SparseTopKCategoricalAccuracy(k=2)
    >>> metric.update_state([0, 2], [[0.3, 0.6, 0.1], [0.5, 0.4, 0.1]])
    >>> metric.result()
    0.5
    """

    default_name = "sparse_top_k_categorical_accuracy"

    def __init__(self, k: int = 5, name: str | None = None) -> None:
        super().__init__(name)
        self.k = k

    def numbers(self, y_true: NDArray[Any], y_pred: NDArray[Any]) -> Any:
        return room(y_pred).scores.within_top(y_pred, y_true.reshape(y_pred.shape[:-1]), self.k)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "k": self.k}


class TopKCategoricalAccuracy(SparseTopKCategoricalAccuracy):
    """`SparseTopKCategoricalAccuracy` for labels that are one-hot rows, of the shape (..., C) of the predictions.

    Parameters
    ----------
    k : int
        How many predictions of a sample count.
    name : str, optional
        What it is called in a model's logs.

    Raises
    ------
    ValueError
        If labels and predictions do not fit together.

    Examples
    --------
    >>> metric = TopKCategoricalAccuracy(k=2)
    >>> metric.update_state([[1, 0, 0], [0, 0, 1]], [[0.3, 0.6, 0.1], [0.5, 0.4, 0.1]])
    >>> metric.result()
    0.5
    """

    default_name = "top_k_categorical_accuracy"

    def numbers(self, y_true: NDArray[Any], y_pred: NDArray[Any]) -> Any:
        return room(y_pred).scores.within_top(y_pred, of_shape(self.name, y_true, y_pred), self.k)


class _Share(Metric):
    """Share of the positives of one kind that are positives of the other; a prediction above *thresholds* is positive.

    Parameters
    ----------
    thresholds : float, optional
        From where on a prediction is positive: by default 0.5, and with *top_k* any number.
    top_k : int, optional
        A prediction must also be among the so many largest of its row, the first ones where several are as large.
    class_id : int, optional
        Look only at this column; by default all numbers count alike.
    """

    def __init__(
        self,
        thresholds: float | None = None,
        top_k: int | None = None,
        class_id: int | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(name)
        self.thresholds = thresholds
        self.top_k = top_k
        self.class_id = class_id

    def reset_state(self) -> None:
        super().reset_state()
        self._of = Total()

    def add(self, y_true: NDArray[Any], y_pred: NDArray[Any]) -> None:
        least = self.thresholds
        if least is None:
            least = _MIDDLE if self.top_k is None else -np.inf
        positives = room(y_pred).scores.positives
        labels = positives(of_shape(self.name, y_true, y_pred), 0.0, None, self.class_id)
        predictions = positives(y_pred, least, self.top_k, self.class_id)
        self._sum.add(labels * predictions)
        self._of.add(self.all_of(labels, predictions))

    def all_of(self, labels: NDArray[Any], predictions: NDArray[Any]) -> NDArray[Any]:
        """Of which positives, ones and zeros, the share is taken."""
        raise NotImplementedError

    def result(self) -> float:
        return self._sum.value() / (self._of.value() or _NOTHING)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "thresholds": self.thresholds,
            "top_k": self.top_k,
            "class_id": self.class_id,
        }


class Precision(_Share):
    """Share of the positive predictions whose label is positive.

    ``Precision(top_k=1, class_id=3)`` is that of one class among several: of the samples that were taken for class 3,
    the share that belong there.

    Labels are 0 or 1 and have the shape of the predictions.

    Parameters
    ----------
    thresholds : float, optional
        From where on a prediction is positive: by default 0.5, and with *top_k* any number.
    top_k : int, optional
        A prediction must also be among the so many largest of its row.
    class_id : int, optional
        Look only at this column; by default all numbers count alike.
    name : str, optional
        What it is called in a model's logs.

    Raises
    ------
    ValueError
        If labels and predictions do not fit together.

    Examples
    --------
    >>> metric = Precision()
    >>> metric.update_state([0, 1, 1, 1], [0.9, 0.2, 0.8, 0.7])
    >>> round(metric.result(), 3)
    0.667
    """

    default_name = "precision"

    def all_of(self, labels: NDArray[Any], predictions: NDArray[Any]) -> NDArray[Any]:
        return predictions


class Recall(_Share):
    """Share of the positive labels whose prediction is positive.

    ``Recall(top_k=1, class_id=3)`` is that of one class among several: of the samples of class 3, the share that were
    taken for it.

    Labels are 0 or 1 and have the shape of the predictions.

    Parameters
    ----------
    thresholds : float, optional
        From where on a prediction is positive: by default 0.5, and with *top_k* any number.
    top_k : int, optional
        A prediction must also be among the so many largest of its row.
    class_id : int, optional
        Look only at this column; by default all numbers count alike.
    name : str, optional
        What it is called in a model's logs.

    Raises
    ------
    ValueError
        If labels and predictions do not fit together.

    Examples
    --------
    >>> metric = Recall()
    >>> metric.update_state([0, 1, 1, 1], [0.9, 0.2, 0.8, 0.7])
    >>> round(metric.result(), 3)
    0.667
    """

    default_name = "recall"

    def all_of(self, labels: NDArray[Any], predictions: NDArray[Any]) -> NDArray[Any]:
        return labels


class MeanSquaredError(Metric):
    """Mean of ``(prediction - label)**2``.

    Labels have the shape of the predictions; one of them may lack a last axis of extent 1.

    Parameters
    ----------
    name : str, optional
        What it is called in a model's logs.

    Raises
    ------
    ValueError
        If labels and predictions do not fit together.

    Examples
    --------
    >>> metric = MeanSquaredError()
    >>> metric.update_state([1.0, 2.0], [2.0, 4.0])
    >>> metric.result()
    2.5
    """

    default_name = "mean_squared_error"

    def numbers(self, y_true: NDArray[Any], y_pred: NDArray[Any]) -> Any:
        return np.square(y_pred - of_shape(self.name, y_true, y_pred))


class MeanAbsoluteError(Metric):
    """Mean of ``|prediction - label|``.

    Labels have the shape of the predictions; one of them may lack a last axis of extent 1.

    Parameters
    ----------
    name : str, optional
        What it is called in a model's logs.

    Raises
    ------
    ValueError
        If labels and predictions do not fit together.

    Examples
    --------
    >>> metric = MeanAbsoluteError()
    >>> metric.update_state([1.0, 2.0], [2.0, 4.0])
    >>> metric.result()
    1.5
    """

    default_name = "mean_absolute_error"

    def numbers(self, y_true: NDArray[Any], y_pred: NDArray[Any]) -> Any:
        return np.abs(y_pred - of_shape(self.name, y_true, y_pred))


_REGISTRY: dict[str, type[Metric]] = {
    cls.default_name: cls
    for cls in (
        SparseCategoricalAccuracy,
        CategoricalAccuracy,
        BinaryAccuracy,
        SparseTopKCategoricalAccuracy,
        TopKCategoricalAccuracy,
        Precision,
        Recall,
        MeanSquaredError,
        MeanAbsoluteError,
    )
}
_REGISTRY |= {cls.__name__: cls for cls in _REGISTRY.values()}
_SHORT: dict[str, type[Metric]] = {"mse": MeanSquaredError, "mae": MeanAbsoluteError}


def get(identifier: Any, loss: Loss) -> Metric:
    """The metric that a name, a configuration or a metric stands for; ``"accuracy"`` fits itself to *loss*."""
    if identifier in ("accuracy", "acc"):
        kind: type[Metric] = CategoricalAccuracy
        if isinstance(loss, losses.SparseCategoricalCrossentropy):
            kind = SparseCategoricalAccuracy
        elif isinstance(loss, losses.BinaryCrossentropy):
            kind = BinaryAccuracy
        return kind(name=identifier)
    if isinstance(identifier, str) and identifier in _SHORT:
        return _SHORT[identifier](name=identifier)
    metric: Metric = named("metric", identifier, _REGISTRY, Metric)
    return metric
