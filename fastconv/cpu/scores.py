"""Which predictions are right, in NumPy."""

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
