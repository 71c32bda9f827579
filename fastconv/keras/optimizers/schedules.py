"""Learning rates that change with the number of updates, under Keras's names."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from typing import Any, Self


class LearningRateSchedule:
    """Base of the schedules: a call with the number of updates so far gives the length of the next step.

    Raises
    ------
    ValueError
        If a number of steps is below 1.

    Examples
    --------
    >>> class Halves(LearningRateSchedule):
    ...     def __call__(self, step):
    ...         return 0.5**step
    >>> Halves()(3)
    0.125
    """

    def __call__(self, step: int) -> float:
        """The learning rate after *step* updates."""
        raise NotImplementedError

    def get_config(self) -> dict[str, Any]:
        """The arguments that make this schedule again."""
        return dict(vars(self))

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """The schedule with this configuration."""
        return cls(**config)


class ExponentialDecay(LearningRateSchedule):
    """``initial_learning_rate * decay_rate ** (step / decay_steps)``; with *staircase*, the exponent is rounded down.

    Parameters
    ----------
    initial_learning_rate : float
        The rate at the beginning.
    decay_steps : int
        Updates in which the rate is multiplied with *decay_rate*.
    decay_rate : float
        The factor.
    staircase : bool
        Whether the rate falls only every *decay_steps* updates.

    Raises
    ------
    ValueError
        If *decay_steps* is below 1.

    Examples
    --------
    >>> ExponentialDecay(0.1, decay_steps=100, decay_rate=0.5)(200)
    0.025
    """

    def __init__(
        self, initial_learning_rate: float, decay_steps: int, decay_rate: float, staircase: bool = False
    ) -> None:
        self.initial_learning_rate = float(initial_learning_rate)
        self.decay_steps = _steps("decay_steps", decay_steps)
        self.decay_rate = float(decay_rate)
        self.staircase = staircase

    def __call__(self, step: int) -> float:
        return self.initial_learning_rate * math.pow(self.decay_rate, _periods(step, self.decay_steps, self.staircase))


class InverseTimeDecay(LearningRateSchedule):
    """``initial_learning_rate / (1 + decay_rate * step / decay_steps)``; *staircase* as in `ExponentialDecay`.

    Parameters
    ----------
    initial_learning_rate : float
        The rate at the beginning.
    decay_steps : int
        Updates in which *decay_rate* is added to the divisor.
    decay_rate : float
        How fast it falls.
    staircase : bool
        Whether the rate falls only every *decay_steps* updates.

    Raises
    ------
    ValueError
        If *decay_steps* is below 1.

    Examples
    --------
    >>> InverseTimeDecay(0.1, decay_steps=100, decay_rate=1.0)(300)
    0.025
    """

    def __init__(
        self, initial_learning_rate: float, decay_steps: int, decay_rate: float, staircase: bool = False
    ) -> None:
        self.initial_learning_rate = float(initial_learning_rate)
        self.decay_steps = _steps("decay_steps", decay_steps)
        self.decay_rate = float(decay_rate)
        self.staircase = staircase

    def __call__(self, step: int) -> float:
        return self.initial_learning_rate / (1 + self.decay_rate * _periods(step, self.decay_steps, self.staircase))


class PiecewiseConstantDecay(LearningRateSchedule):
    """``values[i]`` up to and including step ``boundaries[i]``, and the last value behind the last boundary.

    Parameters
    ----------
    boundaries : sequence of int
        Updates behind which the rate changes.
    values : sequence of float
        One rate more than boundaries.

    Raises
    ------
    ValueError
        If the boundaries do not rise, or there is not one value more than boundaries.

    Examples
    --------
    >>> rate = PiecewiseConstantDecay([100, 200], [0.1, 0.01, 0.001])
    >>> rate(100), rate(101), rate(500)
    (0.1, 0.01, 0.001)
    """

    def __init__(self, boundaries: Sequence[int], values: Sequence[float]) -> None:
        if len(values) != len(boundaries) + 1:
            raise ValueError(
                f"values must have one number more than boundaries. "
                f"Received: {len(boundaries)} boundaries, {len(values)} values"
            )
        if list(boundaries) != sorted(boundaries):
            raise ValueError(f"boundaries must rise. Received: boundaries={boundaries!r}")
        self.boundaries = list(boundaries)
        self.values = [float(value) for value in values]

    def __call__(self, step: int) -> float:
        return self.values[bisect_left(self.boundaries, step)]


class PolynomialDecay(LearningRateSchedule):
    """From *initial_learning_rate* to *end_learning_rate*, along ``(1 - step / decay_steps) ** power``.

    With *cycle* the fall begins anew, over a longer time, whenever it has ended.

    Parameters
    ----------
    initial_learning_rate : float
        The rate at the beginning.
    decay_steps : int
        Updates in which the rate falls.
    end_learning_rate : float
        The rate at the end.
    power : float
        1 falls along a straight line.
    cycle : bool
        Whether to begin anew.

    Raises
    ------
    ValueError
        If *decay_steps* is below 1.

    Examples
    --------
    >>> PolynomialDecay(0.5, decay_steps=100, end_learning_rate=0.0)(50)
    0.25
    """

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: int,
        end_learning_rate: float = 0.0001,
        power: float = 1.0,
        cycle: bool = False,
    ) -> None:
        self.initial_learning_rate = float(initial_learning_rate)
        self.decay_steps = _steps("decay_steps", decay_steps)
        self.end_learning_rate = float(end_learning_rate)
        self.power = float(power)
        self.cycle = cycle

    def __call__(self, step: int) -> float:
        length = self.decay_steps * max(math.ceil(step / self.decay_steps), 1) if self.cycle else self.decay_steps
        left = 1 - min(step, length) / length
        fall = self.initial_learning_rate - self.end_learning_rate
        return fall * math.pow(left, self.power) + self.end_learning_rate


class CosineDecay(LearningRateSchedule):
    """Half a cosine from *initial_learning_rate* down to its share *alpha* in *decay_steps* steps.

    With *warmup_target* the rate first rises from *initial_learning_rate* to that number in *warmup_steps* steps, and
    the cosine starts there.

    Parameters
    ----------
    initial_learning_rate : float
        The rate at the beginning.
    decay_steps : int
        Updates in which the rate falls.
    alpha : float
        The share of it that is left at the end.
    warmup_target : float, optional
        Where the rate rises to at first.
    warmup_steps : int
        In how many updates.

    Raises
    ------
    ValueError
        If *decay_steps* is below 1.

    References
    ----------
    I. Loshchilov, F. Hutter, "SGDR: stochastic gradient descent with warm restarts", ICLR 2017.

    Examples
    --------
    >>> round(CosineDecay(0.5, decay_steps=100)(50), 6)
    0.25
    """

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: int,
        alpha: float = 0.0,
        *,
        warmup_target: float | None = None,
        warmup_steps: int = 0,
    ) -> None:
        self.initial_learning_rate = float(initial_learning_rate)
        self.decay_steps = _steps("decay_steps", decay_steps)
        self.alpha = float(alpha)
        self.warmup_target = warmup_target
        self.warmup_steps = warmup_steps

    def __call__(self, step: int) -> float:
        top = self.initial_learning_rate
        if self.warmup_target is not None:
            if step < self.warmup_steps:
                return top + (self.warmup_target - top) * step / self.warmup_steps
            top, step = self.warmup_target, step - self.warmup_steps
        cosine = 0.5 * (1 + math.cos(math.pi * min(step, self.decay_steps) / self.decay_steps))
        return top * ((1 - self.alpha) * cosine + self.alpha)


_REGISTRY: dict[str, type[LearningRateSchedule]] = {
    cls.__name__: cls
    for cls in (ExponentialDecay, InverseTimeDecay, PiecewiseConstantDecay, PolynomialDecay, CosineDecay)
}


def serialize(schedule: LearningRateSchedule) -> dict[str, Any]:
    """A schedule as plain data."""
    return {"class_name": type(schedule).__name__, "config": schedule.get_config()}


def get(learning_rate: Any) -> float | LearningRateSchedule:
    """The number, or the schedule, that an argument stands for."""
    if isinstance(learning_rate, LearningRateSchedule):
        return learning_rate
    if isinstance(learning_rate, dict) and learning_rate.get("class_name") in _REGISTRY:
        return _REGISTRY[learning_rate["class_name"]].from_config(learning_rate["config"])
    if not (isinstance(learning_rate, int | float) or hasattr(learning_rate, "__float__")) or not learning_rate >= 0:
        raise ValueError(
            f"learning_rate must be a number at least 0, or a schedule. Received: learning_rate={learning_rate!r}"
        )
    return float(learning_rate)


def _steps(name: str, value: int) -> int:
    if value < 1:
        raise ValueError(f"{name} must be at least 1. Received: {name}={value!r}")
    return int(value)


def _periods(step: int, length: int, whole: bool) -> float:
    return step // length if whole else step / length
