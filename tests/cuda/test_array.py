"""Arrays on a device: their shape, their memory, and how those of other libraries come in and go out."""

from typing import Any

import numpy as np
import pytest
from emulator import needs_target

import fastconv
from fastconv.cuda import Array, asarray, libraries, transpose
from fastconv.cuda.emulator import Emulator
from fastconv.cuda.ptx import OutOfBounds

needs_target()

ENGINE = Emulator()
X = np.arange(2 * 3 * 5 * 4, dtype=np.float32).reshape(2, 3, 5, 4) - 50


class Foreign:
    """Another library's array: NumPy memory, of any strides, with a CUDA array interface."""

    def __init__(self, values: Any, stream: int | None = None) -> None:
        self.values = values
        self.shape, self.dtype = values.shape, values.dtype
        self.stream = stream

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        own = self.values.__array_interface__
        strides = None if self.values.flags.c_contiguous else self.values.strides
        return {**own, "strides": strides, "version": 3, "stream": self.stream}

    def reshape(self, *shape: Any) -> "Foreign":
        return Foreign(self.values.reshape(*shape))


class Library(Emulator):
    """The emulator in the place of a device that works in the memory of `Foreign` arrays."""

    def __init__(self) -> None:
        super().__init__()
        self.waited_for: list[int | None] = []

    def adopt(self, address: int, dtype: Any, count: int, owner: Any, stream: int | None) -> Any:
        self.waited_for.append(stream)
        return np.lib.stride_tricks.as_strided(owner.values, (count,), (owner.values.itemsize,))

    def give(self, array: Array) -> Any:
        return Foreign(array.memory.reshape(array.shape))


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Library:
    engine = Library()
    monkeypatch.setattr(libraries, "engine_of", lambda value: engine)
    return engine


# ---- the class --------------------------------------------------------------------------------------------------


def test_shape_and_size() -> None:
    array = asarray(X, ENGINE)
    assert isinstance(array, Array)
    assert (array.shape, array.ndim, array.size, len(array)) == (X.shape, 4, X.size, 2)
    assert (array.dtype, array.itemsize, array.nbytes) == (np.float32, 4, X.nbytes)
    assert "shape=(2, 3, 5, 4), dtype=float32" in repr(array)


def test_there_and_back() -> None:
    for values in (X, X[:, ::2], np.float32(3), np.empty((0, 3), np.float32), [1, 2]):
        host = asarray(values, ENGINE).numpy()
        np.testing.assert_array_equal(host, values, strict=not isinstance(values, list))
    array = asarray(X, ENGINE)
    array.numpy()[:] = 0
    np.testing.assert_array_equal(array.numpy(), X)


def test_reshape_is_a_view() -> None:
    array = asarray(X, ENGINE)
    for shape in ((6, 20), (-1, 4), (2, 1, 3, 20), (120,)):
        view = array.reshape(shape)
        assert view.memory is array.memory
        np.testing.assert_array_equal(view.numpy(), X.reshape(shape))
    assert array.reshape(6, -1).shape == (6, 20)
    assert asarray(np.empty((0, 4), np.float32), ENGINE).reshape(0, 2, 2).shape == (0, 2, 2)
    for wrong in ((7, -1), (119,), (0, -1), (-1, -1, 5)):
        with pytest.raises(ValueError, match=r"cannot reshape array|only specify one"):
            array.reshape(*wrong)
    with pytest.raises(ValueError, match="only specify one"):
        array[0, 0, 0, :1].reshape(-1, -1)


@pytest.mark.parametrize("key", [slice(1, 2), slice(None), slice(-1, None), slice(1, 1), slice(0, 9), slice(2, 0)])
def test_slices_of_the_batch(key: slice) -> None:
    part = asarray(X, ENGINE)[key]
    np.testing.assert_array_equal(part.numpy(), X[key], strict=True)


def test_numpy_does_not_take_it_for_one_of_its_own() -> None:
    array = asarray(X, ENGINE)
    with pytest.raises(TypeError, match=r"not copied to the host unasked; array.numpy\(\)"):
        np.asarray(array)
    assert not hasattr(array, "__cuda_array_interface__")


# ---- mixing -----------------------------------------------------------------------------------------------------


def test_host_and_device_do_not_mix() -> None:
    weight, bias = np.ones((3, 3, 4, 2), np.float32), np.ones(2, np.float32)
    there, weight_there = asarray(X, ENGINE), asarray(weight, ENGINE)
    for call, message in (
        (lambda: fastconv.conv2d(there, weight), r"weight and x .*weight in host memory \(ndarray.*x on the GPU"),
        (lambda: fastconv.conv2d(X, weight_there), r"weight and x .*weight on the GPU \(Array.*x in host memory"),
        (lambda: fastconv.conv2d(there, weight_there, bias), "bias and x "),
        (lambda: fastconv.conv2d(there, weight_there, residual=X, padding=1), "residual and x "),
        (lambda: fastconv.conv2d_grad_x(there, weight, X.shape), "weight and grad_out "),
        (lambda: fastconv.activation_backward(X, there, "relu"), "grad_out and x "),
        (lambda: fastconv.softmax_cross_entropy(asarray(np.ones((2, 3), np.float32), ENGINE), [0, 1]), "labels and lo"),
        (lambda: fastconv.conv2d(there, weight_there, out=np.empty((2, 1, 3, 2), np.float32)), "out and x "),
        (lambda: fastconv.conv2d(there, fastconv.PackedWeight(weight)), "weight and x "),
    ):
        with pytest.raises(TypeError, match=message):
            call()


def test_arrays_of_two_devices_do_not_mix() -> None:
    with pytest.raises(TypeError, match="weight and x must be on one device"):
        fastconv.conv2d(asarray(X, ENGINE), asarray(np.ones((3, 3, 4, 2), np.float32), Emulator()))


def test_other_dtypes_are_refused() -> None:
    with pytest.raises(TypeError, match=r"x must be float32 on a GPU\. Received: x.dtype=float64"):
        fastconv.max_pool2d(asarray(X.astype(np.float64), ENGINE), 2)
    x = asarray(X, ENGINE)
    with pytest.raises(TypeError, match=r"indices must be int64 on a GPU\. Received: indices.dtype=float32"):
        fastconv.max_unpool2d(x, x, (6, 10))


# ---- other libraries --------------------------------------------------------------------------------------------


def test_results_are_arrays_of_the_library(library: Library) -> None:
    x = Foreign(X, stream=7)
    out, indices = fastconv.max_pool2d(x, 2, return_indices=True)
    expected, positions = fastconv.max_pool2d(X, 2, return_indices=True)
    assert isinstance(out, Foreign)
    assert library.waited_for == [7]
    np.testing.assert_array_equal(out.values, expected, strict=True)
    np.testing.assert_array_equal(indices.values, positions, strict=True)
    grad_x = fastconv.max_pool2d_backward(out, indices, X.shape)
    np.testing.assert_array_equal(grad_x.values, fastconv.max_pool2d_backward(expected, positions, X.shape))
    np.testing.assert_array_equal(fastconv.global_max_pool2d(x).values, X.max((1, 2)), strict=True)


def test_memory_is_not_copied(library: Library) -> None:
    launched = len(library.counters)
    fastconv.avg_pool2d(Foreign(X), 2)
    assert len(library.counters) == launched + 1


@pytest.mark.parametrize(
    ("form", "layout"),
    [
        (lambda x: x.transpose(0, 2, 1, 3), "NHWC"),
        (lambda x: x[:, :, ::2], "NHWC"),
        (lambda x: x[..., :2], "NHWC"),
        (lambda x: x[0, :, 1:], "NHWC"),
        (lambda x: x.transpose(0, 3, 1, 2), "NCHW"),
        (lambda x: np.ascontiguousarray(x.transpose(0, 3, 1, 2)), "NCHW"),
        (lambda x: x[:0], "NHWC"),
    ],
    ids=["transposed", "every second column", "two channels", "an image", "channels_last", "NCHW", "empty batch"],
)
def test_any_strides_and_both_layouts(form: Any, layout: str, library: Library) -> None:
    x = form(X)
    out = fastconv.avg_pool2d(Foreign(x), 2, padding=1, layout=layout)
    np.testing.assert_array_equal(out.values, fastconv.avg_pool2d(x, 2, padding=1, layout=layout), strict=True)


def test_channels_last_memory_enters_without_a_copy(library: Library) -> None:
    fastconv.max_pool2d(Foreign(X.transpose(0, 3, 1, 2)), 2, layout="NCHW")
    assert len(library.counters) == 2  # pooling, and the result as NCHW


def test_a_copy_reads_to_the_end_and_not_beyond() -> None:
    shape, strides = (2, 4, 3, 5), (60, 1, 20, 4)
    copy = transpose.gather(ENGINE, X.reshape(-1), shape, strides)
    np.testing.assert_array_equal(copy.reshape(shape), X.transpose(0, 3, 1, 2))
    with pytest.raises(OutOfBounds):
        transpose.gather(ENGINE, X.reshape(-1)[:-1].copy(), shape, strides)


def test_negative_strides_are_refused(library: Library) -> None:
    with pytest.raises(ValueError, match="x must not have negative strides on a GPU"):
        fastconv.max_pool2d(Foreign(X[:, ::-1]), 2)


# ---- out --------------------------------------------------------------------------------------------------------


def test_out_is_written(library: Library) -> None:
    expected = fastconv.max_pool2d(X, 2)
    out = Foreign(np.empty_like(expected))
    assert fastconv.max_pool2d(Foreign(X), 2, out=out) is out
    np.testing.assert_array_equal(out.values, expected)
    single = Foreign(np.empty_like(expected[0]))
    fastconv.max_pool2d(Foreign(X[0]), 2, out=single)
    np.testing.assert_array_equal(single.values, expected[0])


def test_an_out_that_does_not_fit_is_refused() -> None:
    x = asarray(X, ENGINE)
    empty = asarray(np.empty((2, 1, 2, 4), np.float32), ENGINE)
    for out, options, message in (
        (empty.reshape(2, 2, 1, 4), {}, r"out must be contiguous, of shape \(2, 1, 2, 4\)"),
        (x.reshape(-1)[:16].reshape(2, 1, 2, 4), {}, "out must share no memory"),
        (empty, {"layout": "NCHW"}, "out needs a layout with the channels last"),
    ):
        with pytest.raises(ValueError, match=message):
            fastconv.max_pool2d(x, 2, out=out, **options)
