"""One contract for every layer: shapes, parameters, configuration, gradients, saving, empty batches, data formats."""

from __future__ import annotations

import numpy as np
import pytest

from fastconv.keras import Sequential, layers, models

#: name -> (class, arguments, shape of a sample, shape of its output, number of parameters)
CASES = {
    "conv": (layers.Conv2D, {"filters": 4, "kernel_size": 3}, (6, 5, 3), (4, 3, 4), 112),
    "conv same strided relu": (
        layers.Conv2D,
        {"filters": 4, "kernel_size": (3, 2), "strides": 2, "padding": "SAME", "activation": "relu"},
        *((7, 6, 3), (4, 3, 4), 76),
    ),
    "conv grouped dilated": (
        layers.Conv2D,
        {"filters": 6, "kernel_size": 2, "dilation_rate": 2, "groups": 3, "use_bias": False, "activation": "tanh"},
        *((5, 6, 3), (3, 4, 6), 24),
    ),
    "conv channels first": (
        layers.Conv2D,
        {"filters": 4, "kernel_size": 3, "data_format": "channels_first", "activation": "silu"},
        *((3, 6, 5), (4, 4, 3), 112),
    ),
    "depthwise": (
        layers.DepthwiseConv2D,
        {"kernel_size": 3, "depth_multiplier": 2, "padding": "same"},
        *((5, 4, 3), (5, 4, 6), 60),
    ),
    "max pooling": (layers.MaxPooling2D, {}, (6, 5, 3), (3, 2, 3), 0),
    "max pooling same": (
        layers.MaxPooling2D,
        {"pool_size": 3, "strides": 2, "padding": "same", "data_format": "channels_first"},
        *((3, 6, 5), (3, 3, 3), 0),
    ),
    "average pooling same": (
        layers.AveragePooling2D,
        {"pool_size": (3, 2), "strides": (1, 2), "padding": "same"},
        *((4, 5, 3), (4, 3, 3), 0),
    ),
    "global average pooling": (layers.GlobalAveragePooling2D, {}, (4, 5, 3), (3,), 0),
    "global average pooling keepdims": (
        layers.GlobalAveragePooling2D,
        {"keepdims": True, "data_format": "channels_first"},
        *((3, 4, 5), (3, 1, 1), 0),
    ),
    "flatten": (layers.Flatten, {}, (4, 5, 3), (60,), 0),
    "flatten channels first": (layers.Flatten, {"data_format": "channels_first"}, (3, 4, 5), (60,), 0),
    "dense": (layers.Dense, {"units": 4, "activation": "sigmoid"}, (7,), (4,), 32),
    "dense softmax": (layers.Dense, {"units": 4, "activation": "softmax", "use_bias": False}, (7,), (4,), 28),
    "dense of a sequence": (layers.Dense, {"units": 4}, (5, 7), (5, 4), 32),
    "dropout": (layers.Dropout, {"rate": 0.5, "seed": 3}, (4, 6), (4, 6), 0),
    "batch normalization": (layers.BatchNormalization, {"momentum": 0.9}, (4, 5, 3), (4, 5, 3), 12),
    "batch normalization channels first": (
        layers.BatchNormalization,
        {"axis": 1, "scale": False},
        *((3, 4, 5), (3, 4, 5), 9),
    ),
    "batch normalization frozen": (layers.BatchNormalization, {"trainable": False}, (4, 3), (4, 3), 12),
    "activation": (layers.Activation, {"activation": "leaky_relu"}, (4, 3), (4, 3), 0),
    "activation softmax": (layers.Activation, {"activation": "softmax"}, (4, 3), (4, 3), 0),
    "input": (layers.InputLayer, {"shape": (4, 3)}, (4, 3), (4, 3), 0),
}


@pytest.fixture(params=CASES, ids=lambda name: name.replace(" ", "-"))
def case(request):
    return CASES[request.param]


def built(case, dtype="float32"):
    """The layer of a case with random weights, none of them 0 or 1."""
    cls, arguments, sample, _, _ = case
    layer = cls(**arguments, dtype=dtype)
    layer.build((None, *sample))
    rng = np.random.default_rng(5)
    layer.set_weights([rng.uniform(0.5, 1.5, w.shape).astype(w.dtype) for w in layer.get_weights()])
    return layer


def test_shapes_and_parameters(case):
    _, _, sample, out_shape, parameters = case
    layer = built(case)
    x = np.random.default_rng(0).standard_normal((2, *sample), np.float32)
    assert layer.compute_output_shape((None, *sample)) == (None, *out_shape)
    assert layer.output_shape == (None, *out_shape)
    assert layer.count_params() == parameters
    for training in (False, True):
        out = layer(x, training=training)
        assert out.shape == (2, *out_shape)
        assert out.dtype == np.float32


def test_an_empty_batch_gives_empty_outputs_and_zero_gradients(case):
    _, _, sample, out_shape, _ = case
    layer = built(case)
    out = layer(np.empty((0, *sample), np.float32), training=True)
    assert out.shape == (0, *out_shape)
    assert layer.backward(out).shape == (0, *sample)
    for variable in layer.trainable_weights:
        assert not variable.gradient.any()


def test_configuration_makes_the_same_layer(case):
    layer = built(case)
    again = layers.deserialize({"class_name": type(layer).__name__, "config": layer.get_config()})
    assert again.get_config() == layer.get_config()
    again.build((None, *case[2]))
    again.set_weights(layer.get_weights())
    x = np.random.default_rng(1).standard_normal((2, *case[2]), np.float32)
    np.testing.assert_array_equal(again(x), layer(x))


def test_saving_and_loading_keeps_every_bit(case, tmp_path):
    pytest.importorskip("safetensors", reason="safetensors is not installed")
    cls, arguments, sample, _, _ = case
    model = Sequential([layers.Input(sample), cls(**arguments)])
    x = np.random.default_rng(2).standard_normal((3, *sample), np.float32)
    model(x, training=True)  # moves the running averages
    model.save(tmp_path / "layer.safetensors")
    np.testing.assert_array_equal(models.load_model(tmp_path / "layer.safetensors").predict(x), model.predict(x))


def test_gradients_along_a_random_direction(case):
    """``<v, f(a + e u) - f(a - e u)> / 2e`` is ``<gradient of a, u>``, for the input and for each weight."""
    _, _, sample, out_shape, _ = case
    layer = built(case, "float64")
    rng = np.random.default_rng(3)
    v = rng.standard_normal((3, *out_shape))
    arrays = [rng.standard_normal((3, *sample)), *(variable.value for variable in layer.trainable_weights)]
    fixed = [variable.value for variable in layer.non_trainable_weights]

    def value(arrays):
        fresh = built(case, "float64")  # a new one, so that dropout drops the same numbers
        fresh.set_weights([*arrays[1:], *fixed])
        return float((fresh.forward(arrays[0], training=True) * v).sum())

    layer.forward(arrays[0], training=True)
    gradients = [layer.backward(v), *(variable.gradient for variable in layer.trainable_weights)]
    for index, gradient in enumerate(gradients):
        direction = rng.standard_normal(arrays[index].shape)
        moved = [[*arrays[:index], arrays[index] + step * direction, *arrays[index + 1 :]] for step in (1e-6, -1e-6)]
        slope = (value(moved[0]) - value(moved[1])) / 2e-6
        assert gradient.shape == arrays[index].shape
        assert float((gradient * direction).sum()) == pytest.approx(slope, rel=1e-6, abs=1e-7)


def test_the_first_layer_computes_no_gradient_of_its_input():
    for layer, shape in ((layers.Conv2D(2, 3), (4, 4, 1)), (layers.Dense(2), (3,))):
        out = layer(np.ones((1, *shape), np.float32), training=True)
        assert layer.backward(out, need_grad_x=False) is None
        assert layer.kernel.gradient is not None


def test_channels_first_gives_the_transposed_result():
    x = np.random.default_rng(6).standard_normal((2, 6, 5, 3), np.float32)
    for cls, arguments in ((layers.Conv2D, {"filters": 4, "kernel_size": 3}), (layers.MaxPooling2D, {"pool_size": 2})):
        last, first = cls(**arguments), cls(**arguments, data_format="channels_first")
        expected = last(x).transpose(0, 3, 1, 2)
        first.build((None, 3, 6, 5))
        first.set_weights(last.get_weights())
        np.testing.assert_array_equal(first(np.moveaxis(x, -1, 1)), expected)
    np.testing.assert_array_equal(
        layers.Flatten(data_format="channels_first")(np.moveaxis(x, -1, 1)), layers.Flatten()(x)
    )


def test_average_pooling_same_does_not_count_the_padding():
    ones = np.ones((1, 3, 3, 1), np.float32)
    np.testing.assert_array_equal(layers.AveragePooling2D(2, padding="same")(ones), np.ones((1, 2, 2, 1)))


def test_batch_normalization_keeps_running_averages():
    x = np.random.default_rng(7).standard_normal((50, 3), np.float32) * 4 + 10
    layer = layers.BatchNormalization(momentum=0.75, epsilon=1e-3)
    out = layer(x, training=True)
    np.testing.assert_allclose(out.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(out.var(axis=0), 1, rtol=1e-3)
    np.testing.assert_allclose(layer.moving_mean.numpy(), 0.25 * x.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(layer.moving_variance.numpy(), 0.75 + 0.25 * x.var(axis=0), rtol=1e-5)
    expected = (x - layer.moving_mean.numpy()) / np.sqrt(layer.moving_variance.numpy() + 1e-3)
    np.testing.assert_allclose(layer(x), expected, rtol=1e-4, atol=1e-5)


def test_dropout_drops_only_while_training_and_passes_the_gradient_of_what_is_left():
    x = np.random.default_rng(8).uniform(1, 2, (40, 25)).astype(np.float32)
    layer = layers.Dropout(0.4)
    np.testing.assert_array_equal(layer(x), x)
    first, second = layer(x, training=True), layer(x, training=True)
    assert not np.array_equal(first, second)
    np.testing.assert_allclose(layer.backward(x), second)
    assert 0.5 < np.count_nonzero(second) / x.size < 0.7


def test_names_are_keras_names():
    assert layers.MaxPool2D is layers.MaxPooling2D
    assert layers.AvgPool2D is layers.AveragePooling2D
    assert layers.GlobalAvgPool2D is layers.GlobalAveragePooling2D
    names = [layers.Conv2D(1, 1).name, layers.MaxPooling2D().name, layers.BatchNormalization().name]
    assert names == ["conv2d", "max_pooling2d", "batch_normalization"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: layers.Conv2D(0, 3), "filters must be an int >= 1. Received: filters=0"),
        (lambda: layers.Conv2D(4, 3, padding="full"), "padding must be .* Received: padding='full'"),
        (lambda: layers.Conv2D(4, 3, groups=3), "groups must divide filters. Received: groups=3, filters=4"),
        (lambda: layers.Conv2D(4, 3, activation="swoosh"), "activation must be .* Received: activation='swoosh'"),
        (lambda: layers.Conv2D(4, 3, data_format="last"), "data_format must be .* Received: data_format='last'"),
        (lambda: layers.Conv2D(4, 3)(np.zeros((2, 5))), r"takes images: .* Received: input_shape=\(None, 5\)"),
        (lambda: layers.Dropout(1), "rate must be .* Received: rate=1"),
        (lambda: layers.Dense(3, kernel_initializer="big"), "initializer must be .* Received: initializer='big'"),
        (lambda: layers.BatchNormalization(axis=4)(np.zeros((2, 3))), "axis must be .* Received: axis=4"),
        (lambda: layers.Dense(3)(np.zeros(4)), r"last extent is known. Received: input_shape=\(None,\)"),
        (lambda: layers.deserialize({"class_name": "LSTM"}), "class_name must be .* Received: 'LSTM'"),
    ],
)
def test_errors_name_the_argument_and_what_was_received(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_other_dtypes_are_refused():
    with pytest.raises(TypeError, match=r"dtype must be float32 or float64\. Received: dtype='int8'"):
        layers.Dense(3, dtype="int8")
