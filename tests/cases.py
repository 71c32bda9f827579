"""The convolution problems that tests and benches share, and the data for them.

Extents are odd primes where they can be and never square only, so that two exchanged extents show.  Each family has a
plain member, one whose channels do not fill a vector, and one whose last tile of pixels is not full.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import DTypeLike, NDArray

from fastconv.dispatch import CONV2D
from fastconv.geometry import Conv2dGeometry, IntOrPair, Padding, conv2d_geometry


@dataclass(frozen=True)
class ConvCase:
    """A convolution of x (N, IH, IW, IC) with weight (KH, KW, IC / groups, OC)."""

    name: str
    x_shape: tuple[int, int, int, int]
    weight_shape: tuple[int, int, int, int]
    stride: IntOrPair = 1
    padding: Padding = 0
    dilation: IntOrPair = 1
    groups: int = 1

    @property
    def options(self) -> dict[str, Any]:
        """The keyword arguments of `conv2d`."""
        return {"stride": self.stride, "padding": self.padding, "dilation": self.dilation, "groups": self.groups}

    @property
    def geometry(self) -> Conv2dGeometry:
        return conv2d_geometry(self.x_shape, self.weight_shape, **self.options)

    def __str__(self) -> str:
        return self.name


CASES = (
    ConvCase("plain", (2, 13, 11, 32), (3, 3, 32, 32), padding=1),
    ConvCase("channel tail", (2, 7, 13, 17), (3, 3, 17, 37), padding=1),
    ConvCase("strided tail", (1, 17, 23, 19), (3, 3, 19, 33), stride=2, padding=1),
    ConvCase("no padding", (3, 11, 7, 5), (3, 2, 5, 7)),
    ConvCase("one pixel", (3, 1, 1, 7), (1, 1, 7, 11)),
    ConvCase("one channel in and out", (2, 7, 5, 1), (3, 3, 1, 1), padding="same"),
    ConvCase("first layer, grey", (3, 29, 31, 1), (5, 5, 1, 16), padding=2),
    ConvCase("first layer, colour", (2, 37, 41, 3), (7, 7, 3, 24), stride=2, padding=3),
    ConvCase("few outputs", (2, 23, 36, 7), (5, 5, 7, 3), padding=2),
    ConvCase("few channels in and out", (2, 29, 36, 3), (3, 5, 3, 4), padding=(1, 2)),
    ConvCase("few outputs, strided", (3, 37, 81, 3), (3, 5, 3, 2), stride=2, padding=1),
    ConvCase("10 outputs", (3, 7, 5, 48), (1, 1, 48, 10)),
    ConvCase("1x1", (2, 17, 13, 64), (1, 1, 64, 48)),
    ConvCase("1x1 strided", (2, 13, 17, 23), (1, 1, 23, 29), stride=2),
    ConvCase("1x1 strided over one column", (2, 11, 1, 5), (1, 1, 5, 6), stride=(1, 3)),
    ConvCase("1x1 padded", (1, 5, 7, 8), (1, 1, 8, 9), padding=(1, 2)),
    ConvCase("grouped", (2, 9, 11, 24), (3, 3, 8, 36), padding=1, groups=3),
    ConvCase("grouped, strided tail", (1, 13, 11, 35), (3, 3, 5, 21), stride=2, padding=(1, 0), groups=7),
    ConvCase("two channels a group", (2, 7, 11, 6), (2, 3, 2, 3), groups=3),
    ConvCase("depthwise", (2, 13, 11, 32), (3, 3, 1, 32), padding=1, groups=32),
    ConvCase("depthwise channel tail", (2, 11, 29, 19), (5, 3, 1, 19), padding="same", groups=19),
    ConvCase("depthwise strided", (2, 13, 17, 67), (3, 3, 1, 67), stride=(2, 3), padding=1, groups=67),
    ConvCase("depthwise 5x5", (1, 9, 23, 37), (5, 5, 1, 37), padding=2, groups=37),
    ConvCase("depthwise stride 2", (2, 11, 27, 33), (3, 3, 1, 33), stride=2, padding=1, groups=33),
    ConvCase("depthwise dilated", (1, 23, 19, 7), (3, 2, 1, 7), padding=(2, 3), dilation=(3, 2), groups=7),
    ConvCase("depthwise multiplier", (2, 11, 7, 5), (3, 3, 1, 15), stride=2, padding=1, groups=5),
    ConvCase("depthwise stride larger than kernel", (1, 17, 11, 9), (1, 2, 1, 9), stride=(3, 5), groups=9),
    ConvCase("depthwise over blocks of channels", (1, 3, 5, 147), (3, 3, 1, 147), padding=1, groups=147),
    ConvCase("dilated", (1, 19, 23, 9), (3, 3, 9, 13), padding=2, dilation=2),
    # the last tile of depths, filled up, looks like one of neighbours if only its ends are compared
    ConvCase("dilated, two runs of two", (1, 1, 3, 2), (1, 2, 2, 1), padding=(0, 1), dilation=(1, 2)),
    ConvCase("dilated strided", (2, 19, 17, 5), (3, 2, 5, 11), stride=(2, 3), padding=(3, 2), dilation=(3, 2)),
    ConvCase("dilation shares a factor with stride", (1, 23, 29, 3), (3, 3, 3, 5), stride=(4, 2), dilation=(2, 6)),
    ConvCase("asymmetric padding", (2, 7, 11, 6), (3, 4, 6, 8), padding=((0, 2), (3, 1))),
    ConvCase("padding larger than kernel", (1, 3, 5, 4), (2, 2, 4, 3), stride=3, padding=((5, 4), (3, 7))),
    ConvCase("same, even kernel, stride 2", (2, 11, 14, 7), (4, 2, 7, 5), stride=2, padding="same"),
    ConvCase("same lower, even kernel", (1, 5, 7, 3), (2, 4, 3, 5), padding="same_lower"),
    ConvCase("kernel as large as image", (3, 5, 7, 3), (5, 7, 3, 11)),
    ConvCase("kernel larger than image", (1, 3, 2, 5), (5, 7, 5, 3), padding=3),
    ConvCase("stride larger than kernel", (2, 17, 19, 5), (2, 3, 5, 7), stride=(3, 5)),
    ConvCase("stride larger than image", (2, 7, 5, 3), (3, 3, 3, 4), stride=11, padding=1),
    ConvCase("wide 1xK", (1, 3, 101, 5), (1, 17, 5, 7), padding=(0, 8)),
    ConvCase("tall Kx1", (1, 67, 3, 2), (31, 1, 2, 3), padding=(15, 0)),
    ConvCase("over one block of depth", (1, 7, 5, 43), (3, 3, 43, 13), padding=1),
    ConvCase("one more than a block of depth", (1, 5, 7, 193), (1, 1, 193, 5)),
    ConvCase("over one block of columns", (1, 5, 3, 7), (3, 3, 7, 293), padding=1),
    ConvCase("over one block of depth and columns", (1, 5, 7, 67), (2, 2, 67, 271)),
    ConvCase("patches too large for a strip", (1, 5, 83, 163), (3, 3, 163, 18), padding=1),
    ConvCase("over one block of pixels", (3, 11, 13, 5), (2, 2, 5, 9)),
    ConvCase("grad_weight over splits and chains", (5, 61, 59, 2), (2, 3, 2, 3), padding="same"),
)

# For Winograd: several blocks of tiles, of input and of output channels, with a rest of each.
WINOGRAD_CASES = (
    ConvCase("winograd, many tiles", (3, 29, 27, 19), (3, 3, 19, 37), padding=1),
    ConvCase("winograd, many channels", (1, 15, 11, 131), (3, 3, 131, 67), padding=((0, 2), (1, 0))),
    ConvCase("winograd, padding larger than kernel", (2, 5, 3, 16), (3, 3, 16, 8), padding=((4, 3), (0, 5))),
    ConvCase("winograd, one tile cut", (1, 3, 4, 17), (3, 3, 17, 16)),
    ConvCase("winograd, grad_x backwards", (3, 12, 8, 19), (3, 3, 19, 37), padding=((1, 0), (0, 0))),
    ConvCase("winograd, pieces", (2, 15, 16, 19), (6, 5, 19, 37), padding=2),
    ConvCase("winograd, short tiles and pieces", (2, 10, 9, 40), (7, 5, 40, 20), padding=(3, 2)),
    ConvCase("winograd, short pieces", (1, 6, 7, 16), (4, 5, 16, 4), padding=2),
    ConvCase("winograd, no long piece", (2, 13, 14, 32), (3, 3, 32, 20), stride=2, padding=1),
    ConvCase("winograd, dilated", (2, 15, 14, 32), (3, 3, 32, 33), padding=2, dilation=2),
    ConvCase("winograd, strided", (1, 87, 79, 3), (11, 11, 3, 37), stride=4, padding=((3, 4), (2, 0))),
    ConvCase("winograd, dilated pieces", (1, 22, 27, 32), (4, 7, 32, 35), padding=(5, 4), dilation=(3, 1)),
)
CASES += WINOGRAD_CASES

BY_NAME = {case.name: case for case in CASES}

#: Each case with each algorithm that takes it and keeps whole numbers exact, which Winograd does not.
ACCEPTED = [
    pytest.param(case, algorithm.name, id=f"{case}-{algorithm.name}")
    for case in CASES
    for algorithm in CONV2D
    if algorithm.name != "winograd" and algorithm.refuses(case.geometry, 4) is None
]


def integers(rng: np.random.Generator, shape: tuple[int, ...], dtype: DTypeLike = np.float32) -> NDArray[Any]:
    """Whole numbers from -3 to 3: every product and sum is exact, in any order, so results compare with ==."""
    return rng.integers(-3, 4, shape).astype(dtype)


@dataclass(frozen=True)
class ConvArrays:
    """Random operands of one convolution, and a random cotangent: one of ones would hide exchanged axes."""

    x: NDArray[Any]
    weight: NDArray[Any]
    bias: NDArray[Any]
    residual: NDArray[Any]
    grad_out: NDArray[Any]


def exact_arrays(geometry: Conv2dGeometry, dtype: DTypeLike = np.float32, seed: int = 0) -> ConvArrays:
    """Whole numbers."""
    g, rng = geometry, np.random.default_rng(seed)
    return ConvArrays(*(integers(rng, shape, dtype) for shape in _shapes(g)))


def normal_arrays(geometry: Conv2dGeometry, dtype: DTypeLike = np.float32, seed: int = 0) -> ConvArrays:
    """Normally distributed numbers."""
    g, rng = geometry, np.random.default_rng(seed)
    return ConvArrays(*(rng.normal(size=shape).astype(dtype) for shape in _shapes(g)))


def _shapes(geometry: Conv2dGeometry) -> tuple[tuple[int, ...], ...]:
    g = geometry
    return g.x_shape, g.weight_shape, (g.OC,), g.out_shape, g.out_shape


def exact_algorithm(geometry: Conv2dGeometry) -> str:
    """The algorithm that sums plain products, so that whole numbers stay exact; "auto" may take Winograd."""
    return "depthwise" if geometry.is_depthwise else "direct"


def assert_exact(actual: NDArray[Any], expected: NDArray[Any], geometry: Conv2dGeometry) -> None:
    """Equal in shape and every number; a failure names the problem so that it can be typed in again."""
    np.testing.assert_array_equal(actual, expected, err_msg=f"replay: {geometry}", strict=False)


def rounding(expected: NDArray[Any], length: int, dtype: DTypeLike = np.float32) -> float:
    """The documented size of a rounding error: ``eps * sqrt(length)`` of a typical result, a sum of *length* products.

    Times 4, because the test looks at the largest of many errors.
    """
    typical = float(np.sqrt(np.mean(np.square(expected))))
    return 4 * float(np.finfo(dtype).eps) * length**0.5 * typical
