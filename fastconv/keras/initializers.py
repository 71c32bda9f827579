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

_MODES = ("fan_in", "fan_out", "fan_avg")
_DISTRIBUTIONS = ("truncated_normal", "untruncated_normal", "uniform")


def fans(shape: tuple[int, ...]) -> tuple[float, float]:
    """Inputs and outputs of one unit: the last two extents of a weight, times the size of the window."""
    if len(shape) < 2:
        return math.prod(shape), math.prod(shape)
    window = math.prod(shape[:-2])
    return shape[-2] * window, shape[-1] * window


class Initializer:
    """Makes an array of a given shape; *seed* makes it the same array each time.

    A call with a shape gives an array of that shape.

    Parameters
    ----------
    seed : int, optional
        Makes it the same array each time; otherwise the model's generator is used.

    Raises
    ------
    NotImplementedError
        If a subclass does not say how to `draw`.

    Examples
    --------
    >>> class Diagonal(Initializer):
    ...     def draw(self, shape, generator):
    ...         return np.eye(*shape)
    >>> Diagonal()((2, 2))
    array([[1., 0.],
           [0., 1.]], dtype=float32)
    """

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


class RandomUniform(Initializer):
    """Uniform between *minval* and *maxval*.

    Parameters
    ----------
    minval, maxval : float
        The range.
    seed : int, optional
        Makes it the same array each time; otherwise the model's generator is used.

    Examples
    --------
    >>> RandomUniform(-1, 1, seed=0)((2, 3)).shape
    (2, 3)
    """

    def __init__(self, minval: float = -0.05, maxval: float = 0.05, seed: int | None = None) -> None:
        super().__init__(seed)
        self.minval, self.maxval = float(minval), float(maxval)

    def draw(self, shape: tuple[int, ...], generator: np.random.Generator) -> FloatArray:
        return generator.uniform(self.minval, self.maxval, shape)

    def get_config(self) -> dict[str, Any]:
        return {"minval": self.minval, "maxval": self.maxval, "seed": self.seed}


class RandomNormal(Initializer):
    """Normal with this mean and standard deviation.

    Parameters
    ----------
    mean, stddev : float
        Of the distribution.
    seed : int, optional
        Makes it the same array each time; otherwise the model's generator is used.

    Examples
    --------
    >>> RandomNormal(stddev=0.1, seed=0)((2, 3)).shape
    (2, 3)
    """

    def __init__(self, mean: float = 0.0, stddev: float = 0.05, seed: int | None = None) -> None:
        super().__init__(seed)
        self.mean, self.stddev = float(mean), float(stddev)

    def draw(self, shape: tuple[int, ...], generator: np.random.Generator) -> FloatArray:
        return self.mean + self.stddev * generator.standard_normal(shape)

    def get_config(self) -> dict[str, Any]:
        return {"mean": self.mean, "stddev": self.stddev, "seed": self.seed}


class TruncatedNormal(RandomNormal):
    """Normal, drawn again where it is more than two standard deviations away from the mean.

    Parameters
    ----------
    mean, stddev : float
        Of the distribution.
    seed : int, optional
        Makes it the same array each time; otherwise the model's generator is used.

    Examples
    --------
    >>> TruncatedNormal(stddev=0.1, seed=0)((2, 3)).shape
    (2, 3)
    """

    def draw(self, shape: tuple[int, ...], generator: np.random.Generator) -> FloatArray:
        return self.mean + self.stddev * _cut_normal(shape, generator)


class VarianceScaling(Initializer):
    """Mean 0 and variance ``scale / fan``, so that signals keep their size from layer to layer.

    The fan of a kernel of shape (KH, KW, IC, OC) is ``KH * KW * IC`` inputs and ``KH * KW * OC`` outputs.

    Parameters
    ----------
    scale : float
        Above 0.
    mode : {"fan_in", "fan_out", "fan_avg"}
        The fan: inputs of a unit, its outputs, or the average of the two.
    distribution : {"truncated_normal", "untruncated_normal", "uniform"}
        ``"truncated_normal"`` is cut off at two standard deviations before it is scaled.

    Raises
    ------
    ValueError
        If *scale* is not above 0, or a word is none of these.

    Examples
    --------
    >>> VarianceScaling(2.0, "fan_out", seed=0)((3, 3, 4, 6)).shape
    (3, 3, 4, 6)
    """

    def __init__(
        self,
        scale: float = 1.0,
        mode: str = "fan_in",
        distribution: str = "truncated_normal",
        seed: int | None = None,
    ) -> None:
        super().__init__(seed)
        if not scale > 0:
            raise ValueError(f"scale must be above 0. Received: scale={scale!r}")
        for name, value, known in (("mode", mode, _MODES), ("distribution", distribution, _DISTRIBUTIONS)):
            if value not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}. Received: {name}={value!r}")
        self.scale, self.mode, self.distribution = float(scale), mode, distribution

    def draw(self, shape: tuple[int, ...], generator: np.random.Generator) -> FloatArray:
        fan_in, fan_out = fans(shape)
        fan = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}[self.mode]
        variance = self.scale / max(1.0, fan)
        if self.distribution == "uniform":
            limit = math.sqrt(3 * variance)
            return generator.uniform(-limit, limit, shape)
        if self.distribution == "untruncated_normal":
            return math.sqrt(variance) * generator.standard_normal(shape)
        return math.sqrt(variance) / _STDDEV_OF_CUT_NORMAL * _cut_normal(shape, generator)

    def get_config(self) -> dict[str, Any]:
        return {"scale": self.scale, "mode": self.mode, "distribution": self.distribution, "seed": self.seed}


class _Scaled(VarianceScaling):
    """A variance scaling with a name of its own."""

    arguments: tuple[float, str, str]

    def __init__(self, seed: int | None = None) -> None:
        super().__init__(*self.arguments, seed=seed)

    def get_config(self) -> dict[str, Any]:
        return {"seed": self.seed}


class GlorotUniform(_Scaled):
    """Uniform between -l and l, ``l = sqrt(6 / (fan_in + fan_out))``.

    Fans are those of `VarianceScaling`.

    Parameters
    ----------
    seed : int, optional
        Makes it the same array each time; otherwise the model's generator is used.

    References
    ----------
    X. Glorot, Y. Bengio, "Understanding the difficulty of training deep feedforward neural networks", AISTATS 2010.

    Examples
    --------
    >>> GlorotUniform(seed=0)((3, 3, 4, 6)).shape
    (3, 3, 4, 6)
    """

    arguments = 1.0, "fan_avg", "uniform"


class GlorotNormal(_Scaled):
    """Truncated normal with variance ``2 / (fan_in + fan_out)``; see `GlorotUniform`.

    Fans are those of `VarianceScaling`.

    Parameters
    ----------
    seed : int, optional
        Makes it the same array each time; otherwise the model's generator is used.

    Examples
    --------
    >>> GlorotNormal(seed=0)((3, 3, 4, 6)).shape
    (3, 3, 4, 6)
    """

    arguments = 1.0, "fan_avg", "truncated_normal"


class HeNormal(_Scaled):
    """Truncated normal with variance ``2 / fan_in``.

    Fans are those of `VarianceScaling`.

    Parameters
    ----------
    seed : int, optional
        Makes it the same array each time; otherwise the model's generator is used.

    References
    ----------
    K. He et al., "Delving deep into rectifiers", ICCV 2015.

    Examples
    --------
    >>> HeNormal(seed=0)((3, 3, 4, 6)).shape
    (3, 3, 4, 6)
    """

    arguments = 2.0, "fan_in", "truncated_normal"


class HeUniform(_Scaled):
    """Uniform with variance ``2 / fan_in``; see `HeNormal`.

    Fans are those of `VarianceScaling`.

    Parameters
    ----------
    seed : int, optional
        Makes it the same array each time; otherwise the model's generator is used.

    Examples
    --------
    >>> HeUniform(seed=0)((3, 3, 4, 6)).shape
    (3, 3, 4, 6)
    """

    arguments = 2.0, "fan_in", "uniform"


class LecunNormal(_Scaled):
    """Truncated normal with variance ``1 / fan_in``.

    Fans are those of `VarianceScaling`.

    Parameters
    ----------
    seed : int, optional
        Makes it the same array each time; otherwise the model's generator is used.

    References
    ----------
    Y. LeCun et al., "Efficient backprop", in Neural Networks: Tricks of the Trade, 1998.

    Examples
    --------
    >>> LecunNormal(seed=0)((3, 3, 4, 6)).shape
    (3, 3, 4, 6)
    """

    arguments = 1.0, "fan_in", "truncated_normal"


class LecunUniform(_Scaled):
    """Uniform with variance ``1 / fan_in``; see `LecunNormal`.

    Fans are those of `VarianceScaling`.

    Parameters
    ----------
    seed : int, optional
        Makes it the same array each time; otherwise the model's generator is used.

    Examples
    --------
    >>> LecunUniform(seed=0)((3, 3, 4, 6)).shape
    (3, 3, 4, 6)
    """

    arguments = 1.0, "fan_in", "uniform"


class Constant(Initializer):
    """One value everywhere.

    Parameters
    ----------
    value : float
        The value.

    Raises
    ------
    TypeError
        If *value* is no number.

    Examples
    --------
    >>> Constant(0.5)((2,))
    array([0.5, 0.5], dtype=float32)
    """

    def __init__(self, value: float = 0.0) -> None:
        super().__init__()
        self.value = float(value)

    def draw(self, shape: tuple[int, ...], generator: np.random.Generator) -> FloatArray:
        return np.full(shape, self.value)

    def get_config(self) -> dict[str, Any]:
        return {"value": self.value}


class Zeros(Initializer):
    """All zero.

    Examples
    --------
    >>> Zeros()((2,))
    array([0., 0.], dtype=float32)
    """

    def __init__(self) -> None:
        super().__init__()

    def draw(self, shape: tuple[int, ...], generator: np.random.Generator) -> FloatArray:
        return np.zeros(shape)

    def get_config(self) -> dict[str, Any]:
        return {}


class Ones(Zeros):
    """All one.

    Examples
    --------
    >>> Ones()((2,))
    array([1., 1.], dtype=float32)
    """

    def draw(self, shape: tuple[int, ...], generator: np.random.Generator) -> FloatArray:
        return np.ones(shape)


def _cut_normal(shape: tuple[int, ...], generator: np.random.Generator) -> FloatArray:
    """Standard normal numbers, those beyond the cut drawn again."""
    values = generator.standard_normal(shape)
    while (outside := np.abs(values) > _CUT_OFF).any():
        values[outside] = generator.standard_normal(np.count_nonzero(outside))
    return values


# Keras's other names.
constant, ones, zeros = Constant, Ones, Zeros
glorot_normal, glorot_uniform = GlorotNormal, GlorotUniform
he_normal, he_uniform = HeNormal, HeUniform
lecun_normal, lecun_uniform = LecunNormal, LecunUniform
random_normal, random_uniform, truncated_normal = RandomNormal, RandomUniform, TruncatedNormal
variance_scaling = VarianceScaling

_REGISTRY: dict[str, type[Initializer]] = {
    "constant": Constant,
    "glorot_normal": GlorotNormal,
    "glorot_uniform": GlorotUniform,
    "he_normal": HeNormal,
    "he_uniform": HeUniform,
    "lecun_normal": LecunNormal,
    "lecun_uniform": LecunUniform,
    "ones": Ones,
    "random_normal": RandomNormal,
    "random_uniform": RandomUniform,
    "truncated_normal": TruncatedNormal,
    "variance_scaling": VarianceScaling,
    "zeros": Zeros,
}
_REGISTRY |= {cls.__name__: cls for cls in _REGISTRY.values()}


def get(identifier: Any) -> Initializer:
    """The initializer that a name, a configuration or an initializer stands for."""
    initializer: Initializer = named("initializer", identifier, _REGISTRY, Initializer)
    return initializer
