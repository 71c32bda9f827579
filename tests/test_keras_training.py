"""Optimizers, losses, metrics, initializers and `to_categorical` against their formulas in NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from fastconv.keras import initializers, losses, metrics, optimizers, utils
from fastconv.keras.layers.variable import Variable


def sgd(momentum, nesterov):
    def step(w, g, state, t):
        v = state.get("v", 0) * momentum - 0.1 * g
        state["v"] = v
        return w + (momentum * v - 0.1 * g if nesterov else v)

    return step


def adam(w, g, state, t):
    state["m"] = 0.9 * state.get("m", 0) + 0.1 * g
    state["v"] = 0.999 * state.get("v", 0) + 0.001 * g * g
    corrected_m, corrected_v = state["m"] / (1 - 0.9**t), state["v"] / (1 - 0.999**t)
    # Keras adds epsilon to the uncorrected root
    return w - 0.01 * corrected_m / (np.sqrt(corrected_v) + 1e-7 / np.sqrt(1 - 0.999**t))


@pytest.mark.parametrize(
    ("optimizer", "formula"),
    [
        (optimizers.SGD(0.1), sgd(0.0, False)),
        (optimizers.SGD(0.1, momentum=0.9), sgd(0.9, False)),
        (optimizers.SGD(0.1, momentum=0.9, nesterov=True), sgd(0.9, True)),
        (optimizers.Adam(0.01), adam),
    ],
    ids=["sgd", "momentum", "nesterov", "adam"],
)
def test_optimizers_follow_keras_formulas(optimizer, formula):
    rng = np.random.default_rng(0)
    variables = [Variable("kernel", rng.standard_normal((3, 4)).astype(np.float32)) for _ in range(2)]
    expected = [variable.value.astype(np.float64) for variable in variables]
    states = [{}, {}]
    for t in range(1, 6):
        for i, variable in enumerate(variables):
            variable.gradient = rng.standard_normal((3, 4)).astype(np.float32)
            expected[i] = formula(expected[i], variable.gradient.astype(np.float64), states[i], t)
        optimizer.apply(variables)
    for variable, values in zip(variables, expected, strict=True):
        np.testing.assert_allclose(variable.value, values, rtol=1e-5, atol=1e-6)


def test_optimizers_come_from_names_and_configurations():
    for name, cls in (("sgd", optimizers.SGD), ("adam", optimizers.Adam), ("Adam", optimizers.Adam)):
        assert type(optimizers.get(name)) is cls
    made = optimizers.get({"class_name": "SGD", "config": optimizers.SGD(0.3, 0.5, True).get_config()})
    assert (made.learning_rate, made.momentum, made.nesterov) == (0.3, 0.5, True)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: optimizers.SGD(-1), "learning_rate must be at least 0. Received: learning_rate=-1"),
        (lambda: optimizers.SGD(momentum=2), "momentum must be from 0 to 1. Received: momentum=2"),
        (lambda: optimizers.Adam(beta_2=1), "beta_2 must be at least 0 and below 1. Received: beta_2=1"),
    ],
)
def test_optimizer_errors_name_the_argument(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_losses_of_probabilities_and_logits_agree():
    rng = np.random.default_rng(1)
    logits, labels = rng.standard_normal((9, 4)), rng.integers(0, 4, 9)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    expected = -np.log(probabilities[np.arange(9), labels]).mean()
    one_hot = utils.to_categorical(labels, 4)
    assert losses.SparseCategoricalCrossentropy()(labels, probabilities) == pytest.approx(expected)
    assert losses.SparseCategoricalCrossentropy(from_logits=True)(labels, logits) == pytest.approx(expected)
    assert losses.CategoricalCrossentropy()(one_hot, probabilities) == pytest.approx(expected)
    assert losses.CategoricalCrossentropy(from_logits=True)(one_hot, logits) == pytest.approx(expected)


def test_a_probability_of_zero_gives_a_finite_loss():
    assert losses.SparseCategoricalCrossentropy()([0], [[0.0, 1.0]]) == pytest.approx(-np.log(1e-7), rel=1e-6)


def test_the_gradient_of_a_loss_is_that_of_the_mean():
    rng = np.random.default_rng(2)
    logits, labels = rng.standard_normal((5, 3)), rng.integers(0, 3, 5)
    loss = losses.SparseCategoricalCrossentropy(from_logits=True)
    gradient = loss.gradient(labels, logits)
    direction = rng.standard_normal((5, 3))
    slope = (loss(labels, logits + 1e-6 * direction) - loss(labels, logits - 1e-6 * direction)) / 2e-6
    assert (gradient * direction).sum() == pytest.approx(slope, rel=1e-6)


def test_rows_of_the_wrong_width_are_refused():
    with pytest.raises(ValueError, match=r"one row of 3 probabilities a sample .* Received: y.shape=\(2, 4\)"):
        losses.CategoricalCrossentropy()(np.zeros((2, 4)), np.zeros((2, 3)))


def test_accuracy_counts_over_batches_and_fits_the_loss():
    sparse = metrics.get("accuracy", losses.SparseCategoricalCrossentropy())
    rows = metrics.get("accuracy", losses.CategoricalCrossentropy())
    predictions = np.array([[0.1, 0.9], [0.8, 0.2], [0.4, 0.6]])
    for labels in ([1, 1, 1], [0, 0, 0]):
        sparse.update_state(np.array(labels)[:, None], predictions)
        rows.update_state(np.eye(2)[labels], predictions)
    assert sparse.result() == rows.result() == 0.5
    assert sparse.name == "accuracy"
    sparse.reset_state()
    assert sparse.result() == 0
    with pytest.raises(ValueError, match=r"metric must be .* Received: metric='auc'"):
        metrics.get("auc", losses.SparseCategoricalCrossentropy())


def test_initializers_have_keras_ranges_and_moments():
    shape = (3, 3, 40, 60)
    glorot = initializers.get("glorot_uniform")(shape, "float32", np.random.default_rng(3))
    limit = np.sqrt(6 / (9 * 40 + 9 * 60))
    assert glorot.dtype == np.float32
    assert 0.99 * limit < np.abs(glorot).max() <= limit
    he = initializers.get("HeNormal")(shape, "float64", np.random.default_rng(4))
    stddev = np.sqrt(2 / (9 * 40))
    assert he.std() == pytest.approx(stddev, rel=0.02)
    assert np.abs(he).max() <= 2 * stddev / 0.87962566103423978
    assert not initializers.get("zeros")((2, 3)).any()
    assert initializers.get("ones")((2, 3)).all()


def test_a_seeded_initializer_gives_the_same_array_each_time():
    initializer = initializers.GlorotUniform(seed=5)
    np.testing.assert_array_equal(initializer((4, 3)), initializer((4, 3)))
    assert not np.array_equal(initializers.GlorotUniform()((4, 3)), initializers.GlorotUniform()((4, 3)))


def test_to_categorical_has_one_column_per_class():
    np.testing.assert_array_equal(utils.to_categorical([2, 0]), [[0, 0, 1], [1, 0, 0]])
    np.testing.assert_array_equal(utils.to_categorical([[1], [0]], 3), [[0, 1, 0], [1, 0, 0]])
    with pytest.raises(ValueError, match="Received: smallest=-1, largest=4, num_classes=4"):
        utils.to_categorical([-1, 4], 4)
