"""NumPy's operators and functions on device arrays, which the layers use: the bits of the same call on NumPy arrays."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from emulator import Emulator, needs_target

from fastconv.cuda import arithmetic, asarray, norms, rectify
from fastconv.cuda.ptx import Fault, OutOfBounds
from fastconv.rooms import room

needs_target()

ENGINE = Emulator()
X = np.random.default_rng(0).standard_normal((2, 3, 4, 5)).astype(np.float32)
X.reshape(-1)[:6] = [np.nan, np.inf, -np.inf, -0.0, 0.0, 1e-40]

CALLS: dict[str, Callable[[Any, Any], Any]] = {
    "sum": lambda x, like: x + x,
    "number": lambda x, like: (2 * x - 1) / np.float32(3),
    "one number a channel": lambda x, like: like(X[0, 0, 1]) * x,
    "one number a channel of each image": lambda x, like: x * like(X[:, 1:2, 1:2]),
    "the same, channels first": lambda x, like: x * like(X[:, :, 1:2, 1:2]),
    "absolute, sign": lambda x, like: np.abs(x) + np.sign(x),
    "square": lambda x, like: np.square(x),
    "negative": lambda x, like: -x,
    "repeated images": lambda x, like: np.repeat(x, 3, axis=0),
    "repeated rows": lambda x, like: np.repeat(x, 2, axis=1),
    "repeated channels": lambda x, like: np.repeat(x, 2, axis=3),
    "clip": lambda x, like: np.clip(x, -0.5, 0.5),
    "channels to the end": lambda x, like: np.moveaxis(x, 1, -1),
    "channels back": lambda x, like: np.moveaxis(x, -1, 1),
    "concatenate": lambda x, like: np.concatenate([x, x], axis=1),
    "split": lambda x, like: np.split(x, [1, 3], axis=-1)[1],
    "pad rows and columns": lambda x, like: np.pad(x, ((0, 0), (1, 2), (3, 0), (0, 0))),
    "pad the last axis": lambda x, like: np.pad(x, ((0, 0), (0, 0), (0, 0), (3, 1))),
    "no padding": lambda x, like: np.pad(x, ((0, 0),) * 4),
    "ones": lambda x, like: np.ones_like(x, shape=(2, 1, 3)),
    "ravel": lambda x, like: np.ravel(x),
    "first image": lambda x, like: x[0],
    "pixel": lambda x, like: x[:, 1, 2],
    "window": lambda x, like: x[:, 1:3, ::2],
    "new axis": lambda x, like: x[:, np.newaxis, 0, 0],
    "nothing": lambda x, like: x[5:],
    "copy": lambda x, like: x.copy(),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_bits(call: Callable[[Any, Any], Any]) -> None:
    expected = call(X, np.asarray)
    result = call(asarray(X, ENGINE), lambda values: asarray(values, ENGINE)).numpy()
    assert result.shape == expected.shape
    np.testing.assert_array_equal(np.isnan(result), np.isnan(expected))
    assert np.array_equal(np.nan_to_num(result).view(np.int32), np.nan_to_num(expected).view(np.int32))


@pytest.mark.parametrize("function", [np.exp, np.log1p])
def test_exponentials_and_logarithms_miss_no_more_than_a_last_bit(function: np.ufunc) -> None:
    rng = np.random.default_rng(1)
    numbers = np.concatenate(
        [rng.normal(size=300) * 10.0 ** rng.uniform(-12, 2, 300), [np.nan, np.inf, -np.inf, -1, 0]]
    )
    x = numbers.astype(np.float32)
    with np.errstate(all="ignore"):
        expected = function(x.astype(np.float64))
        found = function(asarray(x, ENGINE)).numpy()
        np.testing.assert_allclose(found, expected.astype(np.float32), rtol=2.0**-23)


def test_in_place_and_dtypes() -> None:
    x = same = asarray(X[1], ENGINE)
    x *= 2
    assert x is same
    np.testing.assert_array_equal(x.numpy(), X[1] * 2)
    np.testing.assert_array_equal(
        asarray(np.arange(5, dtype=np.uint8), ENGINE).astype(np.float32).numpy(), np.arange(5)
    )
    assert x.astype(np.float32, copy=False) is x


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: x + X, "on one device"),
        (lambda x: X * x, "on one device"),
        (lambda x: x + asarray(X, Emulator()), "on one device"),
        (lambda x: np.concatenate([X, x]), "on one device"),
        (lambda x: np.log(x), "log has no kernel"),
        (lambda x: np.mean(x), "mean has no kernel"),
        (lambda x: x[X > 0], "ints, slices"),
        (lambda x: x.astype(np.int64), "can become float32"),
    ],
)
def test_what_has_no_kernel_is_refused(call: Callable[[Any], Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        call(asarray(X, ENGINE))


def test_shapes_that_do_not_fit() -> None:
    x = asarray(X, ENGINE)
    with pytest.raises(ValueError, match="same first and last axes"):
        x + asarray(X[0, 0, :3], ENGINE)
    with pytest.raises(ValueError, match="two neighbouring axes"):
        np.pad(x, ((1, 0), (0, 0), (1, 0), (0, 0)))
    with pytest.raises(ValueError, match="positive"):
        x[::-1]


def test_norms() -> None:
    arrays = [X[1], X[1, 0] * 3]
    there = [asarray(array, ENGINE) for array in arrays]
    squares = room(arrays[0]).norms.squares(arrays)
    total = room(there[0]).norms.squares(there)
    assert total.numpy()[0] == squares
    for longest in (1.0, 1000.0):
        expected = room(arrays[0]).norms.shortened(arrays[0], squares, longest)
        np.testing.assert_array_equal(room(there[0]).norms.shortened(there[0], total, longest).numpy(), expected)


def test_a_missing_barrier_and_arrays_too_short_are_caught() -> None:
    engine = Emulator(change=lambda ptx: ptx.replace("bar.sync", "// bar.sync"))
    with pytest.raises(Fault):
        norms.squares(engine, [X])
    with pytest.raises(OutOfBounds):
        arithmetic.mapped(Emulator(), "sign", X.copy(), np.empty(X.size + 1, np.float32))
    with pytest.raises(OutOfBounds):
        rectify.rectify_backward(Emulator(), X[:1].copy(), X.copy(), 0.1, None, 0.0)
    with pytest.raises(OutOfBounds):
        norms.shortened(Emulator(), X.copy(), np.empty(0), 1.0)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("corners", [(0.3, None, 0.0), (0.1, 0.5, 0.2), (0.0, 1.0, 0.0)])
def test_rectifiers(corners: tuple[float, float | None, float]) -> None:
    x, grad_out = asarray(X, ENGINE), asarray(X[::-1], ENGINE)
    forward = room(X).rectify.rectify(X, *corners)
    backward = room(X).rectify.rectify_backward(X[::-1], X, *corners)
    np.testing.assert_array_equal(room(x).rectify.rectify(x, *corners).numpy(), forward)
    np.testing.assert_array_equal(room(x).rectify.rectify_backward(grad_out, x, *corners).numpy(), backward)
