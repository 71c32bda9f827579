"""Softmax cross-entropy from logits."""

import numpy as np
import pytest

from fastconv.functional.loss import softmax_cross_entropy, softmax_cross_entropy_backward
from fastconv.reference import elementwise as reference

N, C = 6, 5


def problem(dtype=np.float32):
    rng = np.random.default_rng(1)
    return rng.normal(0, 3, (N, C)).astype(dtype), rng.integers(0, C, N)


def smoothed(labels, label_smoothing):
    return np.eye(C)[labels] * (1 - label_smoothing) + label_smoothing / C


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 2e-6), (np.float64, 1e-14)])
def test_class_numbers_and_one_hot_labels_agree_with_the_formula(dtype, tolerance, label_smoothing):
    logits, labels = problem(dtype)
    expected = reference.softmax_cross_entropy(logits.astype(np.float64), smoothed(labels, label_smoothing))
    for form in (labels, labels.astype(np.uint8), labels.tolist(), np.eye(C)[labels], np.eye(C, dtype=int)[labels]):
        losses = softmax_cross_entropy(logits, form, label_smoothing=label_smoothing)
        assert losses.dtype == dtype
        np.testing.assert_allclose(losses, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@pytest.mark.parametrize("form", ["classes", "probabilities", "weights"])
def test_gradient_in_a_random_direction(form, label_smoothing):
    logits, labels = problem(np.float64)
    rng = np.random.default_rng(2)
    targets = {
        "classes": labels,
        "probabilities": reference.softmax(rng.normal(size=(N, C))),
        "weights": rng.uniform(0, 2, (N, C)),
    }[form]
    grad_losses, direction = rng.normal(size=N), rng.normal(size=(N, C))
    gradient = softmax_cross_entropy_backward(grad_losses, logits, targets, label_smoothing=label_smoothing)
    step = 1e-6
    above, below = (
        softmax_cross_entropy(logits + sign * step * direction, targets, label_smoothing=label_smoothing)
        for sign in (1, -1)
    )
    expected = np.sum(grad_losses * (above - below)) / (2 * step)
    np.testing.assert_allclose(np.sum(gradient * direction), expected, rtol=1e-7)


def test_a_number_is_the_same_gradient_for_every_sample():
    logits, labels = problem()
    one = softmax_cross_entropy_backward(1 / N, logits, labels)
    np.testing.assert_array_equal(one, softmax_cross_entropy_backward(np.full(N, 1 / N, np.float32), logits, labels))


def test_huge_logits_give_finite_losses():
    logits = np.array([[1e38, 0, -1e38], [-1e38, -1e38, -1e38]], np.float32)
    losses = softmax_cross_entropy(logits, [1, 2])
    np.testing.assert_allclose(losses, [1e38, np.log(3)], rtol=1e-6)
    np.testing.assert_allclose(
        softmax_cross_entropy_backward(1.0, logits, [1, 2]), [[1, -1, 0], [1 / 3, 1 / 3, -2 / 3]], rtol=1e-6
    )


def test_a_class_with_probability_zero_may_have_logit_minus_infinity():
    logits = np.array([[0, 0, -np.inf]], np.float32)
    np.testing.assert_allclose(softmax_cross_entropy(logits, np.array([[0.5, 0.5, 0]])), [np.log(2)], rtol=1e-6)
    assert np.isnan(softmax_cross_entropy(np.array([[0, np.nan]]), [0])).all()


def test_agrees_with_torch():
    torch = pytest.importorskip("torch", reason="compares with PyTorch")
    logits, labels = problem()
    tensor = torch.from_numpy(logits).requires_grad_()
    losses = torch.nn.functional.cross_entropy(tensor, torch.from_numpy(labels), reduction="none", label_smoothing=0.2)
    grad_losses = np.random.default_rng(3).normal(size=N).astype(np.float32)
    losses.backward(torch.from_numpy(grad_losses))
    np.testing.assert_allclose(
        softmax_cross_entropy(logits, labels, label_smoothing=0.2), losses.detach().numpy(), rtol=1e-6, atol=1e-6
    )
    gradient = softmax_cross_entropy_backward(grad_losses, logits, labels, label_smoothing=0.2)
    np.testing.assert_allclose(gradient, tensor.grad.numpy(), rtol=1e-6, atol=1e-6)


def test_empty_batch_and_strided_logits():
    empty = np.empty((0, C), np.float32)
    assert softmax_cross_entropy(empty, []).shape == (0,)
    assert softmax_cross_entropy_backward(1.0, empty, []).shape == (0, C)
    logits, labels = problem()
    fortran = np.asfortranarray(logits)
    np.testing.assert_array_equal(softmax_cross_entropy(fortran, labels), softmax_cross_entropy(logits, labels))


@pytest.mark.parametrize(
    ("logits_shape", "labels", "smoothing", "error", "message"),
    [
        (
            (2, 3),
            [0, 3],
            0,
            ValueError,
            r"labels must be from 0 to 2, as logits.shape=\(2, 3\). Received: labels\[1\]=3",
        ),
        ((2, 3), [-1, 0], 0, ValueError, r"Received: labels\[0\]=-1"),
        ((2, 3), [0.0, 1.0], 0, TypeError, r"labels of shape \(N,\) must be integers. Received: labels.dtype=float64"),
        ((2, 3), [0], 0, ValueError, r"Received: labels.shape=\(1,\), logits.shape=\(2, 3\)"),
        ((2, 2), [[0.5, 0.5], [1.5, -0.5]], 0, ValueError, "labels must be probabilities, .* Received: minimum=-0.5"),
        ((2, 2), [[0.5, 0.5], [1.0, np.nan]], 0, ValueError, "Received: minimum=nan"),
        ((2, 3), [0, 1], 1.5, ValueError, "label_smoothing must be from 0 to 1. Received: label_smoothing=1.5"),
        ((3,), [0, 1, 2], 0, ValueError, r"logits must have shape \(N, C\) .* Received: logits.shape=\(3,\)"),
        ((2, 0), [0, 1], 0, ValueError, r"at least one class. Received: logits.shape=\(2, 0\)"),
    ],
)
def test_errors_name_the_argument_and_the_value(logits_shape, labels, smoothing, error, message):
    logits = np.zeros(logits_shape, np.float32)
    with pytest.raises(error, match=message):
        softmax_cross_entropy(logits, labels, label_smoothing=smoothing)
    with pytest.raises(error, match=message):
        softmax_cross_entropy_backward(1.0, logits, labels, label_smoothing=smoothing)


def test_gradient_of_the_losses_must_fit():
    with pytest.raises(ValueError, match=r"grad_losses must be a number or have shape \(2,\). Received: shape=\(3,\)"):
        softmax_cross_entropy_backward(np.ones(3), np.zeros((2, 3)), [0, 1])
