"""Gradient descent."""

from __future__ import annotations

from typing import Any

from fastconv.arrays import FloatArray
from fastconv.keras.optimizers.base import Optimizer
from fastconv.keras.optimizers.schedules import LearningRateSchedule
from fastconv.rooms import room


class SGD(Optimizer):
    """Gradient descent: ``w -= learning_rate * g``.

    With momentum ``v = momentum * v - learning_rate * g; w += v``, and with *nesterov*
    ``w += momentum * v - learning_rate * g``.

    Parameters
    ----------
    learning_rate : float or LearningRateSchedule
        Length of a step.
    momentum : float
        From 0 to 1: how much of the last step is taken again.
    nesterov : bool
        Whether to look one step of momentum ahead.
    **kwargs
        As in `Optimizer`.

    Raises
    ------
    ValueError
        If *momentum* is not from 0 to 1; others as in `Optimizer`.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.keras.layers.variable import Variable
    >>> weight = Variable("kernel", np.ones(2))
    >>> weight.gradient = np.array([1.0, -2.0])
    >>> SGD(0.5).apply([weight])
    >>> weight.numpy()
    array([0.5, 2. ])
    """

    def __init__(
        self,
        learning_rate: float | LearningRateSchedule = 0.01,
        momentum: float = 0.0,
        nesterov: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate, **kwargs)
        if not 0 <= momentum <= 1:
            raise ValueError(f"momentum must be from 0 to 1. Received: momentum={momentum!r}")
        self.momentum = float(momentum)
        self.nesterov = nesterov
        self.averages = 1 if momentum else 0

    def update(self, value: FloatArray, gradient: FloatArray, state: list[FloatArray], rate: float) -> None:
        velocity = state[0] if state else None
        room(value).update.sgd_update(
            value, gradient, velocity, learning_rate=rate, momentum=self.momentum, nesterov=self.nesterov
        )

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "momentum": self.momentum, "nesterov": self.nesterov}
