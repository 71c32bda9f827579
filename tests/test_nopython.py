"""The public operations inside functions that Numba compiles: the bits of the calls from Python, on any thread."""

import numpy as np
import pytest
from cases import CASES, normal_arrays
from numba import njit, prange
from numba.core.errors import TypingError

import fastconv
from fastconv.nopython import calls


def same_bits(actual, expected):
    if isinstance(expected, tuple):
        assert isinstance(actual, tuple)
        for one, other in zip(actual, expected, strict=True):
            same_bits(one, other)
        return
    assert (actual.dtype, actual.shape) == (expected.dtype, expected.shape)
    assert actual.tobytes() == expected.tobytes()


def normal(*shape, dtype=np.float32):
    return np.random.default_rng(0).normal(size=shape).astype(dtype)


def of_a_case(x, weight, stride, padding, dilation, groups, algorithm):
    return fastconv.conv2d(
        x, weight, stride=stride, padding=padding, dilation=dilation, groups=groups, algorithm=algorithm
    )


def with_everything(x, weight, bias, residual, layout):
    return fastconv.conv2d(x, weight, bias, padding="same", activation="gelu", residual=residual, layout=layout)


compiled_case, compiled_everything = njit(of_a_case), njit(with_everything)


@pytest.mark.parametrize("algorithm", ["auto", "direct"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_conv2d_has_the_bits_of_the_call_from_python(case, algorithm):
    g = case.geometry
    arrays = normal_arrays(g)
    arguments = arrays.x, arrays.weight, g.stride, g.padding, g.dilation, g.G, algorithm
    same_bits(compiled_case(*arguments), of_a_case(*arguments))


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
@pytest.mark.parametrize("groups", [1, 5])
def test_bias_residual_activation_and_layout(layout, groups):
    x, weight, residual = normal(2, 7, 9, 5), normal(3, 2, 5 // groups, 10), normal(2, 7, 9, 10)
    if layout == "NCHW":
        x, residual, weight = x.transpose(0, 3, 1, 2), residual.transpose(0, 3, 1, 2), weight.transpose(3, 2, 0, 1)

    def grouped(x, weight, bias, residual, layout):
        return fastconv.conv2d(
            x, weight, bias, padding="same", activation="gelu", residual=residual, layout=layout, groups=groups
        )

    arguments = np.ascontiguousarray(x), np.ascontiguousarray(weight), normal(10), residual.copy(), layout
    same_bits(njit(grouped)(*arguments), grouped(*arguments))


def test_one_image_in_float64_from_memory_that_is_neither_contiguous_nor_writeable():
    x, weight = normal(7, 18, 5, dtype=np.float64)[:, ::2], normal(3, 3, 5, 4, dtype=np.float64)
    weight.setflags(write=False)

    @njit
    def compiled(x, weight, out):
        return fastconv.conv2d(x, weight, stride=2, out=out)

    out = np.zeros((3, 4, 4))
    result = compiled(x, weight, out[:, :, ::-1])
    same_bits(np.ascontiguousarray(result), fastconv.conv2d(x, weight, stride=2))
    same_bits(np.ascontiguousarray(out[:, :, ::-1]), np.ascontiguousarray(result))


def test_threads_of_a_prange_compute_an_image_each():
    x, weight, bias = normal(23, 12, 13, 16), normal(3, 3, 16, 24), normal(24)

    @njit(parallel=True)
    def compiled(x, weight, bias):
        out = np.empty((x.shape[0], 12, 13, 24), x.dtype)
        for n in prange(x.shape[0]):
            fastconv.conv2d(x[n], weight, bias, padding=1, activation="relu", out=out[n])
        return out

    same_bits(compiled(x, weight, bias), fastconv.conv2d(x, weight, bias, padding=1, activation="relu"))


def test_two_dtypes_of_one_shape_in_one_function():
    """They share a table of records, and must not share a record."""
    x, weight = normal(1, 5, 6, 3), normal(3, 3, 3, 4)

    @njit
    def both(x, weight, double, double_weight):
        return fastconv.conv2d(x, weight), fastconv.conv2d(double, double_weight)

    double = x.astype(np.float64), weight.astype(np.float64)
    same_bits(both(x, weight, *double), (fastconv.conv2d(x, weight), fastconv.conv2d(*double)))


def test_an_empty_batch():
    x, weight = np.empty((0, 5, 6, 3), np.float32), normal(3, 3, 3, 4)
    arguments = x, weight, (1, 1), ((0, 0), (0, 0)), (1, 1), 1, "auto"
    assert compiled_case(*arguments).shape == (0, 3, 4, 4)


POOLS = {
    "max": lambda x: fastconv.max_pool2d(x, 2),
    "max, with indices": lambda x: fastconv.max_pool2d(x, (2, 3), stride=1, padding=1, return_indices=True),
    "min, dilated, ceil_mode": lambda x: fastconv.min_pool2d(x, 3, stride=2, dilation=2, ceil_mode=True),
    "average": lambda x: fastconv.avg_pool2d(x, 3, padding="same", count_include_pad=False),
    "average, NCHW": lambda x: fastconv.avg_pool2d(x, (2, 3), layout="NCHW"),
    "max, NCHW, with indices": lambda x: fastconv.max_pool2d(x, 2, return_indices=True, layout="NCHW"),
    "global average": lambda x: fastconv.global_avg_pool2d(x),
    "global maximum, axes kept": lambda x: fastconv.global_max_pool2d(x, keepdims=True),
}


@pytest.mark.parametrize("name", POOLS)
def test_pooling_has_the_bits_of_the_call_from_python(name):
    pool, x = POOLS[name], normal(2, 23, 18, 17)
    x[1, 3, 4] = np.nan
    compiled = njit(pool)
    same_bits(compiled(x), pool(x))


@pytest.mark.parametrize("shape", [(5, 7), (2, 3, 7), (7,), (0, 7)])
def test_dense_has_the_bits_of_the_call_from_python(shape):
    def product(x, weight, bias):
        return fastconv.dense(x, weight, bias, activation="relu")

    arguments = normal(*shape), normal(7, 11), normal(11)
    same_bits(njit(product)(*arguments), product(*arguments))


@pytest.fixture
def asked(monkeypatch):
    """The operations whose records Python was asked for."""
    found, original = [], calls.address_of_record

    def count(operation, key, details):
        found.append(operation)
        return original(operation, key, details)

    monkeypatch.setattr(calls, "address_of_record", count)
    return found


def rows_of(width):
    return normal(1, 1, width, 2), normal(1, 1, 2, 3), (1, 1), ((0, 0), (0, 0)), (1, 1), 1, "auto"


def test_python_is_asked_once_for_each_shape(asked):
    for width in (1001, 1002, 1001, 1001, 1002):
        compiled_case(*rows_of(width))
    assert asked == ["conv2d", "conv2d"]


def test_more_shapes_than_a_table_holds(asked):
    widths = range(1, 2 * calls._SLOTS)
    for width in (*widths, *widths):
        arguments = rows_of(width)
        same_bits(compiled_case(*arguments), of_a_case(*arguments))
    assert len(widths) < len(asked) < 2 * len(widths)


def test_errors_are_those_of_the_call_from_python_and_leave_the_function_usable():
    x, weight = normal(1, 5, 6, 3), normal(3, 3, 4, 2)
    padding = ((0, 0), (0, 0))
    with pytest.raises(ValueError, match=r"weight.shape\[2\] \* groups = 4 channels.*\(1, 5, 6, 3\)"):
        compiled_case(x, weight, (1, 1), padding, (1, 1), 1, "auto")
    with pytest.raises(ValueError, match="stride"):
        compiled_case(x, weight[:, :, :3].copy(), (0, 1), padding, (1, 1), 1, "auto")
    with pytest.raises(ValueError, match="algorithm must be one of"):
        compiled_case(x, weight[:, :, :3].copy(), (1, 1), padding, (1, 1), 1, "none")
    with pytest.raises(ValueError, match="not compiled code"):
        compiled_case(x, weight[:, :, :3].copy(), (1, 1), padding, (1, 1), 1, "reference")
    assert compiled_case(x, weight[:, :, :3].copy(), (1, 1), padding, (1, 1), 1, "auto").shape == (1, 3, 4, 2)


def test_types_are_checked_when_the_function_is_compiled():
    x, weight = normal(1, 5, 6, 3), normal(3, 3, 3, 2)
    with pytest.raises(TypingError, match="x must be an array of float32 or float64"):
        njit(lambda x: fastconv.max_pool2d(x, 2))(x.astype(np.int32))
    with pytest.raises(TypingError, match="weight must have the dtype of the first array, float32"):
        njit(lambda x, weight: fastconv.conv2d(x, weight))(x, weight.astype(np.float64))
    with pytest.raises(TypingError, match="return_indices must be True or False literally"):
        njit(lambda x, flag: fastconv.max_pool2d(x, 2, return_indices=flag))(x, True)


CACHED = """
import numpy as np
from numba import njit
import fastconv

@njit(cache=True)
def edges(x, weight):
    return fastconv.conv2d(x, weight, padding="same")

x = np.arange(60, dtype=np.float32).reshape(1, 5, 4, 3)
print(edges(x, np.ones((3, 3, 3, 2), np.float32)).sum(), sum(edges.stats.cache_hits.values()))
"""


def test_a_function_that_calls_one_can_be_cached_on_disk(run_python):
    first, again = (run_python(CACHED).split() for _ in range(2))
    assert first[0] == again[0]
    assert (first[1], again[1]) == ("0", "1")
