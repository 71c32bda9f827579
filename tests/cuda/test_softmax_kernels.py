"""Softmax and cross-entropy on the GPU: their PTX, executed, against the bits of the CPU."""

from typing import Any

import numpy as np
import pytest
from bits import SPECIAL, normal_numbers, same_numbers
from emulator import Emulator, needs_target

from fastconv import functional
from fastconv.cpu import softmax as cpu
from fastconv.cuda import softmax
from fastconv.cuda.ptx import OutOfBounds

needs_target()

# One number, less than a warp, a warp, more; more rows than a block has warps; no rows.
SHAPES = [(1, 1), (3, 10), (2, 32), (2, 70), (2, 5, 3), (0, 10)]
ARCHITECTURE = pytest.mark.parametrize("architecture", ["sm_80", "sm_100"])


@ARCHITECTURE
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_same_bits_as_the_cpu(shape: tuple[int, ...], architecture: str) -> None:
    engine = Emulator(architecture)
    x, grad_out = normal_numbers(*shape) * np.float32(5), normal_numbers(*shape, seed=1)
    for logarithm in (False, True):
        expected = cpu.softmax_forward(x, logarithm=logarithm)
        assert same_numbers(softmax.softmax_forward(engine, x, logarithm=logarithm), expected)
    out = cpu.softmax_forward(x)
    assert same_numbers(softmax.softmax_backward(engine, grad_out, out), cpu.softmax_backward(grad_out, out))


@pytest.mark.parametrize("logarithm", [False, True])
def test_not_finite_and_extreme_numbers(logarithm: bool) -> None:
    x = np.resize(normal_numbers(7, seed=3), (len(SPECIAL), 7))
    x[np.arange(len(SPECIAL)), np.arange(len(SPECIAL)) % 7] = SPECIAL
    x = np.concatenate([x, np.full((1, 7), -np.inf, np.float32), np.full((1, 7), 1000, np.float32)])
    expected = cpu.softmax_forward(x, logarithm=logarithm)
    assert same_numbers(softmax.softmax_forward(Emulator(), x, logarithm=logarithm), expected)


@ARCHITECTURE
@pytest.mark.parametrize(("N", "C"), [(3, 10), (9, 1), (2, 40), (0, 5)])
def test_cross_entropy_has_the_cpus_bits(N: int, C: int, architecture: str) -> None:
    engine, logits = Emulator(architecture), normal_numbers(N, C) * np.float32(5)
    classes = np.random.default_rng(1).integers(0, C, N)
    for labels in (classes, np.eye(C, dtype=np.float32)[classes]):
        expected: Any = functional.softmax_cross_entropy(logits, labels)
        assert same_numbers(softmax.cross_entropy(engine, logits, labels), expected)
        for grad_losses in (1 / 3, normal_numbers(N, seed=2)):
            expected = functional.softmax_cross_entropy_backward(grad_losses, logits, labels)
            assert same_numbers(softmax.cross_entropy_backward(engine, grad_losses, logits, labels), expected)


def test_smoothed_and_soft_labels_have_the_cpus_bits() -> None:
    engine, logits = Emulator(), normal_numbers(4, 43)
    soft = functional.softmax(normal_numbers(4, 43, seed=1))
    for labels, smoothing in ((np.array([3, 0, 42, 5]), 0.1), (soft, 0.0), (soft, 0.3)):
        expected: Any = functional.softmax_cross_entropy(logits, labels, label_smoothing=smoothing)
        assert same_numbers(softmax.cross_entropy(engine, logits, labels, smoothing), expected)
        expected = functional.softmax_cross_entropy_backward(0.25, logits, labels, label_smoothing=smoothing)
        assert same_numbers(softmax.cross_entropy_backward(engine, 0.25, logits, labels, smoothing), expected)


def test_a_number_that_is_no_class_makes_nan() -> None:
    logits, labels = normal_numbers(3, 4), np.array([1, 4, -1])
    losses = softmax.cross_entropy(Emulator(), logits, labels)
    gradient = softmax.cross_entropy_backward(Emulator(), 1.0, logits, labels)
    assert np.array_equal(np.isnan(losses), [False, True, True])
    assert np.array_equal(np.isnan(gradient).all(axis=1), [False, True, True])


def test_an_impossible_class_takes_no_part() -> None:
    logits = np.array([[0, -np.inf, 1]], np.float32)
    labels = np.array([[0, 0, 1]], np.float32)
    expected: Any = functional.softmax_cross_entropy(logits, labels)
    assert np.isfinite(expected).all()
    assert same_numbers(softmax.cross_entropy(Emulator(), logits, labels), expected)


@pytest.mark.parametrize("labels", [np.array([1]), np.eye(3, dtype=np.float32)[:1]], ids=["classes", "rows"])
def test_labels_too_short_are_caught(labels: Any) -> None:
    logits = normal_numbers(2, 3)
    with pytest.raises(OutOfBounds):
        softmax.cross_entropy(Emulator(), logits, labels)
    with pytest.raises(OutOfBounds):
        softmax.cross_entropy_backward(Emulator(), 1.0, logits, labels)
