"""Callbacks, driven by hand: a model that only has what they look at, and the averages of each epoch."""

from __future__ import annotations

import csv
from types import SimpleNamespace

import pytest

from fastconv.keras import callbacks, optimizers


class Model:
    """What callbacks see of a model; its weights are the number of the epoch."""

    def __init__(self):
        self.optimizer = optimizers.SGD(1.0)
        self.stop_training = False
        self.weights = None
        self.saved = []

    def get_weights(self):
        return self.weights

    def set_weights(self, weights):
        self.weights = weights

    def save(self, path):
        self.saved.append(path)

    def save_weights(self, path):
        self.saved.append(f"weights alone: {path}")


def train(callback, model=None, **averages):
    """Epochs with these averages until the callback ends them; the model, and the rate and logs of each epoch."""
    model = model or Model()
    callback.model, callback.params = model, {"epochs": 9, "steps": 1, "batch_size": 1, "samples": 1}
    seen = SimpleNamespace(rates=[], logs=[])
    callback.on_train_begin()
    for epoch, values in enumerate(zip(*averages.values(), strict=True)):
        logs = dict(zip(averages, values, strict=True))
        callback.on_epoch_begin(epoch)
        seen.rates.append(model.optimizer.learning_rate)
        model.weights = [epoch]
        callback.on_train_batch_end(0, logs)
        callback.on_epoch_end(epoch, logs)
        seen.logs.append(logs)
        if model.stop_training:
            break
    callback.on_train_end()
    return model, seen


# ---- EarlyStopping --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "averages", "epochs"),
    [
        ({}, [3, 2, 2, 1], 3),
        ({"patience": 2}, [3, 2, 2, 1, 1, 1, 0], 6),
        ({"min_delta": 0.5}, [3, 2, 1.8, 0], 3),
        ({"mode": "max"}, [1, 2, 1, 3], 3),
        ({"monitor": "accuracy"}, [1, 2, 1, 3], 3),
        ({"baseline": 1.5, "patience": 2}, [2, 3, 3, 3], 2),
        ({"start_from_epoch": 3}, [1, 2, 3, 4, 5, 0], 5),
    ],
    ids=["plain", "patience", "min_delta", "mode", "name", "baseline", "start_from_epoch"],
)
def test_early_stopping_ends_training(arguments, averages, epochs):
    name = arguments.get("monitor", "val_loss")
    model, seen = train(callbacks.EarlyStopping(**arguments), **{name: averages})
    assert model.stop_training
    assert len(seen.logs) == epochs


def test_early_stopping_puts_the_best_weights_back(capsys):
    stopping = callbacks.EarlyStopping(patience=2, restore_best_weights=True, verbose=1)
    model, _ = train(stopping, val_loss=[3, 1, 2, 2, 0])
    assert model.weights == [1]
    assert (stopping.best, stopping.best_epoch, stopping.stopped_epoch) == (1, 1, 3)
    assert capsys.readouterr().out == "Epoch 4: early stopping\n"
    assert train(callbacks.EarlyStopping(patience=2), val_loss=[3, 1, 2, 2, 0])[0].weights == [3]


def test_a_monitor_names_the_averages_there_are():
    with pytest.raises(ValueError, match=r"monitor must be one of loss, accuracy; .* Received: monitor='val_loss'"):
        train(callbacks.EarlyStopping(), loss=[1], accuracy=[1])
    with pytest.raises(ValueError, match=r"mode must be one of auto, min, max\. Received: mode='least'"):
        callbacks.EarlyStopping(mode="least")


# ---- the others -----------------------------------------------------------------------------------------------------


def test_not_a_number_ends_training():
    assert train(callbacks.TerminateOnNaN(), loss=[1.0, float("nan"), 1.0])[0].stop_training
    assert train(callbacks.TerminateOnNaN(), loss=[1.0, float("inf"), 1.0])[0].stop_training
    assert not train(callbacks.TerminateOnNaN(), loss=[1.0, 2.0])[0].stop_training


def test_the_rate_falls_on_a_plateau(capsys):
    falling = callbacks.ReduceLROnPlateau(factor=0.5, patience=2, cooldown=2, min_lr=0.3, verbose=1)
    _, seen = train(falling, val_loss=[3, 2, 2, 2, 2, 2, 2, 2, 2, 2])
    # two epochs without a gain, two that do not count (the second ends the rest and counts again), and the least rate
    assert seen.rates == [1, 1, 1, 1, 0.5, 0.5, 0.5, 0.3, 0.3, 0.3]
    assert [logs["learning_rate"] for logs in seen.logs] == seen.rates
    assert capsys.readouterr().out == "Epoch 4: learning rate 0.5\nEpoch 7: learning rate 0.3\n"
    with pytest.raises(ValueError, match=r"factor must be below 1\. Received: factor=1"):
        callbacks.ReduceLROnPlateau(factor=1)


@pytest.mark.parametrize(
    "schedule", [lambda epoch: 1 / (epoch + 1), lambda epoch, rate: rate / (epoch + 1) * max(epoch, 1)]
)
def test_a_schedule_sets_the_rate_of_each_epoch(schedule, capsys):
    _, seen = train(callbacks.LearningRateScheduler(schedule, verbose=1), loss=[1, 1, 1])
    assert seen.rates == pytest.approx([1, 1 / 2, 1 / 3])
    assert [logs["learning_rate"] for logs in seen.logs] == seen.rates
    assert "Epoch 2: learning rate 0.5\n" in capsys.readouterr().out


def test_checkpoints_are_saved_after_each_epoch_or_the_best(capsys):
    every = callbacks.ModelCheckpoint("{epoch:02d}-{val_loss:.1f}.safetensors")
    assert train(every, val_loss=[3, 1, 2])[0].saved == [
        "01-3.0.safetensors",
        "02-1.0.safetensors",
        "03-2.0.safetensors",
    ]
    best = callbacks.ModelCheckpoint("{epoch}.safetensors", save_best_only=True, verbose=1)
    assert train(best, val_loss=[3, 1, 2, 0.5])[0].saved == ["1.safetensors", "2.safetensors", "4.safetensors"]
    assert capsys.readouterr().out.splitlines()[-1] == "Epoch 4: saved 4.safetensors"
    least = callbacks.ModelCheckpoint("{epoch}.safetensors", save_best_only=True, initial_value_threshold=2)
    assert train(least, val_loss=[3, 1])[0].saved == ["2.safetensors"]
    rising = callbacks.ModelCheckpoint("{epoch}.safetensors", monitor="val_accuracy", save_best_only=True)
    assert train(rising, val_accuracy=[0.5, 0.4, 0.6])[0].saved == ["1.safetensors", "3.safetensors"]
    weights = callbacks.ModelCheckpoint("{epoch}.safetensors", save_weights_only=True)
    assert train(weights, val_loss=[3])[0].saved == ["weights alone: 1.safetensors"]


def test_a_checkpoint_of_another_kind_is_refused_before_training():
    with pytest.raises(ValueError, match=r"must end in .safetensors. Received: filepath='best.keras'"):
        callbacks.ModelCheckpoint("best.keras")


def test_csv_lines_are_there_after_every_epoch_and_may_be_added_to(tmp_path):
    path = tmp_path / "log.csv"

    def lines():
        return list(csv.reader(path.read_text().splitlines()))

    train(callbacks.CSVLogger(path), loss=[2.0, 1.0], accuracy=[0.5, 0.75])
    assert lines() == [["epoch", "accuracy", "loss"], ["0", "0.5", "2.0"], ["1", "0.75", "1.0"]]
    train(callbacks.CSVLogger(path, append=True), loss=[0.5], accuracy=[1.0])
    assert lines()[3:] == [["0", "1.0", "0.5"]]
    train(callbacks.CSVLogger(path, separator=";"), loss=[0.5])
    assert path.read_text().splitlines() == ["epoch;loss", "0;0.5"]


def test_history_has_a_number_for_each_epoch():
    history = callbacks.History()
    train(history, loss=[3, 2], val_loss=[4, 3])
    assert (history.epoch, history.history) == ([0, 1], {"loss": [3, 2], "val_loss": [4, 3]})
