"""What `fit` promises: batches from iterators, going on to the same bits, a clean end on Ctrl-C, every kind of loss."""

from __future__ import annotations

import signal

import numpy as np
import pytest

from fastconv.keras import Sequential, callbacks, layers, losses, models, optimizers, utils
from fastconv.keras.preprocessing.image import ImageDataGenerator

RNG = np.random.default_rng(0)
X = RNG.random((40, 6, 6, 1), np.float32)
Y = (X[:, :3].mean(axis=(1, 2, 3)) > X[:, 3:].mean(axis=(1, 2, 3))).astype(np.int64)


def network(*last, optimizer="adam", loss="sparse_categorical_crossentropy", metrics=("accuracy",), dropout=0.25):
    """A small model that was compiled, from seed 1."""
    utils.set_random_seed(1)
    model = Sequential(
        [
            layers.Input((6, 6, 1)),
            layers.Conv2D(4, 3, activation="relu"),
            layers.Flatten(),
            layers.Dropout(dropout),
            *(last or (layers.Dense(2, activation="softmax"),)),
        ]
    )
    model.compile(optimizer, loss, metrics=list(metrics))
    return model


def same_weights(one, other):
    return all(np.array_equal(a, b) for a, b in zip(one.get_weights(), other.get_weights(), strict=True))


# ---- going on -------------------------------------------------------------------------------------------------------


def arrays():
    return {"x": X, "y": Y, "batch_size": 8}


def variations():
    pytest.importorskip("scipy", reason="SciPy is not installed")
    generator = ImageDataGenerator(rotation_range=20, horizontal_flip=True)
    return {"x": generator.flow(X, Y, batch_size=8, seed=3)}  # in another order each epoch


@pytest.mark.parametrize("data", [arrays, variations])
@pytest.mark.parametrize(
    "optimizer",
    [
        lambda: optimizers.SGD(0.1),
        lambda: optimizers.SGD(0.1, 0.9, nesterov=True),
        lambda: optimizers.RMSprop(0.01),
        lambda: optimizers.RMSprop(0.01, momentum=0.5, centered=True),
        lambda: optimizers.Adam(0.01, clipnorm=1.0),
        lambda: optimizers.AdamW(optimizers.schedules.ExponentialDecay(0.01, 5, 0.5)),
    ],
    ids=["sgd", "nesterov", "rmsprop", "centered", "adam", "adamw"],
)
def test_training_goes_on_from_a_file_to_the_same_bits(optimizer, data, tmp_path):
    pytest.importorskip("safetensors", reason="safetensors is not installed")
    whole = network(optimizer=optimizer())
    whole.fit(**data(), epochs=4, verbose=0)
    half = network(optimizer=optimizer())
    half.fit(**data(), epochs=2, verbose=0, callbacks=callbacks.ModelCheckpoint(tmp_path / "{epoch}.safetensors"))
    again = models.load_model(tmp_path / "2.safetensors")
    assert same_weights(again, half)
    again.fit(**data(), epochs=4, initial_epoch=2, verbose=0)
    assert same_weights(again, whole)
    assert not same_weights(again, half)


def test_a_file_without_the_optimizer_starts_afresh(tmp_path):
    model = network()
    model.fit(X, Y, verbose=0)
    model.save(tmp_path / "x.safetensors", include_optimizer=False)
    again = models.load_model(tmp_path / "x.safetensors")
    assert (again.optimizer.iterations, model.optimizer.iterations) == (0, 2)
    assert same_weights(again, model)


def test_weights_alone_go_to_a_file_and_back(tmp_path):
    model, other = network(), network()
    model.fit(X, Y, verbose=0)
    model.save_weights(tmp_path / "w.safetensors")
    other.load_weights(tmp_path / "w.safetensors")
    assert same_weights(other, model)
    model.save(tmp_path / "m.safetensors")
    third = network()
    third.load_weights(tmp_path / "m.safetensors")
    assert same_weights(third, model)
    with pytest.raises(ValueError, match="filepath must hold the tensors"):
        network(layers.Dense(3), layers.Dense(2, activation="softmax")).load_weights(tmp_path / "w.safetensors")


def test_ctrl_c_ends_between_two_batches(ctrl_c):
    """The signal comes in the middle of an update; training ends behind it as if it had been asked to stop there."""

    class Press(optimizers.SGD):
        pressed = False

        def update(self, *arguments):
            if self.iterations == 3 and not self.pressed:
                self.pressed = True
                signal.raise_signal(signal.SIGINT)
            super().update(*arguments)

    class Watch(callbacks.Callback):
        ended = 0

        def on_train_end(self):
            self.ended += 1

    model, watch = network(optimizer=Press(0.1)), Watch()
    with pytest.raises(KeyboardInterrupt):
        model.fit(X, Y, 8, epochs=2, verbose=0, shuffle=False, callbacks=[watch])
    assert (watch.ended, model.optimizer.iterations) == (1, 3)
    stopped = network(optimizer=optimizers.SGD(0.1))
    stopped.fit(X[:24], Y[:24], 8, verbose=0, shuffle=False)
    assert same_weights(model, stopped)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_hooks_are_called_in_order_under_their_older_names_too():
    seen = []

    class Watch(callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            seen.append(f"epoch {epoch}")

        def on_batch_begin(self, batch, logs=None):
            seen.append(f"before {batch}")

        def on_batch_end(self, batch, logs=None):
            seen.append(f"behind {batch}: {sorted(logs)}")

        def on_test_begin(self, logs=None):
            seen.append("validation")

        def on_test_end(self, logs=None):
            seen.append(sorted(logs))

    model = network()
    history = model.fit(X, Y, 20, verbose=0, callbacks=Watch(), validation_data=(X, Y))
    batches = [f"{when} {number}" for number in (0, 1) for when in ("before", "behind")]
    batches = [batch + ": ['accuracy', 'loss']" * batch.startswith("behind") for batch in batches]
    assert seen == ["epoch 0", *batches, "validation", ["val_accuracy", "val_loss"]]
    assert model.history is history
    assert model.metrics_names == ["loss", "accuracy"]


# ---- iterators ------------------------------------------------------------------------------------------------------


class Batches:
    """Batches of 8 for ever."""

    n, batch_size = 40, 8

    def __init__(self):
        self.number = -1

    def __len__(self):
        return 5

    def __next__(self):
        self.number += 1
        part = slice(self.number % 5 * 8, self.number % 5 * 8 + 8)
        return X[part], Y[part]


def test_an_iterator_trains_as_its_arrays_do():
    arrays, iterator = network(), network()
    expected = arrays.fit(X, Y, 8, epochs=2, verbose=0, shuffle=False, validation_data=(X, Y))
    found = iterator.fit(Batches(), epochs=2, verbose=0, validation_data=Batches())
    assert same_weights(arrays, iterator)
    assert found.history == expected.history
    np.testing.assert_array_equal(iterator.predict(Batches()), arrays.predict(X))
    assert iterator.evaluate(Batches(), verbose=0) == arrays.evaluate(X, Y, 8, verbose=0)


def test_an_iterator_without_length_needs_steps():
    def endless():
        while True:
            yield X[:8], Y[:8]

    model = network()
    model.fit(endless(), steps_per_epoch=3, verbose=0, validation_data=endless(), validation_steps=1)
    assert model.optimizer.iterations == 3
    with pytest.raises(ValueError, match="steps_per_epoch is needed where x is an iterator that has no length"):
        model.fit(endless(), verbose=0)
    with pytest.raises(ValueError, match="y and batch_size must be left out"):
        model.fit(Batches(), Y, verbose=0)
    with pytest.raises(ValueError, match="validation_split needs arrays"):
        model.fit(Batches(), validation_split=0.5, verbose=0)
    with pytest.raises(ValueError, match="y is needed where x is an array"):
        model.fit(X, verbose=0)


# ---- losses and metrics ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("last", "loss", "labels"),
    [
        ((layers.Dense, 2, "softmax"), "sparse_categorical_crossentropy", Y),
        ((layers.Dense, 2, "softmax"), "categorical_crossentropy", np.eye(2)[Y]),
        ((layers.Dense, 1, "sigmoid"), "binary_crossentropy", Y),
        ((layers.Dense, 2, "sigmoid"), "binary_crossentropy", np.eye(2)[Y]),
        ((layers.Dense, 1, None), losses.BinaryCrossentropy(from_logits=True), Y),
        ((layers.Dense, 2, "sigmoid"), "categorical_crossentropy", np.eye(2)[Y]),
        ((layers.Dense, 1, None), "mse", Y),
        ((layers.Dense, 1, "tanh"), "mae", Y),
    ],
)
def test_every_loss_goes_down_and_its_gradient_is_that_of_evaluate(last, loss, labels):
    kind, units, activation = last
    model = network(kind(units, activation=activation), loss=loss, metrics=(), optimizer=optimizers.SGD(0.0), dropout=0)
    before, bias = model.train_on_batch(X, labels), model.weights[-1]
    gradient, values, shift = bias.gradient.copy(), bias.numpy(), np.float32(1e-2)
    bias.assign(values + shift)
    above = model.evaluate(X, labels, verbose=0)
    bias.assign(values - shift)
    slope = (above - model.evaluate(X, labels, verbose=0)) / 2e-2
    assert gradient.sum() == pytest.approx(slope, rel=1e-2, abs=1e-3)
    bias.assign(values)
    model.optimizer.learning_rate = 1e-2
    model.train_on_batch(X, labels)
    assert model.evaluate(X, labels, verbose=0) < before


def test_metrics_see_predictions_not_logits():
    model = network(
        layers.Dense(1, activation="sigmoid"), loss="binary_crossentropy", metrics=["accuracy", "Precision"]
    )
    scores = model.evaluate(X, Y, verbose=0, return_dict=True)
    positive = model.predict(X)[:, 0] > 0.5
    assert scores["accuracy"] == pytest.approx(np.mean(positive == Y))
    assert scores["precision"] == pytest.approx(Y[positive].mean() if positive.any() else 0)


def test_a_loss_of_probabilities_wants_some_and_one_of_logits_none():
    with pytest.raises(ValueError, match="loss with from_logits=False needs softmax as the last activation"):
        network(layers.Dense(2)).fit(X, Y, verbose=0)
    wrong = network(layers.Dense(1, activation="sigmoid"), loss=losses.BinaryCrossentropy(from_logits=True))
    with pytest.raises(ValueError, match="loss with from_logits=True needs no sigmoid at the end of the model"):
        wrong.fit(X, Y, verbose=0)


def test_history_has_what_other_callbacks_add():
    model = network()
    halve = callbacks.LearningRateScheduler(lambda epoch, rate: rate / 2)
    history = model.fit(X, Y, epochs=2, verbose=0, callbacks=[halve])
    assert history.history["learning_rate"] == [0.0005, 0.00025]


def test_grey_images_may_lack_the_axis_of_their_channel():
    model = network()
    np.testing.assert_array_equal(model.predict(X[..., 0]), model.predict(X))
    model.fit(X[..., 0], Y, verbose=0)
    with pytest.raises(ValueError, match=r"x must have shape \(None, 6, 6, 1\). Received: x.shape=\(40, 6\)"):
        model.predict(X[:, 0, :, 0])
