"""Transposed convolution: the transpose of conv2d, its gradients, PyTorch."""

from dataclasses import dataclass

import numpy as np
import pytest
from cases import CASES, integers

from fastconv.functional.conv import conv2d, conv2d_grad_x
from fastconv.functional.conv_transpose import conv_transpose2d, conv_transpose2d_backward
from fastconv.geometry import IntOrPair, Padding, conv_transpose2d_geometry


@dataclass(frozen=True)
class TransposeCase:
    """A transposed convolution of x (N, IH, IW, IC) with weight (KH, KW, OC / groups, IC)."""

    name: str
    x_shape: tuple[int, int, int, int]
    weight_shape: tuple[int, int, int, int]
    stride: IntOrPair = 1
    padding: Padding = 0
    output_padding: IntOrPair = 0
    dilation: IntOrPair = 1
    groups: int = 1

    @property
    def options(self):
        names = ("stride", "padding", "output_padding", "dilation", "groups")
        return {name: getattr(self, name) for name in names}

    def __str__(self):
        return self.name


TRANSPOSES = (
    TransposeCase("plain", (2, 5, 7, 6), (3, 3, 17, 6), padding=1),
    TransposeCase("upsampling", (2, 5, 3, 17), (4, 4, 7, 17), stride=2, padding=1),
    TransposeCase("output padding", (1, 7, 5, 3), (3, 2, 5, 3), stride=(2, 3), padding=(1, 0), output_padding=(1, 2)),
    TransposeCase("output padding below dilation", (1, 5, 4, 3), (2, 3, 7, 3), dilation=(2, 3), output_padding=(1, 2)),
    TransposeCase("dilated strided", (2, 5, 3, 3), (3, 2, 2, 3), stride=(3, 2), padding=2, dilation=(2, 3)),
    TransposeCase("stride larger than kernel", (1, 3, 5, 5), (1, 2, 3, 5), stride=(3, 5)),
    TransposeCase("grouped", (2, 5, 7, 15), (3, 3, 2, 15), stride=2, padding=1, groups=3),
    TransposeCase("depthwise", (1, 5, 7, 19), (3, 3, 1, 19), stride=2, padding=1, output_padding=1, groups=19),
)


def operands(case, seed=0):
    """x, weight, bias and a cotangent, whole numbers."""
    rng = np.random.default_rng(seed)
    g = conv_transpose2d_geometry(case.x_shape, case.weight_shape, **case.options)
    return tuple(integers(rng, shape) for shape in (case.x_shape, case.weight_shape, (g.IC,), g.x_shape))


def inserted_zeros(case, x):
    """What a transposed convolution means: x with zeros between its pixels, to be convolved with the flipped kernel."""
    stride = (case.stride,) * 2 if isinstance(case.stride, int) else case.stride
    N, IH, IW, IC = x.shape
    spread = np.zeros((N, (IH - 1) * stride[0] + 1, (IW - 1) * stride[1] + 1, IC), x.dtype)
    spread[:, :: stride[0], :: stride[1]] = x
    return spread


@pytest.mark.parametrize("case", TRANSPOSES, ids=str)
def test_it_is_a_convolution_of_x_with_inserted_zeros_and_the_flipped_kernel(case):
    x, weight, bias, _ = operands(case)
    g = conv_transpose2d_geometry(case.x_shape, case.weight_shape, **case.options)
    KH, KW, OC_of_group, IC = weight.shape
    # each group's (OC, IC) matrices turned round
    per_group = weight.reshape(KH, KW, OC_of_group, case.groups, IC // case.groups)[::-1, ::-1]
    flipped = np.ascontiguousarray(per_group.transpose(0, 1, 4, 3, 2)).reshape(KH, KW, IC // case.groups, -1)
    reach = [(k - 1) * d for k, d in zip((KH, KW), g.dilation, strict=True)]
    extra = (case.output_padding,) * 2 if isinstance(case.output_padding, int) else case.output_padding
    whole = conv2d(
        inserted_zeros(case, x),
        flipped,
        padding=tuple((r, r + e) for r, e in zip(reach, extra, strict=True)),
        dilation=case.dilation,
        groups=case.groups,
        algorithm="reference",
    )
    (top, bottom), (left, right) = g.padding
    expected = whole[:, top : whole.shape[1] - bottom, left : whole.shape[2] - right] + bias
    np.testing.assert_array_equal(conv_transpose2d(x, weight, bias, **case.options), expected)
    relu = conv_transpose2d(x, weight, bias, activation="relu", **case.options)
    np.testing.assert_array_equal(relu, np.maximum(expected, 0))


@pytest.mark.parametrize("case", [*CASES[1:4], *CASES[-5:-1]], ids=str)
def test_it_undoes_the_shapes_of_conv2d_and_equals_its_gradient(case):
    g = case.geometry
    rng = np.random.default_rng(3)
    grad_out, weight = integers(rng, g.out_shape), integers(rng, g.weight_shape)
    left_over = tuple(
        (extent + sum(side) - (k - 1) * d - 1) % s
        for extent, side, k, d, s in zip((g.IH, g.IW), g.padding, (g.KH, g.KW), g.dilation, g.stride, strict=True)
    )
    out = conv_transpose2d(grad_out, weight, output_padding=left_over, **{**case.options, "padding": g.padding})
    np.testing.assert_array_equal(out, conv2d_grad_x(grad_out, weight, g.x_shape, **case.options))


@pytest.mark.parametrize("case", TRANSPOSES, ids=str)
def test_the_gradients_are_adjoint(case):
    x, weight, _, grad_out = operands(case)
    grad_x, grad_weight, grad_bias = conv_transpose2d_backward(grad_out, x, weight, **case.options)
    product = np.sum(conv_transpose2d(x, weight, **case.options).astype(np.int64) * grad_out)
    assert product == np.sum(x.astype(np.int64) * grad_x)
    assert product == np.sum(weight.astype(np.int64) * grad_weight)
    np.testing.assert_array_equal(grad_bias, grad_out.sum(axis=(0, 1, 2)))


@pytest.mark.parametrize("case", TRANSPOSES, ids=str)
def test_it_agrees_with_pytorch(case):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: nothing to compare with")
    x, weight, bias, grad_out = operands(case)
    KH, KW, OC_of_group, IC = weight.shape
    x, grad_out = (np.ascontiguousarray(array.transpose(0, 3, 1, 2)) for array in (x, grad_out))
    weight = np.ascontiguousarray(weight.transpose(3, 2, 0, 1))
    assert weight.shape == (IC, OC_of_group, KH, KW)
    theirs = [torch.from_numpy(array.astype(np.float64)).requires_grad_() for array in (x, weight, bias)]
    expected = torch.nn.functional.conv_transpose2d(*theirs, **case.options)
    expected.backward(torch.from_numpy(grad_out.astype(np.float64)))
    out = conv_transpose2d(x, weight, bias, layout="NCHW", **case.options)
    np.testing.assert_array_equal(out, expected.detach().numpy())
    gradients = conv_transpose2d_backward(grad_out, x, weight, layout="NCHW", **case.options)
    for ours, operand in zip(gradients, theirs, strict=True):
        np.testing.assert_array_equal(ours, operand.grad.numpy())


@pytest.mark.parametrize(("kernel", "stride"), [(3, 2), (2, 2), (4, 2), (2, 3), (5, 3)])
def test_same_padding_multiplies_the_size_by_the_stride(kernel, stride):
    x, weight = np.ones((1, 3, 5, 1), np.float32), np.ones((kernel, kernel, 1, 1), np.float32)
    out = conv_transpose2d(x, weight, stride=stride, padding="same")
    assert out.shape == (1, 3 * stride, 5 * stride, 1)
    # and is the transpose of the convolution with "same" padding that brings that size back
    np.testing.assert_array_equal(
        out, conv2d_grad_x(x, weight, out.shape, stride=stride, padding="same", algorithm="reference")
    )


def test_an_image_without_batch_axis_and_an_empty_batch():
    case = TRANSPOSES[1]
    x, weight, bias, grad_out = operands(case)
    batch = conv_transpose2d(x, weight, bias, **case.options)
    np.testing.assert_array_equal(conv_transpose2d(x[1], weight, bias, **case.options), batch[1])
    assert conv_transpose2d(x[:0], weight, bias, **case.options).shape == (0, *batch.shape[1:])
    grad_x, grad_weight, grad_bias = conv_transpose2d_backward(grad_out[:0], x[:0], weight, **case.options)
    assert grad_x.shape == (0, *x.shape[1:])
    assert not grad_weight.any()
    assert not grad_bias.any()


def test_out_receives_the_result():
    case = TRANSPOSES[2]
    x, weight, bias, _ = operands(case)
    expected = conv_transpose2d(x, weight, bias, activation="relu", **case.options)
    out = np.full_like(expected, np.nan)
    assert conv_transpose2d(x, weight, bias, activation="relu", out=out, **case.options) is out
    np.testing.assert_array_equal(out, expected)


def test_bad_shapes_are_refused():
    x, weight = np.zeros((1, 3, 5, 4), np.float32), np.zeros((3, 2, 7, 4), np.float32)
    with pytest.raises(ValueError, match=r"bias must have shape \(7,\). Received: bias.shape=\(4,\)"):
        conv_transpose2d(x, weight, np.zeros(4, np.float32))
    with pytest.raises(
        ValueError, match=r"grad_out must have the shape of the result, \(1, 5, 6, 7\). Received: .*6, 4"
    ):
        conv_transpose2d_backward(np.zeros((1, 5, 6, 4), np.float32), x, weight)
