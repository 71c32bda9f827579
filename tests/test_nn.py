"""`fastconv.nn`: TensorFlow's names and arguments, by hand and against TensorFlow where it is installed."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

import fastconv as tf

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(-4, 5, (2, 7, 6, 4)).astype(np.float32)
FILTERS = RNG.integers(-4, 5, (3, 2, 4, 6)).astype(np.float32)
SIDES = [[0, 0], [1, 0], [2, 1], [0, 0]]

CASES = {
    "conv2d": lambda nn: nn.conv2d(IMAGES, FILTERS, strides=1, padding="SAME"),
    "conv2d strides of four": lambda nn: nn.conv2d(IMAGES, FILTERS, [1, 2, 2, 1], "SAME"),
    "conv2d strides of two": lambda nn: nn.conv2d(IMAGES, FILTERS, (1, 2), "VALID"),
    "conv2d padding of pairs": lambda nn: nn.conv2d(IMAGES, FILTERS, 1, SIDES),
    "conv2d dilations": lambda nn: nn.conv2d(IMAGES, FILTERS, 1, "SAME", dilations=[1, 2, 3, 1]),
    "conv2d groups": lambda nn: nn.conv2d(IMAGES, FILTERS[:, :, :2], 1, "SAME"),
    "depthwise_conv2d": lambda nn: nn.depthwise_conv2d(IMAGES, FILTERS, [1, 1, 1, 1], "SAME"),
    "depthwise_conv2d strides": lambda nn: nn.depthwise_conv2d(IMAGES, FILTERS, [1, 2, 2, 1], "VALID"),
    "separable_conv2d": lambda nn: nn.separable_conv2d(
        IMAGES, FILTERS[..., :2], FILTERS.reshape(1, 1, 8, 18), [1, 1, 1, 1], "SAME"
    ),
    "conv2d_transpose": lambda nn: nn.conv2d_transpose(
        IMAGES, FILTERS.transpose(0, 1, 3, 2), (2, 14, 12, 6), [1, 2, 2, 1]
    ),
    "conv2d_transpose valid": lambda nn: nn.conv2d_transpose(
        IMAGES, FILTERS.transpose(0, 1, 3, 2), (2, 9, 7, 6), 1, "VALID"
    ),
    "conv1d": lambda nn: nn.conv1d(IMAGES[:, 0], FILTERS[0], 2, "SAME"),
    "max_pool": lambda nn: nn.max_pool(IMAGES, ksize=[1, 3, 3, 1], strides=[1, 3, 3, 1], padding="VALID"),
    "max_pool2d": lambda nn: nn.max_pool2d(IMAGES, 2, 2, "SAME"),
    "avg_pool": lambda nn: nn.avg_pool(IMAGES, (2, 3), (2, 1), "SAME"),
    "avg_pool2d": lambda nn: nn.avg_pool2d(IMAGES, 2, 2, "VALID"),
    "bias_add": lambda nn: nn.bias_add(IMAGES, FILTERS[0, 0, :, 0]),
    "bias_add channels first": lambda nn: nn.bias_add(IMAGES, FILTERS[0, 0, 0, :1].repeat(7), data_format="NCHW"),
    "relu": lambda nn: nn.relu(IMAGES),
    "relu6": lambda nn: nn.relu6(IMAGES),
    "leaky_relu": lambda nn: nn.leaky_relu(IMAGES),
    "sigmoid": lambda nn: nn.sigmoid(IMAGES),
    "tanh": lambda nn: nn.tanh(IMAGES),
    "silu": lambda nn: nn.silu(IMAGES),
    "swish": lambda nn: nn.swish(IMAGES),
    "gelu": lambda nn: nn.gelu(IMAGES),
    "softmax": lambda nn: nn.softmax(IMAGES),
    "softmax axis": lambda nn: nn.softmax(IMAGES, axis=1),
    "softmax_cross_entropy_with_logits": lambda nn: nn.softmax_cross_entropy_with_logits(
        labels=np.eye(4, dtype=np.float32)[[1, 3]], logits=IMAGES[:, 0, 0]
    ),
    "sparse_softmax_cross_entropy_with_logits": lambda nn: nn.sparse_softmax_cross_entropy_with_logits(
        labels=np.array([1, 3]), logits=IMAGES[:, 0, 0]
    ),
}


@pytest.mark.skipif(importlib.util.find_spec("tensorflow") is None, reason="TensorFlow is not installed")
@pytest.mark.parametrize("case", CASES)
def test_same_as_tensorflow(case):
    import tensorflow

    theirs = CASES[case](tensorflow.nn).numpy()
    ours = CASES[case](tf.nn)
    assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
    np.testing.assert_allclose(ours, theirs, rtol=2e-6, atol=2e-6)


def test_every_function_is_compared_with_tensorflow():
    assert {case.partition(" ")[0] for case in CASES} | {"dropout"} == set(tf.nn.__all__)


@pytest.mark.parametrize("strides", [2, (2, 2), [1, 2, 2, 1]])
@pytest.mark.parametrize("padding", ["SAME", "same", SIDES])
def test_arguments_mean_what_conv2d_says(strides, padding):
    ours = tf.nn.conv2d(IMAGES, FILTERS, strides, padding)
    sides = "same" if isinstance(padding, str) else ((1, 0), (2, 1))
    np.testing.assert_array_equal(ours, tf.conv2d(IMAGES, FILTERS, stride=2, padding=sides))


@pytest.mark.parametrize(
    "call",
    [
        lambda images, **order: tf.nn.conv2d(images, FILTERS, (2, 1), "SAME", **order),
        lambda images, **order: tf.nn.depthwise_conv2d(images, FILTERS, 1, "VALID", **order),
        lambda images, **order: tf.nn.max_pool(images, (3, 2), (2, 1), "SAME", **order),
        lambda images, **order: tf.nn.avg_pool(images, (3, 2), (2, 1), "SAME", **order),
        lambda images, **order: tf.nn.bias_add(images, FILTERS[0, 0, :, 0], **order),
    ],
)
def test_channels_first_is_the_same_transposed(call):
    first = call(IMAGES.transpose(0, 3, 1, 2), data_format="NCHW")
    np.testing.assert_array_equal(first.transpose(0, 2, 3, 1), call(IMAGES))


def test_channels_first_concerns_strides_and_padding_of_four():
    x = IMAGES.transpose(0, 3, 1, 2)
    sides = [SIDES[axis] for axis in (0, 3, 1, 2)]
    first = tf.nn.conv2d(x, FILTERS, [1, 1, 2, 3], sides, data_format="NCHW")
    last = tf.nn.conv2d(IMAGES, FILTERS, [1, 2, 3, 1], SIDES)
    np.testing.assert_array_equal(first.transpose(0, 2, 3, 1), last)


def test_average_leaves_out_the_padding():
    averages = tf.nn.avg_pool(np.ones((1, 3, 3, 1), np.float32), 2, 2, "SAME")
    np.testing.assert_array_equal(averages, 1)


def test_transpose_is_the_gradient_of_conv2d():
    filters = FILTERS.transpose(0, 1, 3, 2)
    back = tf.nn.conv2d_transpose(IMAGES, filters, (2, 14, 12, 6), 2)
    forward = RNG.integers(-4, 5, back.shape).astype(np.float32)
    there = tf.nn.conv2d(forward, filters, 2, "SAME")
    assert np.vdot(there, IMAGES) == np.vdot(forward, back)


def test_dropout_is_named_by_its_seed():
    ones = np.ones(1000, np.float32)
    np.testing.assert_array_equal(tf.nn.dropout(ones, 0.5, seed=3), tf.dropout(ones, 0.5, seed=3))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: tf.nn.conv2d(IMAGES, FILTERS, [2, 1, 1, 1], "SAME"), "strides must be 1 for batch and channels"),
        (lambda: tf.nn.conv2d(IMAGES, FILTERS, [1, 1, 1], "SAME"), "strides must be one, two or four"),
        (lambda: tf.nn.conv2d(IMAGES, FILTERS, 1, "FULL"), 'padding must be "SAME" or "VALID"'),
        (lambda: tf.nn.conv2d(IMAGES, FILTERS, 1, [[1, 0], [0, 0], [0, 0], [0, 0]]), "four pairs"),
        (lambda: tf.nn.conv2d(IMAGES, FILTERS, 1, "SAME", "NHCW"), "data_format must be one of NHWC, NCHW"),
        (lambda: tf.nn.conv2d(IMAGES[0], FILTERS, 1, "SAME"), "input must have 4 dimensions"),
        (lambda: tf.nn.conv2d(IMAGES, FILTERS[:, :, :3], 1, "SAME"), "that divides the images' 4"),
        (lambda: tf.nn.depthwise_conv2d(IMAGES, FILTERS[:, :, :2], 1, "SAME"), "filter must be"),
        (lambda: tf.nn.conv1d(IMAGES[0], FILTERS[0], 1, "SAME", "NHWC"), "data_format must be one of NWC, NCW"),
        (lambda: tf.nn.bias_add(IMAGES, [1.0, 2.0]), "bias must have one number for each channel"),
        (lambda: tf.nn.softmax_cross_entropy_with_logits([0, 1], IMAGES[:, 0, 0]), "labels must have the shape"),
        (lambda: tf.nn.sparse_softmax_cross_entropy_with_logits([[0, 1]], IMAGES[:, 0, 0]), "labels must have one"),
    ],
)
def test_errors_name_the_argument(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_the_name_tf_serves_layers_and_seeds_too():
    def kernel(seed):
        tf.random.set_seed(seed)
        return tf.keras.Sequential([tf.keras.layers.Conv2D(2, 3, input_shape=(8, 8, 1))]).get_weights()[0]

    np.testing.assert_array_equal(kernel(42), kernel(42))
    assert not np.array_equal(kernel(42), kernel(43))
