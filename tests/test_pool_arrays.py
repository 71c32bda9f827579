"""Pooling at the door: layouts, any kind of array, threads, series, errors, and agreement with PyTorch."""

import numba
import numpy as np
import pytest

from fastconv import threads
from fastconv.functional import (
    adaptive_avg_pool2d,
    adaptive_avg_pool2d_backward,
    adaptive_max_pool2d,
    avg_pool1d,
    avg_pool1d_backward,
    avg_pool2d,
    avg_pool2d_backward,
    global_avg_pool2d,
    global_avg_pool2d_backward,
    global_max_pool2d,
    max_pool1d,
    max_pool2d,
    max_pool2d_backward,
    max_unpool2d,
    max_unpool2d_backward,
    min_pool2d,
)

WINDOW = {"stride": (1, 2), "padding": (1, 0)}


def normal(shape, dtype=np.float32, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def nchw(x):
    return np.ascontiguousarray(np.moveaxis(x, -1, 1))


def everything(x):
    """Results of all kernels, forward and backward, on one batch of images."""
    out, indices = max_pool2d(x, 3, return_indices=True, **WINDOW)
    average = avg_pool2d(x, 3, **WINDOW)
    return [
        out,
        indices,
        average,
        max_pool2d_backward(out, indices, x.shape),
        avg_pool2d_backward(average, x.shape, 3, **WINDOW),
        max_unpool2d(out, indices, x.shape[1:3]),
        global_max_pool2d(x),
        global_avg_pool2d(x),
    ]


# ---- any array --------------------------------------------------------------------------------------------------


def test_channels_first_gives_the_same_numbers():
    x = normal((2, 7, 9, 5))
    out, indices = max_pool2d(x, 3, return_indices=True, **WINDOW)
    first, first_indices = max_pool2d(nchw(x), 3, return_indices=True, layout="NCHW", **WINDOW)
    np.testing.assert_array_equal(first, nchw(out))
    np.testing.assert_array_equal(first_indices, nchw(indices))
    grad_out = normal(out.shape, seed=1)
    for found, expected in (
        (
            max_pool2d_backward(nchw(grad_out), first_indices, nchw(x).shape, layout="NCHW"),
            max_pool2d_backward(grad_out, indices, x.shape),
        ),
        (
            avg_pool2d_backward(nchw(grad_out), nchw(x).shape, 3, layout="NCHW", **WINDOW),
            avg_pool2d_backward(grad_out, x.shape, 3, **WINDOW),
        ),
        (avg_pool2d(nchw(x), 3, layout="NCHW", **WINDOW), avg_pool2d(x, 3, **WINDOW)),
        (
            adaptive_avg_pool2d_backward(nchw(grad_out), nchw(x).shape, layout="NCHW"),
            adaptive_avg_pool2d_backward(grad_out, x.shape),
        ),
        (max_unpool2d(first, first_indices, (7, 9), layout="NCHW"), max_unpool2d(out, indices, (7, 9))),
        (max_unpool2d_backward(nchw(x), first_indices, layout="NCHW"), max_unpool2d_backward(x, indices)),
    ):
        np.testing.assert_array_equal(found, nchw(expected))
    np.testing.assert_array_equal(global_max_pool2d(nchw(x), layout="NCHW"), global_max_pool2d(x))
    means = global_avg_pool2d(nchw(x), layout="NCHW")
    np.testing.assert_array_equal(means, global_avg_pool2d(x))
    shared = global_avg_pool2d_backward(means, nchw(x).shape, layout="NCHW")
    np.testing.assert_array_equal(shared, nchw(global_avg_pool2d_backward(means, x.shape)))


def test_an_image_without_batch_axis_comes_back_without_one():
    x = normal((2, 7, 9, 5))[:1]
    assert all(result.shape[0] == 1 for result in everything(x))
    image, (out, indices) = x[0], max_pool2d(x, 3, return_indices=True, **WINDOW)
    alone, alone_indices = max_pool2d(image, 3, return_indices=True, **WINDOW)
    np.testing.assert_array_equal(alone, out[0])
    np.testing.assert_array_equal(alone_indices, indices[0])
    np.testing.assert_array_equal(
        max_pool2d_backward(alone, alone_indices, image.shape), max_pool2d_backward(out, indices, x.shape)[0]
    )
    np.testing.assert_array_equal(avg_pool2d(image, 3, **WINDOW), avg_pool2d(x, 3, **WINDOW)[0])
    assert adaptive_max_pool2d(image, 2, layout="NCHW").shape == (7, 2, 2)
    assert global_avg_pool2d(image, layout="NCHW").shape == (7,)
    assert global_avg_pool2d_backward(np.ones(7, np.float32), image.shape, layout="NCHW").shape == image.shape


@pytest.mark.parametrize(
    "change",
    [
        lambda x: np.repeat(x, 2, axis=2)[:, :, ::2],
        lambda x: x[:, ::-1].copy()[:, ::-1],
        np.asfortranarray,
        lambda x: x.astype(x.dtype.newbyteorder()),
    ],
    ids=["strided", "negative stride", "Fortran order", "byte-swapped"],
)
def test_any_memory_order_gives_the_same_bits_and_inputs_stay_as_they_are(change):
    x = normal((2, 7, 9, 5))
    changed = change(x)
    before = changed.copy()
    changed.setflags(write=False)
    for found, expected in zip(everything(changed), everything(x), strict=True):
        assert found.tobytes() == expected.tobytes()
    np.testing.assert_array_equal(changed, before)


def test_float64_keeps_float64():
    x = normal((2, 7, 9, 5), np.float64)
    results = everything(x)
    assert all(result.dtype == np.float64 for result in results if result is not results[1])
    np.testing.assert_allclose(results[2], everything(x.astype(np.float32))[2], atol=1e-6)
    np.testing.assert_allclose(results[7], x.mean((1, 2)), rtol=1e-13, atol=1e-16)


@pytest.mark.parametrize("shape", [(0, 7, 9, 5), (2, 7, 9, 0)])
def test_empty_batches_and_channels_give_empty_results(shape):
    for result in everything(np.empty(shape, np.float32)):
        assert result.size == 0
        assert (result.shape[0], result.shape[-1]) == (shape[0], shape[-1])


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_out_receives_the_result(layout):
    x = normal((2, 8, 8, 8))
    for function in (max_pool2d, min_pool2d, avg_pool2d):
        expected = function(x, 2, layout=layout)
        for out in (np.empty(expected.shape, np.float32), np.empty((*expected.shape[:3], 16), np.float32)[..., ::2]):
            target = out[..., : expected.shape[3]]
            assert function(x, 2, layout=layout, out=target) is target
            np.testing.assert_array_equal(target, expected)
    blurred = avg_pool2d(x, 3, stride=1, padding="same", layout=layout)
    assert avg_pool2d(x, 3, stride=1, padding="same", layout=layout, out=x) is x
    np.testing.assert_array_equal(x, blurred)


def test_one_and_two_threads_give_the_same_bits(monkeypatch):
    if numba.config.NUMBA_NUM_THREADS < 2:
        pytest.skip("Numba has only one thread here")
    monkeypatch.setattr(threads, "PARALLEL_THRESHOLD", 0)
    batches, results = [normal((1, 40, 31, 37)), normal((3, 9, 7, 3))], []
    before = numba.get_num_threads()
    try:
        for count in (1, 2):
            numba.set_num_threads(count)
            results.append([result.tobytes() for x in batches for result in everything(x)])
    finally:
        numba.set_num_threads(before)
    assert results[0] == results[1]


def test_the_batch_size_changes_no_bit():
    x = normal((20, 20, 9, 17))
    for one, all_of_them in zip(everything(x[:1]), everything(x), strict=True):
        assert one.tobytes() == all_of_them[:1].tobytes()


# ---- series -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("padding", [1, (0, 1), "same"])
def test_a_series_is_an_image_of_height_one(padding):
    x = normal((2, 11, 5))
    sides = padding if padding == "same" else ((0, 0), (padding, padding) if isinstance(padding, int) else padding)
    options, flat = {"stride": 2, "padding": padding}, {"stride": (1, 2), "padding": sides}
    image = x[:, np.newaxis]
    out, indices = max_pool1d(x, 3, return_indices=True, **options)
    expected, expected_indices = max_pool2d(image, (1, 3), return_indices=True, **flat)
    np.testing.assert_array_equal(out, expected[:, 0])
    np.testing.assert_array_equal(indices, expected_indices[:, 0])
    gradient = max_pool2d_backward(expected, expected_indices, image.shape)[:, 0]
    np.testing.assert_array_equal(max_pool2d_backward(out, indices, x.shape, layout="NWC"), gradient)
    average = avg_pool1d(x, 3, **options)
    np.testing.assert_array_equal(average, avg_pool2d(image, (1, 3), **flat)[:, 0])
    gradient = avg_pool2d_backward(average[:, np.newaxis], image.shape, (1, 3), **flat)[:, 0]
    np.testing.assert_array_equal(avg_pool1d_backward(average, x.shape, 3, **options), gradient)


def test_a_series_may_have_channels_first_and_no_batch_axis():
    x = normal((2, 11, 5))
    out, indices = max_pool1d(x, 3, return_indices=True)
    first, first_indices = max_pool1d(nchw(x), 3, return_indices=True, layout="NCW")
    np.testing.assert_array_equal(first, nchw(out))
    gradient = max_pool2d_backward(first, first_indices, nchw(x).shape, layout="NCW")
    np.testing.assert_array_equal(gradient, nchw(max_pool2d_backward(out, indices, x.shape, layout="NWC")))
    np.testing.assert_array_equal(avg_pool1d(x[0], 4), avg_pool1d(x, 4)[0])
    gradient = avg_pool1d_backward(nchw(out), nchw(x).shape, 3, layout="NCW")
    np.testing.assert_array_equal(gradient, nchw(avg_pool1d_backward(out, x.shape, 3)))


# ---- errors -----------------------------------------------------------------------------------------------------

IMAGE = np.zeros((2, 6, 6, 3), np.float32)
SHORT = np.zeros((2, 3, 3, 3), np.float32)
WHERE = np.zeros((2, 3, 3, 3), np.int64)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: max_pool2d(IMAGE.astype(int), 2), TypeError, "x must be float32 or float64. Received: x.dtype=int64"),
        (lambda: max_pool2d(IMAGE[0, 0], 2), ValueError, r"x must have 4 dimensions.*x.shape=\(6, 3\)"),
        (lambda: max_pool2d(IMAGE, 2, layout="NWC"), ValueError, "layout must be one of NHWC, NCHW.*layout='NWC'"),
        (lambda: max_pool1d(IMAGE, 2, layout="NHWC"), ValueError, "layout must be one of NWC, NCW.*layout='NHWC'"),
        (
            lambda: max_pool1d(IMAGE[0], (2, 2)),
            TypeError,
            r"kernel_size must be an int. Received: kernel_size=\(2, 2\)",
        ),
        (lambda: avg_pool1d(IMAGE[0], 2, stride="2"), TypeError, "stride must be an int. Received: stride='2'"),
        (lambda: avg_pool2d(IMAGE, 2, padding=2), ValueError, "padding must be at most half"),
        (lambda: avg_pool2d(IMAGE, 2, out=np.zeros((2, 3, 3))), ValueError, r"out must be .*shape \(2, 3, 3, 3\)"),
        (lambda: min_pool2d(IMAGE, 2, out=np.zeros(SHORT.shape)), ValueError, "out must be .*float32.*dtype=float64"),
        (lambda: adaptive_avg_pool2d(IMAGE, 0), ValueError, "output_size must be .* >= 1. Received: output_size=0"),
        (lambda: max_unpool2d(SHORT, WHERE, (6, 0)), ValueError, r"output_size must be .*output_size=\(6, 0\)"),
        (lambda: max_pool2d_backward(SHORT, WHERE, (6, 6)), ValueError, r"x_shape must have 4 .*x_shape=\(6, 6\)"),
        (
            lambda: max_pool2d_backward(SHORT, WHERE, (2, 6, 6, 4)),
            ValueError,
            r"grad_out and indices must have one shape, with 2 images of 4 channels. Received: grad_out.shape=\(2, 3",
        ),
        (lambda: max_pool2d_backward(SHORT, WHERE[:1], IMAGE.shape), ValueError, r"indices.shape=\(1, 3, 3, 3\)"),
        (lambda: max_pool2d_backward(SHORT, WHERE[0], IMAGE.shape), ValueError, "indices must have 4 dimensions"),
        (lambda: max_unpool2d(SHORT, SHORT, 6), TypeError, "indices must be integers. Received: indices.dtype=float32"),
        (
            lambda: max_unpool2d_backward(IMAGE, WHERE[:1]),
            ValueError,
            r"indices must have the batch and the channels of grad_out. Received: indices.shape=\(1, 3, 3, 3\)",
        ),
        (
            lambda: avg_pool2d_backward(SHORT, IMAGE.shape, 3),
            ValueError,
            r"grad_out must have the shape of the forward result, \(2, 2, 2, 3\).*grad_out.shape=\(2, 3, 3, 3\)",
        ),
        (lambda: adaptive_avg_pool2d_backward(SHORT, (1, 6, 6, 3)), ValueError, "grad_out must have the shape of the"),
        (lambda: global_avg_pool2d_backward(SHORT, IMAGE.shape), ValueError, r"forward result, \(2, 1, 1, 3\)"),
    ],
)
def test_bad_calls_name_the_argument_and_the_value(call, error, message):
    with pytest.raises(error, match=message):
        call()


# ---- PyTorch ----------------------------------------------------------------------------------------------------

TORCH_CASES = {
    "plain": ((2, 8, 6, 16), 2, None, 0, 1, False),
    "overlap": ((2, 13, 17, 35), (3, 2), (2, 3), (1, 1), 1, False),
    "grey": ((2, 9, 12, 1), 3, 2, 1, 1, True),
    "ceil drops a window": ((1, 5, 8, 3), 2, 3, 1, 1, True),
    "ceil over the end": ((1, 10, 7, 17), 3, 2, 0, 1, True),
    "dilated": ((1, 11, 12, 4), 3, 2, 1, (2, 3), True),
    "large": ((1, 30, 23, 2), (20, 17), 1, (5, 3), 1, False),
}


@pytest.mark.parametrize(
    ("shape", "kernel_size", "stride", "padding", "dilation", "ceil_mode"), TORCH_CASES.values(), ids=TORCH_CASES.keys()
)
def test_pooling_agrees_with_pytorch(shape, kernel_size, stride, padding, dilation, ceil_mode):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: nothing to compare with")
    x = nchw(np.random.default_rng(0).integers(-3, 4, shape).astype(np.float32))
    special = np.random.default_rng(1).random(x.shape)
    x[special < 0.05], x[special > 0.95], x[(special > 0.5) & (special < 0.53)] = np.nan, -np.inf, np.inf
    options = {"stride": stride, "padding": padding, "ceil_mode": ceil_mode}
    theirs, their_indices = torch.nn.functional.max_pool2d(
        torch.from_numpy(x), kernel_size, dilation=dilation, return_indices=True, **options
    )
    ours, indices = max_pool2d(x, kernel_size, dilation=dilation, return_indices=True, layout="NCHW", **options)
    np.testing.assert_array_equal(ours, theirs.numpy())
    np.testing.assert_array_equal(indices, their_indices.numpy())
    if dilation != 1:
        return
    for count_include_pad in (True, False):
        image = torch.from_numpy(normal(x.shape)).requires_grad_()
        theirs = torch.nn.functional.avg_pool2d(image, kernel_size, count_include_pad=count_include_pad, **options)
        ours = avg_pool2d(
            image.detach().numpy(), kernel_size, count_include_pad=count_include_pad, layout="NCHW", **options
        )
        np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=0, atol=2e-6)
        grad_out = normal(ours.shape, seed=1)
        theirs.backward(torch.from_numpy(grad_out))
        grad_x = avg_pool2d_backward(
            grad_out, x.shape, kernel_size, count_include_pad=count_include_pad, layout="NCHW", **options
        )
        np.testing.assert_allclose(grad_x, image.grad.numpy(), rtol=0, atol=2e-6)


@pytest.mark.parametrize("output_size", [1, (3, 2), (9, 13)])
def test_adaptive_pooling_and_gradients_agree_with_pytorch(output_size):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: nothing to compare with")
    x = nchw(normal((2, 7, 10, 5)))
    image = torch.from_numpy(x).requires_grad_()
    theirs, their_indices = torch.nn.functional.adaptive_max_pool2d(image, output_size, return_indices=True)
    ours, indices = adaptive_max_pool2d(x, output_size, return_indices=True, layout="NCHW")
    np.testing.assert_array_equal(ours, theirs.detach().numpy())
    np.testing.assert_array_equal(indices, their_indices.numpy())
    grad_out = normal(ours.shape, seed=1)
    theirs.backward(torch.from_numpy(grad_out))
    grad_x = max_pool2d_backward(grad_out, indices, x.shape, layout="NCHW")
    np.testing.assert_allclose(grad_x, image.grad.numpy(), rtol=0, atol=2e-6)
    image.grad = None
    theirs = torch.nn.functional.adaptive_avg_pool2d(image, output_size)
    np.testing.assert_allclose(adaptive_avg_pool2d(x, output_size, layout="NCHW"), theirs.detach().numpy(), atol=1e-6)
    theirs.backward(torch.from_numpy(grad_out))
    grad_x = adaptive_avg_pool2d_backward(grad_out, x.shape, layout="NCHW")
    np.testing.assert_allclose(grad_x, image.grad.numpy(), rtol=0, atol=2e-6)


def test_unpooling_agrees_with_pytorch():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: nothing to compare with")
    x = nchw(normal((2, 6, 8, 5)))
    pooled, indices = max_pool2d(x, 2, return_indices=True, layout="NCHW")
    image = torch.from_numpy(pooled).requires_grad_()
    theirs = torch.nn.functional.max_unpool2d(image, torch.from_numpy(indices), 2)
    np.testing.assert_array_equal(max_unpool2d(pooled, indices, (6, 8), layout="NCHW"), theirs.detach().numpy())
    theirs.backward(torch.from_numpy(x))
    np.testing.assert_array_equal(max_unpool2d_backward(x, indices, layout="NCHW"), image.grad.numpy())
