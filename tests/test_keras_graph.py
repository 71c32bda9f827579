"""`Model` over a graph of layers: drawing it, running it forward and back, naming, summing up, saving, refusing."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from fastconv import functional, memory
from fastconv.keras import Input, Model, Sequential, layers, losses, models, optimizers, regularizers, utils


def skips(dtype="float32", last="softmax"):
    """Two branches that are added, then joined with the first of them: results with one, two and three users."""
    inputs = Input((9, 8, 3), dtype=dtype)
    x = layers.Conv2D(6, 3, padding="same", activation="relu", dtype=dtype)(inputs)
    shortcut = layers.Conv2D(6, 1, dtype=dtype)(inputs)
    y = layers.BatchNormalization(dtype=dtype)(x)
    y = layers.Add(dtype=dtype)([y, shortcut])
    z = layers.concatenate([x, y, shortcut], dtype=dtype)
    z = layers.MaxPooling2D(dtype=dtype)(z)
    z = layers.GlobalAveragePooling2D(dtype=dtype)(z)
    return Model(inputs, layers.Dense(5, activation=last, dtype=dtype)(z))


def residual_block(x, filters, stride):
    """Two convolutions and a way around them, which is a 1x1 convolution where the shape changes."""
    shortcut = x
    if stride > 1:
        shortcut = layers.Conv2D(filters, 1, strides=stride, use_bias=False)(x)
        shortcut = layers.BatchNormalization()(shortcut)
    x = layers.Conv2D(filters, 3, strides=stride, padding="same", use_bias=False)(x)
    x = layers.BatchNormalization()(x)
    x = layers.ReLU()(x)
    x = layers.Conv2D(filters, 3, padding="same", use_bias=False)(x)
    x = layers.BatchNormalization()(x)
    return layers.ReLU()(layers.Add()([x, shortcut]))


def resnet18(shape, classes, width=64):
    """K. He et al., "Deep residual learning", CVPR 2016, table 1, with the stem for small images."""
    inputs = Input(shape)
    x = layers.Conv2D(width, 3, padding="same", use_bias=False)(inputs)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    for growth, stride in ((1, 1), (1, 1), (2, 2), (2, 1), (4, 2), (4, 1), (8, 2), (8, 1)):
        x = residual_block(x, growth * width, stride)
    x = layers.GlobalAveragePooling2D()(x)
    return Model(inputs, layers.Dense(classes, activation="softmax")(x), name="resnet18")


def vgg16(shape, classes, units=4096):
    """K. Simonyan, A. Zisserman, "Very deep convolutional networks", ICLR 2015, table 1, column D."""
    model = Sequential([Input(shape)], name="vgg16")
    for block, (filters, depth) in enumerate(((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)), 1):
        for number in range(1, depth + 1):
            name = f"block{block}_conv{number}"
            model.add(layers.Conv2D(filters, 3, padding="same", activation="relu", name=name))
        model.add(layers.MaxPooling2D(2, name=f"block{block}_pool"))
    model.add(layers.Flatten())
    for _ in range(2):
        model.add(layers.Dense(units, activation="relu", kernel_initializer="he_normal"))
    model.add(layers.Dense(classes, activation="softmax"))
    return model


def test_a_graph_computes_what_its_layers_compute():
    model = skips()
    x = np.random.default_rng(0).standard_normal((3, 9, 8, 3)).astype(np.float32)
    conv, shortcut = model.get_layer("conv2d"), model.get_layer("conv2d_1")
    first, around = conv(x), shortcut(x)
    added = model.get_layer("batch_normalization")(first) + around
    joined = functional.max_pool2d(np.concatenate([first, added, around], axis=-1), 2)
    expected = model.get_layer("dense")(joined.mean(axis=(1, 2)))
    np.testing.assert_allclose(model(x), expected, rtol=1e-5)
    np.testing.assert_array_equal(model.predict(x), model(x))


def test_gradients_of_a_graph_along_a_random_direction():
    model = skips("float64", last=None)
    rng = np.random.default_rng(1)
    x, v = rng.standard_normal((4, 9, 8, 3)), rng.standard_normal((4, 5))
    model(x, training=True)
    model._graph.backward(v)
    gradients = [variable.gradient for variable in model.trainable_weights]
    weights = [variable.numpy() for variable in model.trainable_weights]
    assert len(gradients) == 8
    for index, (weight, gradient) in enumerate(zip(weights, gradients, strict=True)):
        direction = rng.standard_normal(weight.shape)
        values = []
        for step in (1e-6, -1e-6):
            model.trainable_weights[index].assign(weight + step * direction)
            values.append(float((model(x, training=True) * v).sum()))
        model.trainable_weights[index].assign(weight)
        assert float((gradient * direction).sum()) == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-5, abs=1e-6)


def test_an_array_added_to_itself_has_twice_the_gradient():
    inputs = Input((3,), dtype="float64")
    x = layers.Dense(2, use_bias=False, dtype="float64")(inputs)
    once, twice = Model(inputs, x), Model(inputs, layers.Add(dtype="float64")([x, x]))
    samples, v = np.eye(3), np.arange(6.0).reshape(3, 2)
    found = []
    for model in (once, twice):
        model(samples, training=True)
        model._graph.backward(v)
        found.append(model.trainable_weights[0].gradient)
    np.testing.assert_array_equal(found[1], 2 * found[0])


def test_a_pooling_takes_the_activation_along_only_where_nobody_else_uses_its_result():
    inputs = Input((6, 6, 2))
    x = layers.Conv2D(3, 3, activation="relu", name="shared")(inputs)
    pooled = layers.Flatten()(layers.MaxPooling2D(2, name="pool")(x))
    model = Model(inputs, layers.Concatenate()([pooled, layers.Flatten()(x)]))
    rng = np.random.default_rng(2)
    samples = rng.standard_normal((2, 6, 6, 2)).astype(np.float32)
    v = rng.standard_normal(model(samples, training=True).shape).astype(np.float32)
    model._graph.backward(v)
    found = model.get_layer("shared").kernel.gradient
    conv, pool = model.get_layer("shared"), model.get_layer("pool")
    grad = pool.backward(v[:, :12].reshape(2, 2, 2, 3)) + v[:, 12:].reshape(2, 4, 4, 3)
    conv.backward(grad)
    np.testing.assert_allclose(found, conv.kernel.gradient, rtol=1e-5, atol=1e-6)


def test_layers_are_named_in_the_order_of_their_making_beside_the_names_that_were_chosen():
    inputs = Input((4, 4, 2))
    made = [layers.Conv2D(2, 1) for _ in range(3)]
    chosen = layers.Conv2D(2, 1, name="conv2d_1")
    model = Model(inputs, layers.Add()([made[2](inputs), made[0](chosen(made[1](inputs)))]))
    assert [layer.name for layer in made] == ["conv2d", "conv2d_2", "conv2d_3"]
    assert [layer.name for layer in model.layers] == [
        "input_layer",
        "conv2d_2",
        "conv2d_1",
        "conv2d_3",
        "conv2d",
        "add",
    ]
    assert [layer.name for layer in Model(inputs, chosen.output).layers] == ["input_layer", "conv2d_2", "conv2d_1"]


def test_several_inputs_and_outputs():
    left, right = Input((4,), name="left"), Input((4,), name="right")
    both = layers.Add()([left, right])
    sums = Model([left, right], [both, layers.Concatenate()([both, left])])
    a, b = np.random.default_rng(3).standard_normal((2, 50, 4)).astype(np.float32)
    added, joined = sums.predict([a, b], batch_size=16)
    np.testing.assert_array_equal(added, a + b)
    np.testing.assert_array_equal(joined, np.concatenate([a + b, a], axis=1))
    assert sums.input_shape == [(None, 4), (None, 4)]
    assert sums.output_shape == [(None, 4), (None, 8)]

    model = Model([left, right], layers.Dense(2, activation="softmax")(layers.Concatenate()([left, right])))
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    history = model.fit([a, b], (a[:, 0] > b[:, 0]).astype(int), epochs=30, verbose=0, validation_split=0.2).history
    assert history["loss"][-1] < history["loss"][0]
    sums.compile("sgd", "sparse_categorical_crossentropy")
    with pytest.raises(ValueError, match="a model that is trained has one output"):
        sums.fit([a, b], np.zeros(50), verbose=0)


def test_a_model_of_another_models_layers_shows_what_they_compute():
    model = Sequential(
        [Input((8, 8, 1)), layers.Conv2D(3, 3, activation="relu"), layers.MaxPooling2D(), layers.Flatten()]
    )
    features = Model(model.input, [layer.output for layer in model.layers])
    image = np.random.default_rng(4).standard_normal((1, 8, 8, 1)).astype(np.float32)
    conv, pooled, flat = features.predict(image)
    np.testing.assert_array_equal(conv, model.layers[0](image))
    np.testing.assert_array_equal(pooled, model.layers[1](conv))
    np.testing.assert_array_equal(flat, model.predict(image))
    assert model.layers[1].input is model.layers[0].output


def test_layers_of_a_trained_model_begin_another():
    base = Sequential([Input((4,)), layers.Dense(3, activation="relu"), layers.Dense(2)])
    base.trainable = False
    model = Sequential([Input((4,)), *base.layers[:-1], layers.Dense(5, activation="softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy")
    before = model.get_weights()
    model.fit(np.random.default_rng(5).standard_normal((20, 4)), np.arange(20) % 5, verbose=0)
    after = model.get_weights()
    np.testing.assert_array_equal(before[0], after[0])
    assert not np.array_equal(before[2], after[2])
    assert len(model.trainable_weights) == 2


def test_a_graph_is_saved_and_trains_on(tmp_path):
    pytest.importorskip("safetensors", reason="safetensors is not installed")
    model = skips()
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    rng = np.random.default_rng(6)
    x, y = rng.standard_normal((20, 9, 8, 3)), rng.integers(0, 5, 20)
    model.fit(x, y, verbose=0)
    model.save(tmp_path / "graph.safetensors")
    again = models.load_model(tmp_path / "graph.safetensors")
    assert type(again) is Model
    np.testing.assert_array_equal(again.predict(x), model.predict(x))
    assert again.get_config() == model.get_config()
    assert [layer.name for layer in again.layers] == [layer.name for layer in model.layers]
    again.fit(x, y, verbose=0)


def test_a_graph_has_the_same_bits_for_the_same_seed():
    def weights(seed):
        utils.set_random_seed(seed)
        inputs = Input((5, 5, 1))
        x = layers.SpatialDropout2D(0.3)(layers.Conv2D(4, 3)(inputs))
        x = layers.Dropout(0.3)(layers.add([x, layers.Conv2D(4, 3)(inputs)]))
        model = Model(inputs, layers.Dense(3, activation="softmax")(layers.Flatten()(x)))
        model.compile("sgd", "sparse_categorical_crossentropy")
        model.fit(np.random.default_rng(8).random((40, 5, 5, 1)), np.arange(40) % 3, verbose=0)
        return model.get_weights()

    first, second, other = weights(5), weights(5), weights(6)
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(first[0], other[0])


def test_the_table_of_a_graph_says_what_is_connected(monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    lines = []
    skips().summary(print_fn=lines.append)
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines[0].splitlines() if "│" in line]
    assert rows[0] == ["input_layer (InputLayer)", "(None, 9, 8, 3)", "0", "-"]
    assert rows[1] == ["conv2d (Conv2D)", "(None, 9, 8, 6)", "168", "input_layer[0][0]"]
    assert ["add (Add)", "(None, 9, 8, 6)", "0", "batch_normalization[0][0],"] in rows
    assert ["", "", "", "conv2d_1[0][0]"] in rows


def test_regularizers_add_to_the_loss_and_pull_the_weights():
    utils.set_random_seed(1)
    x = np.zeros((4, 3), np.float32)  # no gradient but the regularizer's
    dense = layers.Dense(2, use_bias=False, kernel_regularizer=regularizers.L1L2(l1=0.1, l2=0.2))
    model = Sequential([Input((3,)), dense, layers.Dense(2, trainable=False, kernel_regularizer="l2")])
    model.compile(optimizers.SGD(0.5), losses.SparseCategoricalCrossentropy(from_logits=True))
    weight = dense.kernel.numpy()
    penalty = 0.1 * np.abs(weight).sum() + 0.2 * (weight**2).sum()
    expected = np.log(2) + penalty  # a weight that does not learn is not held against the model, as in Keras
    assert model.evaluate(x, np.zeros(4, int), verbose=0) == pytest.approx(expected, rel=1e-6)
    assert model.train_on_batch(x, np.zeros(4, int)) == pytest.approx(expected, rel=1e-6)
    np.testing.assert_allclose(dense.kernel.numpy(), weight - 0.5 * (0.1 * np.sign(weight) + 0.4 * weight), rtol=1e-5)


@pytest.mark.parametrize(
    ("make", "arguments", "parameters"),
    [(resnet18, {}, 11_183_562), (vgg16, {"units": 512}, 15_245_130)],
)
def test_deep_networks_have_keras_counts(make, arguments, parameters):
    model = make((32, 32, 3), 10, **arguments)
    assert model.count_params() == parameters
    lines = []
    model.summary(print_fn=lines.append)
    assert f"Total params: {parameters:,}" in lines[0]


@pytest.mark.parametrize(("make", "arguments"), [(resnet18, {"width": 16}), (vgg16, {"units": 64})])
def test_deep_networks_train(make, arguments):
    utils.set_random_seed(3)
    model = make((32, 32, 3), 2, **arguments)
    model.compile(optimizers.Adam(1e-3), "sparse_categorical_crossentropy")
    rng = np.random.default_rng(7)
    y = np.arange(4) % 2
    x = rng.uniform(0, 1, (4, 32, 32, 3)) * y[:, None, None, None]
    values = [model.train_on_batch(x, y) for _ in range(4)]
    assert values[-1] < 0.8 * values[0]


@pytest.mark.parametrize("batch_size", [32, 96])
def test_summary_tells_the_memory_of_a_training_step(batch_size):
    model = Sequential(
        [
            Input((28, 28, 1)),
            layers.Conv2D(16, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(32, 3, activation="silu"),
            layers.BatchNormalization(),
            layers.Dropout(0.2),
            layers.Flatten(),
            layers.Dense(64, activation="relu"),
            layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy")
    x, y = np.zeros((batch_size + 1, 28, 28, 1), np.float32), np.zeros(batch_size + 1, int)
    # compiles, and keeps scratch space for the next call; one image less fits into none of the results that it leaves
    model.train_on_batch(x, y)
    memory._waiting.reset()  # nor into those of other tests
    before = sum(variable.value.nbytes for variable in model.weights)
    tracemalloc.start()
    model.train_on_batch(x[1:], y[1:])
    measured = before + tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    told = model.training_memory(batch_size)
    # what a step makes: the optimizer's averages were there before
    assert sum(told.values()) - told["optimizer"] == pytest.approx(measured, rel=0.15)
    lines = []
    model.summary(print_fn=lines.append, batch_size=batch_size)
    assert "Memory of a training step: " in lines[0]
    assert f"at batch size {batch_size} (weights " in lines[0]


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda i, x: Model(x, x), ValueError, r"inputs must come from Input\(\)"),
        (lambda i, x: Model([i, Input((2,))], x), ValueError, "outputs must depend on every input"),
        (lambda i, x: Model(Input((4, 4, 2)), x), ValueError, "outputs must depend on every input"),
        (lambda i, x: Model(i, layers.Add()([x, Input((4, 4, 2))])), ValueError, "inputs must hold all inputs"),
        (lambda i, x: Model(i, x.layer(x)), ValueError, "a layer may stand in one place of a model"),
        (lambda i, x: Model(i, None), TypeError, "outputs must be a KerasTensor or a list of them"),
        (lambda i, x: Model(i, layers.Conv2D(2, 1, name="a")(layers.ReLU(name="a")(i))), ValueError, "must be unique"),
        (lambda i, x: layers.Add()([x, np.zeros((1, 4, 4, 2))]), TypeError, "arrays or KerasTensors, not both"),
        (lambda i, x: layers.Add()([x]), ValueError, "two or more inputs of one shape"),
        (lambda i, x: layers.Concatenate(axis=0)([x, x]), ValueError, "axis behind the batch axis"),
        (lambda i, x: layers.Dense(2, dtype="float64")(x), ValueError, "must have one dtype"),
        (lambda i, x: Model(i, x)(i), TypeError, "a model is called on arrays"),
        (lambda i, x: np.asarray(x), TypeError, "has no values"),
        (lambda i, x: layers.ReLU().output, ValueError, "has no output yet"),
        (lambda i, x: Model([i, Input((2,))], [x]).predict(np.zeros(3)), ValueError, "outputs must depend"),
    ],
)
def test_a_graph_that_cannot_be_is_refused(make, error, message):
    inputs = Input((4, 4, 2))
    with pytest.raises(error, match=message):
        make(inputs, layers.Conv2D(2, 1)(inputs))
