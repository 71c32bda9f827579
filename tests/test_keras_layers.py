"""One contract for every layer: shapes, parameters, configuration, gradients, saving, empty batches, data formats."""

from __future__ import annotations

import json

import numpy as np
import pytest

from fastconv.keras import Model, initializers, layers, models, regularizers

#: name -> (class, arguments, shape of a sample or list of them, shape of its output, number of parameters)
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
    "conv regularized": (
        layers.Conv2D,
        {"filters": 2, "kernel_size": 1, "kernel_regularizer": "l2", "bias_regularizer": regularizers.L1L2(0.1, 0.2)},
        *((3, 2, 3), (3, 2, 2), 8),
    ),
    "conv of a series": (layers.Conv1D, {"filters": 4, "kernel_size": 3}, (7, 2), (5, 4), 28),
    "conv causal dilated grouped": (
        layers.Conv1D,
        {"filters": 4, "kernel_size": 3, "padding": "causal", "dilation_rate": 2, "groups": 2, "activation": "relu"},
        *((7, 2), (7, 4), 16),
    ),
    "conv of a series channels first": (
        layers.Conv1D,
        {"filters": 3, "kernel_size": 4, "strides": 2, "padding": "same", "data_format": "channels_first"},
        *((2, 7), (3, 4), 27),
    ),
    "separable": (
        layers.SeparableConv2D,
        {"filters": 4, "kernel_size": (3, 2), "strides": 2, "depth_multiplier": 2, "activation": "gelu"},
        *((7, 6, 3), (3, 3, 4), 36 + 24 + 4),
    ),
    "separable channels first": (
        layers.SeparableConv2D,
        {"filters": 4, "kernel_size": 3, "padding": "same", "use_bias": False, "data_format": "channels_first"},
        *((3, 5, 6), (4, 5, 6), 27 + 12),
    ),
    "conv transpose": (layers.Conv2DTranspose, {"filters": 4, "kernel_size": 3}, (4, 5, 3), (6, 7, 4), 112),
    "conv transpose same strided": (
        layers.Conv2DTranspose,
        {"filters": 2, "kernel_size": (3, 2), "strides": (2, 3), "padding": "same", "activation": "relu"},
        *((4, 3, 3), (8, 9, 2), 38),
    ),
    "conv transpose output padding": (
        layers.Conv2DTranspose,
        {"filters": 2, "kernel_size": 3, "strides": 3, "padding": "same", "output_padding": (2, 1)},
        *((4, 3, 3), (12, 8, 2), 56),
    ),
    "conv transpose dilated channels first": (
        layers.Conv2DTranspose,
        {"filters": 2, "kernel_size": 2, "dilation_rate": (2, 1), "data_format": "channels_first"},
        *((3, 4, 5), (2, 6, 6), 26),
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
    "max pooling of a series": (layers.MaxPooling1D, {}, (7, 3), (3, 3), 0),
    "max pooling of a series channels first": (
        layers.MaxPooling1D,
        {"pool_size": 3, "strides": 2, "padding": "same", "data_format": "channels_first"},
        *((3, 6), (3, 3), 0),
    ),
    "min pooling": (layers.MinPooling2D, {"pool_size": (2, 3), "strides": 1}, (4, 5, 3), (3, 3, 3), 0),
    "average pooling of a series": (
        layers.AveragePooling1D,
        {"pool_size": 2, "padding": "same"},
        *((7, 3), (4, 3), 0),
    ),
    "global max pooling": (layers.GlobalMaxPooling2D, {}, (4, 5, 3), (3,), 0),
    "global max pooling keepdims": (
        layers.GlobalMaxPooling2D,
        {"keepdims": True, "data_format": "channels_first"},
        *((3, 4, 5), (3, 1, 1), 0),
    ),
    "global max pooling of a series": (layers.GlobalMaxPooling1D, {"keepdims": True}, (5, 3), (1, 3), 0),
    "global average pooling of a series": (
        layers.GlobalAveragePooling1D,
        {"data_format": "channels_first"},
        *((3, 5), (3,), 0),
    ),
    "global average pooling": (layers.GlobalAveragePooling2D, {}, (4, 5, 3), (3,), 0),
    "global average pooling keepdims": (
        layers.GlobalAveragePooling2D,
        {"keepdims": True, "data_format": "channels_first"},
        *((3, 4, 5), (3, 1, 1), 0),
    ),
    "flatten": (layers.Flatten, {}, (4, 5, 3), (60,), 0),
    "flatten channels first": (layers.Flatten, {"data_format": "channels_first"}, (3, 4, 5), (60,), 0),
    "reshape": (layers.Reshape, {"target_shape": (3, -1)}, (4, 6), (3, 8), 0),
    "zero padding": (layers.ZeroPadding2D, {"padding": ((1, 0), (2, 3))}, (4, 5, 3), (5, 10, 3), 0),
    "zero padding channels first": (
        layers.ZeroPadding2D,
        {"padding": (1, 2), "data_format": "channels_first"},
        *((3, 4, 5), (3, 6, 9), 0),
    ),
    "upsampling": (layers.UpSampling2D, {"size": (2, 3)}, (4, 3, 2), (8, 9, 2), 0),
    "upsampling bilinear": (
        layers.UpSampling2D,
        {"size": (3, 2), "interpolation": "bilinear", "data_format": "channels_first"},
        *((2, 4, 3), (2, 12, 6), 0),
    ),
    "add": (layers.Add, {}, [(4, 3), (4, 3), (4, 3)], (4, 3), 0),
    "concatenate": (layers.Concatenate, {}, [(4, 3), (4, 2)], (4, 5), 0),
    "concatenate along rows": (layers.Concatenate, {"axis": 1}, [(2, 3, 2), (1, 3, 2), (4, 3, 2)], (7, 3, 2), 0),
    "dense": (layers.Dense, {"units": 4, "activation": "sigmoid"}, (7,), (4,), 32),
    "dense softmax": (layers.Dense, {"units": 4, "activation": "softmax", "use_bias": False}, (7,), (4,), 28),
    "dense of a sequence": (layers.Dense, {"units": 4}, (5, 7), (5, 4), 32),
    "dropout": (layers.Dropout, {"rate": 0.5, "seed": 3}, (4, 6), (4, 6), 0),
    "spatial dropout": (layers.SpatialDropout2D, {"rate": 0.5, "seed": 3}, (4, 3, 6), (4, 3, 6), 0),
    "spatial dropout channels first": (
        layers.SpatialDropout2D,
        {"rate": 0.5, "seed": 3, "data_format": "channels_first"},
        *((6, 4, 3), (6, 4, 3), 0),
    ),
    "batch normalization": (layers.BatchNormalization, {"momentum": 0.9}, (4, 5, 3), (4, 5, 3), 12),
    "batch normalization channels first": (
        layers.BatchNormalization,
        {"axis": 1, "scale": False},
        *((3, 4, 5), (3, 4, 5), 9),
    ),
    "batch normalization frozen": (layers.BatchNormalization, {"trainable": False}, (4, 3), (4, 3), 12),
    "activation": (layers.Activation, {"activation": "leaky_relu"}, (4, 3), (4, 3), 0),
    "activation softmax": (layers.Activation, {"activation": "softmax"}, (4, 3), (4, 3), 0),
    "relu": (layers.ReLU, {}, (4, 3), (4, 3), 0),
    "relu with corners": (
        layers.ReLU,
        {"max_value": 1.5, "negative_slope": 0.1, "threshold": 0.3},
        *((4, 3), (4, 3), 0),
    ),
    "leaky relu": (layers.LeakyReLU, {}, (4, 3), (4, 3), 0),
    "softmax": (layers.Softmax, {}, (4, 3), (4, 3), 0),
    "softmax along rows": (layers.Softmax, {"axis": 1}, (4, 3), (4, 3), 0),
    "input": (layers.InputLayer, {"shape": (4, 3)}, (4, 3), (4, 3), 0),
}


@pytest.fixture(params=CASES, ids=lambda name: name.replace(" ", "-"))
def case(request):
    return CASES[request.param]


def for_each(sample, make):
    """``make(shape)``, or a list of that where a layer takes several samples."""
    return [make(shape) for shape in sample] if isinstance(sample, list) else make(sample)


def batches(sample, count, seed, dtype="float32"):
    rng = np.random.default_rng(seed)
    return for_each(sample, lambda shape: rng.standard_normal((count, *shape)).astype(dtype))


def built(case, dtype="float32"):
    """The layer of a case with random weights, none of them 0 or 1."""
    cls, arguments, sample, _, _ = case
    layer = cls(**arguments, dtype=dtype)
    layer.build(for_each(sample, lambda shape: (None, *shape)))
    rng = np.random.default_rng(5)
    layer.set_weights([rng.uniform(0.5, 1.5, w.shape).astype(w.dtype) for w in layer.get_weights()])
    return layer


def test_there_is_a_case_for_every_layer():
    made = {cls for cls, *_ in CASES.values()}
    names = {cls.__name__ for cls in made}
    assert names == {
        name for name in layers.__all__ if isinstance(cls := getattr(layers, name), type) and cls.__name__ == name
    } - {"Layer"}


def test_shapes_and_parameters(case):
    _, _, sample, out_shape, parameters = case
    layer = built(case)
    assert layer.compute_output_shape(for_each(sample, lambda shape: (None, *shape))) == (None, *out_shape)
    assert layer.output_shape == (None, *out_shape)
    assert layer.count_params() == parameters
    for training in (False, True):
        out = layer(batches(sample, 2, seed=0), training=training)
        assert out.shape == (2, *out_shape)
        assert out.dtype == np.float32


def test_an_empty_batch_gives_empty_outputs_and_zero_gradients(case):
    _, _, sample, out_shape, _ = case
    layer = built(case)
    x = batches(sample, 0, seed=0)
    out = layer(x, training=True)
    assert out.shape == (0, *out_shape)
    gradients = layer.backward(out)
    assert for_each(sample, lambda shape: (0, *shape)) == (
        [gradient.shape for gradient in gradients] if layer.merges else gradients.shape
    )
    for variable in layer.trainable_weights:
        assert not variable.gradient.any()


def test_configuration_makes_the_same_layer(case):
    layer = built(case)
    config = json.loads(json.dumps(layer.get_config()))
    again = layers.deserialize({"class_name": type(layer).__name__, "config": config})
    assert again.get_config() == layer.get_config()
    again.build(for_each(case[2], lambda shape: (None, *shape)))
    again.set_weights(layer.get_weights())
    x = batches(case[2], 2, seed=1)
    np.testing.assert_array_equal(again(x), layer(x))


def test_saving_and_loading_keeps_every_bit(case, tmp_path):
    pytest.importorskip("safetensors", reason="safetensors is not installed")
    cls, arguments, sample, _, _ = case
    inputs = for_each(sample, layers.Input)
    model = Model(inputs, cls(**arguments)(inputs))
    x = batches(sample, 3, seed=2)
    model(x, training=True)  # moves the running averages
    model.save(tmp_path / "layer.safetensors")
    np.testing.assert_array_equal(models.load_model(tmp_path / "layer.safetensors").predict(x), model.predict(x))


def test_gradients_along_a_random_direction(case):
    """``<v, f(a + e u) - f(a - e u)> / 2e`` is ``<gradient of a, u>``, for each input and for each weight."""
    _, _, sample, out_shape, _ = case
    layer = built(case, "float64")
    rng = np.random.default_rng(3)
    v = rng.standard_normal((3, *out_shape))
    x = batches(sample, 3, seed=4, dtype="float64")
    inputs = x if layer.merges else [x]
    arrays = [*inputs, *(variable.numpy() for variable in layer.trainable_weights)]
    fixed = [variable.value for variable in layer.non_trainable_weights]

    def value(arrays):
        fresh = built(case, "float64")  # a new one, so that dropout drops the same numbers
        fresh.set_weights([*arrays[len(inputs) :], *fixed])
        x = arrays[: len(inputs)]
        return float((fresh.forward(x if fresh.merges else x[0], training=True) * v).sum())

    layer.forward(x, training=True)
    grad_x = layer.backward(v)
    gradients = [*(grad_x if layer.merges else [grad_x]), *(variable.gradient for variable in layer.trainable_weights)]
    for index, (array, gradient) in enumerate(zip(arrays, gradients, strict=True)):
        direction = rng.standard_normal(array.shape)
        moved = [[*arrays[:index], array + step * direction, *arrays[index + 1 :]] for step in (1e-6, -1e-6)]
        slope = (value(moved[0]) - value(moved[1])) / 2e-6
        assert gradient.shape == array.shape
        assert float((gradient * direction).sum()) == pytest.approx(slope, rel=1e-6, abs=1e-7)


def test_the_first_layer_computes_no_gradient_of_its_input():
    for layer, shape in ((layers.Conv2D(2, 3), (4, 4, 1)), (layers.Dense(2), (3,))):
        out = layer(np.ones((1, *shape), np.float32), training=True)
        assert layer.backward(out, need_grad_x=False) is None
        assert layer.kernel.gradient is not None


def test_channels_first_gives_the_transposed_result():
    found = 0
    for cls, arguments, sample, *_ in CASES.values():
        if arguments.get("data_format") != "channels_first" or cls in (layers.Flatten, layers.SpatialDropout2D):
            continue
        found += 1
        first = cls(**arguments)
        last = cls(**{**arguments, "data_format": "channels_last"})
        x = batches(sample, 2, seed=6)
        out = first(x)
        last(np.moveaxis(x, 1, -1))
        last.set_weights(first.get_weights())
        expected = last(np.moveaxis(x, 1, -1))
        np.testing.assert_array_equal(out, expected if out.ndim < 3 else np.moveaxis(expected, -1, 1))
    assert found > 8
    x = batches((4, 5, 3), 2, seed=6)
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


def test_spatial_dropout_drops_whole_channels():
    x = np.random.default_rng(9).uniform(1, 2, (30, 4, 3, 20)).astype(np.float32)
    layer = layers.SpatialDropout2D(0.4)
    np.testing.assert_array_equal(layer(x), x)
    out = layer(x, training=True)
    kept = out[:, :1, :1] != 0
    np.testing.assert_allclose(out, np.where(kept, x / np.float32(0.6), 0), rtol=1e-6)
    assert 0.5 < kept.mean() < 0.7
    np.testing.assert_array_equal(layer.backward(x), out)


def test_a_causal_convolution_does_not_see_what_comes_after():
    x = batches((9, 2), 1, seed=10)
    layer = layers.Conv1D(3, 3, padding="causal", dilation_rate=2)
    before = layer(x)
    x[:, 5:] += 1
    changed = (layer(x) != before).any(axis=(0, 2))
    assert changed.tolist() == [False] * 5 + [True] * 4


def test_min_pooling_is_max_pooling_upside_down():
    x = batches((5, 6, 2), 3, seed=11)
    np.testing.assert_array_equal(layers.MinPooling2D(2)(x), -layers.MaxPooling2D(2)(-x))


def test_names_are_keras_names():
    assert layers.MaxPool2D is layers.MaxPooling2D
    assert layers.AvgPool2D is layers.AveragePooling2D
    assert layers.GlobalAvgPool2D is layers.GlobalAveragePooling2D
    for name, cls in vars(layers).items():
        if isinstance(cls, type) and issubclass(cls, layers.Layer) and "Pool" in name and "Pooling" not in name:
            assert cls is getattr(layers, name.replace("Avg", "Average").replace("Pool", "Pooling"))
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


def test_a_layer_that_defines_call_is_refused():
    """What Keras would differentiate by itself; here it would go forward through the base class, and never back."""
    for base in (layers.Layer, Model):
        with pytest.raises(TypeError, match=r"Received: Mine\.call"):
            type("Mine", (base,), {"call": lambda self, x: x})


def test_other_names_of_activations_and_initializers():
    assert layers.Dense(2, activation="swish").activation == "silu"
    assert initializers.glorot_uniform(seed=0).get_config() == {"seed": 0}
    for name in ("he_normal", "lecun_uniform", "random_normal", "truncated_normal", "zeros"):
        assert type(initializers.get(name)) is getattr(initializers, name)


def test_other_dtypes_are_refused():
    with pytest.raises(TypeError, match=r"dtype must be float32 or float64\. Received: dtype='int8'"):
        layers.Dense(3, dtype="int8")
