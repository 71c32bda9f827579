"""`fastconv explain --measure`: how fast one convolution is on this machine, and what would be possible."""

from __future__ import annotations

from statistics import median

import numba
import numpy as np
from numpy.typing import DTypeLike

from fastconv.bench.roofline import roofline
from fastconv.bench.timing import calls_in_sample, sampler, settle
from fastconv.functional.conv import conv2d
from fastconv.geometry import Conv2dGeometry

SAMPLES = 15


def lines(geometry: Conv2dGeometry, dtype: DTypeLike) -> list[str]:
    """The ceilings of the machine for a plain sum, and the median of the forward pass beside them.

    An algorithm with fewer products than the plain sum can be above 100%.
    """
    g = geometry
    rng = np.random.default_rng(0)
    x, weight = rng.normal(size=g.x_shape).astype(dtype), rng.normal(size=g.weight_shape).astype(dtype)

    def call() -> None:
        conv2d(x, weight, stride=g.stride, padding=g.padding, dilation=g.dilation, groups=g.G)

    call()  # compiles
    sample = sampler(call)
    calls = calls_in_sample(sample)
    samples = []
    for _ in range(SAMPLES):
        settle()
        samples.append(sample(calls))
    seconds = median(samples)
    ceiling = roofline(numba.get_num_threads())
    # the multiply-add units do half as many float64 as float32 operations
    gflops = ceiling.gflops * np.dtype(np.float32).itemsize / x.itemsize
    floor = max(g.flops / gflops, g.bytes(x.itemsize) / ceiling.copy_gbs) / 1e9
    limit = "arithmetic" if g.flops / gflops > g.bytes(x.itemsize) / ceiling.copy_gbs else "memory"
    return [
        f"  roofline   {1e3 * floor:.3g} ms for the plain sum, limited by {limit}: {gflops:.0f} GFLOP/s and "
        f"{ceiling.copy_gbs:.0f} GB/s on {ceiling.threads} thread{'s' * (ceiling.threads > 1)} of this machine",
        f"  measured   {1e3 * seconds:.3g} ms, {g.flops / seconds / 1e9:.0f} GFLOP/s of the plain sum: "
        f"{floor / seconds:.0%} of the roofline",
    ]
