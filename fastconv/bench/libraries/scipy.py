"""SciPy: the transform of images and kernels, forward only.

One product for each frequency instead of one for each tap: the whole library has no faster way for many channels, and
the work does not grow with the kernel.  A stride computes all pixels and drops some.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import fft

from fastconv.bench.libraries import Contender, Library
from fastconv.bench.libraries.numpy_conv import by_group
from fastconv.bench.problems import Array, ConvProblem

MOST_BYTES = 1 << 30
COMPLEX_BYTES = 8


def _forward(problem: ConvProblem, threads: int) -> Contender:
    g = problem.geometry
    borders = ((0, 0), *g.padding, (0, 0))
    heights = (g.IH + sum(g.padding[0]), g.IW + sum(g.padding[1]))
    size = tuple(fft.next_fast_len(extent, real=True) for extent in heights)
    transforms = size[0] * (size[1] // 2 + 1) * COMPLEX_BYTES
    needed = transforms * (g.N * (g.IC + g.OC) + g.IC // g.G * g.OC)
    if needed > MOST_BYTES:
        raise ValueError(f"its transforms need {needed / MOST_BYTES:.1f} GB")

    def kernels(weight: Array) -> Any:
        """(rows, columns, groups, IC / G, OC / G): the transform of the kernel, conjugated, for we do not flip it."""
        spread = np.zeros((*size, *weight.shape[2:]), np.float32)
        spread[: g.KH * g.dilation[0] : g.dilation[0], : g.KW * g.dilation[1] : g.dilation[1]] = weight
        transform = by_group(g, np.conj(fft.rfft2(spread, axes=(0, 1))))
        return np.ascontiguousarray(np.moveaxis(transform, 3, 2))

    weights = [kernels(weight) for weight in problem.weight]

    def compute(copy: int) -> Array:
        x = np.pad(problem.x[copy], borders)
        images = by_group(g, fft.rfft2(x, size, axes=(1, 2), workers=threads))
        products = np.moveaxis(images, (0, 3), (3, 2)) @ weights[copy]  # rows, columns, groups, images, channels
        results = np.moveaxis(products, (2, 3), (3, 0)).reshape(g.N, size[0], -1, g.OC)
        out = fft.irfft2(results, size, axes=(1, 2), workers=threads)
        rows = slice(0, (g.OH - 1) * g.stride[0] + 1, g.stride[0])
        kept: Array = out[:, rows, : (g.OW - 1) * g.stride[1] + 1 : g.stride[1]]
        return np.ascontiguousarray(kept)

    return Contender(compute)


LIBRARY = Library(("scipy",), {("conv2d", "forward"): {"fft": _forward}})
