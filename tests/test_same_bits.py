"""The same bits from any number of threads, any batch, any cut into blocks and any vector width."""

import platform
from pathlib import Path

import numpy as np
import pytest
from cases import BY_NAME, normal_arrays

from fastconv import threads
from fastconv.cpu import conv_first, conv_last, conv_last_weight
from fastconv.cpu.codegen import VECTOR_BYTES
from fastconv.cpu.shape import forward_shape
from fastconv.functional.conv import conv2d, conv2d_backward, conv2d_grad_weight, conv2d_grad_x
from fastconv.geometry import conv2d_geometry

NAMES = (
    "plain",
    "strided tail",
    "first layer, grey",
    "first layer, colour",
    "few outputs",
    "few outputs, strided",
    "few channels in and out",
    "1x1",
    "grouped",
    "over one block of depth and columns",
    "depthwise strided",
    "depthwise 5x5",
    "depthwise stride 2",
    "depthwise multiplier",
    "depthwise over blocks of channels",
    "grad_weight over splits and chains",
    "winograd, many tiles",
    "winograd, many channels",
    "winograd, grad_x backwards",
    "winograd, pieces",
    "winograd, dilated",
    "winograd, strided",
)


def all_passes(name):
    """Results of the three passes as bytes; equal bytes are the same bits, NaN and the sign of zero included."""
    case = BY_NAME[name]
    a = normal_arrays(case.geometry)
    out = conv2d(a.x, a.weight, a.bias, residual=a.residual, activation="gelu", **case.options)
    return [array.tobytes() for array in (out, *conv2d_backward(a.grad_out, a.x, a.weight, **case.options))]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("outputs", [VECTOR_BYTES // 4, VECTOR_BYTES // 4 + 3, 4 * (VECTOR_BYTES // 4) - 1])
@pytest.mark.parametrize(
    ("x_shape", "kernel", "options"),
    [
        ((2, 9, 31, 1), (3, 3), {"padding": 1}),
        ((2, 23, 57, 3), (5, 7), {"padding": ((2, 1), (0, 5)), "stride": (2, 3)}),
        ((1, 19, 40, 8), (3, 2), {"dilation": (3, 2)}),
    ],
)
def test_the_path_of_first_layers_changes_no_bit(x_shape, kernel, options, outputs, dtype):
    """More channels, of zeros, take the general path; they add nothing to a sum."""
    rng = np.random.default_rng(outputs)
    channels = x_shape[3]
    x, weight = rng.standard_normal(x_shape), rng.standard_normal((*kernel, channels, outputs))
    g = conv2d_geometry(x_shape, weight.shape, **options)
    assert conv_first.suits(forward_shape(g), np.dtype(dtype).itemsize)
    many = conv2d_geometry((*x_shape[:3], 16), (*kernel, 16, outputs), **options)
    assert not conv_first.suits(forward_shape(many), np.dtype(dtype).itemsize)
    none = [(0, 0)] * 3 + [(0, 16 - channels)]
    bias, residual = rng.standard_normal(outputs).astype(dtype), rng.standard_normal(g.out_shape).astype(dtype)
    for rest in ({}, {"bias": bias, "activation": "relu"}, {"bias": bias, "residual": residual, "activation": "tanh"}):
        few, general = (
            conv2d(a.astype(dtype), b.astype(dtype), **rest, **options, algorithm="direct")
            for a, b in ((x, weight), (np.pad(x, none), np.pad(weight, none[:2] + none[3:] + none[:1])))
        )
        np.testing.assert_array_equal(few, general)


@pytest.mark.parametrize("special", [False, True], ids=["finite", "infinity and NaN"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("x_shape", "kernel", "outputs", "options"),
    [
        ((3, 53, 96, 2), (3, 3), 1, {"padding": 1}),
        ((3, 13, 20, 7), (2, 9), 2, {"padding": ((0, 1), (3, 5))}),
        ((2, 31, 59, 5), (4, 7), 2, {"padding": (2, 3), "stride": (3, 2)}),
        ((3, 49, 46, 5), (3, 5), VECTOR_BYTES // 16, {"dilation": (2, 1)}),
    ],
)
def test_pixels_that_share_a_vector_change_no_bit(x_shape, kernel, outputs, options, dtype, special):
    """More output channels, of weights of zero, take the path of single pixels."""
    rng = np.random.default_rng(outputs)
    x, weight = rng.standard_normal(x_shape), rng.standard_normal((*kernel, x_shape[3], outputs))
    if special:
        x[0, 4, 7, 0], x[0, 4, 11, 0], x[1, 0, 0, 0] = np.inf, -np.inf, np.nan
    none, more = [(0, 0)] * 3, 5 * VECTOR_BYTES
    g = conv2d_geometry(x_shape, weight.shape, **options)
    itemsize = np.dtype(dtype).itemsize
    assert conv_last.pixels_together(forward_shape(g), itemsize, False) > 1
    many = conv2d_geometry(x_shape, (*kernel, x_shape[3], outputs + more), **options)
    assert conv_last.pixels_together(forward_shape(many), itemsize, False) == 1
    bias, residual = rng.standard_normal(outputs).astype(dtype), rng.standard_normal(g.out_shape).astype(dtype)
    x, weight = x.astype(dtype), weight.astype(dtype)
    wide = np.pad(weight, [*none, (0, more)])
    for activation in (None, "relu", "gelu"):
        together = conv2d(x, weight, bias, residual=residual, activation=activation, algorithm="direct", **options)
        single = conv2d(
            x,
            wide,
            np.pad(bias, (0, more)),
            residual=np.pad(residual, [*none, (0, more)]),
            activation=activation,
            algorithm="direct",
            **options,
        )
        assert np.isfinite(together).all() != special
        np.testing.assert_array_equal(together, single[..., :outputs])


@pytest.mark.parametrize("special", [False, True], ids=["finite", "infinity and NaN"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("x_shape", "kernel", "outputs", "options"),
    [
        ((2, 19, 23, 17), (3, 3), 1, {"padding": 1}),
        ((3, 13, 20, 7), (2, 9), 3, {"padding": ((0, 1), (3, 5))}),
        ((2, 31, 59, 5), (4, 7), 2, {"padding": (2, 8), "stride": (3, 2)}),
        ((1, 9, 1013, 3), (3, 5), 6, {"dilation": (2, 1)}),
        ((5, 7, 11, 66), (1, 1), 5, {}),
    ],
)
def test_a_weight_of_few_outputs_has_the_bits_of_the_general_pass(
    x_shape, kernel, outputs, options, dtype, special, monkeypatch
):
    """More output channels take the general pass; up to 64 the chains of pixels are the same."""
    rng = np.random.default_rng(outputs)
    few, many = ((*kernel, x_shape[3], channels) for channels in (outputs, 64))
    g = conv2d_geometry(x_shape, few, **options)
    x, grad_out = (rng.standard_normal(shape).astype(dtype) for shape in (x_shape, g.out_shape))
    if special:
        x[0, 4, 7, 0], x[0, 4, 9, 0], grad_out[0, -1, -2, 0], grad_out[0, 0, 0, -1] = np.inf, -np.inf, np.nan, np.inf
    monkeypatch.setattr(conv_last_weight, "suits", lambda shape, itemsize: shape.OC == outputs)
    wide = np.pad(grad_out, [(0, 0)] * 3 + [(0, 64 - outputs)])
    expected = conv2d_grad_weight(wide, x, many, algorithm="direct", **options)[..., :outputs]
    for workers in (1, 2, 3):
        monkeypatch.setattr(threads, "worker_count", lambda work, workers=workers: workers)
        found = conv2d_grad_weight(grad_out, x, few, algorithm="direct", **options)
        np.testing.assert_array_equal(found, expected)
    assert np.isfinite(expected).all() != special


def test_weights_of_few_outputs_are_told_from_others():
    for channels, outputs, suits in ((32, 1, True), (32, 3, True), (64, 64, False), (3, 32, False)):
        shape = forward_shape(conv2d_geometry((8, 64, 64, channels), (3, 3, channels, outputs), padding=1))
        assert conv_last_weight.suits(shape, 4) == suits
    dilated = conv2d_geometry((8, 64, 64, 32), (3, 3, 32, 1), dilation=2)
    assert not conv_last_weight.suits(forward_shape(dilated), 4)


@pytest.mark.parametrize("name", NAMES)
def test_the_number_of_workers_changes_no_bit(name, monkeypatch):
    """More workers also means smaller blocks of pixels and of channels."""
    results = []
    for workers in (1, 2, 3, 4, 16):
        monkeypatch.setattr(threads, "worker_count", lambda work, workers=workers: workers)
        results.append(all_passes(name))
    assert all(result == results[0] for result in results)


@pytest.mark.parametrize(
    "name",
    [
        "plain",
        "strided tail",
        "1x1",
        "first layer, grey",
        "depthwise",
        "over one block of pixels",
        "winograd, many tiles",
        "winograd, strided",
    ],
)
def test_the_batch_changes_no_bit(name):
    case = BY_NAME[name]
    rng = np.random.default_rng(0)
    x = rng.normal(size=(5, *case.x_shape[1:])).astype(np.float32)
    weight = rng.normal(size=case.weight_shape).astype(np.float32)
    grad_out = rng.normal(size=(5, *case.geometry.out_shape[1:])).astype(np.float32)
    out = conv2d(x, weight, **case.options)
    grad_x = conv2d_grad_x(grad_out, weight, x.shape, **case.options)
    for n in range(5):
        assert conv2d(x[n], weight, **case.options).tobytes() == out[n].tobytes()
        assert conv2d_grad_x(grad_out[n], weight, x[n].shape, **case.options).tobytes() == grad_x[n].tobytes()


DIGEST = """
import hashlib, sys
sys.path.insert(0, {tests!r})
from fastconv.cpu.codegen import VECTOR_BYTES
from test_same_bits import NAMES, all_passes
digest = hashlib.sha256()
for name in NAMES:
    for result in all_passes(name):
        digest.update(result)
print(VECTOR_BYTES, digest.hexdigest())
"""


def test_avx2_and_avx512_give_the_same_bits(run_python, tmp_path):
    """float32, all passes; each width compiles into the cache of its own CPU name."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        pytest.skip("no AVX on this CPU")
    if VECTOR_BYTES != 64:
        pytest.skip(f"kernels are compiled for {8 * VECTOR_BYTES}-bit vectors here: there are no two widths to compare")
    source = DIGEST.format(tests=str(Path(__file__).parent))
    wide = run_python(source, NUMBA_NUM_THREADS="1")
    narrow = run_python(source, NUMBA_NUM_THREADS="1", NUMBA_CPU_NAME="haswell", NUMBA_CACHE_DIR=str(tmp_path))
    assert wide.split()[0] == "64"
    assert narrow.split()[0] == "32"
    assert wide.split()[1] == narrow.split()[1]
