"""How gradients change weights, with Keras's formulas, names and defaults."""

from __future__ import annotations

from typing import Any

from fastconv.keras.optimizers import schedules
from fastconv.keras.optimizers.adam import Adam, AdamW
from fastconv.keras.optimizers.base import Optimizer
from fastconv.keras.optimizers.rmsprop import RMSprop
from fastconv.keras.optimizers.sgd import SGD
from fastconv.keras.utils import named

__all__ = ["SGD", "Adam", "AdamW", "Optimizer", "RMSprop", "get", "schedules"]

_REGISTRY: dict[str, type[Optimizer]] = {cls.__name__: cls for cls in (SGD, RMSprop, Adam, AdamW)}
_REGISTRY |= {name.lower(): cls for name, cls in _REGISTRY.items()}


def get(identifier: Any) -> Optimizer:
    """The optimizer that a name, a configuration or an optimizer stands for."""
    optimizer: Optimizer = named("optimizer", identifier, _REGISTRY, Optimizer)
    return optimizer
