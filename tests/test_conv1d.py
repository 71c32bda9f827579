"""One-dimensional convolution: against the sum written out, PyTorch, layouts, empty and single series."""

import numpy as np
import pytest
from cases import integers

from fastconv.functional.conv1d import conv1d, conv1d_backward

# name -> x (N, I, IC), weight (K, IC / groups, OC), options
PROBLEMS = {
    "plain": ((2, 23, 7), (3, 7, 19), {"padding": 1}),
    "causal": ((2, 17, 3), (3, 3, 5), {"padding": (4, 0), "dilation": 2}),
    "strided tail": ((3, 31, 5), (5, 5, 3), {"stride": 3, "padding": 2}),
    "grouped": ((1, 19, 6), (4, 3, 10), {"stride": 2, "groups": 2}),
    "depthwise": ((2, 29, 17), (3, 1, 17), {"padding": 1, "groups": 17}),
}
named = pytest.mark.parametrize(("x_shape", "weight_shape", "options"), PROBLEMS.values(), ids=PROBLEMS.keys())


def operands(x_shape, weight_shape):
    rng = np.random.default_rng(0)
    return integers(rng, x_shape), integers(rng, weight_shape), integers(rng, weight_shape[2:])


def written_out(x, weight, stride=1, padding=(0, 0), dilation=1, groups=1):
    """The definition, one product at a time."""
    padding = (padding, padding) if isinstance(padding, int) else padding
    padded = np.pad(x, ((0, 0), padding, (0, 0)))
    K, IC_of_group, OC = weight.shape
    O = (padded.shape[1] - (K - 1) * dilation - 1) // stride + 1  # noqa: E741 - outputs
    out = np.zeros((x.shape[0], O, OC))
    for n, o, oc in np.ndindex(*out.shape):
        first_channel = oc // (OC // groups) * IC_of_group
        for k, ic in np.ndindex(K, IC_of_group):
            out[n, o, oc] += padded[n, o * stride + k * dilation, first_channel + ic] * weight[k, ic, oc]
    return out


@named
def test_it_is_the_sum_in_its_definition(x_shape, weight_shape, options):
    x, weight, bias = operands(x_shape, weight_shape)
    expected = written_out(x, weight, **options)
    np.testing.assert_array_equal(conv1d(x, weight, **options), expected)
    residual = integers(np.random.default_rng(1), expected.shape)
    fused = conv1d(x, weight, bias, residual=residual, activation="relu", **options)
    np.testing.assert_array_equal(fused, np.maximum(expected + bias + residual, 0))


@named
def test_the_gradients_are_adjoint(x_shape, weight_shape, options):
    x, weight, _ = operands(x_shape, weight_shape)
    out = written_out(x, weight, **options)
    grad_out = integers(np.random.default_rng(2), out.shape)
    grad_x, grad_weight, grad_bias = conv1d_backward(grad_out, x, weight, **options)
    assert (grad_x.shape, grad_weight.shape) == (x.shape, weight.shape)
    assert np.sum(out * grad_out) == np.sum(x.astype(float) * grad_x) == np.sum(weight.astype(float) * grad_weight)
    np.testing.assert_array_equal(grad_bias, grad_out.sum(axis=(0, 1)))


@named
def test_it_agrees_with_pytorch(x_shape, weight_shape, options):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: nothing to compare with")
    x, weight, bias = operands(x_shape, weight_shape)
    x, weight = np.ascontiguousarray(x.transpose(0, 2, 1)), np.ascontiguousarray(weight.transpose(2, 1, 0))
    theirs = [torch.from_numpy(array.astype(np.float64)).requires_grad_() for array in (x, weight, bias)]
    if isinstance(options.get("padding"), tuple):
        padded = torch.nn.functional.pad(theirs[0], options["padding"])
        rest = {name: value for name, value in options.items() if name != "padding"}
        expected = torch.nn.functional.conv1d(padded, *theirs[1:], **rest)
    else:
        expected = torch.nn.functional.conv1d(*theirs, **options)
    grad_out = integers(np.random.default_rng(2), tuple(expected.shape))
    expected.backward(torch.from_numpy(grad_out.astype(np.float64)))
    np.testing.assert_array_equal(conv1d(x, weight, bias, layout="NCW", **options), expected.detach().numpy())
    gradients = conv1d_backward(grad_out, x, weight, layout="NCW", **options)
    for ours, operand in zip(gradients, theirs, strict=True):
        np.testing.assert_array_equal(ours, operand.grad.numpy())


@pytest.mark.parametrize("extent", [5, 6, 7, 8])
@pytest.mark.parametrize("padding", ["same", "same_lower"])
def test_same_padding_gives_one_output_for_each_stride(extent, padding):
    x, weight = np.ones((2, extent, 3), np.float32), np.ones((4, 3, 5), np.float32)
    assert conv1d(x, weight, stride=2, padding=padding).shape == (2, -(-extent // 2), 5)


@pytest.mark.parametrize("layout", ["NWC", "NCW"])
def test_a_single_series_and_an_empty_batch(layout):
    x, weight, bias = operands(*PROBLEMS["plain"][:2])
    if layout == "NCW":
        x, weight = x.transpose(0, 2, 1), weight.transpose(2, 1, 0)
    batch = conv1d(x, weight, bias, layout=layout)
    np.testing.assert_array_equal(conv1d(x[1], weight, bias, layout=layout), batch[1])
    assert conv1d(x[:0], weight, bias, layout=layout).shape == (0, *batch.shape[1:])
    grad_x, grad_weight, grad_bias = conv1d_backward(batch[:0], x[:0], weight, layout=layout)
    assert (grad_x.shape, grad_weight.shape) == ((0, *x.shape[1:]), weight.shape)
    assert not grad_weight.any()
    assert not grad_bias.any()


def test_every_integer_type_is_a_padding():
    x, weight, _ = operands(*PROBLEMS["plain"][:2])
    np.testing.assert_array_equal(conv1d(x, weight, padding=np.int64(2)), conv1d(x, weight, padding=(2, 2)))


def test_out_receives_the_result():
    x, weight, bias = operands(*PROBLEMS["plain"][:2])
    expected = conv1d(x, weight, bias)
    out = np.full_like(expected, np.nan)
    assert conv1d(x, weight, bias, out=out) is out
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize(
    ("x_shape", "weight_shape", "options", "message"),
    [
        ((2, 5, 4, 3), (3, 3, 7), {}, r"x must have 3 dimensions \(NWC\), or one less .*x.shape=\(2, 5, 4, 3\)"),
        ((2, 5, 3), (1, 3, 3, 7), {}, r'weight must have 3 dimensions with layout="NWC". Received: weight.shape='),
        ((2, 5, 3), (3, 3, 7), {"layout": "NHWC"}, "layout must be one of NWC, NCW. Received: layout='NHWC'"),
        ((2, 5, 3), (3, 3, 7), {"stride": 0}, "stride must be"),
        ((2, 5, 3), (3, 3, 7), {"padding": "full"}, "padding must be .*Received: padding='full'"),
        ((2, 5, 3), (7, 3, 7), {}, "the padded image must be at least as large as the dilated kernel"),
    ],
)
def test_bad_calls_name_the_argument(x_shape, weight_shape, options, message):
    with pytest.raises(ValueError, match=message):
        conv1d(np.zeros(x_shape, np.float32), np.zeros(weight_shape, np.float32), **options)
