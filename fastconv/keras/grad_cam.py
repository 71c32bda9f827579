"""Grad-CAM: where in an image a network sees a class.

References
----------
R. Selvaraju et al., "Grad-CAM: visual explanations from deep networks via gradient-based localization", ICCV 2017.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from fastconv.arrays import FloatArray
from fastconv.keras.devices import placed
from fastconv.keras.graph import Graph
from fastconv.keras.layers.activation import ActivatedLayer
from fastconv.keras.layers.base import Layer
from fastconv.keras.layers.conv import Convolution
from fastconv.keras.layers.images import ImageLayer
from fastconv.keras.network import Network


def heat_map(model: Network, image: ArrayLike, class_index: int, layer: str | None = None) -> FloatArray:
    """How much each place of a layer's feature maps speaks for a class.

    ``heat[h, w] = max(0, sum over c of weight[c] * maps[h, w, c])``, where ``weight[c]`` is the mean over the image of
    the gradient of the class's score, before the last activation, with respect to ``maps[:, :, c]``.

    Parameters
    ----------
    model : Sequential or Model
        A network of one image input and one output of class scores.
    image : ndarray of shape (H, W, C)
        One image, scaled as the model expects it.
    class_index : int
        The class.
    layer : str, optional
        Name of the layer that makes the feature maps; by default the last convolution.

    Returns
    -------
    ndarray of shape (MH, MW), the model's dtype
        The heat of each place of the maps, in units of the score.

    Raises
    ------
    ValueError
        Where the model, the layer or the class is not of this kind.

    Notes
    -----
    The layers compute what they compute in prediction: nothing is dropped, and no moving average moves.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.keras import Sequential, layers
    >>> model = Sequential([layers.Conv2D(4, 3, input_shape=(8, 8, 1)), layers.Flatten(), layers.Dense(2)])
    >>> heat_map(model, np.ones((8, 8, 1)), class_index=1).shape
    (6, 6)
    """
    x = np.ascontiguousarray(image, dtype=model.dtype)[np.newaxis]
    if not model.built:
        model.build((None, *x.shape[1:]))
    source = _last_convolution(model) if layer is None else model.get_layer(layer)
    if len(source.output_shape) != 4:
        raise ValueError(f"layer must make feature maps of four axes. Received: {source.name} of {source.output_shape}")
    _check(model, x, class_index)

    graph = Graph(model.inputs, [*model.outputs, model.output_of(source)]).at_rest()
    scores_number, maps_number = graph.outputs
    last = graph.steps[scores_number].layer
    head = last if isinstance(last, ActivatedLayer) else None
    scores, maps = graph.forward([placed(x, model.engine)], training=True, head=head)
    grad_scores = np.zeros(scores.shape, scores.dtype)
    grad_scores[0, class_index] = 1
    gradient = graph.gradient_at(maps_number, placed(grad_scores, model.engine), head)
    maps, gradient = placed(maps, None), placed(gradient, None)
    if isinstance(source, ImageLayer):  # which may have the channels first
        maps, gradient = source.enter(maps), source.enter(gradient)
    weight = gradient[0].mean(axis=(0, 1))
    heat: FloatArray = np.maximum(maps[0] @ weight, 0)
    return heat


def _last_convolution(model: Network) -> Layer:
    for layer in reversed(model.layers):
        if isinstance(layer, Convolution):
            return layer
    raise ValueError(f"layer must be named where a model has no convolution. Received: model {model.name}")


def _check(model: Network, x: FloatArray, class_index: int) -> None:
    if len(model.inputs) != 1 or len(model.outputs) != 1 or len(model.output_shape) != 2:
        raise ValueError(
            f"model must have one input and one output of class scores. "
            f"Received: input_shape={model.input_shape}, output_shape={model.output_shape}"
        )
    if x.shape[1:] != model.input_shape[1:]:
        raise ValueError(f"image must have shape {model.input_shape[1:]}. Received: image.shape={x.shape[1:]}")
    classes = model.output_shape[1]
    if not 0 <= class_index < classes:
        raise ValueError(f"class_index must be one of {classes} classes. Received: class_index={class_index!r}")
