"""The layer that drops numbers while training."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv import functional
from fastconv.arrays import FloatArray
from fastconv.keras.layers.base import Layer
from fastconv.keras.utils import new_generator

_SEED_END = 2**63


class Dropout(Layer):
    """While training, set a random share of the numbers to zero and scale the others by ``1 / (1 - rate)``.

    Parameters
    ----------
    rate : float
        Share of the numbers to drop, at least 0 and below 1.
    seed : int, optional
        Makes the layer's choices the same in every run; otherwise they follow the model's generator.
    **kwargs
        ``name``, ``trainable``, ``dtype``, ``input_shape``.

    References
    ----------
    N. Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting", JMLR 15, 2014.
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
        self.generator = self._own_generator or self.generator or new_generator()
        self._mask_seed = int(self.generator.integers(_SEED_END))
        out: FloatArray = functional.dropout(x, self.rate, seed=self._mask_seed)
        return out

    def backward(self, grad_out: FloatArray, need_grad_x: bool = True) -> FloatArray:
        # The same seed drops the same positions and scales by the same factor.
        grad_x: FloatArray = functional.dropout(grad_out, self.rate, seed=self._mask_seed)
        return grad_x
