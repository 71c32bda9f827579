"""Activations, softmax cross-entropy, batch normalisation, dropout and optimizer steps, as their formulas read."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

_erfc = np.vectorize(math.erfc, otypes=[float])


def _sigmoid(x: Any) -> Any:
    return np.exp(-np.logaddexp(0, -x))


def _normal_cdf(x: Any) -> Any:
    return _erfc(-x / math.sqrt(2)) / 2


def _normal_density(x: Any) -> Any:
    return np.exp(-x * x / 2) / math.sqrt(2 * math.pi)


def _sigmoid_slope(x: Any) -> Any:
    return _sigmoid(x) * _sigmoid(-x)


#: Name -> function.
ACTIVATION: dict[str, Callable[[Any], Any]] = {
    "linear": lambda x: x,
    "relu": lambda x: np.maximum(x, 0),
    "relu6": lambda x: np.clip(x, 0, 6),
    "leaky_relu": lambda x: np.where(x < 0, 0.2 * x, x),
    "sigmoid": _sigmoid,
    "tanh": np.tanh,
    "silu": lambda x: x * _sigmoid(x),
    "gelu": lambda x: x * _normal_cdf(x),
}

#: Name -> derivative.
SLOPE: dict[str, Callable[[Any], Any]] = {
    "linear": np.ones_like,
    "relu": lambda x: np.where(x > 0, 1.0, 0.0),
    "relu6": lambda x: np.where((x > 0) & (x < 6), 1.0, 0.0),
    "leaky_relu": lambda x: np.where(x > 0, 1.0, 0.2),
    "sigmoid": _sigmoid_slope,
    "tanh": lambda x: 1 / np.cosh(x) ** 2,
    "silu": lambda x: _sigmoid(x) + x * _sigmoid_slope(x),
    "gelu": lambda x: _normal_cdf(x) + x * _normal_density(x),
}


def softmax(x: Any) -> Any:
    """Over the last axis."""
    powers = np.exp(x - x.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def softmax_cross_entropy(logits: Any, target: Any) -> Any:
    """``-sum(target * log(softmax(logits)))`` for each row; *target* is a distribution."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return -(target * (shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))).sum(axis=-1)


def batch_norm(x: Any, gamma: Any, beta: Any, epsilon: float) -> Any:
    """With the statistics of the batch, over all axes but the last."""
    axes = tuple(range(x.ndim - 1))
    return gamma * (x - x.mean(axis=axes)) / np.sqrt(x.var(axis=axes) + epsilon) + beta


def philox_words(count: int, seed: int) -> list[int]:
    """The first *count* 32-bit words of Philox-4x32-10 with counters 0, 1, 2 ... and *seed* as its key."""
    words: list[int] = []
    low = 2**32 - 1
    for number in range(-(-count // 4)):
        a, b, c, d = number & low, number >> 32, 0, 0
        key_0, key_1 = seed & low, seed >> 32
        for _ in range(10):
            first, second = 0xD2511F53 * a, 0xCD9E8D57 * c
            a, b, c, d = (second >> 32) ^ b ^ key_0, second & low, (first >> 32) ^ d ^ key_1, first & low
            key_0, key_1 = (key_0 + 0x9E3779B9) & low, (key_1 + 0xBB67AE85) & low
        words += [a, b, c, d]
    return words[:count]


def dropout(x: Any, rate: float, seed: int) -> Any:
    """Element i stays where word i of the generator is at least ``rate * 2**32``."""
    words = np.array(philox_words(x.size, seed)).reshape(x.shape)
    return np.where(words >= int(rate * 2**32), x / (1 - rate), 0)


def adam_step(
    state: tuple[Any, Any, Any],
    gradient: Any,
    t: int,
    learning_rate: float,
    beta_1: float,
    beta_2: float,
    epsilon: float,
) -> tuple[Any, Any, Any]:
    """(parameter, mean, square) after step *t*."""
    parameter, mean, square = state
    mean = beta_1 * mean + (1 - beta_1) * gradient
    square = beta_2 * square + (1 - beta_2) * gradient**2
    rate = learning_rate * math.sqrt(1 - beta_2**t) / (1 - beta_1**t)
    return parameter - rate * mean / (np.sqrt(square) + epsilon), mean, square


def sgd_step(
    parameter: Any, velocity: Any, gradient: Any, learning_rate: float, momentum: float, nesterov: bool
) -> tuple[Any, Any]:
    """(parameter, velocity) after a step."""
    velocity = momentum * velocity - learning_rate * gradient
    step = momentum * velocity - learning_rate * gradient if nesterov else velocity
    return parameter + step, velocity
