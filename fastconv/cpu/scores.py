"""Which predictions are right, and which are positive, in NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def right_class(predictions: Any, labels: Any) -> NDArray[Any]:
    """For each row of (..., C) *predictions*, whether the largest number is where the label says.

    *labels* are class numbers, with an axis less, or rows of numbers whose largest marks the class.
    """
    if not predictions.size:
        return np.zeros(predictions.shape[:-1], np.bool_)
    classes = labels if labels.ndim < predictions.ndim else labels.argmax(axis=-1)
    right: NDArray[Any] = predictions.argmax(axis=-1) == classes
    return right


def right_side(predictions: Any, labels: Any, threshold: float) -> NDArray[Any]:
    """For each prediction whether it is above *threshold* just where its label, of the same shape, is 1."""
    right: NDArray[Any] = (predictions > threshold) == labels
    return right


def within_top(predictions: Any, labels: Any, k: int) -> NDArray[Any]:
    """For each row of (..., C) *predictions*, whether fewer than *k* are larger than the one that the label names.

    *labels* are as in `right_class`.
    """
    classes = labels if labels.ndim < predictions.ndim else labels.argmax(axis=-1)
    chosen = np.take_along_axis(predictions, classes.astype(np.int64)[..., np.newaxis], axis=-1)
    within: NDArray[Any] = np.count_nonzero(predictions > chosen, axis=-1) < k
    return within


def positives(numbers: Any, least: float, top_k: int | None, column: int | None) -> NDArray[Any]:
    """1 for each of (..., C) *numbers* that is above *least* and among the *top_k* largest of its row, else 0.

    Of numbers that are as large the first ones count; with a *column* only that one is looked at.
    """
    found = numbers > least
    if top_k is not None:
        places = np.argsort(np.argsort(-numbers, axis=-1, kind="stable"), axis=-1)
        found &= places < top_k
    chosen: NDArray[Any] = (found if column is None else found[..., column]).astype(np.float32)
    return chosen
