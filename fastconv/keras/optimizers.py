"""How gradients change weights: SGD and Adam, with Keras's formulas, names and defaults."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np

from fastconv.arrays import FloatArray
from fastconv.cpu.update import adam_update, sgd_update
from fastconv.keras.layers.variable import Variable
from fastconv.keras.utils import named


class Optimizer:
    """Base of the optimizers: counts the updates and keeps each variable's running averages.

    `learning_rate` may be changed between updates.
    """

    #: How many arrays of its shape a variable needs beside it.
    averages = 0

    def __init__(self, learning_rate: float, name: str | None = None) -> None:
        if not learning_rate >= 0:
            raise ValueError(f"learning_rate must be at least 0. Received: learning_rate={learning_rate!r}")
        self.learning_rate = float(learning_rate)
        self.name = name or type(self).__name__.lower()
        self.iterations = 0
        self._state: dict[Variable, list[FloatArray]] = {}

    def apply(self, variables: Sequence[Variable]) -> None:
        """Change each variable by its gradient."""
        self.iterations += 1
        for variable in variables:
            if variable not in self._state:
                self._state[variable] = [np.zeros_like(variable.value) for _ in range(self.averages)]
            self.update(variable, self._state[variable])

    def update(self, variable: Variable, state: list[FloatArray]) -> None:
        """Change one variable and its state in place."""
        raise NotImplementedError

    def get_config(self) -> dict[str, Any]:
        """The arguments that make this optimizer again."""
        return {"learning_rate": self.learning_rate, "name": self.name}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """The optimizer with this configuration, before its first update."""
        return cls(**config)


class SGD(Optimizer):
    """Gradient descent: ``w -= learning_rate * g``.

    With momentum ``v = momentum * v - learning_rate * g; w += v``, and with *nesterov*
    ``w += momentum * v - learning_rate * g``.

    Parameters
    ----------
    learning_rate : float
        Length of a step.
    momentum : float
        From 0 to 1: how much of the last step is taken again.
    nesterov : bool
        Whether to look one step of momentum ahead.

    Examples
    --------
    >>> SGD(0.1, momentum=0.9).get_config()
    {'learning_rate': 0.1, 'name': 'sgd', 'momentum': 0.9, 'nesterov': False}
    """

    def __init__(
        self, learning_rate: float = 0.01, momentum: float = 0.0, nesterov: bool = False, name: str | None = None
    ) -> None:
        super().__init__(learning_rate, name)
        if not 0 <= momentum <= 1:
            raise ValueError(f"momentum must be from 0 to 1. Received: momentum={momentum!r}")
        self.momentum = float(momentum)
        self.nesterov = nesterov
        self.averages = 1 if momentum else 0

    def update(self, variable: Variable, state: list[FloatArray]) -> None:
        with variable.changing() as value:
            sgd_update(
                value,
                variable.gradient,
                state[0] if state else None,
                learning_rate=self.learning_rate,
                momentum=self.momentum,
                nesterov=self.nesterov,
            )

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "momentum": self.momentum, "nesterov": self.nesterov}


class Adam(Optimizer):
    """Steps scaled by running averages ``m`` and ``v`` of the gradient and of its square.

    ``w -= learning_rate * sqrt(1 - beta_2**t) / (1 - beta_1**t) * m / (sqrt(v) + epsilon)`` at update ``t``.

    Parameters
    ----------
    learning_rate : float
        Length of a step.
    beta_1, beta_2 : float
        How slowly the averages of gradient and square change, from 0 to below 1.
    epsilon : float
        Keeps the division finite.

    References
    ----------
    D. Kingma, J. Ba, "Adam: a method for stochastic optimization", ICLR 2015.
    """

    averages = 2

    def __init__(
        self,
        learning_rate: float = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        name: str | None = None,
    ) -> None:
        super().__init__(learning_rate, name)
        for argument, beta in (("beta_1", beta_1), ("beta_2", beta_2)):
            if not 0 <= beta < 1:
                raise ValueError(f"{argument} must be at least 0 and below 1. Received: {argument}={beta!r}")
        self.beta_1, self.beta_2, self.epsilon = float(beta_1), float(beta_2), float(epsilon)

    def update(self, variable: Variable, state: list[FloatArray]) -> None:
        with variable.changing() as value:
            adam_update(
                value,
                variable.gradient,
                *state,
                iteration=self.iterations,
                learning_rate=self.learning_rate,
                beta_1=self.beta_1,
                beta_2=self.beta_2,
                epsilon=self.epsilon,
            )

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "beta_1": self.beta_1, "beta_2": self.beta_2, "epsilon": self.epsilon}


_REGISTRY: dict[str, type[Optimizer]] = {"sgd": SGD, "adam": Adam, "SGD": SGD, "Adam": Adam}


def get(identifier: Any) -> Optimizer:
    """The optimizer that a name, a configuration or an optimizer stands for."""
    optimizer: Optimizer = named("optimizer", identifier, _REGISTRY, Optimizer)
    return optimizer
