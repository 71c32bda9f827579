"""Upsampling: against the formula pixel by pixel, the adjoint identity, and PyTorch where it is installed."""

from __future__ import annotations

import numpy as np
import pytest

import fastconv as fc

CASES = [((3, 5), 2), ((4, 3), (3, 2)), ((1, 6), (4, 1)), ((1, 1), (2, 5)), ((2, 7), 1)]


def line(values, factor):
    """Linear interpolation along the first axis, between the centres of the pixels."""
    extent = len(values)
    centres = (np.arange(extent * factor) + 0.5) / factor - 0.5
    below = np.floor(centres).astype(int)
    share = (centres - below).reshape(-1, *[1] * (values.ndim - 1))
    low, high = (np.clip(index, 0, extent - 1) for index in (below, below + 1))
    return values[low] * (1 - share) + values[high] * share


def expected(x, size, interpolation):
    rows, columns = (size, size) if isinstance(size, int) else size
    if interpolation == "nearest":
        return x.repeat(rows, axis=1).repeat(columns, axis=2)
    moved = np.moveaxis(line(np.moveaxis(x, 1, 0), rows), 0, 1)
    return np.moveaxis(line(np.moveaxis(moved, 2, 0), columns), 0, 2)


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
@pytest.mark.parametrize(("extents", "size"), CASES)
def test_pixels_are_repeated_or_lie_on_straight_lines(extents, size, interpolation):
    x = np.random.default_rng(0).standard_normal((2, *extents, 3))
    out = fc.upsample2d(x, size, interpolation=interpolation)
    np.testing.assert_allclose(out, expected(x, size, interpolation), rtol=0, atol=1e-14)
    first = fc.upsample2d(np.moveaxis(x[0], -1, 0), size, interpolation=interpolation, layout="NCHW")
    np.testing.assert_array_equal(np.moveaxis(first, 0, -1), out[0])


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
@pytest.mark.parametrize(("extents", "size"), CASES)
def test_the_gradient_is_the_adjoint(extents, size, interpolation):
    """``<up(x), g> = <x, backward(g)>`` for every x and g."""
    rng = np.random.default_rng(1)
    x = rng.standard_normal((2, *extents, 3))
    out = fc.upsample2d(x, size, interpolation=interpolation)
    grad_out = rng.standard_normal(out.shape)
    grad_x = fc.upsample2d_backward(grad_out, size, interpolation=interpolation)
    assert grad_x.shape == x.shape
    assert np.vdot(out, grad_out) == pytest.approx(np.vdot(x, grad_x), rel=1e-12)


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
def test_against_torch(interpolation):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    rng = np.random.default_rng(2)
    x = rng.standard_normal((2, 5, 7, 4), np.float32)
    image = torch.tensor(np.moveaxis(x, -1, 1)).requires_grad_()
    wanted = torch.nn.functional.interpolate(image, scale_factor=(2, 4), mode=interpolation)
    grad_out = rng.standard_normal((2, 10, 28, 4), np.float32)
    wanted.backward(torch.tensor(np.moveaxis(grad_out, -1, 1)))
    out = fc.upsample2d(x, (2, 4), interpolation=interpolation)
    grad_x = fc.upsample2d_backward(grad_out, (2, 4), interpolation=interpolation)
    np.testing.assert_allclose(out, np.moveaxis(wanted.detach().numpy(), 1, -1), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(grad_x, np.moveaxis(image.grad.numpy(), 1, -1), rtol=1e-5, atol=1e-5)


def test_an_empty_batch_gives_an_empty_result():
    for interpolation in ("nearest", "bilinear"):
        out = fc.upsample2d(np.empty((0, 3, 2, 4)), 2, interpolation=interpolation)
        assert out.shape == (0, 6, 4, 4)
        assert fc.upsample2d_backward(out, 2, interpolation=interpolation).shape == (0, 3, 2, 4)


@pytest.mark.parametrize(
    ("use", "error", "message"),
    [
        (lambda x: fc.upsample2d(x, 2, interpolation="bicubic"), ValueError, "one of nearest, bilinear. Received"),
        (lambda x: fc.upsample2d(x, 0), ValueError, "size"),
        (lambda x: fc.upsample2d(x.astype(np.int32), 2), TypeError, "x must be"),
        (lambda x: fc.upsample2d(x[0, 0], 2), ValueError, "x must have"),
        (lambda x: fc.upsample2d_backward(x, 2), ValueError, r"size must divide .* grad_out.shape=\(1, 3, 2, 4\)"),
    ],
)
def test_errors_name_the_argument_and_what_was_received(use, error, message):
    with pytest.raises(error, match=message):
        use(np.zeros((1, 3, 2, 4)))
