"""Models on a device: the CPU's bits, layer by layer and after whole epochs, and what is fetched when."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from emulator import Emulator, needs_target

from fastconv import cuda
from fastconv.cuda import asarray
from fastconv.keras import Model, Sequential, callbacks, layers, losses, metrics, optimizers, regularizers
from fastconv.keras.devices import placed
from fastconv.keras.grad_cam import heat_map
from fastconv.keras.models import load_model
from fastconv.keras.utils import set_random_seed

needs_target()

ENGINE = Emulator()
RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.integers(0, 256, (6, 8, 8, 1)).astype(np.uint8)
ROWS = RANDOM.standard_normal((6, 12)).astype(np.float32)
LABELS = RANDOM.integers(0, 3, 6)

LAYERS: dict[str, tuple[layers.Layer, Any]] = {
    "Conv2D": (layers.Conv2D(4, 3, padding="same", activation="relu"), (2, 5, 6, 3)),
    "Conv2D, channels first": (layers.Conv2D(4, 3, data_format="channels_first"), (2, 3, 5, 6)),
    "Conv1D": (layers.Conv1D(4, 3, padding="causal"), (2, 7, 3)),
    "DepthwiseConv2D": (layers.DepthwiseConv2D(3), (2, 5, 6, 3)),
    "SeparableConv2D": (layers.SeparableConv2D(4, 3), (2, 5, 6, 3)),
    "Conv2DTranspose": (layers.Conv2DTranspose(4, 3, strides=2, activation="relu"), (2, 3, 4, 3)),
    "Dense": (layers.Dense(3, activation="tanh"), (4, 5)),
    "Flatten": (layers.Flatten(), (2, 3, 4, 2)),
    "Flatten, channels first": (layers.Flatten(data_format="channels_first"), (2, 3, 4, 2)),
    "Reshape": (layers.Reshape((6, -1)), (2, 3, 4, 2)),
    "Activation": (layers.Activation("tanh"), (4, 5)),
    "ReLU": (layers.ReLU(max_value=0.5, negative_slope=0.1), (4, 5)),
    "LeakyReLU": (layers.LeakyReLU(), (4, 5)),
    "Softmax": (layers.Softmax(axis=1), (2, 3, 4)),
    "MaxPooling2D": (layers.MaxPooling2D(2), (2, 5, 6, 3)),
    "MinPooling2D": (layers.MinPooling2D(2), (2, 5, 6, 3)),
    "AveragePooling2D": (layers.AveragePooling2D(2, padding="same"), (2, 5, 6, 3)),
    "MaxPooling1D": (layers.MaxPooling1D(2), (2, 6, 3)),
    "AveragePooling1D": (layers.AveragePooling1D(2), (2, 6, 3)),
    "GlobalMaxPooling2D": (layers.GlobalMaxPooling2D(), (2, 5, 6, 3)),
    "GlobalAveragePooling2D": (layers.GlobalAveragePooling2D(keepdims=True), (2, 5, 6, 3)),
    "GlobalMaxPooling1D": (layers.GlobalMaxPooling1D(), (2, 6, 3)),
    "GlobalAveragePooling1D": (layers.GlobalAveragePooling1D(), (2, 6, 3)),
    "UpSampling2D": (layers.UpSampling2D((2, 3)), (2, 3, 4, 2)),
    "UpSampling2D, channels first": (layers.UpSampling2D(2, data_format="channels_first"), (2, 2, 3, 4)),
    "UpSampling2D, bilinear": (layers.UpSampling2D((2, 3), interpolation="bilinear"), (2, 3, 1, 2)),
    "Dropout": (layers.Dropout(0.4, seed=3), (4, 5)),
    "SpatialDropout2D": (layers.SpatialDropout2D(0.5, seed=3), (2, 3, 4, 5)),
    "SpatialDropout2D, channels first": (
        layers.SpatialDropout2D(0.5, seed=3, data_format="channels_first"),
        (2, 5, 3, 4),
    ),
    "BatchNormalization": (layers.BatchNormalization(), (2, 3, 4, 5)),
    "BatchNormalization, axis 1": (layers.BatchNormalization(axis=1, scale=False), (2, 5, 3, 4)),
    "BatchNormalization, fixed": (layers.BatchNormalization(trainable=False), (2, 3, 4, 5)),
    "Add": (layers.Add(), [(2, 3, 4)] * 3),
    "Concatenate": (layers.Concatenate(), [(2, 3, 4), (2, 3, 1)]),
    "ZeroPadding2D": (layers.ZeroPadding2D(((1, 0), (2, 1))), (2, 3, 4, 2)),
    "ZeroPadding2D, channels first": (layers.ZeroPadding2D(1, data_format="channels_first"), (2, 2, 3, 4)),
    "InputLayer": (layers.InputLayer((5,)), (4, 5)),
}


def on(values: Any, engine: Any) -> Any:
    """Arrays, lists of them and None, there."""
    if isinstance(values, list):
        return [on(value, engine) for value in values]
    return None if values is None else placed(values, engine)


@pytest.mark.parametrize(("layer", "shape"), LAYERS.values(), ids=LAYERS)
def test_layer(layer: layers.Layer, shape: Any) -> None:
    """Forward in training, backward and forward in prediction, to the bit."""
    random = np.random.default_rng(1)
    x: Any = [random.standard_normal(one).astype(np.float32) for one in (shape if layer.merges else [shape])]
    x = x if layer.merges else x[0]
    layer(x)
    there = copy.deepcopy(layer)
    there.check_fits_device()
    there.to(ENGINE)

    out, out_there = layer.forward(x, training=True), there.forward(on(x, ENGINE), training=True)
    assert np.array_equal(out, on(out_there, None))
    grad_out = random.standard_normal(out.shape).astype(np.float32)
    grad_x, grad_x_there = layer.backward(grad_out), there.backward(on(grad_out, ENGINE))
    pairs = zip(grad_x, grad_x_there, strict=True) if layer.merges else [(grad_x, grad_x_there)]
    for mine, other in pairs:
        np.testing.assert_array_equal(mine, on(other, None))
    for variable, variable_there in zip(layer.variables, there.variables, strict=True):
        assert variable_there.engine is ENGINE
        assert np.array_equal(variable.numpy(), variable_there.numpy()), variable.name
        if variable.gradient is not None:
            assert np.array_equal(variable.gradient, on(variable_there.gradient, None)), variable.name
    assert np.array_equal(layer.forward(x), on(there.forward(on(x, ENGINE)), None))


def demo(device: Any) -> Model:
    """The demo network's kinds of layers, small."""
    set_random_seed(1)
    model = Sequential(
        [
            layers.Input((8, 8, 1)),
            layers.Conv2D(4, 3, activation="relu", kernel_regularizer="l2"),
            layers.MaxPooling2D(2),
            layers.Conv2D(4, 3, activation="relu"),
            layers.BatchNormalization(),
            layers.Flatten(),
            layers.Dropout(0.5),
            layers.Dense(3, activation="softmax"),
        ],
        device=device,
    )
    model.compile(optimizers.AdamW(0.01, clipnorm=1.0), "sparse_categorical_crossentropy", ["accuracy"])
    return model


def dense(device: Any, loss: Any = "sparse_categorical_crossentropy", optimizer: Any = "adam", **options: Any) -> Model:
    """A network of few kernels."""
    set_random_seed(2)
    hidden = layers.Dense(5, activation="relu", kernel_regularizer=options.pop("regularizer", None))
    last = layers.Dense(3, activation=options.pop("activation", "softmax"))
    model = Sequential([layers.Input((12,)), hidden, layers.Dropout(0.2), last], device=device)
    model.compile(optimizer, loss, options.pop("metrics", ["accuracy"]))
    return model


def assert_same_weights(left: Model, right: Model) -> None:
    for variable, other in zip(left.weights, right.weights, strict=True):
        assert np.array_equal(variable.numpy(), other.numpy()), variable.name


def test_whole_training_steps_end_with_the_bits_of_the_cpu() -> None:
    here, there = demo("cpu"), demo(ENGINE)
    expected = here.fit(IMAGES, LABELS, batch_size=4, epochs=1, verbose=0).history
    found = there.fit(IMAGES, LABELS, batch_size=4, epochs=1, verbose=0).history
    assert_same_weights(here, there)
    assert found["accuracy"] == expected["accuracy"]
    assert found["loss"] == expected["loss"]
    predicted = there.predict(IMAGES)
    assert np.array_equal(predicted, here.predict(IMAGES))
    assert there.evaluate(IMAGES, LABELS, verbose=0) == pytest.approx(here.evaluate(IMAGES, LABELS, verbose=0))
    heat = heat_map(there, IMAGES[0], class_index=1)
    assert np.array_equal(heat, heat_map(here, IMAGES[0], class_index=1))
    features = Model(there.input, there.layers[0].output)
    assert np.array_equal(features.predict(IMAGES), Model(here.input, here.layers[0].output).predict(IMAGES))
    assert np.array_equal(there.to("cpu").predict(IMAGES), predicted)


TRAINED: dict[str, dict[str, Any]] = {
    "SGD": {"optimizer": optimizers.SGD(0.1, momentum=0.9, nesterov=True, clipvalue=0.01), "steps": 2},
    "RMSprop, L1 and L2": {
        "optimizer": optimizers.RMSprop(0.01, weight_decay=0.1, global_clipnorm=0.1),
        "regularizer": "l1_l2",
        "steps": 2,
    },
    "one-hot rows": {
        "loss": "categorical_crossentropy",
        "regularizer": "l1",
        "metrics": ["accuracy", metrics.Precision(top_k=1, class_id=1), metrics.TopKCategoricalAccuracy(2)],
    },
    "class numbers": {"metrics": [metrics.SparseTopKCategoricalAccuracy(2)], "optimizer": "adamw", "regularizer": "l2"},
    "two classes": {
        "loss": losses.BinaryCrossentropy(label_smoothing=0.1),
        "activation": "sigmoid",
        "metrics": ["accuracy", metrics.Precision(), metrics.Recall(0.3)],
    },
    "squared errors": {"loss": "mse", "optimizer": "sgd", "activation": None, "metrics": ["mae"]},
    "absolute errors": {"loss": "mae", "optimizer": "sgd", "activation": None, "metrics": ["mse"]},
}


@pytest.mark.parametrize("options", TRAINED.values(), ids=TRAINED)
def test_optimizers_losses_and_metrics(options: dict[str, Any]) -> None:
    """The CPU's bits in the weights, the metrics, and all losses but the one whose exponentials are NumPy's there."""
    labels = np.eye(3)[LABELS] if "loss" in options else LABELS
    here, there = (dense(device, **copy.deepcopy(options)) for device in ("cpu", ENGINE))
    for _ in range(options.get("steps", 1)):
        expected, found = (model.train_on_batch(ROWS, labels) for model in (here, there))
        if isinstance(here.loss, losses.BinaryCrossentropy):
            assert found.pop(0) == pytest.approx(expected.pop(0), rel=1e-6)
        assert found == expected
    assert_same_weights(here, there)


def test_nothing_of_keras_is_left_out() -> None:
    """A row for every layer, and a model for every loss, metric, optimizer and regularizer."""
    kinds = {kind for kind in vars(layers).values() if isinstance(kind, type) and issubclass(kind, layers.Layer)}
    assert {type(layer) for layer, _ in LAYERS.values()} == kinds - {layers.Layer}
    models = [dense("cpu", **copy.deepcopy(options)) for options in TRAINED.values()]
    found = {type(part) for model in models for part in (model.optimizer, model.loss, *model.metrics)}
    found |= {type(model.layers[0].kernel.regularizer) for model in models}
    registries = losses._REGISTRY, metrics._REGISTRY, optimizers._REGISTRY
    assert {kind for registry in registries for kind in registry.values()} <= found
    assert {regularizers.L1, regularizers.L2, regularizers.L1L2} <= found


def test_a_saved_model_goes_on_anywhere_to_the_same_bits(tmp_path: Path) -> None:
    whole, there = dense("cpu"), dense(ENGINE)
    whole.fit(ROWS, LABELS, batch_size=6, epochs=2, verbose=0)
    there.fit(ROWS, LABELS, batch_size=6, epochs=1, verbose=0)
    there.save(tmp_path / "there.safetensors")
    there.to("cpu").save(tmp_path / "here.safetensors")
    assert (tmp_path / "there.safetensors").read_bytes() == (tmp_path / "here.safetensors").read_bytes()
    for device in ("cpu", ENGINE):
        model = load_model(tmp_path / "there.safetensors", device)
        model.fit(ROWS, LABELS, batch_size=6, epochs=2, initial_epoch=1, verbose=0)
        assert_same_weights(whole, model)
    weights = there.to(ENGINE).get_weights()
    there.set_weights([weight + 1 for weight in weights])
    assert np.array_equal(there.layers[0].kernel.numpy(), weights[0] + 1)
    assert there.layers[0].kernel.engine is ENGINE


class Observed(Emulator):
    """Writes down what comes from the host and what goes there."""

    def __init__(self) -> None:
        super().__init__()
        self.ahead: list[np.dtype[Any]] = []
        self.downloads = 0

    def upload_ahead(self, values: Any) -> Any:
        self.ahead.append(values.dtype)
        return super().upload_ahead(values)

    def download(self, memory: Any) -> Any:
        self.downloads += 1
        return super().download(memory)


def test_an_epoch_fetches_its_averages_and_nothing_else() -> None:
    engine = Observed()
    model = dense(engine)
    pixels = (ROWS * 10 + 100).astype(np.uint8)
    model.fit(pixels[:4], LABELS[:4], batch_size=2, epochs=1, verbose=0)
    assert engine.downloads == 2, "the loss and the accuracy, once"
    assert engine.ahead == [np.uint8, np.int64] * 2


class InOrder(Emulator):
    """Writes down when copies begin and kernels run."""

    def __init__(self) -> None:
        super().__init__()
        self.log: list[str] = []

    def upload_ahead(self, values: Any) -> Any:
        self.log.append("copy")
        return super().upload_ahead(values)

    def run(self, *arguments: Any) -> None:
        self.log.append("kernel")
        super().run(*arguments)


def in_turn(model: Model, x: Any, **options: Any) -> tuple[Any, str]:
    """A prediction, and what happened meanwhile: runs of kernels as one."""
    model.engine.log.clear()
    predicted = model.predict(x, **options)
    log = model.engine.log
    return predicted, "".join(what[0] for at, what in enumerate(log) if log[at - 1 : at] != [what] or what == "copy")


def test_prediction_copies_a_batch_while_the_one_before_is_in_work() -> None:
    model, here = dense(InOrder()), dense("cpu")
    predicted, order = in_turn(model, ROWS, batch_size=2)
    assert order == "cckck"
    assert np.array_equal(predicted, here.predict(ROWS, batch_size=2))
    batches = [ROWS[:2], (ROWS[2:4], LABELS[2:4]), ROWS[4:].tolist()]
    predicted, order = in_turn(model, iter(batches), steps=3)
    assert order == "cckck"
    assert np.array_equal(predicted, here.predict(iter(batches), steps=3))
    there = asarray(ROWS, model.engine)
    predicted, order = in_turn(model, iter([there, ROWS]), steps=2)
    assert order == "ck", "what is on the device stays there"
    assert np.array_equal(predicted, here.predict(np.concatenate([ROWS, ROWS]), batch_size=6))


def test_averages_are_fetched_when_somebody_looks() -> None:
    engine = Observed()
    seen: list[float] = []

    class Look(callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any) -> None:
            if batch == 1:
                seen.append(logs["loss"])
                assert set(logs) == {"loss", "accuracy"}
                self.model.stop_training = True

    model, here = dense(engine), dense("cpu")
    history = model.fit(ROWS, LABELS, batch_size=2, verbose=0, shuffle=False, callbacks=[Look()])
    assert seen == history.history["loss"], "training stopped where the callback looked"
    here.fit(ROWS[:4], LABELS[:4], batch_size=2, verbose=0, shuffle=False)
    assert_same_weights(model, here)


def test_device_arrays_in_device_arrays_out() -> None:
    model = dense(ENGINE)
    out = model(asarray(ROWS, ENGINE))
    assert type(out) is cuda.Array
    assert np.array_equal(out.numpy(), model(ROWS))
    with pytest.raises(TypeError, match="not copied to the host unasked"):
        dense("cpu")(asarray(ROWS, ENGINE))


def test_errors_before_any_work() -> None:
    reason = cuda.why_not()
    if reason is not None:
        with pytest.raises(RuntimeError) as error:
            Sequential(device="cuda")
        assert str(error.value) == reason
    with pytest.raises(ValueError, match='device must be "cpu", "cuda"'):
        Sequential(device="gpu")
    with pytest.raises(TypeError, match=r"dense.* works on the CPU only: its dtype is float64"):
        Sequential([layers.Dense(2, dtype="float64")], device=ENGINE)
    model = Sequential([layers.Dense(1, dtype="float64", input_shape=(4,)), layers.Dense(1, dtype="float64")])
    with pytest.raises(TypeError, match=r"dense.* works on the CPU only"):
        model.to(ENGINE)
    assert model.layers[0].kernel.engine is None, "nothing has moved"
    model = dense(ENGINE)
    for wrong in ([0, 1, 3], [0, -1, 2]):
        with pytest.raises(ValueError, match="class numbers from 0 to 2"):
            model.train_on_batch(ROWS[:3], np.array(wrong))
    model = dense(ENGINE, activation="relu")
    with pytest.raises(TypeError, match=r"end the model in softmax, or in logits"):
        model.fit(ROWS, LABELS)
    model = dense(ENGINE, loss=losses.CategoricalCrossentropy(from_logits=True), activation=None)
    with pytest.raises(ValueError, match="none negative"):
        model.train_on_batch(ROWS[:1], np.array([[2.0, -1.0, 0.0]]))
