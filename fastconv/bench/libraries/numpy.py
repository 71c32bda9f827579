"""NumPy: every way of `numpy_conv`, `numpy_taps` and `numpy_pool`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastconv.bench.libraries import Contender, Library, Prepare, numpy_conv, numpy_pool, numpy_taps, with_all


def _numpy(prepare: Callable[[Any], numpy_conv.Compute]) -> Prepare:
    return lambda problem, threads: Contender(prepare(problem))


VARIANTS = {
    ("conv2d", "forward"): {
        "columns": _numpy(numpy_conv.forward_columns),
        "taps": _numpy(numpy_taps.forward),
        "windows": _numpy(numpy_conv.forward_windows),
    },
    ("conv2d", "grad_x"): {
        "columns": _numpy(numpy_conv.grad_x_columns),
        "taps": _numpy(numpy_taps.grad_x),
        "windows": _numpy(numpy_conv.grad_x_windows),
    },
    ("conv2d", "grad_weight"): {
        "columns": _numpy(numpy_conv.grad_weight_columns),
        "taps": _numpy(numpy_taps.grad_weight),
        "windows": _numpy(numpy_conv.grad_weight_windows),
    },
    ("max_pool2d", "forward"): {"positions": _numpy(numpy_pool.max_forward)},
    ("max_pool2d", "grad_x"): {"positions": _numpy(numpy_pool.max_grad_x)},
    ("average_pool2d", "forward"): {"positions": _numpy(numpy_pool.average_forward)},
    ("average_pool2d", "grad_x"): {"positions": _numpy(numpy_pool.average_grad_x)},
    ("global_average_pool2d", "forward"): {"mean": _numpy(numpy_pool.global_forward)},
    ("global_average_pool2d", "grad_x"): {"mean": _numpy(numpy_pool.global_grad_x)},
}

LIBRARY = Library(("numpy",), with_all(VARIANTS))
