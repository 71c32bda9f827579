"""Adam, and Adam with decoupled weight decay."""

from __future__ import annotations

from typing import Any

from fastconv.arrays import FloatArray
from fastconv.keras.optimizers.base import Optimizer, share
from fastconv.keras.optimizers.schedules import LearningRateSchedule
from fastconv.rooms import room


class Adam(Optimizer):
    """Steps scaled by running averages ``m`` and ``v`` of the gradient and of its square.

    ``w -= learning_rate * sqrt(1 - beta_2**t) / (1 - beta_1**t) * m / (sqrt(v) + epsilon)`` at update ``t``.

    Parameters
    ----------
    learning_rate : float or LearningRateSchedule
        Length of a step.
    beta_1, beta_2 : float
        How slowly the averages of gradient and square change, from 0 to below 1.
    epsilon : float
        Keeps the division finite.
    **kwargs
        As in `Optimizer`.

    Raises
    ------
    ValueError
        If a share is not from 0 to below 1; others as in `Optimizer`.

    References
    ----------
    D. Kingma, J. Ba, "Adam: a method for stochastic optimization", ICLR 2015.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.keras.layers.variable import Variable
    >>> weight = Variable("kernel", np.ones(2))
    >>> weight.gradient = np.array([1.0, -2.0])
    >>> Adam(0.5).apply([weight])
    >>> weight.numpy().round(4)
    array([0.5, 1.5])
    """

    averages = 2

    def __init__(
        self,
        learning_rate: float | LearningRateSchedule = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate, **kwargs)
        self.beta_1, self.beta_2 = share("beta_1", beta_1), share("beta_2", beta_2)
        self.epsilon = float(epsilon)

    def update(self, value: FloatArray, gradient: FloatArray, state: list[FloatArray], rate: float) -> None:
        room(value).update.adam_update(
            value,
            gradient,
            *state,
            iteration=self.iterations,
            learning_rate=rate,
            beta_1=self.beta_1,
            beta_2=self.beta_2,
            epsilon=self.epsilon,
        )

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "beta_1": self.beta_1, "beta_2": self.beta_2, "epsilon": self.epsilon}


class AdamW(Adam):
    """Adam with weight decay, by default 0.004.

    The decay acts on the weights, not through the gradient, so that the averages do not see it.

    Parameters
    ----------
    learning_rate, weight_decay, beta_1, beta_2, epsilon, **kwargs
        As in `Adam` and `Optimizer`.

    Raises
    ------
    ValueError
        As in `Adam`.

    References
    ----------
    I. Loshchilov, F. Hutter, "Decoupled weight decay regularization", ICLR 2019.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.keras.layers.variable import Variable
    >>> weight = Variable("kernel", np.ones(2))
    >>> weight.gradient = np.array([1.0, -2.0])
    >>> AdamW(0.5, weight_decay=0.1).apply([weight])
    >>> weight.numpy().round(4)
    array([0.45, 1.45])
    """

    def __init__(
        self,
        learning_rate: float | LearningRateSchedule = 0.001,
        weight_decay: float = 0.004,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate, beta_1, beta_2, epsilon, weight_decay=weight_decay, **kwargs)
