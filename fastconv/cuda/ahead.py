"""Kernels compiled ahead for any GPU, on a machine that has it or not: where an image is built, or on a login node.

Operations run on an engine that compiles what they launch, stores it (`kernel_cache`) and launches nothing.  So what is
stored is what they will ask for.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastconv.cuda import roofline
from fastconv.cuda.device import Kernel, cached, why_not
from fastconv.cuda.emulator import Emulator, compiling_for
from fastconv.cuda.libraries import current


class Compiler(Emulator):
    """An engine that compiles kernels for a compute capability.  Its arrays hold anything, and are not written to."""

    def __init__(self, capability: tuple[int, int]) -> None:
        super().__init__()
        self._capability = capability
        #: What was launched.
        self.kernels: set[Kernel] = set()

    @property
    def capability(self) -> tuple[int, int]:
        return self._capability

    def empty(self, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
        return np.zeros(shape, dtype)

    def run(self, kernel: Kernel, blocks: int, arguments: tuple[Any, ...]) -> None:
        if kernel not in self.kernels:
            with compiling_for(self._capability):
                cached(kernel, self._capability)
            self.kernels.add(kernel)


def capability_of(name: str) -> tuple[int, int]:
    """The compute capability of a GPU: "cuda" or "cuda:1", which must be here, or "cuda:H100", "cuda:sm_86".

    Raises
    ------
    ImportError
        With the sentence of `why_not`, if the GPU must be here and is not.
    ValueError
        If no GPU has this name.
    """
    if here := re.fullmatch(r"cuda(?::(\d+))?", name):
        if reason := why_not():
            raise ImportError(reason)
        return current(int(here[1] or 0)).capability
    architecture = re.fullmatch(r"(?:cuda:)?sm_(\d+)(\d)", name) or re.fullmatch(
        r"sm_(\d+)(\d)", roofline.gpu(name).architecture
    )
    assert architecture is not None
    return int(architecture[1]), int(architecture[2])
