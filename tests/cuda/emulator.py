"""An engine for the GPU's operations without a GPU: it compiles each kernel and runs the PTX in `fastconv.cuda.ptx`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import pytest

from fastconv.cuda.device import Kernel, target

ARCHITECTURES = {"sm_75": (7, 5), "sm_80": (8, 0), "sm_90": (9, 0), "sm_100": (10, 0)}


def needs_target() -> None:
    """Skip, with the reason, where kernels cannot be compiled."""
    try:
        target()
    except ImportError as error:
        pytest.skip(f"no kernel can be compiled: {error}", allow_module_level=True)


@contextmanager
def _capability(capability: tuple[int, int]) -> Iterator[None]:
    """Device functions ask the driver what they are compiled for; there is none."""
    device = SimpleNamespace(compute_capability=capability)
    with mock.patch("numba.cuda.dispatcher.get_current_device", return_value=device):
        yield


@cache
def compiled(kernel: Kernel, architecture: str) -> str:
    """The PTX of a kernel."""
    capability = ARCHITECTURES[architecture]
    with _capability(capability):
        ptx, _ = target().compile(
            kernel.function,
            kernel.signature,
            cc=capability,
            launch_bounds=(kernel.threads, kernel.residents),
            device=False,
            abi="numba",
            output="ptx",
        )
    return str(ptx)


class Emulator:
    """Runs kernels on NumPy arrays, with every check of the interpreter; new arrays are poisoned.

    With *traffic*, `counters` holds what each launch did to shared and to global memory.  *change* may put a fault into
    the PTX.
    """

    def __init__(self, architecture: str = "sm_80", traffic: bool = False, change: Callable[[str], str] = str) -> None:
        self.architecture = architecture
        self.traffic = traffic
        self.change = change
        self.counters: list[Any] = []

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
        from fastconv.cuda.ptx import poison

        return poison(np.empty(shape, dtype))

    def constant(self, values: Any) -> Any:
        return values

    def launch(self, kernel: Kernel, blocks: int, *arguments: Any) -> None:
        from fastconv.cuda.ptx import launch

        if blocks > 0:
            ptx = self.change(compiled(kernel, self.architecture))
            self.counters.append(launch(ptx, blocks, kernel.threads, arguments, traffic=self.traffic))
