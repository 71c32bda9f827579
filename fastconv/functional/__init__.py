"""The public operations on arrays.  Each one: normalise the arguments, allocate, dispatch, return.

They take NumPy arrays, or arrays on a GPU (see `fastconv.cuda`): where those lie, there are the kernels (see
`fastconv.rooms`) and the results.
"""

from fastconv.functional.activation import (
    activation,
    activation_backward,
    gelu,
    leaky_relu,
    relu,
    relu6,
    sigmoid,
    silu,
    softmax,
    softmax_backward,
    tanh,
)
from fastconv.functional.average_pool import (
    adaptive_avg_pool2d,
    adaptive_avg_pool2d_backward,
    avg_pool1d,
    avg_pool1d_backward,
    avg_pool2d,
    avg_pool2d_backward,
    global_avg_pool2d,
    global_avg_pool2d_backward,
)
from fastconv.functional.conv import conv2d, conv2d_backward, conv2d_grad_bias, conv2d_grad_weight, conv2d_grad_x
from fastconv.functional.conv1d import conv1d, conv1d_backward
from fastconv.functional.conv_transpose import conv_transpose2d, conv_transpose2d_backward
from fastconv.functional.dense import dense, dense_backward
from fastconv.functional.dropout import dropout
from fastconv.functional.loss import softmax_cross_entropy, softmax_cross_entropy_backward
from fastconv.functional.normalization import batch_norm, batch_norm_backward, batch_norm_training
from fastconv.functional.pool import (
    adaptive_max_pool2d,
    global_max_pool2d,
    max_pool1d,
    max_pool2d,
    max_pool2d_backward,
    min_pool2d,
)
from fastconv.functional.rectify import rectify, rectify_backward
from fastconv.functional.unpool import max_unpool2d, max_unpool2d_backward
from fastconv.functional.upsample import upsample2d, upsample2d_backward

__all__ = [
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
    "rectify",
    "rectify_backward",
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
