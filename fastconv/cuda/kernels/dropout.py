"""The kernel of dropout: a thread encrypts one counter, which gives the random words of four neighbouring elements."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from fastconv.cpu import dropout as cpu
from fastconv.cuda.device import Kernel, target
from fastconv.cuda.kernels.elementary import ported
from fastconv.cuda.kernels.elements import NUMBERS, element, kernel_of_elements
from fastconv.cuda.kernels.intrinsics import load, store

cuda = target()
types = cuda.types
float32, uint32, uint64, int64 = types.float32, types.uint32, types.uint64, types.int64

_SEEDS = types.Array(uint64, 1, "C")
#: Elements of one counter.
WORDS = 4
_LOW_WORD, _WORD_BITS = np.uint64(0xFFFFFFFF), np.uint64(32)

#: The CPU's source of the generator, compiled for the device.
_philox = ported(cpu).philox


@lru_cache
def dropout(aligned: bool) -> Kernel:
    """The kernel; four elements are loaded at a time where the arrays are *aligned*."""
    load_four = load(WORDS)

    @cuda.jit(device=True)
    def kept(number, word, threshold, scale):
        return number * scale if word >= threshold else float32(0)

    def dropout_of_quads(x, out, seeds, seed, threshold, scale):
        """``out = x * scale`` where the element's random word is at least *threshold*, else 0, for four elements.

        A seed in memory, where a recorded step finds another one each time, takes the place of the one that is told.
        Each element has one writer.
        """
        quad = element()
        at = quad * WORDS
        if at < x.size:
            seed = seeds[0] if seeds.size > 0 else seed
            number, zero = uint64(quad), uint64(0)
            counter = number & _LOW_WORD, number >> _WORD_BITS, zero, zero
            a, b, c, d = _philox(counter, (seed & _LOW_WORD, seed >> _WORD_BITS))
            if aligned and at + 3 < x.size:
                first, second, third, fourth = load_four(x, at)
                numbers = (
                    kept(first, a, threshold, scale),
                    kept(second, b, threshold, scale),
                    kept(third, c, threshold, scale),
                    kept(fourth, d, threshold, scale),
                )
                store(out, at, numbers)
            else:
                out[at] = kept(x[at], a, threshold, scale)
                if at + 1 < x.size:
                    out[at + 1] = kept(x[at + 1], b, threshold, scale)
                if at + 2 < x.size:
                    out[at + 2] = kept(x[at + 2], c, threshold, scale)
                if at + 3 < x.size:
                    out[at + 3] = kept(x[at + 3], d, threshold, scale)

    return kernel_of_elements(dropout_of_quads, NUMBERS, NUMBERS, _SEEDS, uint64, uint32, float32)
