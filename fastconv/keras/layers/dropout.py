"""The layers that drop numbers while training."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv import functional
from fastconv.arrays import FloatArray
from fastconv.keras.layers.base import Layer, Shape
from fastconv.keras.layers.images import ImageLayer
from fastconv.keras.utils import new_generator
from fastconv.rooms import room

_SEED_END = 2**63


class Dropout(Layer):
    """While training, set a random share of the numbers to zero and scale the others by ``1 / (1 - rate)``.

    Arrays of any shape keep it.

    Parameters
    ----------
    rate : float
        Share of the numbers to drop, at least 0 and below 1.
    seed : int, optional
        Makes the layer's choices the same in every run; otherwise they follow the model's generator.
    **kwargs
        ``name``, ``trainable``, ``dtype``, ``input_shape``.

    Raises
    ------
    ValueError
        If *rate* is not from 0 to below 1.

    References
    ----------
    N. Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting", JMLR 15, 2014.

    Examples
    --------
    >>> import numpy as np
    >>> layer = Dropout(0.5, seed=0)
    >>> bool((layer(np.ones((2, 3))) == 1).all())
    True
    >>> np.unique(layer(np.ones((20, 30)), training=True))
    array([0., 2.], dtype=float32)
    """

    def __init__(self, rate: float, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not 0 <= rate < 1:
            raise ValueError(f"rate must be at least 0 and below 1. Received: rate={rate!r}")
        self.rate = float(rate)
        self.seed = seed
        self._own_generator = None if seed is None else np.random.default_rng(seed)

    def forward(self, x: FloatArray, training: bool = False) -> FloatArray:
        if not training:
            return x
        self._mask_seed = room(x).number(self.next_seed)
        out: FloatArray = functional.dropout(x, self.rate, seed=self._mask_seed)
        return out

    def backward(self, grad_out: FloatArray, need_grad_x: bool = True) -> FloatArray:
        # The same seed drops the same positions and scales by the same factor.
        grad_x: FloatArray = functional.dropout(grad_out, self.rate, seed=self._mask_seed)
        return grad_x

    def next_seed(self) -> int:
        """The seed of the choices of one training step."""
        self.generator = self._own_generator or self.generator or new_generator()
        return int(self.generator.integers(_SEED_END))


class SpatialDropout2D(Dropout, ImageLayer):
    """While training, set a random share of the channels of each image to zero and scale the others.

    Neighbouring pixels of a channel say much the same, so that dropping one of them hides little.

    Images (N, H, W, C) keep their shape.

    Parameters
    ----------
    rate : float
        Share of the channels to drop, at least 0 and below 1.
    data_format : {"channels_last", "channels_first"}, optional
        Order of the axes of input and output.
    seed, **kwargs
        As in `Dropout`.

    Raises
    ------
    ValueError
        If *rate* is not from 0 to below 1, or an input is no batch of images.

    References
    ----------
    J. Tompson et al., "Efficient object localization using convolutional networks", CVPR 2015.

    Examples
    --------
    >>> SpatialDropout2D(0.2).compute_output_shape((None, 14, 14, 32))
    (None, 14, 14, 32)
    """

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        self.nhwc(input_shape)
        return input_shape

    def forward(self, x: FloatArray, training: bool = False) -> FloatArray:
        if not training:
            return x
        channels = self.nhwc(x.shape)[3]
        ones = np.ones_like(x, shape=(len(x), 1, 1, channels))
        self._factors = self.leave(functional.dropout(ones, self.rate, seed=room(x).number(self.next_seed)))
        out: FloatArray = x * self._factors
        return out

    def backward(self, grad_out: FloatArray, need_grad_x: bool = True) -> FloatArray:
        grad_x: FloatArray = grad_out * self._factors
        return grad_x
