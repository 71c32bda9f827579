"""Which predictions are right, and which are positive, on the GPU.

Answers are ones and zeros that stay there, so that an epoch needs no number from the GPU before its end.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from fastconv.cuda.device import Engine, flat


def right_class(engine: Engine, predictions: Any, labels: Any) -> Any:
    """1 for each row of (..., C) *predictions* whose largest number is where the label says, else 0; int32.

    *labels* are class numbers, one for each row, int64; or rows of numbers, float32, whose largest marks the class.
    As in NumPy the first of equal numbers counts as the largest, and NaN as larger than any number.
    """
    from fastconv.cuda.kernels import elements, scores as kernels

    C = predictions.shape[-1]
    sparse = len(labels.shape) < len(predictions.shape)
    hits = engine.empty((prod(predictions.shape[:-1]),), np.int32)
    classes = flat(labels, np.int64 if sparse else np.float32)
    elements.launch(engine, kernels.right_class(sparse), hits.size, flat(predictions), classes, hits, C)
    return hits


def right_side(engine: Engine, predictions: Any, labels: Any, threshold: float) -> Any:
    """1 for each prediction that is above *threshold* just where its label, of the same shape, is 1, else 0; int32."""
    from fastconv.cuda.kernels import elements, scores as kernels

    hits = engine.empty((prod(predictions.shape),), np.int32)
    arguments = flat(predictions), flat(labels), hits, np.float32(threshold)
    elements.launch(engine, kernels.right_side(), hits.size, *arguments)
    return hits


def within_top(engine: Engine, predictions: Any, labels: Any, k: int) -> Any:
    """1 for each row of *predictions* of which fewer than *k* are larger than the one that the label names; int32.

    *labels* are as in `right_class`.
    """
    from fastconv.cuda.kernels import elements, scores as kernels

    C = predictions.shape[-1]
    sparse = len(labels.shape) < len(predictions.shape)
    hits = engine.empty((prod(predictions.shape[:-1]),), np.int32)
    classes = flat(labels, np.int64 if sparse else np.float32)
    elements.launch(engine, kernels.within_top(sparse), hits.size, flat(predictions), classes, hits, C, k)
    return hits


def positives(engine: Engine, numbers: Any, least: float, top_k: int | None, column: int | None) -> Any:
    """1 for each of (..., C) *numbers* that is above *least* and among the *top_k* largest of its row, else 0; float32.

    Of numbers that are as large the first ones count; with a *column* only that one is looked at.
    """
    from fastconv.cuda.kernels import elements, scores as kernels

    C = numbers.shape[-1]
    first, step = (0, 1) if column is None else (range(C)[column], C)
    found = engine.empty((prod(numbers.shape) // step,), np.float32)
    places = C if top_k is None else top_k
    elements.launch(
        engine, kernels.positives(), found.size, flat(numbers), found, np.float32(least), C, places, first, step
    )
    return found
