"""The accuracy tables measure what they say."""

from __future__ import annotations

import accuracy
import numpy as np
import pytest

from fastconv import dispatch
from fastconv.geometry import conv2d_geometry

LAYER = conv2d_geometry((1, 16, 15, 19), (3, 3, 19, 17), padding=1)


@pytest.mark.parametrize("make", accuracy.DATA)
def test_errors_are_those_of_float32(make):
    x, weight = make(LAYER, np.random.default_rng(0))
    assert (x.shape, weight.shape) == (LAYER.x_shape, LAYER.weight_shape)
    found = dict(zip(accuracy.ALGORITHMS, accuracy.errors(LAYER, x, weight), strict=True))
    assert found["direct"] < 1e-6
    assert 0 < found["winograd"] < 2e-5


def test_winograd_is_away_only_inside():
    def chosen() -> str:
        return dispatch.choose("conv2d_forward", LAYER, 4, "auto").__module__

    assert chosen() == "fastconv.cpu.conv_winograd"
    with accuracy.without_winograd():
        assert chosen() == "fastconv.cpu.conv_direct"
    assert chosen() == "fastconv.cpu.conv_winograd"
