"""Large results: in memory that nobody uses any more, and written past the caches to the same bits."""

import gc
import os
import threading

import numpy as np
import pytest

import fastconv as fc
from fastconv import memory

# 9 MB of float32, whole cache lines for a pixel
SHAPE = (9, 64, 64, 64)


def address(array):
    return array.__array_interface__["data"][0]


def test_a_large_result_begins_a_cache_line_and_a_small_one_is_numpys():
    assert address(memory.empty(SHAPE, np.float32)) % memory.ALIGNMENT == 0
    small = memory.empty((2, 3), np.float64)
    assert (small.base, small.shape, small.dtype) == (None, (2, 3), np.float64)


def test_memory_goes_on_only_when_the_last_view_has_died():
    first = memory.empty(SHAPE, np.float32)
    place, view = address(first), first[3:4, 1]
    assert type(first) is type(view) is np.ndarray
    del first
    gc.collect()
    second = memory.empty(SHAPE, np.float32)
    assert not np.shares_memory(second, view)
    del view
    assert address(memory.empty(SHAPE, np.float32)) == place


def test_no_more_waits_than_the_limit_and_the_oldest_goes_first():
    waiting = memory._Waiting()
    third = memory._MOST_WAITING // 3
    for size in (third, third + 1, third - 1):
        waiting.add(np.empty(size, np.uint8))
    assert waiting.bytes == 3 * third
    waiting.add(np.empty(third, np.uint8))
    assert waiting.take(third + 1) is None  # had waited for the longest time: its size was not given back since
    assert waiting.bytes == 3 * third - 1
    assert [waiting.take(third).size for _ in range(2)] == [third, third]
    assert waiting.take(third) is None


def test_many_threads_never_share_a_result():
    problems = []

    def work(number):
        for _ in range(20):
            mine = memory.empty(SHAPE, np.float32)
            mine[0, 0] = mine[-1, -1] = number
            if not (mine[0, 0] == number).all() or not (mine[-1, -1] == number).all():
                problems.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_forked_child_has_memory_of_its_own():
    kept = memory.empty(SHAPE, np.float32)
    kept[:] = 1
    waits = memory.empty(SHAPE, np.float32)
    del waits
    child = os.fork()
    if child == 0:
        memory.empty(SHAPE, np.float32)[:] = 2
        kept[:] = 3
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert (kept == 1).all()


def normal(rng, *shape):
    return rng.standard_normal(shape, np.float32)


def unaligned(like):
    """An array that begins no cache line, so that a result goes there as usual."""
    numbers = np.empty(like.size + memory.ALIGNMENT, np.float32)
    start = -address(numbers) % memory.ALIGNMENT // 4 + 1
    return numbers[start : start + like.size].reshape(like.shape)


OPERATIONS = {
    "direct": lambda r, out=None: fc.conv2d(normal(r, 5, 97, 97, 8), normal(r, 1, 1, 8, 48), out=out),
    "direct, groups": lambda r, out=None: fc.conv2d(normal(r, 3, 97, 97, 8), normal(r, 1, 1, 4, 96), groups=2, out=out),
    "direct, strips, bias and ReLU": lambda r, out=None: fc.conv2d(
        normal(r, 3, 97, 97, 16),
        normal(r, 3, 3, 16, 80),
        normal(r, 80),
        stride=1,
        padding=1,
        activation="relu",
        algorithm="direct",
        out=out,
    ),
    "direct, an activation that comes after": lambda r, out=None: fc.conv2d(
        normal(r, 5, 97, 97, 8), normal(r, 1, 1, 8, 48), activation="tanh", out=out
    ),
    "few channels": lambda r, out=None: fc.conv2d(
        normal(r, 4, 199, 199, 3), normal(r, 3, 3, 3, 16), normal(r, 16), out=out
    ),
    "winograd": lambda r, out=None: fc.conv2d(
        normal(r, 3, 97, 97, 32), normal(r, 3, 3, 32, 80), normal(r, 80), padding=1, algorithm="winograd", out=out
    ),
    "depthwise": lambda r, out=None: fc.conv2d(
        normal(r, 5, 97, 97, 48), normal(r, 3, 3, 1, 48), padding=1, groups=48, out=out
    ),
    "grad_x of depthwise, stride 2": lambda r, out=None: fc.conv2d_grad_x(
        normal(r, 5, 49, 49, 48), normal(r, 3, 3, 1, 48), (5, 97, 97, 48), padding=1, stride=2, groups=48, out=out
    ),
    "maximum": lambda r, out=None: fc.max_pool2d(normal(r, 5, 199, 97, 48), (2, 1), stride=(2, 1), out=out),
    "average": lambda r, out=None: fc.avg_pool2d(normal(r, 5, 98, 98, 48), 2, stride=1, out=out),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_what_is_written_past_the_caches_has_the_same_bits(name):
    """Odd images, so that the last tiles of rows and of images are parts."""
    compute = OPERATIONS[name]
    streamed = compute(np.random.default_rng(0))
    assert streamed.nbytes >= memory.LARGE
    assert address(streamed) % memory.ALIGNMENT == 0
    np.testing.assert_array_equal(compute(np.random.default_rng(0), out=unaligned(streamed)), streamed)


def test_gradients_of_pooling_too():
    """They have no *out*: a part of the images is small enough to be written as usual."""
    rng = np.random.default_rng(0)
    x = normal(rng, 6, 98, 98, 48)
    out, indices = fc.max_pool2d(x, 2, return_indices=True)
    grad_out = normal(rng, *out.shape)
    whole = fc.max_pool2d_backward(grad_out, indices, x.shape)
    assert whole.nbytes >= memory.LARGE
    part = fc.max_pool2d_backward(grad_out[:1], indices[:1], (1, *x.shape[1:]))
    np.testing.assert_array_equal(whole[:1], part)
    whole = fc.avg_pool2d_backward(grad_out, x.shape, 2)
    np.testing.assert_array_equal(whole[:1], fc.avg_pool2d_backward(grad_out[:1], (1, *x.shape[1:]), 2))


@pytest.mark.parametrize("sign", [1, -1], ids=["largest", "smallest"])
def test_windows_that_go_over_a_large_image_in_order_have_the_same_maxima(sign):
    """11 MB, and pixels of three blocks of channels with AVX-512; NaN wins."""
    rng = np.random.default_rng(0)
    x = sign * normal(rng, 2, 45, 160, 192)
    x[0, 2:4, 5] = [[np.nan], [3]]
    x[1, 4:6, 6:8] = -sign * np.inf
    assert x.nbytes >= memory.LARGE
    pool = fc.max_pool2d if sign > 0 else fc.min_pool2d
    windows = sign * x[:, :44].reshape(2, 22, 2, 80, 2, 192)
    out, indices = pool(x, 2, return_indices=True)
    np.testing.assert_array_equal(out, sign * windows.max(axis=(2, 4)))
    np.testing.assert_array_equal(pool(x, 2), out)
    place = windows.transpose(0, 1, 3, 5, 2, 4).reshape(*out.shape, 4).argmax(axis=-1)
    first = 2 * 160 * np.arange(22)[:, None, None] + 2 * np.arange(80)[:, None]
    np.testing.assert_array_equal(indices, first + place // 2 * 160 + place % 2)


@pytest.mark.parametrize("window", [2, (3, 1), (1, 4), (1, 80)])
def test_windows_that_go_over_a_large_image_in_order_have_the_same_averages(window):
    x = normal(np.random.default_rng(0), 2, 45, 160, 192)
    assert x.nbytes >= memory.LARGE
    out = fc.avg_pool2d(x, window)
    np.testing.assert_array_equal(out[:1, :6], fc.avg_pool2d(x[:1, :18], window)[:, :6])
    height, width = out.shape[1:3]
    windows = x[:, : 45 // height * height].reshape(2, height, 45 // height, width, 160 // width, 192)
    np.testing.assert_allclose(out, windows.mean(axis=(2, 4), dtype=np.float64), rtol=1e-6, atol=1e-7)
