"""The layers of a model as tasks of the bench: what there is to compute in them, without weights."""

from __future__ import annotations

from collections.abc import Callable

from fastconv.bench.problems import Layer, pooling
from fastconv.demo import tutorial_network
from fastconv.geometry import conv2d_geometry
from fastconv.keras import Sequential
from fastconv.keras.layers import AveragePooling2D, Conv2D, Dense, DepthwiseConv2D, MaxPooling2D

#: Models by name, each as a function that makes it.
MODELS: dict[str, Callable[[], Sequential]] = {"demo": lambda: tutorial_network((28, 28, 1), 10)}


def layers_of(name: str, batch: int) -> list[Layer]:
    """The convolutions, poolings and dense layers of one of `MODELS`, in order; a dense one as a 1x1 convolution.

    Examples
    --------
    >>> [layer.name for layer in layers_of("demo", 8)][:3]
    ['conv2d', 'max_pooling2d', 'conv2d_1']
    """
    model = MODELS[name]()
    shape = (batch, *model.input_shape[1:])
    found = []
    for layer in model.layers:
        if isinstance(layer, Conv2D | DepthwiseConv2D):
            found.append(Layer(name, layer.name, 1, layer.geometry(shape)))
        elif isinstance(layer, MaxPooling2D | AveragePooling2D):
            kind = "max" if isinstance(layer, MaxPooling2D) else "average"
            windows = pooling(kind, shape, layer.pool_size, layer.strides, layer.padding)
            found.append(Layer(name, layer.name, 1, windows))
        elif isinstance(layer, Dense):
            (channels,) = shape[1:]
            product = conv2d_geometry((batch, 1, 1, channels), (1, 1, channels, layer.units))
            found.append(Layer(name, layer.name, 1, product))
        shape = layer.compute_output_shape(shape)
    return found
