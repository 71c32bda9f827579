"""TensorFlow, NHWC as it computes on a CPU: single operations, and training in its Keras."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from fastconv.bench.libraries import Contender, Library, Prepare, cores, require_cores, with_all
from fastconv.bench.problems import ConvProblem
from fastconv.bench.training import TrainProblem
from fastconv.keras import layers


def _convolution(direction: str) -> Prepare:
    def prepare(problem: ConvProblem, threads: int) -> Contender:
        g = problem.geometry
        depthwise = g.is_depthwise and g.stride[0] == g.stride[1]
        if direction != "forward":
            if g.dilation != (1, 1):
                raise ValueError("its gradients do not take a dilation on a CPU")
            if g.G > 1 and not depthwise:
                raise ValueError("its gradients do not take groups on a CPU")
        place = {
            "strides": (1, *g.stride, 1),
            "padding": "EXPLICIT",
            "explicit_paddings": (0, 0, *g.padding[0], *g.padding[1], 0, 0),
            "dilations": (1, *g.dilation, 1),
        }
        x, grad_out = ([tf.constant(array) for array in arrays] for arrays in (problem.x, problem.grad_out))
        # Its depthwise kernels are (KH, KW, IC, outputs of a channel), which has our order of numbers.
        shape = (g.KH, g.KW, g.IC, g.OC // g.IC) if depthwise else g.weight_shape
        weight = [tf.constant(array.reshape(shape)) for array in problem.weight]
        raw = tf.raw_ops

        def forward(copy: int) -> Any:
            kernel = raw.DepthwiseConv2dNative if depthwise else raw.Conv2D
            return kernel(input=x[copy], filter=weight[copy], **place)

        def grad_x(copy: int) -> Any:
            kernel = raw.DepthwiseConv2dNativeBackpropInput if depthwise else raw.Conv2DBackpropInput
            return kernel(input_sizes=g.x_shape, filter=weight[copy], out_backprop=grad_out[copy], **place)

        def grad_weight(copy: int) -> Any:
            kernel = raw.DepthwiseConv2dNativeBackpropFilter if depthwise else raw.Conv2DBackpropFilter
            return kernel(input=x[copy], filter_sizes=shape, out_backprop=grad_out[copy], **place)

        compute, result_shape = {
            "forward": (forward, g.out_shape),
            "grad_x": (grad_x, g.x_shape),
            "grad_weight": (grad_weight, g.weight_shape),
        }[direction]
        return Contender(compute, lambda tensor: tensor.numpy().reshape(result_shape))

    return prepare


def _training(problem: TrainProblem, threads: int) -> Contender:
    keras = tf.keras
    model = keras.Sequential([keras.Input(problem.x.shape[1:]), *map(_layer, problem.network.layers)])
    model.set_weights(problem.network.get_weights())
    optimizer = keras.optimizers.Adam(problem.learning_rate, epsilon=problem.epsilon)
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))

    def compute(copy: int) -> Any:
        history = model.fit(problem.x, problem.y, batch_size=problem.batch, verbose=0, shuffle=False)
        return history.history["loss"][0]

    return Contender(compute)


def _layer(like: layers.Layer) -> Any:
    """The same layer."""
    theirs = tf.keras.layers
    if isinstance(like, layers.Conv2D):
        return theirs.Conv2D(like.filters, like.kernel_size, padding=like.padding, activation=like.activation)
    if isinstance(like, layers.Dense):
        return theirs.Dense(like.units, activation=like.activation)
    return theirs.MaxPooling2D(like.pool_size) if isinstance(like, layers.MaxPooling2D) else theirs.Flatten()


require_cores()
LIBRARY = Library(
    ("tensorflow", "keras"),
    {
        **with_all(
            {
                ("conv2d", direction): {"NHWC": _convolution(direction)}
                for direction in ("forward", "grad_x", "grad_weight")
            }
        ),
        ("network", "train"): {"Keras fit": _training},
    },
    cores,
)
