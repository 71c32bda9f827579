"""What all optimizers share: the learning rate, clipping, weight decay, and the state of each variable."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np

from fastconv.arrays import FloatArray
from fastconv.cuda.device import Engine
from fastconv.keras.devices import placed
from fastconv.keras.layers.variable import Variable
from fastconv.keras.optimizers import schedules
from fastconv.keras.optimizers.schedules import LearningRateSchedule
from fastconv.rooms import room


class Optimizer:
    """Base of the optimizers.

    Arrays that an optimizer keeps beside a variable have its shape.

    Parameters
    ----------
    learning_rate : float or LearningRateSchedule
        Length of a step; a number may be changed between updates.
    weight_decay : float, optional
        Each update first shrinks every variable: ``w -= w * weight_decay * learning_rate``.
    clipnorm : float, optional
        The largest Euclidean norm of a variable's gradient; longer ones are scaled down.
    clipvalue : float, optional
        The largest absolute value in a gradient; larger ones are cut off.
    global_clipnorm : float, optional
        The largest Euclidean norm of all gradients taken together.
    name : str, optional
        By default the name of the class in lower case.

    Raises
    ------
    ValueError
        If the learning rate is negative, a share is not from 0 to below 1, or more than one way of clipping is asked
        for.

    Notes
    -----
    Norms are summed in float64 in a fixed order, so training has the same bits for any number of threads.  Everything
    happens where the variables lie, on a device without a look from the host.

    Examples
    --------
    >>> class SignDescent(Optimizer):
    ...     def update(self, value, gradient, state, rate):
    ...         value -= rate * np.sign(gradient)
    >>> weight = Variable("kernel", np.ones(2))
    >>> weight.gradient = np.array([1.0, -2.0])
    >>> SignDescent(0.5).apply([weight])
    >>> weight.numpy()
    array([0.5, 1.5])
    """

    #: The arrays of its shape that a variable needs beside it.
    averages = 0

    def __init__(
        self,
        learning_rate: float | LearningRateSchedule,
        weight_decay: float | None = None,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        name: str | None = None,
    ) -> None:
        clips = {"clipnorm": clipnorm, "clipvalue": clipvalue, "global_clipnorm": global_clipnorm}
        if sum(clip is not None for clip in clips.values()) > 1:
            raise ValueError(f"only one of clipnorm, clipvalue and global_clipnorm may be given. Received: {clips}")
        for argument, value in {"weight_decay": weight_decay, **clips}.items():
            if value is not None and not value >= 0:
                raise ValueError(f"{argument} must be at least 0. Received: {argument}={value!r}")
        self._learning_rate: float | LearningRateSchedule = schedules.get(learning_rate)
        self.weight_decay = weight_decay
        self.clipnorm, self.clipvalue, self.global_clipnorm = clipnorm, clipvalue, global_clipnorm
        self.name = name or type(self).__name__.lower()
        #: Updates so far.
        self.iterations = 0
        self._state: dict[Variable, list[FloatArray]] = {}

    @property
    def learning_rate(self) -> float:
        """The length of the next step."""
        rate = self._learning_rate
        return rate if isinstance(rate, float) else rate(self.iterations)

    @learning_rate.setter
    def learning_rate(self, value: float | LearningRateSchedule) -> None:
        if isinstance(self._learning_rate, LearningRateSchedule) and not isinstance(value, LearningRateSchedule):
            raise TypeError(
                f"learning_rate follows a schedule, {type(self._learning_rate).__name__}, and cannot be set to a "
                f"number. Received: learning_rate={value!r}"
            )
        self._learning_rate = schedules.get(value)

    def apply(self, variables: Sequence[Variable]) -> None:
        """Change each variable by its gradient."""
        rate = self.learning_rate
        self.iterations += 1
        gradients = self._clipped([variable.gradient for variable in variables])
        for variable, gradient in zip(variables, gradients, strict=True):
            state = self.state(variable)
            with variable.changing() as value:
                if self.weight_decay is not None:
                    value *= value.dtype.type(1 - self.weight_decay * rate)
                self.update(value, gradient, state, rate)

    def update(self, value: FloatArray, gradient: FloatArray, state: list[FloatArray], rate: float) -> None:
        """Change *value* and its *state* in place by a step of length *rate*; `iterations` counts this step."""
        raise NotImplementedError

    def state(self, variable: Variable) -> list[FloatArray]:
        """The arrays that the optimizer keeps beside a variable, as many as `averages`; zeros before its first step."""
        if variable not in self._state:
            self._state[variable] = [np.zeros_like(variable.value) for _ in range(self.averages)]
        return self._state[variable]

    def restore(self, iterations: int, states: Mapping[Variable, Sequence[FloatArray]]) -> None:
        """Go on after so many *iterations* with the arrays that `state` gave for each variable.

        Raises
        ------
        ValueError
            If an array has not the shape and dtype of its variable, which kernels take for granted.
        """
        for variable, arrays in states.items():
            for array in arrays:
                if (array.shape, array.dtype) != (variable.shape, variable.dtype):
                    raise ValueError(
                        f"arrays beside {variable.name} must have its shape {variable.shape} and dtype "
                        f"{variable.dtype}. Received: shape={array.shape}, dtype={array.dtype}"
                    )
        self.iterations = operator.index(iterations)
        for variable, arrays in states.items():
            self._state[variable] = [placed(array.copy(), variable.engine) for array in arrays]

    def to(self, engine: Engine | None) -> None:
        """Move the arrays of all variables to a device, or to host memory."""
        for arrays in self._state.values():
            arrays[:] = [placed(array, engine) for array in arrays]

    def _clipped(self, gradients: list[Any]) -> list[FloatArray]:
        if self.clipvalue is not None:
            return [np.clip(gradient, -self.clipvalue, self.clipvalue) for gradient in gradients]
        if not gradients:
            return gradients
        norms = room(gradients[0]).norms
        if self.clipnorm is not None:
            return [norms.shortened(gradient, norms.squares([gradient]), self.clipnorm) for gradient in gradients]
        if self.global_clipnorm is not None:
            squares = norms.squares(gradients)
            return [norms.shortened(gradient, squares, self.global_clipnorm) for gradient in gradients]
        return gradients

    def get_config(self) -> dict[str, Any]:
        """The arguments that make this optimizer again."""
        rate = self._learning_rate
        return {
            "learning_rate": rate if isinstance(rate, float) else schedules.serialize(rate),
            "weight_decay": self.weight_decay,
            "clipnorm": self.clipnorm,
            "clipvalue": self.clipvalue,
            "global_clipnorm": self.global_clipnorm,
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """The optimizer with this configuration, before its first update."""
        return cls(**config)


def share(name: str, value: float) -> float:
    """*value*, which must be at least 0 and below 1."""
    if not 0 <= value < 1:
        raise ValueError(f"{name} must be at least 0 and below 1. Received: {name}={value!r}")
    return float(value)
