"""Batch normalisation, and the column sums under it."""

import numpy as np
import pytest

from fastconv import threads
from fastconv.cpu.reduction import ROWS_OF_BLOCK, column_products, column_sums
from fastconv.functional.normalization import batch_norm, batch_norm_backward, batch_norm_training
from fastconv.reference import elementwise as reference


def random(*shape, seed=0, dtype=np.float32):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


# ---- column sums --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("C", [1, 3, 64, 100])
@pytest.mark.parametrize("rows", [0, 1, ROWS_OF_BLOCK - 1, 2 * ROWS_OF_BLOCK + 7])
def test_column_sums_are_exact_for_integers(rows, C):
    rng = np.random.default_rng(1)
    a, b = rng.integers(-5, 6, (2, rows, C)).astype(np.float32)
    a_shift, b_shift = rng.integers(-5, 6, (2, C)).astype(np.float32)
    np.testing.assert_array_equal(column_sums(a), a.sum(axis=0))
    np.testing.assert_array_equal(column_products(a, b, a_shift, b_shift), ((a - a_shift) * (b - b_shift)).sum(axis=0))


def test_bits_do_not_depend_on_the_number_of_workers(monkeypatch):
    x, grad_out = random(2, 7 * ROWS_OF_BLOCK + 3, 5)
    gamma, beta = random(2, 5, seed=1)
    results = []
    for workers in (1, 3):
        monkeypatch.setattr(threads, "worker_count", lambda work, workers=workers: workers)
        out, mean, variance = batch_norm_training(x, gamma, beta)
        results.append((out, mean, variance, *batch_norm_backward(grad_out, x, gamma, mean, variance)))
    for one, other in zip(*results, strict=True):
        np.testing.assert_array_equal(one, other)


def test_sums_of_many_numbers_keep_float32_accuracy():
    x = np.random.default_rng(2).uniform(0, 1, (300_000, 1)).astype(np.float32)
    np.testing.assert_allclose(column_sums(x), x.sum(axis=0, dtype=np.float64), rtol=1e-7)


# ---- batch normalisation ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "dtype", "tolerance"),
    [
        ((6, 4, 5, 3), np.float32, 1e-5),
        ((40, 70), np.float32, 1e-5),
        ((9, 1), np.float32, 1e-5),
        ((6, 4, 5, 3), np.float64, 1e-13),
    ],
)
def test_training_follows_the_formula(shape, dtype, tolerance):
    x = random(*shape, dtype=dtype)
    gamma, beta = random(2, shape[-1], seed=1, dtype=dtype)
    out, mean, variance = batch_norm_training(x, gamma, beta, epsilon=1e-3)
    axes = tuple(range(len(shape) - 1))
    wide = x.astype(np.float64)
    np.testing.assert_allclose(out, reference.batch_norm(wide, gamma, beta, 1e-3), atol=tolerance)
    np.testing.assert_allclose(mean, wide.mean(axis=axes), atol=tolerance)
    np.testing.assert_allclose(variance, wide.var(axis=axes), rtol=tolerance)
    np.testing.assert_array_equal(batch_norm(x, gamma, beta, mean, variance), out)


def test_a_large_mean_costs_no_accuracy():
    """E[x * x] - E[x] ** 2 in float32 would give a variance of 0, or a negative one."""
    x = random(1000, 2) + np.float32(10_000)
    out, _, variance = batch_norm_training(x, np.ones(2, np.float32), np.zeros(2, np.float32), epsilon=0)
    wide = x.astype(np.float64)
    np.testing.assert_allclose(variance, wide.var(axis=0), rtol=1e-5)
    np.testing.assert_allclose(out, (wide - wide.mean(axis=0)) / wide.std(axis=0), atol=1e-3)


def test_gradients_in_random_directions():
    """Against differences of the reference, in float64, where a step of 1e-6 is exact enough."""
    x, direction, grad_out = random(3, 4, 3, 2, 5)
    gamma, beta, gamma_direction, beta_direction = random(4, 5, seed=1)
    _, mean, variance = batch_norm_training(x, gamma, beta)
    grad_x, grad_gamma, grad_beta = batch_norm_backward(grad_out, x, gamma, mean, variance)

    def slope(along_x, along_gamma, along_beta):
        point, step = [array.astype(np.float64) for array in (x, gamma, beta)], 1e-6
        above, below = (
            reference.batch_norm(point[0] + h * along_x, point[1] + h * along_gamma, point[2] + h * along_beta, 1e-3)
            for h in (step, -step)
        )
        return np.sum(grad_out * (above - below)) / (2 * step)

    np.testing.assert_allclose(np.sum(grad_x * direction), slope(direction, 0, 0), rtol=1e-5)
    np.testing.assert_allclose(np.sum(grad_gamma * gamma_direction), slope(0, gamma_direction, 0), rtol=1e-5)
    np.testing.assert_allclose(np.sum(grad_beta * beta_direction), slope(0, 0, beta_direction), rtol=1e-5)


def test_agrees_with_torch():
    torch = pytest.importorskip("torch", reason="compares with PyTorch")
    x, grad_out = random(2, 8, 6, 5, 7)
    gamma, beta = random(2, 7, seed=1)
    tensors = [torch.from_numpy(array).requires_grad_() for array in (x, gamma, beta)]
    out = torch.nn.functional.batch_norm(
        tensors[0].permute(0, 3, 1, 2), None, None, *tensors[1:], training=True, eps=1e-3
    ).permute(0, 2, 3, 1)
    out.backward(torch.from_numpy(grad_out))
    ours, mean, variance = batch_norm_training(x, gamma, beta)
    np.testing.assert_allclose(ours, out.detach().numpy(), atol=1e-5)
    gradients = batch_norm_backward(grad_out, x, gamma, mean, variance)
    for gradient, tensor in zip(gradients, tensors, strict=True):
        np.testing.assert_allclose(gradient, tensor.grad.numpy(), rtol=1e-4, atol=1e-5)


def test_nan_stays_in_its_channel():
    x = random(20, 3)
    x[4, 1] = np.nan
    out, mean, _ = batch_norm_training(x, np.ones(3, np.float32), np.zeros(3, np.float32))
    np.testing.assert_array_equal(np.isnan(mean), [False, True, False])
    np.testing.assert_array_equal(np.isnan(out).any(axis=0), [False, True, False])


def test_empty_batch_and_any_kind_of_array():
    vectors = np.ones((4, 3), np.float32)
    empty = np.empty((0, 5, 3), np.float32)
    out, mean, variance = batch_norm_training(empty, *vectors[:2])
    assert out.shape == empty.shape
    np.testing.assert_array_equal([mean, variance], np.zeros((2, 3)))
    grad_x, grad_gamma, grad_beta = batch_norm_backward(empty, empty, *vectors[:3])
    assert grad_x.shape == empty.shape
    np.testing.assert_array_equal([grad_gamma, grad_beta], np.zeros((2, 3)))
    x = random(4, 6, 3)
    expected = batch_norm(x, *vectors)
    for array in (np.asfortranarray(x), np.repeat(x, 2, axis=1)[:, ::2], x.astype(">f4")):
        np.testing.assert_array_equal(batch_norm(array, *vectors), expected)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda x, v: batch_norm(x, v[1:], v, v, v),
            ValueError,
            r"gamma must have one number for each of the 3 channels. Received: gamma.shape=\(2,\)",
        ),
        (lambda x, v: batch_norm(x, v, v, v, v.astype(float)), TypeError, "variance must have the dtype"),
        (lambda x, v: batch_norm_training(x.astype(int), v, v), TypeError, "x must be float32 or float64"),
        (
            lambda x, v: batch_norm_training(x, v, v, epsilon=-1),
            ValueError,
            "epsilon must be at least 0. Received: epsilon=-1",
        ),
        (lambda x, v: batch_norm_training(x[:, :0], v, v), ValueError, r"Received: x.shape=\(4, 0\)"),
        (
            lambda x, v: batch_norm_backward(x[1:], x, v, v, v),
            ValueError,
            r"grad_out must have the shape of x. Received: grad_out.shape=\(3, 3\), x.shape=\(4, 3\)",
        ),
    ],
)
def test_errors_name_the_argument_and_the_rule(call, error, message):
    with pytest.raises(error, match=message):
        call(np.ones((4, 3), np.float32), np.ones(3, np.float32))
