"""Optimizers, losses, metrics, initializers and `to_categorical` against their formulas in NumPy."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fastconv.keras import initializers, losses, metrics, optimizers, utils
from fastconv.keras.layers.variable import Variable
from fastconv.keras.optimizers import schedules


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


def rmsprop(momentum, centered):
    def step(w, g, state, t):
        state["s"] = 0.9 * state.get("s", 0) + 0.1 * g * g
        state["m"] = 0.9 * state.get("m", 0) + 0.1 * g
        spread = state["s"] - (state["m"] ** 2 if centered else 0)
        state["v"] = momentum * state.get("v", 0) + 0.01 * g / np.sqrt(spread + 1e-7)
        return w - state["v"]

    return step


def decayed(step, share):
    return lambda w, g, state, t: step(w * (1 - share), g, state, t)


def clipped(step, clip):
    return lambda w, g, state, t: step(w, clip(g), state, t)


def shortened(g):
    return g * min(1, 2 / np.linalg.norm(g))


@pytest.mark.parametrize(
    ("optimizer", "formula"),
    [
        (optimizers.SGD(0.1), sgd(0.0, False)),
        (optimizers.SGD(0.1, momentum=0.9), sgd(0.9, False)),
        (optimizers.SGD(0.1, momentum=0.9, nesterov=True), sgd(0.9, True)),
        (optimizers.Adam(0.01), adam),
        (optimizers.AdamW(0.01, weight_decay=0.1), decayed(adam, 0.1 * 0.01)),
        (optimizers.RMSprop(0.01), rmsprop(0.0, False)),
        (optimizers.RMSprop(0.01, momentum=0.5), rmsprop(0.5, False)),
        (optimizers.RMSprop(0.01, momentum=0.5, centered=True), rmsprop(0.5, True)),
        (optimizers.SGD(0.1, clipvalue=0.5), clipped(sgd(0.0, False), lambda g: np.clip(g, -0.5, 0.5))),
        (optimizers.SGD(0.1, clipnorm=2), clipped(sgd(0.0, False), shortened)),
    ],
    ids=["sgd", "momentum", "nesterov", "adam", "adamw", "rmsprop", "moving", "centered", "clipvalue", "clipnorm"],
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
        np.testing.assert_allclose(variable.value, values, rtol=1e-5, atol=1e-5)


def test_global_clipnorm_is_the_norm_of_all_gradients_together():
    variables = [Variable("kernel", np.zeros(2, np.float32)) for _ in range(2)]
    variables[0].gradient, variables[1].gradient = np.array([[3, 0], [0, 4]], np.float32)
    optimizers.SGD(1, global_clipnorm=1).apply(variables)
    np.testing.assert_allclose([variable.value for variable in variables], [[-0.6, 0], [0, -0.8]], rtol=1e-6)


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        (schedules.ExponentialDecay(0.8, 10, 0.5), {0: 0.8, 5: 0.8 * 0.5**0.5, 20: 0.2}),
        (schedules.ExponentialDecay(0.8, 10, 0.5, staircase=True), {9: 0.8, 10: 0.4, 29: 0.2}),
        (schedules.InverseTimeDecay(0.6, 10, 2), {0: 0.6, 5: 0.3, 10: 0.2}),
        (schedules.PiecewiseConstantDecay([2, 4], [3, 2, 1]), {0: 3, 2: 3, 3: 2, 4: 2, 5: 1}),
        (schedules.PolynomialDecay(1, 10, 0.5), {0: 1, 5: 0.75, 10: 0.5, 99: 0.5}),
        (schedules.PolynomialDecay(1, 10, 0, power=2, cycle=True), {5: 0.25, 10: 0, 15: 0.0625, 20: 0}),
        (schedules.CosineDecay(1, 10, alpha=0.2), {0: 1, 5: 0.6, 10: 0.2, 99: 0.2}),
        (schedules.CosineDecay(0, 10, warmup_target=1, warmup_steps=4), {0: 0, 1: 0.25, 4: 1, 9: 0.5, 14: 0}),
    ],
)
def test_schedules_follow_their_formulas(schedule, rates):
    assert {step: schedule(step) for step in rates} == pytest.approx(rates, abs=1e-12)
    again = schedules.get(schedules.serialize(schedule))
    assert vars(again) == vars(schedule)


def test_an_optimizer_follows_a_schedule_from_step_to_step():
    optimizer = optimizers.SGD(schedules.PiecewiseConstantDecay([0], [1, 0.5]))
    variable = Variable("kernel", np.zeros(1, np.float32))
    variable.gradient = np.ones(1, np.float32)
    for expected in (-1.0, -1.5, -2.0):
        optimizer.apply([variable])
        assert variable.value[0] == expected
    with pytest.raises(TypeError, match="learning_rate follows a schedule, PiecewiseConstantDecay"):
        optimizer.learning_rate = 0.1


@pytest.mark.parametrize(
    "optimizer",
    [
        optimizers.SGD(0.3, 0.5, nesterov=True, clipnorm=1),
        optimizers.RMSprop(0.3, 0.8, 0.1, 1e-3, centered=True, clipvalue=2),
        optimizers.Adam(schedules.CosineDecay(0.1, 5), 0.8, 0.9, 1e-5, global_clipnorm=3),
        optimizers.AdamW(0.1, 0.2, name="mine"),
    ],
)
def test_optimizers_are_made_again_from_their_configuration(optimizer):
    config = optimizer.get_config()
    again = optimizers.get({"class_name": type(optimizer).__name__, "config": config})
    assert type(again) is type(optimizer)
    assert again.get_config() == config


def test_optimizers_come_from_names():
    for cls in (optimizers.SGD, optimizers.RMSprop, optimizers.Adam, optimizers.AdamW):
        for name in (cls.__name__, cls.__name__.lower()):
            assert type(optimizers.get(name)) is cls


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: optimizers.SGD(-1), "learning_rate must be a number at least 0, or a schedule. Received: .*=-1"),
        (
            lambda: optimizers.SGD("fast"),
            "learning_rate must be a number at least 0, or a schedule. Received: .*'fast'",
        ),
        (lambda: optimizers.Adam(clipnorm=1, clipvalue=1), "only one of clipnorm, clipvalue and global_clipnorm"),
        (lambda: optimizers.Adam(weight_decay=-1), "weight_decay must be at least 0. Received: weight_decay=-1"),
        (lambda: schedules.ExponentialDecay(1, 0, 1), "decay_steps must be at least 1. Received: decay_steps=0"),
        (lambda: schedules.PiecewiseConstantDecay([1], [1]), "values must have one number more than boundaries"),
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


LOSSES = {
    "sparse of logits": (losses.SparseCategoricalCrossentropy(from_logits=True), "classes", "numbers"),
    "sparse of probabilities": (losses.SparseCategoricalCrossentropy(), "classes", "probabilities"),
    "categorical of logits": (losses.CategoricalCrossentropy(from_logits=True), "rows", "numbers"),
    "categorical smoothed": (losses.CategoricalCrossentropy(label_smoothing=0.2), "rows", "probabilities"),
    "binary of logits": (losses.BinaryCrossentropy(from_logits=True), "rows", "numbers"),
    "binary smoothed": (losses.BinaryCrossentropy(label_smoothing=0.2), "rows", "probabilities"),
    "squares": (losses.MeanSquaredError(), "rows", "numbers"),
    "absolute": (losses.MeanAbsoluteError(), "rows", "numbers"),
}


def batch(labels, predictions, shape=(5, 3)):
    """Labels and predictions of these kinds."""
    rng = np.random.default_rng(2)
    classes = rng.integers(0, shape[-1], shape[:-1])
    numbers = rng.standard_normal(shape)
    return (
        {"classes": classes, "rows": np.eye(shape[-1])[classes]}[labels],
        {"numbers": numbers, "probabilities": np.exp(numbers) / 20}[predictions],
    )


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("shape", [(5, 3), (2, 4, 3)])
def test_the_gradient_of_a_loss_is_that_of_the_mean(name, shape):
    loss, *kinds = LOSSES[name]
    y_true, y_pred = batch(*kinds, shape)
    gradient = loss.gradient(y_true, y_pred)
    direction = np.random.default_rng(3).standard_normal(shape)
    slope = (loss(y_true, y_pred + 1e-6 * direction) - loss(y_true, y_pred - 1e-6 * direction)) / 2e-6
    assert gradient.shape == shape
    assert (gradient * direction).sum() == pytest.approx(slope, rel=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_losses_follow_their_formulas(name):
    loss, *kinds = LOSSES[name]
    y_true, y_pred = batch(*kinds)
    rows = np.eye(3)[y_true] if kinds[0] == "classes" else y_true
    if isinstance(loss, losses.BinaryCrossentropy):
        p = 1 / (1 + np.exp(-y_pred)) if loss.from_logits else y_pred
        targets = rows * (1 - loss.label_smoothing) + loss.label_smoothing / 2
        expected = -(targets * np.log(p) + (1 - targets) * np.log(1 - p)).mean()
    elif isinstance(loss, losses.CategoricalCrossentropy):
        p = np.exp(y_pred) if loss.from_logits else y_pred
        targets = rows * (1 - loss.label_smoothing) + loss.label_smoothing / 3
        expected = -(targets * np.log(p / p.sum(axis=1, keepdims=True))).sum(axis=1).mean()
    else:
        errors = y_pred - rows
        expected = (errors**2 if isinstance(loss, losses.MeanSquaredError) else abs(errors)).mean()
    assert loss(y_true, y_pred) == pytest.approx(expected)


@pytest.mark.parametrize("name", LOSSES)
def test_losses_are_made_again_from_their_configuration(name):
    loss = LOSSES[name][0]
    again = losses.get({"class_name": type(loss).__name__, "config": loss.get_config()})
    assert type(again) is type(loss)
    assert again.get_config() == loss.get_config()


def test_a_loss_of_probabilities_is_one_of_logits_behind_its_activation():
    rng = np.random.default_rng(4)
    logits, labels = rng.standard_normal((6, 3)), np.eye(3)[rng.integers(0, 3, 6)]
    softmax = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    for loss, p in (
        (losses.CategoricalCrossentropy(), softmax),
        (losses.BinaryCrossentropy(), 1 / (1 + np.exp(-logits))),
    ):
        assert loss.of_logits(labels, logits) == pytest.approx(loss(labels, p))


def test_labels_may_lack_a_last_axis_of_one():
    labels, predictions = np.array([0, 1, 1]), np.array([[0.2], [0.9], [0.6]])
    loss = losses.BinaryCrossentropy()
    assert loss(labels, predictions) == loss(labels[:, None], predictions[:, 0]) == loss(labels, predictions[:, 0])
    with pytest.raises(
        ValueError, match=r"y must have the shape of the predictions, \(3, 1\).* Received: y.shape=\(2,\)"
    ):
        loss(labels[:2], predictions)


def test_a_large_logit_gives_a_finite_binary_loss():
    loss = losses.BinaryCrossentropy(from_logits=True)
    assert loss([[0.0], [1.0]], np.array([[1000.0], [1000.0]])) == pytest.approx(500)


def test_an_empty_batch_has_no_loss_and_an_empty_gradient():
    for loss, *kinds in LOSSES.values():
        y_true, y_pred = (array[:0] for array in batch(*kinds))
        assert loss(y_true, y_pred) == 0
        assert loss.gradient(y_true, y_pred).shape == (0, 3)


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


def test_accuracy_of_one_column_is_not_that_of_classes():
    for labels in ([1, 0], [[1], [0]]):
        with pytest.raises(
            ValueError, match=r"one column goes with binary_accuracy. Received: .* predictions \(2, 1\)"
        ):
            metrics.get("accuracy", losses.MeanSquaredError()).update_state(labels, [[0.9], [0.2]])


def test_metrics_count_what_they_say():
    labels, rows = np.array([2, 0, 1]), np.eye(3)[[2, 0, 1]]
    predictions = np.array([[0.5, 0.3, 0.2], [0.4, 0.3, 0.3], [0.7, 0.2, 0.1]])
    loss = losses.CategoricalCrossentropy()

    def result(metric, y_true):
        metric = metrics.get(metric, loss)
        metric.update_state(y_true, predictions)
        return metric.result()

    assert result("categorical_accuracy", rows) == result("sparse_categorical_accuracy", labels) == pytest.approx(1 / 3)
    assert result(metrics.SparseTopKCategoricalAccuracy(2), labels) == pytest.approx(2 / 3)
    assert result(metrics.TopKCategoricalAccuracy(2), rows) == pytest.approx(2 / 3)
    assert result(metrics.TopKCategoricalAccuracy(3), rows) == 1
    assert result("binary_accuracy", rows) == pytest.approx(5 / 9)  # positive: 0.7 alone, which is wrong
    assert result(metrics.BinaryAccuracy(threshold=0.35), rows) == pytest.approx(5 / 9)
    assert result(metrics.Precision(0.35), rows) == pytest.approx(1 / 3)
    assert result(metrics.Recall(0.35), rows) == pytest.approx(1 / 3)
    assert result(metrics.Precision(0.35, class_id=0), rows) == pytest.approx(1 / 3)
    assert result(metrics.Recall(0.35, class_id=0), rows) == 1
    # two samples are taken for class 0, one of them rightly; the third sample is class 1, and taken for 0
    assert result(metrics.Precision(top_k=1, class_id=0), rows) == pytest.approx(1 / 3)
    assert result(metrics.Recall(top_k=1, class_id=0), rows) == 1
    assert result(metrics.Recall(top_k=1, class_id=1), rows) == 0
    assert result(metrics.Recall(top_k=2, class_id=1), rows) == 1
    assert result(metrics.Precision(0.35, top_k=2), rows) == pytest.approx(1 / 3)
    assert result("mse", rows) == pytest.approx(np.square(predictions - rows).mean())
    assert result("mae", rows) == pytest.approx(np.abs(predictions - rows).mean())


def test_metrics_without_samples_are_zero_and_configurations_make_them_again():
    for metric in (
        metrics.SparseCategoricalAccuracy(),
        metrics.CategoricalAccuracy("mine"),
        metrics.BinaryAccuracy(threshold=0.2),
        metrics.SparseTopKCategoricalAccuracy(3),
        metrics.TopKCategoricalAccuracy(2),
        metrics.Precision(0.1, class_id=2),
        metrics.Recall(0.2, top_k=1),
        metrics.MeanSquaredError(),
        metrics.MeanAbsoluteError(),
    ):
        assert metric.result() == 0
        config = {"class_name": type(metric).__name__, "config": metric.get_config()}
        again = metrics.get(config, losses.MeanSquaredError())
        assert type(again) is type(metric)
        assert again.get_config() == metric.get_config()


def test_accuracy_is_binary_for_a_binary_loss():
    metric = metrics.get("accuracy", losses.BinaryCrossentropy())
    metric.update_state([1, 0, 1], [[0.6], [0.4], [0.3]])
    assert metric.result() == pytest.approx(2 / 3)
    assert metrics.get("mse", losses.BinaryCrossentropy()).name == "mse"


@pytest.mark.parametrize(
    ("initializer", "variance", "largest"),
    [
        ("glorot_uniform", 2 / (36 + 54), math.sqrt(6 / 90)),
        ("glorot_normal", 2 / (36 + 54), 2.28 * math.sqrt(2 / 90)),
        ("he_uniform", 2 / 36, math.sqrt(6 / 36)),
        ("HeNormal", 2 / 36, 2.28 * math.sqrt(2 / 36)),
        ("lecun_uniform", 1 / 36, math.sqrt(3 / 36)),
        ("lecun_normal", 1 / 36, 2.28 * math.sqrt(1 / 36)),
        ("random_uniform", 0.05**2 / 3, 0.05),
        ("random_normal", 0.05**2, 0.5),
        ("truncated_normal", (0.05 * 0.8796) ** 2, 0.1),
        (initializers.VarianceScaling(3, "fan_out", "untruncated_normal"), 3 / 54, 2),
        (initializers.Constant(2.5), 0, 2.5),
    ],
)
def test_initializers_draw_what_keras_draws(initializer, variance, largest):
    initializer = initializers.get(initializer)
    values = np.stack([initializer((3, 3, 4, 6), "float64", np.random.default_rng(i)) for i in range(300)])
    assert values.var() == pytest.approx(variance, rel=0.02)
    assert np.abs(values).max() <= largest
    again = initializers.get({"class_name": type(initializer).__name__, "config": initializer.get_config()})
    np.testing.assert_array_equal(again((3, 3, 4, 6), "float64", np.random.default_rng(0)), values[0])
    assert initializer((5,)).shape == (5,)  # a bias


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
