"""Dropout and its random numbers."""

import numpy as np
import pytest

from fastconv import threads
from fastconv.cpu.dropout import philox
from fastconv.functional.dropout import dropout
from fastconv.reference import elementwise as reference


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ((0,) * 4, (0,) * 2, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((2**32 - 1,) * 4, (2**32 - 1,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_gives_the_published_numbers(counter, key, words):
    """The known answers of Random123, the authors' own implementation."""
    assert philox(tuple(map(np.uint64, counter)), tuple(map(np.uint64, key))) == words


def test_the_mask_is_that_of_the_reference():
    x = np.random.default_rng(1).normal(size=(7, 13)).astype(np.float32)
    for seed in (0, 1, 2**40 + 3, 2**64 - 1):
        expected = reference.dropout(x.astype(np.float64), 0.3, seed)
        np.testing.assert_allclose(dropout(x, 0.3, seed=seed), expected, rtol=2e-7)


def test_share_of_dropped_elements_and_scale():
    x = np.ones(200_000, np.float32)
    for rate in (0.1, 0.5, 0.9):
        out = dropout(x, rate, seed=5)
        # Five standard deviations of a binomial distribution.
        assert abs(np.mean(out == 0) - rate) < 5 * np.sqrt(rate * (1 - rate) / x.size)
        np.testing.assert_allclose(out[out != 0], 1 / (1 - rate), rtol=1e-6)


def test_neighbours_and_seeds_are_independent():
    kept = [dropout(np.ones(200_000, np.float32), 0.5, seed=seed) - 1 for seed in (7, 8, 7 + 2**32)]
    for lag in range(1, 10):
        assert abs(np.mean(kept[0][lag:] * kept[0][:-lag])) < 5 / np.sqrt(kept[0].size)
    for other in kept[1:]:
        assert abs(np.mean(kept[0] * other)) < 5 / np.sqrt(kept[0].size)


def test_a_seed_drops_the_same_elements_everywhere(monkeypatch):
    x = np.random.default_rng(2).normal(size=50_001).astype(np.float32)
    monkeypatch.setattr(threads, "worker_count", lambda work: 1)
    out = dropout(x, 0.4, seed=3)
    np.testing.assert_array_equal(dropout(x[:777], 0.4, seed=3), out[:777])
    monkeypatch.setattr(threads, "worker_count", lambda work: 3)
    np.testing.assert_array_equal(dropout(x, 0.4, seed=3), out)


def test_the_gradient_is_the_same_call():
    """The operation is linear, and symmetric: <grad_out, dropout(x)> = <dropout(grad_out), x>, exactly for integers."""
    x, grad_out = np.random.default_rng(3).integers(-9, 9, (2, 1000)).astype(np.float32)
    assert np.sum(grad_out * dropout(x, 0.5, seed=4)) == np.sum(dropout(grad_out, 0.5, seed=4) * x)


def test_rate_zero_is_a_copy_and_dropped_elements_are_zero_even_for_nan():
    x = np.random.default_rng(4).normal(size=100).astype(np.float32)
    out = dropout(x, 0, seed=1)
    np.testing.assert_array_equal(out, x)
    assert not np.shares_memory(out, x)
    assert np.mean(dropout(np.full(1000, np.nan, np.float32), 0.5, seed=1) == 0) > 0.4


def test_any_kind_of_array():
    x = np.random.default_rng(5).normal(size=(6, 8)).astype(np.float32)
    out = dropout(x, 0.5, seed=6)
    for array in (np.asfortranarray(x), np.repeat(x, 2, axis=1)[:, ::2], x.astype(">f4")):
        np.testing.assert_array_equal(dropout(array, 0.5, seed=6), out)
    assert dropout(np.ones((0, 3), np.float32), 0.5, seed=6).shape == (0, 3)
    assert dropout(np.float32(1), 0.5, seed=6).shape == ()


@pytest.mark.parametrize(
    ("rate", "seed", "error", "message"),
    [
        (1.0, 0, ValueError, "rate must be at least 0 and below 1. Received: rate=1.0"),
        (-0.1, 0, ValueError, "Received: rate=-0.1"),
        (float("nan"), 0, ValueError, "Received: rate=nan"),
        (0.5, 1.5, TypeError, "seed must be an int, or an array of one uint64 on the device of x. Received: seed=1.5"),
        (0.5, -1, ValueError, r"seed must be from 0 to 2\*\*64 - 1. Received: seed=-1"),
        (0.5, 2**64, ValueError, "Received: seed=18446744073709551616"),
    ],
)
def test_errors_name_the_argument_and_the_value(rate, seed, error, message):
    with pytest.raises(error, match=message):
        dropout(np.ones(3, np.float32), rate, seed=seed)
