"""Dropout."""

from __future__ import annotations

from operator import index
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastconv.arrays import FloatArray, float_array, leave
from fastconv.cuda.array import Array
from fastconv.rooms import room

_SEEDS = 2**64


def dropout(x: ArrayLike, rate: float, *, seed: Any) -> FloatArray:
    """Set each element to 0 with probability *rate* and divide the others by ``1 - rate``.

    The gradient is the same call with the gradient in place of *x*: ``grad_x = dropout(grad_out, rate, seed=seed)``.

    Parameters
    ----------
    x : ndarray of any shape, float32 or float64
    rate : float, at least 0 and below 1
        Probability that an element is dropped.
    seed : int from 0 to 2**64 - 1
        Which elements are dropped is a function of the seed and the element's position, and of nothing else.  Use
        another seed in each step.  For an *x* on a device also an array of one uint64 there.

    Returns
    -------
    out : ndarray of the shape and dtype of *x*

    Raises
    ------
    TypeError
        If *x* is neither float32 nor float64, or *seed* is neither an int nor an array of one uint64 beside *x*.
    ValueError
        If *rate* or *seed* is out of range.

    Notes
    -----
    The random numbers are those of the counter-based generator Philox-4x32-10: integer arithmetic, no state, no stored
    mask.  The mask is the same for any number of threads, on every machine, for both dtypes.

    References
    ----------
    J. Salmon, M. Moraes, R. Dror, D. Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.

    Examples
    --------
    >>> import numpy as np
    >>> dropout(np.ones(8), 0.5, seed=1)
    array([2., 2., 2., 2., 2., 2., 0., 2.])
    """
    values = float_array("x", x)
    if not 0 <= rate < 1:
        raise ValueError(f"rate must be at least 0 and below 1. Received: rate={rate!r}")
    number = seed if _lies_beside(values, seed) else _number(seed)
    return leave(room(values).dropout.dropout(values, float(rate), number).reshape(np.shape(x)))


def _lies_beside(values: Any, seed: Any) -> bool:
    """Whether a seed is an array on the device of *values*."""
    there = type(seed) is Array and type(values) is Array and seed.engine is values.engine
    return there and seed.dtype == np.uint64 and seed.size == 1


def _number(seed: Any) -> int:
    try:
        number = index(seed)
    except TypeError:
        raise TypeError(
            f"seed must be an int, or an array of one uint64 on the device of x. Received: seed={seed!r}"
        ) from None
    if not 0 <= number < _SEEDS:
        raise ValueError(f"seed must be from 0 to 2**64 - 1. Received: seed={seed!r}")
    return number
