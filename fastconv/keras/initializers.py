"""How the weights of a new layer are drawn."""

from __future__ import annotations

import math
from typing import Any, Self

import numpy as np
from numpy.typing import DTypeLike

from fastconv.arrays import FloatArray
from fastconv.keras.utils import named, new_generator

# A normal distribution cut off at two standard deviations has this standard deviation.
_CUT_OFF = 2.0
_STDDEV_OF_CUT_NORMAL = 0.87962566103423978


def fans(shape: tuple[int, ...]) -> tuple[float, float]:
    """Inputs and outputs of one unit: the last two extents of a weight, times the size of the window."""
    window = math.prod(shape[:-2])
    return shape[-2] * window, shape[-1] * window


class Initializer:
    """Makes an array of a given shape; *seed* makes it the same array each time."""

    def __init__(self, seed: int | None = None) -> None:
        self.seed = seed

    def __call__(
        self, shape: tuple[int, ...], dtype: DTypeLike = np.float32, generator: np.random.Generator | None = None
    ) -> FloatArray:
        """A new array of *shape*, drawn from the initializer's own seed where it has one, else from *generator*."""
        if self.seed is not None:
            generator = np.random.default_rng(self.seed)
        return self.draw(shape, generator or new_generator()).astype(dtype)

    def draw(self, shape: tuple[int, ...], generator: np.random.Generator) -> FloatArray:
        """The values, in float64."""
        raise NotImplementedError

    def get_config(self) -> dict[str, Any]:
        """The arguments that make this initializer again."""
        return {"seed": self.seed}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """The initializer with this configuration."""
        return cls(**config)


class GlorotUniform(Initializer):
    """Uniform between -l and l, ``l = sqrt(6 / (fan_in + fan_out))``.

    References
    ----------
    X. Glorot, Y. Bengio, "Understanding the difficulty of training deep feedforward neural networks", AISTATS 2010.
    """

    def draw(self, shape: tuple[int, ...], generator: np.random.Generator) -> FloatArray:
        limit = math.sqrt(6 / sum(fans(shape)))
        return generator.uniform(-limit, limit, shape)


class HeNormal(Initializer):
    """Normal with standard deviation ``sqrt(2 / fan_in)``, cut off at two standard deviations before the scaling.

    References
    ----------
    K. He et al., "Delving deep into rectifiers", ICCV 2015.
    """

    def draw(self, shape: tuple[int, ...], generator: np.random.Generator) -> FloatArray:
        values = generator.standard_normal(shape)
        while (outside := np.abs(values) > _CUT_OFF).any():
            values[outside] = generator.standard_normal(np.count_nonzero(outside))
        return values * (math.sqrt(2 / fans(shape)[0]) / _STDDEV_OF_CUT_NORMAL)


class Zeros(Initializer):
    """All zero."""

    def __init__(self) -> None:
        super().__init__()

    def draw(self, shape: tuple[int, ...], generator: np.random.Generator) -> FloatArray:
        return np.zeros(shape)

    def get_config(self) -> dict[str, Any]:
        return {}


class Ones(Zeros):
    """All one."""

    def draw(self, shape: tuple[int, ...], generator: np.random.Generator) -> FloatArray:
        return np.ones(shape)


_REGISTRY: dict[str, type[Initializer]] = {
    "glorot_uniform": GlorotUniform,
    "he_normal": HeNormal,
    "zeros": Zeros,
    "ones": Ones,
}
_REGISTRY |= {cls.__name__: cls for cls in _REGISTRY.values()}


def get(identifier: Any) -> Initializer:
    """The initializer that a name, a configuration or an initializer stands for."""
    initializer: Initializer = named("initializer", identifier, _REGISTRY, Initializer)
    return initializer
