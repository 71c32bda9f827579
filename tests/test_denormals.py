"""Denormal numbers: convolutions and optimizer steps take them as zero, and the caller's own arithmetic does not."""

import numpy as np
import pytest
from llvmlite import ir
from numba import config, types
from numba.extending import intrinsic

from fastconv import _jit, denormals, threads
from fastconv.cpu import simd
from fastconv.cpu.update import adam_update, sgd_update
from fastconv.functional import conv2d, conv2d_backward, max_pool2d, tanh

# The low bits of the control register of x86 note what has happened; the others say what is to happen.
SETTINGS = np.uint64(~0x3F & 0xFFFF_FFFF)
TINY = np.float32(1e-40)
KERNELS = {
    "direct": ((2, 9, 7, 5), (3, 3, 5, 11), {}),
    "depthwise": ((2, 9, 7, 16), (3, 3, 1, 16), {"groups": 16}),
}

pytestmark = pytest.mark.skipif(
    not (denormals._IS_X86 or denormals._IS_ARM), reason="the control register of this processor is not known"
)


@intrinsic
def control_register(typingctx):
    """What the processor does with denormals on this thread."""

    def generate(context, builder, signature, arguments):
        return builder.zext(denormals.read_mode(builder), ir.IntType(64))

    return types.uint64(), generate


@_jit.kernel
def mode():
    return control_register() & SETTINGS


@_jit.flushing_tasks
def halve(x, out, at, modes, first, last):
    """Note the mode, and halve the numbers; reads behind the end where *at* is large."""
    numbers = simd.span(x)
    for task in range(first, last):
        modes[task] = control_register() & SETTINGS
        out[task] = numbers[at + task] / np.float32(2)


@_jit.kernel
def halve_serial(x, out, at, modes):
    halve(x, out, at, modes, 0, x.size)


@pytest.mark.parametrize("number", [TINY, -TINY])
def test_inside_denormals_are_zero_and_outside_the_mode_is_the_callers(number):
    before = mode()
    x, out, modes = np.full(5, number), np.ones(5, np.float32), np.zeros(5, np.uint64)
    halve_serial(x, out, 0, modes)
    np.testing.assert_array_equal(out, 0)
    assert set(modes) != {before}
    assert mode() == before
    # what the caller computes is not rounded to zero
    assert np.all(x / np.float32(2) != 0)


def test_an_exception_puts_the_mode_back():
    if not config.BOUNDSCHECK:
        pytest.skip("no kernel raises without NUMBA_BOUNDSCHECK=1")
    before = mode()
    x, modes = np.full(5, TINY), np.zeros(5, np.uint64)
    with pytest.raises(IndexError, match="outside the array"):
        halve_serial(x, np.ones(5, np.float32), 3, modes)
    assert modes[0] not in (0, before)
    assert mode() == before


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("name", KERNELS)
def test_convolutions_of_denormals_are_zero_for_any_number_of_threads(name, workers, monkeypatch):
    monkeypatch.setattr(threads, "worker_count", lambda work: workers)
    x_shape, weight_shape, options = KERNELS[name]
    before = mode()
    x, weight = np.full(x_shape, TINY), np.ones(weight_shape, np.float32)
    out = conv2d(x, weight, **options)
    np.testing.assert_array_equal(out, 0)
    for gradient in conv2d_backward(np.full_like(out, TINY), np.ones_like(x), weight, **options)[:2]:
        np.testing.assert_array_equal(gradient, 0)
    assert mode() == before


def test_the_averages_of_an_optimizer_do_not_fade_into_denormals():
    parameter, gradient = np.ones(3, np.float32), np.zeros(3, np.float32)
    velocity, mean, square = (np.full(3, 1e-36, np.float32) for _ in range(3))
    for iteration in range(1, 100):
        sgd_update(parameter, gradient, velocity, learning_rate=0.1, momentum=0.5)
        adam_update(parameter, gradient, mean, square, iteration=iteration, learning_rate=0.1, beta_2=0.5)
    for average in (velocity, mean, square):
        assert np.all((average == 0) | (average >= np.finfo(np.float32).smallest_normal))


def test_pooling_and_activations_keep_denormals():
    x = np.array([1, 3, 2, 1], np.float32).reshape(2, 2, 1) * np.finfo(np.float32).smallest_subnormal
    assert max_pool2d(x, 2)[0, 0, 0] == x.max()
    np.testing.assert_array_equal(tanh(x), x)
