"""Optimizers, schedules, losses and metrics against Keras itself."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

from fastconv.keras import losses, metrics, optimizers
from fastconv.keras.layers.variable import Variable

if importlib.util.find_spec("keras") is None:
    pytest.skip("Keras is not installed", allow_module_level=True)

import keras

RNG = np.random.default_rng(0)
STEPS = 4


def of_both(name, *arguments, **options):
    """An optimizer of ours and Keras's of the same name and arguments; a schedule is made of each module."""

    def made(module):
        values = [value(module.schedules) if callable(value) else value for value in arguments]
        return getattr(module, name)(*values, **options)

    return made(optimizers), made(keras.optimizers)


@pytest.mark.parametrize(
    ("name", "arguments", "options"),
    [
        ("SGD", (0.1,), {}),
        ("SGD", (0.1, 0.9), {}),
        ("SGD", (0.1, 0.9, True), {"weight_decay": 0.1}),
        ("RMSprop", (0.01,), {}),
        ("RMSprop", (0.01, 0.8, 0.5), {}),
        ("RMSprop", (0.01, 0.8, 0.5, 1e-5, True), {}),
        ("Adam", (0.01,), {}),
        ("Adam", (0.01, 0.8, 0.95, 1e-3), {"clipnorm": 0.5}),
        ("Adam", (0.01,), {"clipvalue": 0.5}),
        ("Adam", (0.01,), {"global_clipnorm": 0.5}),
        ("AdamW", (0.01,), {}),
        ("AdamW", (0.01, 0.1), {}),
        ("SGD", (lambda schedules: schedules.ExponentialDecay(0.1, 2, 0.5),), {}),
        ("SGD", (lambda schedules: schedules.CosineDecay(0.1, 3, 0.1, warmup_target=0.3, warmup_steps=2),), {}),
    ],
)
def test_updates_are_equal_to_rounding(name, arguments, options):
    ours, theirs = of_both(name, *arguments, **options)
    start = [RNG.standard_normal(shape).astype(np.float32) for shape in ((3, 4), (5,))]
    mine = [Variable("kernel", value.copy()) for value in start]
    others = [keras.Variable(value) for value in start]
    for _ in range(STEPS):
        gradients = [RNG.standard_normal(value.shape).astype(np.float32) for value in start]
        for variable, gradient in zip(mine, gradients, strict=True):
            variable.gradient = gradient
        ours.apply(mine)
        theirs.apply([keras.ops.convert_to_tensor(gradient) for gradient in gradients], others)
    for variable, other in zip(mine, others, strict=True):
        np.testing.assert_allclose(variable.value, np.asarray(other), rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize(
    ("name", "arguments", "options"),
    [
        ("ExponentialDecay", (0.8, 10, 0.5), {}),
        ("ExponentialDecay", (0.8, 10, 0.5, True), {}),
        ("InverseTimeDecay", (0.8, 10, 0.5), {}),
        ("InverseTimeDecay", (0.8, 10, 0.5, True), {}),
        ("PiecewiseConstantDecay", ([3, 9], [1.0, 0.5, 0.1]), {}),
        ("PolynomialDecay", (1.0, 10, 0.1, 2.0), {}),
        ("PolynomialDecay", (1.0, 10, 0.1, 1.0, True), {}),
        ("CosineDecay", (1.0, 10, 0.1), {}),
        ("CosineDecay", (0.1, 10, 0.1), {"warmup_target": 1.0, "warmup_steps": 5}),
    ],
)
def test_schedules_have_the_same_rates(name, arguments, options):
    ours, theirs = (getattr(module.schedules, name)(*arguments, **options) for module in (optimizers, keras.optimizers))
    steps = range(25)
    np.testing.assert_allclose([ours(step) for step in steps], [float(theirs(step)) for step in steps], rtol=1e-5)


LABELS = np.eye(4, dtype=np.float32)[RNG.integers(0, 4, 6)]
SCORES = RNG.standard_normal((6, 4)).astype(np.float32)
PROBABILITIES = np.exp(SCORES) / np.exp(SCORES).sum(axis=1, keepdims=True)


@pytest.mark.parametrize(
    ("name", "options", "labels", "predictions"),
    [
        ("CategoricalCrossentropy", {}, LABELS, PROBABILITIES),
        ("CategoricalCrossentropy", {}, LABELS, PROBABILITIES * 0.7),
        ("CategoricalCrossentropy", {"label_smoothing": 0.1}, LABELS, PROBABILITIES),
        ("CategoricalCrossentropy", {"from_logits": True, "label_smoothing": 0.1}, LABELS, SCORES),
        ("SparseCategoricalCrossentropy", {}, LABELS.argmax(1), PROBABILITIES),
        ("SparseCategoricalCrossentropy", {"from_logits": True}, LABELS.argmax(1)[:, None], SCORES),
        ("BinaryCrossentropy", {}, LABELS, PROBABILITIES),
        ("BinaryCrossentropy", {"from_logits": True, "label_smoothing": 0.2}, LABELS, SCORES),
        ("BinaryCrossentropy", {}, LABELS[:, 0], PROBABILITIES[:, :1]),
        ("MeanSquaredError", {}, LABELS, SCORES),
        ("MeanAbsoluteError", {}, LABELS, SCORES),
    ],
)
def test_losses_and_their_gradients_are_equal(name, options, labels, predictions):
    import tensorflow

    ours, theirs = (getattr(module, name)(**options) for module in (losses, keras.losses))
    tensor = tensorflow.constant(predictions)
    with tensorflow.GradientTape() as tape:
        tape.watch(tensor)
        value = theirs(labels, tensor)
    assert ours(labels, predictions) == pytest.approx(float(value), rel=1e-5)
    expected = tape.gradient(value, tensor).numpy()
    np.testing.assert_allclose(ours.gradient(labels, predictions), expected, rtol=2e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "options", "labels"),
    [
        ("SparseCategoricalAccuracy", {}, LABELS.argmax(1)),
        ("CategoricalAccuracy", {}, LABELS),
        ("BinaryAccuracy", {}, LABELS),
        ("BinaryAccuracy", {"threshold": 0.3}, LABELS),
        ("SparseTopKCategoricalAccuracy", {"k": 2}, LABELS.argmax(1)),
        ("TopKCategoricalAccuracy", {"k": 3}, LABELS),
        ("Precision", {"thresholds": 0.3}, LABELS),
        ("Precision", {"thresholds": 0.3, "class_id": 1}, LABELS),
        ("Recall", {"thresholds": 0.3}, LABELS),
        ("Recall", {"thresholds": 0.3, "class_id": 2}, LABELS),
        ("Precision", {"top_k": 1, "class_id": 1}, LABELS),
        ("Precision", {"top_k": 2, "thresholds": 0.3}, LABELS),
        ("Recall", {"top_k": 1, "class_id": 2}, LABELS),
        ("Recall", {"top_k": 2}, LABELS),
        ("MeanSquaredError", {}, LABELS),
        ("MeanAbsoluteError", {}, LABELS),
    ],
)
def test_metrics_are_equal_over_two_batches(name, options, labels):
    ours, theirs = (getattr(module, name)(**options) for module in (metrics, keras.metrics))
    assert ours.name == theirs.name.rstrip("_0123456789")  # Keras numbers them
    for part in (slice(0, 4), slice(4, 6)):
        ours.update_state(labels[part], PROBABILITIES[part])
        theirs.update_state(labels[part], PROBABILITIES[part])
        assert ours.result() == pytest.approx(float(theirs.result()), rel=1e-6)
