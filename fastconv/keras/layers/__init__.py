"""Layers, under Keras's names."""

from __future__ import annotations

from typing import Any

from fastconv.keras.layers.activation import Activation as Activation
from fastconv.keras.layers.base import Layer as Layer
from fastconv.keras.layers.conv import Conv2D as Conv2D
from fastconv.keras.layers.conv import DepthwiseConv2D as DepthwiseConv2D
from fastconv.keras.layers.dense import Dense as Dense
from fastconv.keras.layers.dropout import Dropout as Dropout
from fastconv.keras.layers.norm import BatchNormalization as BatchNormalization
from fastconv.keras.layers.pool import AveragePooling2D as AveragePooling2D
from fastconv.keras.layers.pool import GlobalAveragePooling2D as GlobalAveragePooling2D
from fastconv.keras.layers.pool import MaxPooling2D as MaxPooling2D
from fastconv.keras.layers.reshape import Flatten as Flatten
from fastconv.keras.layers.reshape import Input as Input
from fastconv.keras.layers.reshape import InputLayer as InputLayer

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
