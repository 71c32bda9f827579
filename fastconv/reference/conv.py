"""Convolution in NumPy: slow, short, and the meaning of every other implementation.

One tap of the kernel at a time: the pixels that the tap sees, as a strided view of the zero-padded image, times the
(IC / G x OC / G) matrix of the tap.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastconv.geometry import Conv2dGeometry


def _taps(geometry: Conv2dGeometry, padded: NDArray[Any]) -> Iterator[tuple[int, int, NDArray[Any]]]:
    """(kh, kw, the (N, OH, OW, C) view of the padded image that this tap sees)."""
    g = geometry
    for kh in range(g.KH):
        for kw in range(g.KW):
            top, left = kh * g.dilation[0], kw * g.dilation[1]
            rows = slice(top, top + (g.OH - 1) * g.stride[0] + 1, g.stride[0])
            columns = slice(left, left + (g.OW - 1) * g.stride[1] + 1, g.stride[1])
            yield kh, kw, padded[:, rows, columns]


def _pad(geometry: Conv2dGeometry, x: NDArray[Any]) -> NDArray[Any]:
    return np.pad(x, ((0, 0), *geometry.padding, (0, 0)))


def _groups(geometry: Conv2dGeometry) -> Iterator[tuple[slice, slice]]:
    """The input and the output channels of each group."""
    ic, oc = geometry.IC // geometry.G, geometry.OC // geometry.G
    for g in range(geometry.G):
        yield slice(g * ic, (g + 1) * ic), slice(g * oc, (g + 1) * oc)


def conv2d(geometry: Conv2dGeometry, x: NDArray[Any], weight: NDArray[Any]) -> NDArray[Any]:
    """Each tap adds, at every output pixel, the product of what it sees with its matrix of weights."""
    out = np.zeros(geometry.out_shape, x.dtype)
    for kh, kw, seen in _taps(geometry, _pad(geometry, x)):
        for ic, oc in _groups(geometry):
            out[..., oc] += seen[..., ic] @ weight[kh, kw, :, oc]
    return out


def conv2d_grad_x(geometry: Conv2dGeometry, grad_out: NDArray[Any], weight: NDArray[Any]) -> NDArray[Any]:
    """Each tap hands the gradient of its output pixels back to the pixels that it saw; the padding is cut off."""
    padded = _pad(geometry, np.zeros(geometry.x_shape, grad_out.dtype))
    for kh, kw, seen in _taps(geometry, padded):
        for ic, oc in _groups(geometry):
            seen[..., ic] += grad_out[..., oc] @ weight[kh, kw, :, oc].T
    (top, _), (left, _) = geometry.padding
    return padded[:, top : top + geometry.IH, left : left + geometry.IW]


def conv2d_grad_weight(geometry: Conv2dGeometry, x: NDArray[Any], grad_out: NDArray[Any]) -> NDArray[Any]:
    """Each tap sums, over all output pixels, the outer product of what it saw and the gradient there."""
    grad_weight = np.zeros(geometry.weight_shape, x.dtype)
    for kh, kw, seen in _taps(geometry, _pad(geometry, x)):
        for ic, oc in _groups(geometry):
            grad_weight[kh, kw, :, oc] = np.tensordot(seen[..., ic], grad_out[..., oc], axes=((0, 1, 2), (0, 1, 2)))
    return grad_weight
