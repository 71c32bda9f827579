"""The executable specification itself: against the definition, one product at a time, and against PyTorch."""

import numpy as np
import pytest
from cases import CASES, ConvCase, exact_arrays

from fastconv.reference import conv as reference

TINY = (
    ConvCase("plain", (2, 4, 3, 2), (2, 3, 2, 3), padding=1),
    ConvCase(
        "everything at once",
        (2, 5, 6, 4),
        (2, 3, 2, 6),
        stride=(2, 1),
        padding=((1, 2), (0, 3)),
        dilation=(2, 3),
        groups=2,
    ),
)


@pytest.mark.parametrize("case", TINY, ids=str)
def test_the_three_passes_are_the_sums_in_their_definitions(case):
    g = case.geometry
    a = exact_arrays(g, np.float64)
    out, grad_x, grad_weight = np.zeros(g.out_shape), np.zeros(g.x_shape), np.zeros(g.weight_shape)
    IC_of_group, OC_of_group = g.IC // g.G, g.OC // g.G
    products = 0
    for n, oh, ow, oc in np.ndindex(*g.out_shape):
        for kh, kw, k in np.ndindex(g.KH, g.KW, IC_of_group):
            ih = oh * g.stride[0] - g.padding[0][0] + kh * g.dilation[0]
            iw = ow * g.stride[1] - g.padding[1][0] + kw * g.dilation[1]
            ic = oc // OC_of_group * IC_of_group + k
            if 0 <= ih < g.IH and 0 <= iw < g.IW:
                out[n, oh, ow, oc] += a.x[n, ih, iw, ic] * a.weight[kh, kw, k, oc]
                grad_x[n, ih, iw, ic] += a.grad_out[n, oh, ow, oc] * a.weight[kh, kw, k, oc]
                grad_weight[kh, kw, k, oc] += a.x[n, ih, iw, ic] * a.grad_out[n, oh, ow, oc]
                products += 1
    assert products > 100
    np.testing.assert_array_equal(reference.conv2d(g, a.x, a.weight), out)
    np.testing.assert_array_equal(reference.conv2d_grad_x(g, a.grad_out, a.weight), grad_x)
    np.testing.assert_array_equal(reference.conv2d_grad_weight(g, a.x, a.grad_out), grad_weight)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_three_passes_agree_with_pytorch(case):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: nothing to compare with")
    g = case.geometry
    a = exact_arrays(g, np.float64)
    x = torch.from_numpy(a.x.transpose(0, 3, 1, 2).copy()).requires_grad_()
    weight = torch.from_numpy(a.weight.transpose(3, 2, 0, 1).copy()).requires_grad_()
    (top, bottom), (left, right) = g.padding
    padded = torch.nn.functional.pad(x, (left, right, top, bottom))
    out = torch.nn.functional.conv2d(padded, weight, stride=g.stride, dilation=g.dilation, groups=g.G)
    out.backward(torch.from_numpy(a.grad_out.transpose(0, 3, 1, 2).copy()))
    expected = reference.conv2d(g, a.x, a.weight)
    np.testing.assert_array_equal(expected, out.detach().numpy().transpose(0, 2, 3, 1), err_msg=str(g))
    grad_x = reference.conv2d_grad_x(g, a.grad_out, a.weight)
    np.testing.assert_array_equal(grad_x, x.grad.numpy().transpose(0, 2, 3, 1), err_msg=str(g))
    grad_weight = reference.conv2d_grad_weight(g, a.x, a.grad_out)
    np.testing.assert_array_equal(grad_weight, weight.grad.numpy().transpose(2, 3, 1, 0), err_msg=str(g))
