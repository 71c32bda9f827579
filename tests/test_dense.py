"""The dense layer, and the optimizer steps that train it."""

import numpy as np
import pytest

from fastconv import threads
from fastconv.cpu.update import adam_update, sgd_update
from fastconv.functional.dense import dense, dense_backward
from fastconv.reference import elementwise as reference


def integers(*shape, seed=0, dtype=np.float32):
    return np.random.default_rng(seed).integers(-5, 6, shape).astype(dtype)


@pytest.mark.parametrize("leading", [(), (4,), (2, 3), (0,)])
def test_forward_and_gradients_are_exact_for_integers(leading):
    x, weight, bias = integers(*leading, 7, seed=1), integers(7, 5, seed=2), integers(5, seed=3)
    out = dense(x, weight, bias)
    np.testing.assert_array_equal(out, np.einsum("...i,io->...o", x, weight) + bias)
    grad_out = integers(*leading, 5, seed=4)
    grad_x, grad_weight, grad_bias = dense_backward(grad_out, x, weight)
    np.testing.assert_array_equal(grad_x, np.einsum("...o,io->...i", grad_out, weight))
    np.testing.assert_array_equal(grad_weight, np.einsum("ri,ro->io", x.reshape(-1, 7), grad_out.reshape(-1, 5)))
    np.testing.assert_array_equal(grad_bias, grad_out.reshape(-1, 5).sum(axis=0))
    assert grad_x.dtype == grad_weight.dtype == grad_bias.dtype == np.float32


@pytest.mark.parametrize("name", ["relu", "gelu", None])
def test_bias_and_activation_in_one_pass(name, monkeypatch):
    """Many rows of an odd width: the blocks of the pass begin and end inside rows."""
    x, weight, bias = integers(3001, 3, seed=1), integers(3, 37, seed=2), integers(37, seed=3) / 4
    expected = reference.ACTIVATION[name or "linear"]((x @ weight + bias).astype(np.float64))
    for workers in (1, 3):
        monkeypatch.setattr(threads, "worker_count", lambda work, workers=workers: workers)
        np.testing.assert_allclose(dense(x, weight, bias, activation=name), expected, rtol=5e-7, atol=1e-37)
    without_bias = reference.ACTIVATION[name or "linear"]((x @ weight).astype(np.float64))
    np.testing.assert_allclose(dense(x, weight, activation=name), without_bias, rtol=5e-7, atol=1e-37)


def test_any_kind_of_array():
    x, weight, bias = integers(4, 6, seed=1), integers(6, 3, seed=2), integers(3, seed=3)
    out = dense(x, weight, bias)
    np.testing.assert_array_equal(dense(np.asfortranarray(x), weight.astype(">f4"), bias[::-1].copy()[::-1]), out)
    np.testing.assert_array_equal(dense(x.astype(float), weight.astype(float), bias.astype(float)), out)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x, w, b: dense(x[:, 1:], w), ValueError, r"last axis of x .* = 3 .* Received: x.shape=\(4, 2\)"),
        (lambda x, w, b: dense(x, w[0]), ValueError, r"weight must have 2 dimensions .* Received: weight.shape=\(2,\)"),
        (lambda x, w, b: dense(x, w, b[1:]), ValueError, r"bias must have shape \(2,\). Received: bias.shape=\(1,\)"),
        (lambda x, w, b: dense(x, w.astype(float)), TypeError, "weight must have the dtype of the first array"),
        (lambda x, w, b: dense(x.astype(int), w), TypeError, "x must be float32 or float64"),
        (lambda x, w, b: dense(x, w, activation="softmax"), ValueError, "Received: activation='softmax'"),
        (lambda x, w, b: dense_backward(x, x, w), ValueError, r"\(4, 2\). Received: grad_out.shape=\(4, 3\)"),
    ],
)
def test_errors_name_the_argument_and_the_rule(call, error, message):
    with pytest.raises(error, match=message):
        call(integers(4, 3), integers(3, 2), integers(2))


# ---- optimizer steps ----------------------------------------------------------------------------------------------


def run_steps(update, workers, monkeypatch, shape=(40_001,)):
    """Three steps with random gradients; the parameter afterwards and that of the reference."""
    monkeypatch.setattr(threads, "worker_count", lambda work: workers)
    rng = np.random.default_rng(1)
    parameter = rng.normal(size=shape).astype(np.float32)
    expected = parameter.astype(np.float64)
    gradients = rng.normal(size=(3, *shape)).astype(np.float32)
    return update(parameter, expected, gradients)


def adam(parameter, expected, gradients):
    mean, square = np.zeros_like(parameter), np.zeros_like(parameter)
    state = (expected, np.zeros_like(expected), np.zeros_like(expected))
    for t, gradient in enumerate(gradients, 1):
        adam_update(parameter, gradient, mean, square, iteration=t, learning_rate=0.01)
        state = reference.adam_step(state, gradient.astype(np.float64), t, 0.01, 0.9, 0.999, 1e-7)
    return parameter, state[0]


def sgd(momentum, nesterov):
    def update(parameter, expected, gradients):
        velocity = np.zeros_like(parameter) if momentum else None
        options = {"learning_rate": 0.1, "momentum": momentum, "nesterov": nesterov}
        reference_velocity = np.zeros_like(expected)
        for gradient in gradients:
            sgd_update(parameter, gradient, velocity, **options)
            expected, reference_velocity = reference.sgd_step(
                expected, reference_velocity, gradient.astype(np.float64), *options.values()
            )
        return parameter, expected

    return update


@pytest.mark.parametrize("update", [adam, sgd(0.0, False), sgd(0.9, False), sgd(0.9, True)])
def test_steps_follow_the_formula_with_the_same_bits_for_any_workers(update, monkeypatch):
    parameter, expected = run_steps(update, 1, monkeypatch)
    np.testing.assert_allclose(parameter, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(run_steps(update, 3, monkeypatch)[0], parameter)


def test_steps_change_matrices_in_place_and_refuse_strided_ones(monkeypatch):
    parameter, expected = run_steps(adam, 1, monkeypatch, shape=(3, 4))
    np.testing.assert_allclose(parameter, expected, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match=r"must be contiguous. Received: strides=\(4, 12\)"):
        sgd_update(np.zeros((4, 3), np.float32).T, np.zeros((3, 4), np.float32), None, learning_rate=0.1)
