"""`Sequential`: building, training, determinism, stopping, saving, and its error messages."""

from __future__ import annotations

import math
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

import fastconv
from fastconv.keras import Sequential, callbacks, layers, losses, models, optimizers, utils


def stripes(count, seed):
    """Images 8 x 8 of noise with a bright stripe: across, down, or none."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, count)
    x = rng.uniform(0, 0.3, (count, 8, 8, 1)).astype(np.float32)
    for image, label, place in zip(x, y, rng.integers(1, 7, count), strict=True):
        if label == 0:
            image[place] += 1
        elif label == 1:
            image[:, place] += 1
    return x, y


def small_network(last="softmax", dropout=0.0):
    return Sequential(
        [
            layers.Input((8, 8, 1)),
            layers.Conv2D(4, 3, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            layers.Dropout(dropout),
            layers.Dense(3, activation=last),
        ]
    )


def compiled(last="softmax", loss="sparse_categorical_crossentropy", dropout=0.0, optimizer=None):
    model = small_network(last, dropout)
    model.compile(optimizer or optimizers.Adam(0.02), loss, metrics=["accuracy"])
    return model


def tutorial_layers():
    return [
        layers.Conv2D(32, 3, activation="relu", input_shape=(28, 28, 1)),
        layers.MaxPooling2D(2),
        layers.Conv2D(64, 3, activation="relu"),
        layers.MaxPooling2D(2),
        layers.Conv2D(64, 3, activation="relu"),
        layers.Flatten(),
        layers.Dense(64, activation="relu"),
        layers.Dense(10),
    ]


def test_a_notebook_shows_the_table_of_the_summary():
    html = Sequential([*tutorial_layers(), layers.Dense(2, name="<b>&")], name="a < b")._repr_html_()
    table = ElementTree.fromstring(html)  # well-formed, whatever the names
    assert table.findtext("caption") == "Model: a < b"
    rows = [[cell.text for cell in row] for row in table.iter("tr")]
    assert rows[:2] == [["Layer (type)", "Output Shape", "Param #"], ["conv2d (Conv2D)", "(None, 26, 26, 32)", "320"]]
    assert rows[-2] == ["<b>& (Dense)", "(None, 2)", "22"]
    assert rows[-1][0].startswith("Total params: 93,344 (364.62 KB); Trainable params: 93,344")
    assert "<td>?</td><td>0 (unbuilt)</td>" in Sequential([layers.Conv2D(2, 3)])._repr_html_()


def test_summary_is_keras_table():
    lines = []
    Sequential(tutorial_layers()).summary(print_fn=lines.append)
    text = "\n".join(lines)
    for row in (
        'Model: "sequential"',
        "Layer (type)",
        "Output Shape",
        "Param #",
        "conv2d (Conv2D)",
        "(None, 26, 26, 32)",
        " 320 ",
        "max_pooling2d_1 (MaxPooling2D)",
        "18,496",
        "conv2d_2 (Conv2D)",
        "36,928",
        "Total params: 93,322 (364.54 KB)",
        "Trainable params: 93,322 (364.54 KB)",
        "Non-trainable params: 0 (0.00 B)",
    ):
        assert row in text


def test_an_unbuilt_model_is_built_by_data_and_says_so_before():
    model = Sequential(tutorial_layers()[1:])
    with pytest.raises(ValueError, match="no output shape yet"):
        _ = model.output_shape
    lines = []
    model.summary(print_fn=lines.append)
    assert "(unbuilt)" in lines[0]
    model.build((None, 28, 28, 1))
    assert model.output_shape == (None, 10)
    assert model.layers[0].output_shape == (None, 14, 14, 1)
    assert Sequential(tutorial_layers()[-2:])(np.ones((2, 5))).shape == (2, 10)


def test_training_learns_and_reports_every_epoch():
    utils.set_random_seed(1)
    x, y = stripes(300, seed=0)
    model = compiled()
    history = model.fit(x, y, epochs=6, verbose=0, validation_data=stripes(90, seed=1)).history
    assert set(history) == {"loss", "accuracy", "val_loss", "val_accuracy"}
    assert all(len(values) == 6 for values in history.values())
    assert history["loss"][-1] < 0.5 * history["loss"][0]
    assert history["val_accuracy"][-1] > 0.9
    loss, accuracy = model.evaluate(*stripes(90, seed=1), verbose=0)
    assert (loss, accuracy) == pytest.approx((history["val_loss"][-1], history["val_accuracy"][-1]))
    predictions = model.predict(stripes(90, seed=1)[0])
    assert predictions.shape == (90, 3)
    np.testing.assert_allclose(predictions.sum(axis=1), 1, rtol=1e-5)


def test_the_loss_is_the_average_over_samples_of_all_batches():
    x, y = stripes(50, seed=2)
    model = compiled()
    probabilities = model.predict(x).astype(np.float64)
    expected = -np.log(probabilities[np.arange(50), y]).mean()
    scores = model.evaluate(x, y, batch_size=16, verbose=0, return_dict=True)
    assert scores["loss"] == pytest.approx(expected, rel=1e-5)
    assert scores["accuracy"] == np.mean(probabilities.argmax(axis=1) == y)


def test_same_seed_same_bits():
    x, y = stripes(70, seed=3)

    def weights(seed):
        utils.set_random_seed(seed)
        model = compiled(dropout=0.3)
        model.fit(x, y, epochs=2, verbose=0)
        return model.get_weights()

    first, second, other = weights(5), weights(5), weights(6)
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(first[0], other[0])


def test_softmax_with_loss_trains_like_logits_and_survives_huge_ones():
    x, y = stripes(64, seed=4)
    results = []
    for last, loss in (
        ("softmax", "sparse_categorical_crossentropy"),
        (None, losses.SparseCategoricalCrossentropy(from_logits=True)),
    ):
        utils.set_random_seed(7)
        model = compiled(last, loss, optimizer="sgd")
        results.append((model.fit(x * 1e4, y, epochs=2, verbose=0).history["loss"], model.get_weights()))
    (losses_a, weights_a), (losses_b, weights_b) = results
    assert losses_a == losses_b
    assert all(math.isfinite(value) for value in losses_a)
    for a, b in zip(weights_a, weights_b, strict=True):
        np.testing.assert_array_equal(a, b)


def test_labels_may_be_class_numbers_columns_or_one_hot_rows():
    x, y = stripes(40, seed=5)
    values = []
    for loss, labels in (
        ("sparse_categorical_crossentropy", y),
        ("sparse_categorical_crossentropy", y[:, None].astype(np.uint8)),
        ("categorical_crossentropy", utils.to_categorical(y, 3)),
    ):
        utils.set_random_seed(8)
        values.append(compiled(loss=loss).train_on_batch(x, labels))
    assert values[1] == values[0]
    assert values[2] == pytest.approx(values[0], rel=1e-6)


def test_the_last_partial_batch_is_used():
    seen = []

    class Count(callbacks.Callback):
        def on_train_batch_end(self, batch, logs):
            seen.append(batch)

    x, y = stripes(50, seed=6)
    model = compiled()
    model.fit(x, y, batch_size=16, verbose=0, callbacks=[Count()])
    assert seen == [0, 1, 2, 3]
    assert model.optimizer.iterations == 4


def test_validation_split_takes_the_end_before_shuffling():
    x, y = stripes(40, seed=7)
    utils.set_random_seed(9)
    first = compiled()
    split = first.fit(x, y, epochs=1, verbose=0, validation_split=0.25).history
    utils.set_random_seed(9)
    second = compiled()
    given = second.fit(x[:30], y[:30], epochs=1, verbose=0, validation_data=(x[30:], y[30:])).history
    assert split == given


def test_stop_training_ends_the_epoch_after_the_batch_and_keeps_its_history():
    class Stop(callbacks.Callback):
        def on_train_batch_end(self, batch, logs):
            self.model.stop_training = batch == 1

    x, y = stripes(64, seed=8)
    model = compiled()
    history = model.fit(x, y, batch_size=16, epochs=5, verbose=0, callbacks=[Stop()], validation_data=(x, y))
    assert history.epoch == [0]
    assert model.optimizer.iterations == 2
    assert set(history.history) == {"loss", "accuracy", "val_loss", "val_accuracy"}


def test_callbacks_are_told_of_the_end_also_after_an_exception():
    ended = []

    class Fail(callbacks.Callback):
        def on_train_batch_end(self, batch, logs):
            raise KeyboardInterrupt

        def on_train_end(self):
            ended.append(True)

    with pytest.raises(KeyboardInterrupt):
        compiled().fit(*stripes(8, seed=9), verbose=0, callbacks=[Fail()])
    assert ended == [True]


def test_learning_rate_scheduler_sets_the_rate_of_each_epoch():
    model = compiled(optimizer="sgd")
    rates = []

    class Watch(callbacks.Callback):
        def on_epoch_end(self, epoch, logs):
            rates.append(self.model.optimizer.learning_rate)

    halve = callbacks.LearningRateScheduler(lambda epoch, rate: rate / 2)
    model.fit(*stripes(8, seed=10), epochs=3, verbose=0, callbacks=[halve, Watch()])
    assert rates == pytest.approx([0.005, 0.0025, 0.00125])


def test_progress_shows_speed_loss_and_metrics(capsys):
    x, y = stripes(40, seed=11)
    compiled().fit(x, y, epochs=2, validation_data=(x, y))
    text = capsys.readouterr().out
    for words in ("Epoch 2/2", "2/2", "images/s", "loss", "accuracy", "val_accuracy"):
        assert words in text
    compiled().evaluate(x, y)
    assert "40 samples: loss " in capsys.readouterr().out


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("activation", ["linear", "relu", "relu6", "leaky_relu", "tanh"])
def test_going_back_through_pooling_and_activation_at_once_changes_no_bit(activation, data_format):
    utils.set_random_seed(1)
    options = {"data_format": data_format}
    model = Sequential(
        [
            layers.Input((11, 9, 3) if data_format == "channels_last" else (3, 11, 9)),
            layers.Conv2D(5, 3, activation=activation, **options),
            # windows that overlap: some pixels are taken several times
            layers.MaxPooling2D(3, strides=1, padding="same", **options),
            layers.Conv2D(4, 3, **options),
            layers.Activation(activation),
            layers.MaxPooling2D(2, **options),
            layers.Flatten(),
            layers.Dense(3),
        ]
    )
    generator = np.random.default_rng(0)
    logits = model(3 * generator.normal(size=(6, *model.input_shape[1:])).astype(np.float32), training=True)
    grad = grad_logits = generator.normal(size=logits.shape).astype(np.float32)
    model._graph.backward(grad_logits)
    at_once = [variable.gradient for variable in model.trainable_weights]
    for layer in reversed(model.layers):
        grad = layer.backward(grad)
    for variable, gradient in zip(model.trainable_weights, at_once, strict=True):
        np.testing.assert_array_equal(variable.gradient, gradient)
        assert np.any(gradient)


def test_only_trainable_layers_learn():
    x, y = stripes(32, seed=12)
    model = compiled()
    model.layers[0].trainable = False
    before = model.get_weights()
    model.fit(x, y, verbose=0)
    after = model.get_weights()
    np.testing.assert_array_equal(before[0], after[0])
    assert not np.array_equal(before[2], after[2])
    assert len(model.trainable_weights) == 2


def test_inputs_of_any_dtype_and_layout_and_never_changed():
    rng = np.random.default_rng(13)
    x = rng.integers(0, 255, (20, 8, 8, 1), dtype=np.uint8)
    y = rng.integers(0, 3, 20)
    for array in (x, y):
        array.setflags(write=False)
    model = compiled()
    expected = model.predict(x.astype(np.float32))
    for other in (x, np.asfortranarray(x), x.astype(">f8"), x[::-1][::-1]):
        np.testing.assert_array_equal(model.predict(other), expected)
    model.fit(x, y, verbose=0)


def test_no_samples_give_no_predictions():
    model = compiled()
    assert model.predict(np.empty((0, 8, 8, 1))).shape == (0, 3)
    assert model.evaluate(np.empty((0, 8, 8, 1)), np.empty(0, int), verbose=0) == [0.0, 0.0]
    assert model.fit(np.empty((0, 8, 8, 1)), np.empty(0, int), verbose=0).history == {"loss": [0.0], "accuracy": [0.0]}


def test_a_saved_model_predicts_and_trains_on(tmp_path):
    pytest.importorskip("safetensors", reason="safetensors is not installed")
    x, y = stripes(40, seed=14)
    model = compiled(optimizer=optimizers.SGD(0.05, momentum=0.9, nesterov=True))
    model.fit(x, y, verbose=0)
    path = tmp_path / "model.safetensors"
    model.save(path)
    again = models.load_model(path)
    np.testing.assert_array_equal(again.predict(x), model.predict(x))
    assert again.get_config() == model.get_config()
    assert again.get_compile_config() == model.get_compile_config()
    again.fit(x, y, verbose=0)
    assert [file.name for file in tmp_path.iterdir()] == ["model.safetensors"]


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    pytest.importorskip("safetensors", reason="safetensors is not installed")
    path = tmp_path / "model.safetensors"
    model = compiled()
    model.save(path)
    content = path.read_bytes()

    def full(descriptor):
        raise OSError("no space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="no space left"):
        model.save(path)
    assert path.read_bytes() == content
    assert [file.name for file in tmp_path.iterdir()] == ["model.safetensors"]


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no SIGKILL")
def test_a_kill_in_the_middle_of_saving_leaves_the_old_file(tmp_path):
    pytest.importorskip("safetensors", reason="safetensors is not installed")
    path = tmp_path / "model.safetensors"
    model = compiled()
    model.save(path)
    content = path.read_bytes()
    script = (
        "import os, signal, sys, numpy\n"
        "from fastconv.keras import saving\n"
        "os.fsync = lambda descriptor: os.kill(os.getpid(), signal.SIGKILL)\n"
        "saving.write(sys.argv[1], {}, {'a': numpy.zeros(1000)})\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(fastconv.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", script, str(path)], env=environment, timeout=100, check=False)
    assert done.returncode == -signal.SIGKILL
    assert path.read_bytes() == content
    (part,) = (file for file in tmp_path.iterdir() if file != path)
    assert part.stat().st_size > 8000  # all had been written, but for the name
    np.testing.assert_array_equal(models.load_model(path).get_weights()[0], model.get_weights()[0])


def test_hostile_files_are_refused(tmp_path):
    """Nested without end, arrays that kernels would overrun, extents that no memory holds, a pickle."""
    numpy_file = pytest.importorskip("safetensors.numpy", reason="safetensors is not installed")
    from safetensors import safe_open

    path = tmp_path / "model.safetensors"
    model = compiled(optimizer="adam")
    model.fit(*stripes(8, seed=1), verbose=0)
    model.save(path)
    tensors = numpy_file.load_file(path)
    with safe_open(path, "np") as archive:
        config = archive.metadata()["fastconv.model"]
    state = next(name for name in tensors if name.startswith("optimizer::"))
    cases = [
        ("[" * 100_000, tensors, "must be a model saved by fastconv"),
        ("[]", tensors, "must describe a model of fastconv"),
        (config.replace('"filters": 4', f'"filters": {10**15}'), tensors, "must describe a model of fastconv"),
        (config.replace('"iterations": 1', '"iterations": "1"'), tensors, "must describe a model of fastconv"),
        (config, {**tensors, state: np.zeros(1, np.float32)}, r"must have its shape .* Received: shape=\(1,\)"),
        (config, {**tensors, state: tensors[state].astype("float64")}, r"and dtype float32. Received: .*dtype=float64"),
    ]
    for text, arrays, message in cases:
        assert text != config or arrays is not tensors
        numpy_file.save_file(arrays, path, {"fastconv.model": text})
        with pytest.raises(ValueError, match=message):
            models.load_model(path)
    path.write_bytes(pickle.dumps(model.get_config()))
    with pytest.raises(ValueError, match="must be a model saved by fastconv"):
        models.load_model(path)
    with pytest.raises(ValueError, match=r"of Keras's files the weights can be taken: .* model.load_weights"):
        models.load_model(tmp_path / "model.keras")


def test_files_of_others_and_other_suffixes_are_refused(tmp_path):
    numpy_file = pytest.importorskip("safetensors.numpy", reason="safetensors is not installed")
    path = tmp_path / "other.safetensors"
    numpy_file.save_file({"a": np.zeros(3)}, path)
    with pytest.raises(ValueError, match="must be a model saved by fastconv"):
        models.load_model(path)
    compiled().save(path)
    whole = path.read_bytes()
    for cut in (0, 4, 100, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(ValueError, match="must be a model saved by fastconv"):
            models.load_model(path)
    for old, new in ((b"Sequential", b"subprocess"), (b"Flatten", b"_import"), (b"kernel_size", b"kernel_SIZE")):
        path.write_bytes(whole.replace(old, new))
        with pytest.raises(ValueError, match=r"must describe a model of fastconv|class_name must be one of"):
            models.load_model(path)
    with pytest.raises(ValueError, match=r"must end in .safetensors. Received: filepath='m.keras'"):
        compiled().save("m.keras")


def test_weights_are_replaced_all_or_none():
    model = small_network()
    before = model.get_weights()
    wrong = [*before[:-1], np.zeros(7)]
    with pytest.raises(ValueError, match=r"has weights of shapes .* Received: weights of shapes .*\(7,\)"):
        model.set_weights(wrong)
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("use", "error", "message"),
    [
        (lambda m, x, y: small_network().fit(x, y), RuntimeError, "call compile"),
        (lambda m, x, y: m.fit(x, y[:-1]), ValueError, r"same number of samples. Received: x.shape=\(6, 8, 8, 1\)"),
        (lambda m, x, y: m.fit(x, y, batch_size=0), ValueError, "batch_size must be an int >= 1"),
        (lambda m, x, y: m.fit(x, y, validation_split=1), ValueError, "Received: validation_split=1"),
        (lambda m, x, y: m.fit(x, y, validation_split=0.9), ValueError, r"both sides. Received: .*=0.9, 6 samples"),
        (lambda m, x, y: m.fit(x, y, steps_per_epoch=2), ValueError, "Received: steps_per_epoch=2"),
        (
            lambda m, x, y: m.fit(x, y, validation_data=(x, y), validation_steps=2),
            ValueError,
            "Received: validation_steps=2",
        ),
        (lambda m, x, y: m.predict(x, steps=2), ValueError, "steps counts the batches of an iterator"),
        (lambda m, x, y: m.predict(x[:, 1:]), ValueError, r"x must have shape \(None, 8, 8, 1\). Received: x.shape"),
        (lambda m, x, y: m.fit(x, y + 3, verbose=0), ValueError, "labels"),
        (lambda m, x, y: m.fit(x, np.eye(3)[y], verbose=0), ValueError, "y must hold class numbers"),
        (lambda m, x, y: m.add("dense"), TypeError, "layer must be a Layer. Received: layer='dense'"),
        (lambda m, x, y: Sequential([m]), TypeError, r"take its layers, as in Sequential\(\[\*sequential.layers, "),
        (lambda m, x, y: m.add(m.layers[0]), ValueError, "unique in a model. Received: a second layer 'conv2d'"),
        (lambda m, x, y: m.add(layers.Dense(2, dtype="float64")), ValueError, "must have one dtype"),
        (lambda m, x, y: m.get_layer("lstm"), ValueError, "Received: name='lstm'"),
        (lambda m, x, y: m.compile("rprop", "categorical_crossentropy"), ValueError, "optimizer must be .*'rprop'"),
        (lambda m, x, y: m.compile("sgd", "hinge"), ValueError, "loss must be .* Received: loss='hinge'"),
        (lambda m, x, y: compiled(last=None).fit(x, y), ValueError, "needs softmax as the last activation"),
        (lambda m, x, y: Sequential().predict(x), ValueError, "the model has no layers"),
    ],
)
def test_errors_name_the_argument_and_what_was_received(use, error, message):
    with pytest.raises(error, match=message):
        use(compiled(), *stripes(6, seed=15))
