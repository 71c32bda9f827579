"""RMSprop."""

from __future__ import annotations

from typing import Any

from fastconv.arrays import FloatArray
from fastconv.keras.optimizers.base import Optimizer, share
from fastconv.keras.optimizers.schedules import LearningRateSchedule
from fastconv.rooms import room


class RMSprop(Optimizer):
    """Steps scaled by a running average ``v`` of the squared gradient: ``w -= learning_rate * g / sqrt(v + epsilon)``.

    With *centered*, the square of the average gradient is taken off ``v``; with *momentum*, a share of the last step is
    taken again.

    Parameters
    ----------
    learning_rate : float or LearningRateSchedule
        Length of a step.
    rho : float
        How slowly the averages change, from 0 to below 1.
    momentum : float
        From 0 to below 1.
    epsilon : float
        Keeps the division finite.
    centered : bool
        Whether to divide by the standard deviation instead of the root of the mean square.
    **kwargs
        As in `Optimizer`.

    Raises
    ------
    ValueError
        If a share is not from 0 to below 1; others as in `Optimizer`.

    References
    ----------
    G. Hinton, "Neural networks for machine learning", lecture 6e, 2012.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.keras.layers.variable import Variable
    >>> weight = Variable("kernel", np.ones(2))
    >>> weight.gradient = np.array([1.0, -2.0])
    >>> RMSprop(0.1, rho=0.75).apply([weight])
    >>> weight.numpy().round(4)
    array([0.8, 1.2])
    """

    def __init__(
        self,
        learning_rate: float | LearningRateSchedule = 0.001,
        rho: float = 0.9,
        momentum: float = 0.0,
        epsilon: float = 1e-7,
        centered: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate, **kwargs)
        self.rho, self.momentum = share("rho", rho), share("momentum", momentum)
        self.epsilon, self.centered = float(epsilon), centered
        self.averages = 1 + bool(centered) + bool(momentum)

    def update(self, value: FloatArray, gradient: FloatArray, state: list[FloatArray], rate: float) -> None:
        room(value).update.rmsprop_update(
            value,
            gradient,
            state[0],
            state[1] if self.centered else None,
            state[-1] if self.momentum else None,
            learning_rate=rate,
            rho=self.rho,
            momentum=self.momentum,
            epsilon=self.epsilon,
        )

    def get_config(self) -> dict[str, Any]:
        own = {"rho": self.rho, "momentum": self.momentum, "epsilon": self.epsilon, "centered": self.centered}
        return {**super().get_config(), **own}
