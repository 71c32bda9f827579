"""Batch normalization."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv import functional
from fastconv.arrays import FloatArray
from fastconv.keras import initializers, regularizers
from fastconv.keras.layers.base import Layer, Shape
from fastconv.keras.layers.images import with_axis_moved


class BatchNormalization(Layer):
    """Each channel with mean 0 and variance 1 over the batch, then scaled by gamma and shifted by beta.

    While training the statistics are the batch's own, and running averages of them are kept,
    ``moving = momentum * moving + (1 - momentum) * batch``; otherwise those averages are used.

    Arrays of any shape keep it.

    Parameters
    ----------
    axis : int
        Axis of the channels.
    momentum : float
        How slowly the running averages change.
    epsilon : float
        Added to the variance.
    center, scale : bool
        Whether there are a beta and a gamma.
    beta_initializer, gamma_initializer, moving_mean_initializer, moving_variance_initializer : str or Initializer
        How the weights are drawn.
    beta_regularizer, gamma_regularizer : str or Regularizer, optional
        As in `Conv2D`.
    **kwargs
        ``name``, ``trainable``, ``dtype``, ``input_shape``.

    Raises
    ------
    ValueError
        If *axis* is not one of known extent behind the batch axis.

    References
    ----------
    S. Ioffe, C. Szegedy, "Batch normalization: accelerating deep network training by reducing internal covariate
    shift", ICML 2015.

    Examples
    --------
    >>> layer = BatchNormalization()
    >>> layer.build((None, 14, 14, 32))
    >>> layer.count_params(), len(layer.trainable_weights)
    (128, 2)
    """

    def __init__(
        self,
        axis: int = -1,
        momentum: float = 0.99,
        epsilon: float = 1e-3,
        center: bool = True,
        scale: bool = True,
        beta_initializer: Any = "zeros",
        gamma_initializer: Any = "ones",
        moving_mean_initializer: Any = "zeros",
        moving_variance_initializer: Any = "ones",
        beta_regularizer: Any = None,
        gamma_regularizer: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.axis = axis
        self.momentum = float(momentum)
        self.epsilon = float(epsilon)
        self.center = center
        self.scale = scale
        self.beta_initializer = initializers.get(beta_initializer)
        self.gamma_initializer = initializers.get(gamma_initializer)
        self.moving_mean_initializer = initializers.get(moving_mean_initializer)
        self.moving_variance_initializer = initializers.get(moving_variance_initializer)
        self.beta_regularizer = regularizers.get(beta_regularizer)
        self.gamma_regularizer = regularizers.get(gamma_regularizer)

    def build(self, input_shape: Shape) -> None:
        super().build(input_shape)
        shape = (input_shape[self.axis] or 0,)
        self.gamma = self.beta = None
        if self.scale:
            self.gamma = self.add_weight("gamma", shape, self.gamma_initializer, regularizer=self.gamma_regularizer)
        if self.center:
            self.beta = self.add_weight("beta", shape, self.beta_initializer, regularizer=self.beta_regularizer)
        self.moving_mean = self.add_weight("moving_mean", shape, self.moving_mean_initializer, trainable=False)
        self.moving_variance = self.add_weight(
            "moving_variance", shape, self.moving_variance_initializer, trainable=False
        )

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        if not -len(input_shape) < self.axis < len(input_shape) or not self.axis or not input_shape[self.axis]:
            raise ValueError(
                f"axis must be an axis of known extent behind the batch axis. "
                f"Received: axis={self.axis}, input_shape={input_shape}"
            )
        return input_shape

    def forward(self, x: FloatArray, training: bool = False) -> FloatArray:
        x = with_axis_moved(x, self.axis, -1)
        gamma, beta = self._gamma_and_beta(x)
        if training and self.trainable:
            out, mean, variance = functional.batch_norm_training(x, gamma, beta, epsilon=self.epsilon)
            if len(x):
                for moving, batch in ((self.moving_mean, mean), (self.moving_variance, variance)):
                    with moving.changing() as average:
                        average *= self.momentum
                        average += (1 - self.momentum) * batch
        else:
            mean, variance = self.moving_mean.array, self.moving_variance.array
            out = functional.batch_norm(x, gamma, beta, mean, variance, epsilon=self.epsilon)
        if training:
            self._saved = x, mean, variance
        return with_axis_moved(out, -1, self.axis)

    def backward(self, grad_out: FloatArray, need_grad_x: bool = True) -> FloatArray:
        grad_out = with_axis_moved(grad_out, self.axis, -1)
        x, mean, variance = self._saved
        gamma, _ = self._gamma_and_beta(x)
        if not self.trainable:  # fixed statistics: a scaling, and no weights to learn
            nothing = np.zeros_like(mean)
            grad_x = functional.batch_norm(grad_out, gamma, nothing, nothing, variance, epsilon=self.epsilon)
            return with_axis_moved(grad_x, -1, self.axis)
        grad_x, grad_gamma, grad_beta = functional.batch_norm_backward(
            grad_out, x, gamma, mean, variance, epsilon=self.epsilon
        )
        if self.gamma:
            self.gamma.gradient = grad_gamma
        if self.beta:
            self.beta.gradient = grad_beta
        return with_axis_moved(grad_x, -1, self.axis)

    def _gamma_and_beta(self, x: FloatArray) -> tuple[FloatArray, FloatArray]:
        channels = x.shape[-1]
        gamma = self.gamma.array if self.gamma else np.ones_like(x, shape=channels)
        beta = self.beta.array if self.beta else np.zeros_like(x, shape=channels)
        return gamma, beta
