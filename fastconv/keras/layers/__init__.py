"""Layers, under Keras's names."""

from __future__ import annotations

from typing import Any

from fastconv.keras.layers.activation import Activation
from fastconv.keras.layers.base import Layer
from fastconv.keras.layers.conv import Conv2D
from fastconv.keras.layers.conv1d import Conv1D
from fastconv.keras.layers.conv_transpose import Conv2DTranspose
from fastconv.keras.layers.dense import Dense
from fastconv.keras.layers.depthwise import DepthwiseConv2D
from fastconv.keras.layers.dropout import Dropout, SpatialDropout2D
from fastconv.keras.layers.global_pool import (
    GlobalAveragePooling1D,
    GlobalAveragePooling2D,
    GlobalMaxPooling1D,
    GlobalMaxPooling2D,
)
from fastconv.keras.layers.input import Input, InputLayer
from fastconv.keras.layers.merge import Add, Concatenate, add, concatenate
from fastconv.keras.layers.norm import BatchNormalization
from fastconv.keras.layers.padding import ZeroPadding2D
from fastconv.keras.layers.pool import AveragePooling1D, AveragePooling2D, MaxPooling1D, MaxPooling2D, MinPooling2D
from fastconv.keras.layers.rectifier import LeakyReLU, ReLU, Softmax
from fastconv.keras.layers.reshape import Flatten, Reshape
from fastconv.keras.layers.separable import SeparableConv2D
from fastconv.keras.layers.upsampling import UpSampling2D

__all__ = [
    "Activation",
    "Add",
    "AveragePooling1D",
    "AveragePooling2D",
    "AvgPool1D",
    "AvgPool2D",
    "BatchNormalization",
    "Concatenate",
    "Conv1D",
    "Conv2D",
    "Conv2DTranspose",
    "Convolution1D",
    "Convolution2D",
    "Convolution2DTranspose",
    "Dense",
    "DepthwiseConv2D",
    "Dropout",
    "Flatten",
    "GlobalAveragePooling1D",
    "GlobalAveragePooling2D",
    "GlobalAvgPool1D",
    "GlobalAvgPool2D",
    "GlobalMaxPool1D",
    "GlobalMaxPool2D",
    "GlobalMaxPooling1D",
    "GlobalMaxPooling2D",
    "Input",
    "InputLayer",
    "Layer",
    "LeakyReLU",
    "MaxPool1D",
    "MaxPool2D",
    "MaxPooling1D",
    "MaxPooling2D",
    "MinPool2D",
    "MinPooling2D",
    "ReLU",
    "Reshape",
    "SeparableConv2D",
    "SeparableConvolution2D",
    "Softmax",
    "SpatialDropout2D",
    "UpSampling2D",
    "ZeroPadding2D",
    "add",
    "concatenate",
    "deserialize",
]

# Keras's other names.
AvgPool1D = AveragePooling1D
AvgPool2D = AveragePooling2D
Convolution1D = Conv1D
Convolution2D = Conv2D
Convolution2DTranspose = Conv2DTranspose
GlobalAvgPool1D = GlobalAveragePooling1D
GlobalAvgPool2D = GlobalAveragePooling2D
GlobalMaxPool1D = GlobalMaxPooling1D
GlobalMaxPool2D = GlobalMaxPooling2D
MaxPool1D = MaxPooling1D
MaxPool2D = MaxPooling2D
MinPool2D = MinPooling2D
SeparableConvolution2D = SeparableConv2D

_CLASSES: dict[str, type[Layer]] = {
    cls.__name__: cls
    for cls in (
        Activation,
        Add,
        AveragePooling1D,
        AveragePooling2D,
        BatchNormalization,
        Concatenate,
        Conv1D,
        Conv2D,
        Conv2DTranspose,
        Dense,
        DepthwiseConv2D,
        Dropout,
        Flatten,
        GlobalAveragePooling1D,
        GlobalAveragePooling2D,
        GlobalMaxPooling1D,
        GlobalMaxPooling2D,
        InputLayer,
        LeakyReLU,
        MaxPooling1D,
        MaxPooling2D,
        MinPooling2D,
        ReLU,
        Reshape,
        SeparableConv2D,
        Softmax,
        SpatialDropout2D,
        UpSampling2D,
        ZeroPadding2D,
    )
}


def deserialize(entry: dict[str, Any]) -> Layer:
    """The layer of a ``{"class_name", "config"}`` entry of a saved model."""
    if entry["class_name"] not in _CLASSES:
        raise ValueError(f"class_name must be one of {', '.join(_CLASSES)}. Received: {entry['class_name']!r}")
    return _CLASSES[entry["class_name"]].from_config(entry["config"])
