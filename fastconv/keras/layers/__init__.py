"""Layers, under Keras's names."""

from __future__ import annotations

from typing import Any

from fastconv.keras.layers.activation import Activation
from fastconv.keras.layers.base import Layer
from fastconv.keras.layers.conv import Conv2D
from fastconv.keras.layers.dense import Dense
from fastconv.keras.layers.depthwise import DepthwiseConv2D
from fastconv.keras.layers.dropout import Dropout
from fastconv.keras.layers.norm import BatchNormalization
from fastconv.keras.layers.pool import AveragePooling2D, GlobalAveragePooling2D, MaxPooling2D
from fastconv.keras.layers.reshape import Flatten, Input, InputLayer

__all__ = [
    "Activation",
    "AveragePooling2D",
    "AvgPool2D",
    "BatchNormalization",
    "Conv2D",
    "Dense",
    "DepthwiseConv2D",
    "Dropout",
    "Flatten",
    "GlobalAveragePooling2D",
    "GlobalAvgPool2D",
    "Input",
    "InputLayer",
    "Layer",
    "MaxPool2D",
    "MaxPooling2D",
    "deserialize",
]

MaxPool2D = MaxPooling2D
AvgPool2D = AveragePooling2D
GlobalAvgPool2D = GlobalAveragePooling2D

_CLASSES: dict[str, type[Layer]] = {
    cls.__name__: cls
    for cls in (
        Activation,
        AveragePooling2D,
        BatchNormalization,
        Conv2D,
        Dense,
        DepthwiseConv2D,
        Dropout,
        Flatten,
        GlobalAveragePooling2D,
        InputLayer,
        MaxPooling2D,
    )
}


def deserialize(entry: dict[str, Any]) -> Layer:
    """The layer of a ``{"class_name", "config"}`` entry of a saved model."""
    if entry["class_name"] not in _CLASSES:
        raise ValueError(f"class_name must be one of {', '.join(_CLASSES)}. Received: {entry['class_name']!r}")
    return _CLASSES[entry["class_name"]].from_config(entry["config"])
