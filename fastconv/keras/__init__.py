"""The layer API under Keras's module names: code written for ``tensorflow.keras`` needs only another import line."""

from fastconv.keras import (
    callbacks,
    datasets,
    initializers,
    layers,
    losses,
    metrics,
    models,
    optimizers,
    preprocessing,
    regularizers,
    utils,
)
from fastconv.keras.layers import Input
from fastconv.keras.models import Model, Sequential

__all__ = [
    "Input",
    "Model",
    "Sequential",
    "callbacks",
    "datasets",
    "initializers",
    "layers",
    "losses",
    "metrics",
    "models",
    "optimizers",
    "preprocessing",
    "regularizers",
    "utils",
]
