"""Fast convolutions in readable Python: Numba kernels, forward and backward, and a small Keras-shaped layer API.

The operations on arrays are here, ``fastconv.conv2d`` and its kin; layers and models are in ``fastconv.keras``, the
functions of ``tf.nn`` in ``fastconv.nn``, each imported when it is first named, so that ``import fastconv as tf``
serves code written for TensorFlow.
"""

from importlib import import_module
from types import ModuleType

from fastconv._collector import collector_paused

with collector_paused():
    from fastconv import nopython as _nopython  # noqa: F401 - registers the functions with Numba
    from fastconv.dispatch import explain
    from fastconv.functional import (
        activation,
        activation_backward,
        adaptive_avg_pool2d,
        adaptive_avg_pool2d_backward,
        adaptive_max_pool2d,
        avg_pool1d,
        avg_pool1d_backward,
        avg_pool2d,
        avg_pool2d_backward,
        batch_norm,
        batch_norm_backward,
        batch_norm_training,
        conv1d,
        conv1d_backward,
        conv2d,
        conv2d_backward,
        conv2d_grad_bias,
        conv2d_grad_weight,
        conv2d_grad_x,
        conv_transpose2d,
        conv_transpose2d_backward,
        dense,
        dense_backward,
        dropout,
        gelu,
        global_avg_pool2d,
        global_avg_pool2d_backward,
        global_max_pool2d,
        leaky_relu,
        max_pool1d,
        max_pool2d,
        max_pool2d_backward,
        max_unpool2d,
        max_unpool2d_backward,
        min_pool2d,
        relu,
        relu6,
        sigmoid,
        silu,
        softmax,
        softmax_backward,
        softmax_cross_entropy,
        softmax_cross_entropy_backward,
        tanh,
        upsample2d,
        upsample2d_backward,
    )
    from fastconv.packed_weight import PackedWeight

__version__ = "0.1.0"

__all__ = [
    "PackedWeight",
    "activation",
    "activation_backward",
    "adaptive_avg_pool2d",
    "adaptive_avg_pool2d_backward",
    "adaptive_max_pool2d",
    "avg_pool1d",
    "avg_pool1d_backward",
    "avg_pool2d",
    "avg_pool2d_backward",
    "batch_norm",
    "batch_norm_backward",
    "batch_norm_training",
    "conv1d",
    "conv1d_backward",
    "conv2d",
    "conv2d_backward",
    "conv2d_grad_bias",
    "conv2d_grad_weight",
    "conv2d_grad_x",
    "conv_transpose2d",
    "conv_transpose2d_backward",
    "dense",
    "dense_backward",
    "dropout",
    "explain",
    "gelu",
    "global_avg_pool2d",
    "global_avg_pool2d_backward",
    "global_max_pool2d",
    "leaky_relu",
    "max_pool1d",
    "max_pool2d",
    "max_pool2d_backward",
    "max_unpool2d",
    "max_unpool2d_backward",
    "min_pool2d",
    "relu",
    "relu6",
    "sigmoid",
    "silu",
    "softmax",
    "softmax_backward",
    "softmax_cross_entropy",
    "softmax_cross_entropy_backward",
    "tanh",
    "upsample2d",
    "upsample2d_backward",
]


def __getattr__(name: str) -> ModuleType:
    if name in ("keras", "nn", "plots", "random"):
        return import_module(f"fastconv.{name}")
    raise AttributeError(f"module 'fastconv' has no attribute {name!r}")
