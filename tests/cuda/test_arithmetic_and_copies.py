"""Arithmetic, copies and scores on the GPU: their PTX, executed, against NumPy."""

from typing import Any

import numpy as np
import pytest
from bits import SPECIAL, normal_numbers, same_numbers
from emulator import Emulator, needs_target

from fastconv.cpu import scores as cpu_scores
from fastconv.cuda import arithmetic, copies, scores
from fastconv.cuda.array import Array
from fastconv.cuda.ptx import OutOfBounds

needs_target()

ARCHITECTURE = pytest.mark.parametrize("architecture", ["sm_80", "sm_100"])
OPERATIONS = ["add", "subtract", "multiply", "divide", "maximum", "minimum"]
SHAPE = (2, 3, 5, 7)


def images() -> Any:
    x = normal_numbers(*SHAPE)
    x.reshape(-1)[: 5 * len(SPECIAL) : 5] = SPECIAL
    return x


@ARCHITECTURE
@pytest.mark.parametrize("operation", OPERATIONS)
def test_arithmetic_has_numpys_bits(operation: str, architecture: str) -> None:
    x, engine = images(), Emulator(architecture)
    for shape in (SHAPE, (7,), (2, 1, 1, 7)):
        other = normal_numbers(*shape, seed=1)
        with np.errstate(all="ignore"):
            expected = getattr(np, operation)(x, other)
        assert same_numbers(getattr(arithmetic, operation)(engine, x, other), expected), shape
    with np.errstate(all="ignore"):
        expected = getattr(np, operation)(x, np.float32(0.3))
    assert same_numbers(getattr(arithmetic, operation)(engine, x, 0.3), expected)


def test_arithmetic_in_place_and_without_numbers() -> None:
    x = normal_numbers(4, 3)
    expected = x * np.float32(0.5)
    assert arithmetic.multiply(Emulator(), x, 0.5, out=x) is None
    assert same_numbers(x, expected)
    assert arithmetic.add(Emulator(), np.empty((0, 3), np.float32), normal_numbers(3)).shape == (0, 3)


def test_other_broadcasts_are_refused() -> None:
    with pytest.raises(ValueError, match=r"Received: shapes \(2, 3, 5, 7\) and \(2, 1, 5, 1\)"):
        arithmetic.add(Emulator(), images(), normal_numbers(2, 1, 5, 1))


@ARCHITECTURE
@pytest.mark.parametrize("dtype", copies.CONVERTIBLE, ids=str)
def test_conversion_to_float32(dtype: Any, architecture: str) -> None:
    x = (np.random.default_rng(0).random((3, 50)) * 250).astype(dtype)
    expected = x.astype(np.float32) * np.float32(1 / 255)
    assert same_numbers(copies.to_float32(Emulator(architecture), x, 1 / 255), expected)


def test_conversion_of_other_dtypes_is_refused() -> None:
    with pytest.raises(TypeError, match=r"uint8, int32, int64, float32, float64\. Received: float16"):
        copies.to_float32(Emulator(), np.empty(3, np.float16))


@ARCHITECTURE
def test_filling_padding_and_cropping(architecture: str) -> None:
    x, engine = images(), Emulator(architecture)
    assert same_numbers(copies.filled(engine, (3, 100), 2.5), np.full((3, 100), 2.5, np.float32))
    padded = np.pad(x, ((0, 0), (1, 2), (2, 1), (0, 0)))
    assert same_numbers(copies.window(engine, x, (-1, -2), (6, 8)), padded)
    assert same_numbers(copies.window(engine, x, (1, 2), (2, 2)), np.ascontiguousarray(x[:, 1:3, 2:4]))
    assert copies.window(engine, x[:0], (1, 2), (2, 2)).shape == (0, 2, 2, 7)


@ARCHITECTURE
@pytest.mark.parametrize("axis", [0, 1, 2, -1])
def test_concatenating_and_splitting(axis: int, architecture: str) -> None:
    engine, x = Emulator(architecture), images()
    parts = [np.ascontiguousarray(part) for part in np.split(x, [1], axis)]
    assert same_numbers(copies.concatenate(engine, [*parts, x], axis), np.concatenate([*parts, x], axis))
    extents = [part.shape[axis] for part in parts]
    assert all(map(same_numbers, copies.split(engine, x, extents, axis), parts))


@ARCHITECTURE
def test_hits_are_those_of_numpy(architecture: str) -> None:
    engine, rng = Emulator(architecture), np.random.default_rng(0)
    predictions = rng.integers(0, 4, (300, 5)).astype(np.float32) / 4
    predictions[3, 2] = predictions[4, 0] = predictions[4, 3] = np.nan
    classes, rows = rng.integers(0, 5, 300), rng.integers(0, 2, (300, 5)).astype(np.float32)
    best = predictions.argmax(axis=1)
    hits = scores.right_class(engine, predictions, classes)
    assert np.array_equal(hits, best == classes)
    assert np.array_equal(scores.right_class(engine, predictions, rows), best == rows.argmax(axis=1))
    sides = scores.right_side(engine, predictions, rows, 0.5)
    assert np.array_equal(sides, ((predictions > 0.5) == rows).reshape(-1))

    for k in (1, 2, 5):
        expected = cpu_scores.within_top(predictions, classes, k)
        assert np.array_equal(scores.within_top(engine, predictions, classes, k), expected)
        expected = cpu_scores.within_top(predictions, rows, k)
        assert np.array_equal(scores.within_top(engine, predictions, rows, k), expected)


@ARCHITECTURE
@pytest.mark.parametrize("column", [None, 0, 3, -1])
@pytest.mark.parametrize("top_k", [None, 1, 3])
def test_positives_are_those_of_numpy(top_k: int | None, column: int | None, architecture: str) -> None:
    numbers = np.random.default_rng(0).integers(-2, 4, (60, 5)).astype(np.float32) / 4
    numbers[3, 2] = numbers[4, 0] = numbers[4, 3] = np.nan
    for least in (0.3, -np.inf):
        expected = cpu_scores.positives(numbers, least, top_k, column)
        found = scores.positives(Emulator(architecture), numbers, least, top_k, column)
        assert same_numbers(found, expected.reshape(-1))


def test_a_column_that_is_not_there_is_refused() -> None:
    with pytest.raises(IndexError):
        scores.positives(Emulator(), normal_numbers(3, 5), 0.5, None, 5)


def test_arrays_too_short_are_caught() -> None:
    x, engine = images(), Emulator()
    with pytest.raises(OutOfBounds):
        arithmetic.add(engine, x, normal_numbers(7), out=np.empty(x.size + 1, np.float32))
    with pytest.raises(OutOfBounds):
        scores.right_class(engine, normal_numbers(300, 5), np.zeros(299, np.int64))
    with pytest.raises(OutOfBounds):
        scores.within_top(engine, normal_numbers(300, 5), np.zeros(299, np.int64), 2)
    short = Array(engine, np.zeros(299 * 5, np.float32), (300, 5))
    with pytest.raises(OutOfBounds):
        scores.positives(engine, short, 0.5, 2, None)
