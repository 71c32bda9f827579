"""What is added to the loss for large weights."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Self

import numpy as np

from fastconv.arrays import FloatArray
from fastconv.keras.utils import named


class Regularizer:
    """A penalty on the size of a weight, and its gradient.

    A weight of any shape gives one number, and a gradient of its shape.

    Examples
    --------
    >>> class Cubes(Regularizer):
    ...     def terms(self, x):
    ...         yield 1.0, np.abs(x) ** 3
    ...     def gradient(self, x):
    ...         return 3 * x * np.abs(x)
    >>> Cubes()(np.array([1.0, -2.0]))
    9.0
    """

    def __call__(self, x: FloatArray) -> float:
        """The penalty."""
        return sum((factor * float(numbers.sum(dtype=np.float64)) for factor, numbers in self.terms(x)), 0.0)

    def terms(self, x: FloatArray) -> Iterator[tuple[float, FloatArray]]:
        """Factors and arrays: the penalty is the sum of each factor times the sum of its array."""
        raise NotImplementedError

    def gradient(self, x: FloatArray) -> FloatArray:
        """The gradient of the penalty with respect to *x*."""
        raise NotImplementedError

    def get_config(self) -> dict[str, Any]:
        """The arguments that make this regularizer again."""
        raise NotImplementedError

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """The regularizer with this configuration."""
        return cls(**config)


class L1L2(Regularizer):
    """``l1 * sum(abs(x)) + l2 * sum(x**2)``.

    Parameters
    ----------
    l1, l2 : float
        Weights of the two sums, at least 0.

    Raises
    ------
    ValueError
        If a weight is negative or not finite.

    Examples
    --------
    >>> import numpy as np
    >>> penalty = L1L2(l1=0.5, l2=0.25)
    >>> penalty(np.array([2.0, -4.0])), penalty.gradient(np.array([2.0, -4.0]))
    (8.0, array([ 1.5, -2.5]))
    """

    def __init__(self, l1: float = 0.0, l2: float = 0.0) -> None:
        self.l1, self.l2 = _weight("l1", l1), _weight("l2", l2)

    def terms(self, x: FloatArray) -> Iterator[tuple[float, FloatArray]]:
        if self.l1:
            yield self.l1, np.abs(x)
        if self.l2:
            yield self.l2, np.square(x)

    def gradient(self, x: FloatArray) -> FloatArray:
        gradient: FloatArray = self.l1 * np.sign(x) + 2 * self.l2 * x
        return gradient

    def get_config(self) -> dict[str, Any]:
        return {"l1": self.l1, "l2": self.l2}


class L1(L1L2):
    """``l1 * sum(abs(x))``.

    Parameters
    ----------
    l1 : float
        Weight of the sum, at least 0.

    Raises
    ------
    ValueError
        If *l1* is negative or not finite.

    Examples
    --------
    >>> L1(0.5)(np.array([2.0, -4.0]))
    3.0
    """

    def __init__(self, l1: float = 0.01) -> None:
        super().__init__(l1=l1)

    def get_config(self) -> dict[str, Any]:
        return {"l1": self.l1}


class L2(L1L2):
    """``l2 * sum(x**2)``.

    Parameters
    ----------
    l2 : float
        Weight of the sum, at least 0.

    Raises
    ------
    ValueError
        If *l2* is negative or not finite.

    Examples
    --------
    >>> L2(0.25)(np.array([2.0, -4.0]))
    5.0
    """

    def __init__(self, l2: float = 0.01) -> None:
        super().__init__(l2=l2)

    def get_config(self) -> dict[str, Any]:
        return {"l2": self.l2}


l1, l2, l1_l2 = L1, L2, L1L2

# As Keras documents it, the name "l1_l2" means both weights 0.01, where the class has 0.
_REGISTRY: dict[str, Any] = {
    "l1": L1,
    "l2": L2,
    "l1_l2": lambda: L1L2(0.01, 0.01),
    "L1": L1,
    "L2": L2,
    "L1L2": L1L2,
}


def get(identifier: Any) -> Regularizer | None:
    """The regularizer that a name, a configuration or a regularizer stands for; None stands for none."""
    if identifier is None:
        return None
    regularizer: Regularizer = named("regularizer", identifier, _REGISTRY, Regularizer)
    return regularizer


def _weight(name: str, value: float) -> float:
    if not 0 <= value < math.inf:
        raise ValueError(f"{name} must be a finite number >= 0. Received: {name}={value!r}")
    return float(value)
