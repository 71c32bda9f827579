"""What `fit` and `evaluate` count on the GPU, so that an epoch needs no number from it before its end.

Whether predictions are right are ones and zeros, which are added as integers; losses and squares are added in float64
in a fixed order.
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


def add_count(engine: Engine, hits: Any, counts: Any, at: int) -> None:
    """``counts[at] += sum(hits)``: int32 ones and zeros, int64 counts."""
    from fastconv.cuda.kernels import scores as kernels

    engine.launch(kernels.add_total(counts=True), 1, flat(hits, np.int32), flat(counts, np.int64), at)


def add_sum(engine: Engine, numbers: Any, totals: Any, at: int) -> None:
    """``totals[at] += sum(numbers)``: float32 numbers, float64 totals, always in the same order."""
    from fastconv.cuda.kernels import scores as kernels

    engine.launch(kernels.add_total(counts=False), 1, flat(numbers), flat(totals, np.float64), at)
