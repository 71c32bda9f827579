"""Watching one of the averages of an epoch."""

from __future__ import annotations

import math

from fastconv.keras.callbacks.base import Logs

MODES = ("auto", "min", "max")
# What is better the larger it is, under "auto".
_RISING = ("acc", "precision", "recall", "auc")


class Monitor:
    """Decides whether an average has become better.

    Parameters
    ----------
    name : str
        Of the average, such as "val_loss".
    mode : "auto", "min" or "max"
        Whether smaller or larger is better; "auto" tells by the name.
    min_delta : float
        A smaller change is none.
    """

    def __init__(self, name: str, mode: str = "auto", min_delta: float = 0.0) -> None:
        if mode not in MODES:
            raise ValueError(f"mode must be one of {', '.join(MODES)}. Received: mode={mode!r}")
        self.name = name
        self.rising = mode == "max" or (mode == "auto" and any(word in name for word in _RISING))
        self.min_delta = abs(min_delta)

    @property
    def worst(self) -> float:
        """What every number is better than."""
        return -math.inf if self.rising else math.inf

    def value(self, logs: Logs) -> float:
        """The average.

        Raises
        ------
        ValueError
            If there is none of this name.
        """
        if self.name not in logs:
            raise ValueError(
                f"monitor must be one of {', '.join(logs)}; averages val_... need validation data. "
                f"Received: monitor={self.name!r}"
            )
        return logs[self.name]

    def better(self, value: float, than: float) -> bool:
        """Whether *value* is better by more than the smallest change that counts."""
        return value - self.min_delta > than if self.rising else value + self.min_delta < than
