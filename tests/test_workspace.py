"""No algorithm needs more than 8 MB of memory of its own for each thread, whatever the layer."""

import numpy as np
import pytest

from fastconv.bench import problems
from fastconv.dispatch import CONV2D
from fastconv.geometry import Conv2dGeometry
from fastconv.memory import scratch

LIMIT = 8 << 20
NETWORKS = [name for name in problems.networks() if name != "pool"]


@pytest.mark.parametrize("network", NETWORKS)
def test_the_memory_of_a_thread_is_bounded(network):
    for layer in problems.layers([network], batch=128):
        assert isinstance(layer.geometry, Conv2dGeometry)
        for algorithm in CONV2D:
            if algorithm.name != "reference" and algorithm.refuses(layer.geometry, 4) is None:
                assert algorithm.workspace(layer.geometry, 4) <= LIMIT, f"{algorithm.name}: {layer.geometry}"


def test_memory_is_kept_between_calls_and_grows():
    first = scratch(100, np.float32)
    assert (first.size, first.dtype, first.ctypes.data % 64) == (100, np.float32, 0)
    assert np.shares_memory(scratch(50, np.float64), first)
    assert scratch(1000, np.float32).size == 1000
