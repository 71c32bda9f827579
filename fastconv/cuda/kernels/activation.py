"""The kernels of activation functions: one for each function and direction, one thread for each element.

The functions of one number are those of `fastconv.cpu.activation`, whose loops they stand for.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from fastconv.cpu.activation import ACTIVATIONS, DENSITY_AT_ZERO, FLAT, LEAKY_SLOPE
from fastconv.cpu.elementary import FOUR, TWO, ZERO
from fastconv.cuda.device import Kernel, target
from fastconv.cuda.kernels.elementary import normal_bell, normal_cdf, sigmoid, sigmoid_slope, tanh
from fastconv.cuda.kernels.elements import NUMBERS, element, kernel_of_elements, remainder
from fastconv.cuda.kernels.intrinsics import product

cuda = target()
int32 = cuda.types.int32
_SIX, _SLOPE, _DENSITY = np.float32(6), np.float32(LEAKY_SLOPE), np.float32(DENSITY_AT_ZERO)


@cuda.jit(device=True)
def linear(x):
    return x


@cuda.jit(device=True)
def relu(x):
    return ZERO if x < ZERO else x


@cuda.jit(device=True)
def relu6(x):
    above = ZERO if x < ZERO else x
    return _SIX if above > _SIX else above


@cuda.jit(device=True)
def leaky_relu(x):
    return _SLOPE * x if x < ZERO else x


@cuda.jit(device=True)
def silu(x):
    return (-FLAT if x < -FLAT else x) * sigmoid(x)


@cuda.jit(device=True)
def gelu(x):
    return (-FLAT if x < -FLAT else x) * normal_cdf(x)


@cuda.jit(device=True)
def bounded(x):
    """*x* as a factor of a slope that has died out at both ends."""
    x = -FLAT if x < -FLAT else x
    return FLAT if x > FLAT else x


@cuda.jit(device=True)
def linear_backward(grad_out, x):
    return grad_out


@cuda.jit(device=True)
def relu_backward(grad_out, x):
    return ZERO if x <= ZERO else grad_out


@cuda.jit(device=True)
def relu6_backward(grad_out, x):
    below = grad_out if x < _SIX else ZERO
    return below if x > ZERO else ZERO


@cuda.jit(device=True)
def leaky_relu_backward(grad_out, x):
    return grad_out if x > ZERO else _SLOPE * grad_out


@cuda.jit(device=True)
def sigmoid_backward(grad_out, x):
    return grad_out * sigmoid_slope(x)


@cuda.jit(device=True)
def tanh_backward(grad_out, x):
    return grad_out * FOUR * sigmoid_slope(TWO * x)


@cuda.jit(device=True)
def silu_backward(grad_out, x):
    return grad_out * (sigmoid(x) + product(bounded(x), sigmoid_slope(x)))


@cuda.jit(device=True)
def gelu_backward(grad_out, x):
    return grad_out * (normal_cdf(x) + product(bounded(x), _DENSITY * normal_bell(x)))


_FORWARD = {
    "linear": linear,
    "relu": relu,
    "relu6": relu6,
    "leaky_relu": leaky_relu,
    "sigmoid": sigmoid,
    "tanh": tanh,
    "silu": silu,
    "gelu": gelu,
}
_BACKWARD = {
    "linear": linear_backward,
    "relu": relu_backward,
    "relu6": relu6_backward,
    "leaky_relu": leaky_relu_backward,
    "sigmoid": sigmoid_backward,
    "tanh": tanh_backward,
    "silu": silu_backward,
    "gelu": gelu_backward,
}
_NAMES = {code: name for name, code in ACTIVATIONS.items() if name}


@lru_cache
def forward(code: int) -> Kernel:
    """The kernel that adds a bias and applies activation *code*."""
    function = _FORWARD[_NAMES[code]]

    def activation_forward(x, bias, out):
        """``out = function(x + bias)``; an empty *bias* is none.  Each element has one writer; *out* may be *x*."""
        i = element()
        if i < out.size:
            number = x[i]
            if bias.size > 0:
                number = number + bias[remainder(i, int32(bias.size))]
            out[i] = function(number)

    return kernel_of_elements(activation_forward, NUMBERS, NUMBERS, NUMBERS)


@lru_cache
def backward(code: int) -> Kernel:
    """The kernel that multiplies by the slope of activation *code*."""
    function = _BACKWARD[_NAMES[code]]

    def activation_backward(grad_out, x, grad_x):
        """``grad_x = grad_out * slope(x)``; each element has one writer."""
        i = element()
        if i < grad_x.size:
            grad_x[i] = function(grad_out[i], x[i])

    return kernel_of_elements(activation_backward, NUMBERS, NUMBERS, NUMBERS)
