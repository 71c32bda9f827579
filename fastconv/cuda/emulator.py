"""An engine for the GPU's operations without a GPU: it compiles each kernel and runs the PTX in `fastconv.cuda.ptx`.

It proves what a kernel computes, and says nothing about time.  What it needs is Numba's CUDA target, which compiles
without a driver.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastconv.cuda import recording
from fastconv.cuda.device import Kernel, target
from fastconv.cuda.recording import Recording

#: What kernels are compiled for, and the compute capability by which Numba knows it.
ARCHITECTURES = {"sm_75": (7, 5), "sm_80": (8, 0), "sm_90": (9, 0), "sm_100": (10, 0)}


@contextmanager
def compiling_for(capability: tuple[int, int]) -> Iterator[None]:
    """While kernels are compiled, Numba asks the driver what for, and loads them: answered here, there is no driver."""
    cuda = target()
    device = SimpleNamespace(compute_capability=capability, id=0)
    module = SimpleNamespace(initialized=True)
    module.get_function = lambda name: SimpleNamespace(module=module)
    context = SimpleNamespace(device=device, create_module_image=lambda *image: module)
    dispatcher, devices = cuda.dispatcher, cuda.cudadrv.devices
    asked = dispatcher.get_current_device, devices.get_context
    dispatcher.get_current_device, devices.get_context = lambda: device, lambda ordinal=None: context
    try:
        yield
    finally:
        dispatcher.get_current_device, devices.get_context = asked


@cache
def compiled(kernel: Kernel, architecture: str) -> str:
    """The PTX of a kernel for one of `ARCHITECTURES`."""
    capability = ARCHITECTURES[architecture]
    with compiling_for(capability):
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

    @property
    def capability(self) -> tuple[int, int]:
        return ARCHITECTURES[self.architecture]

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
        from fastconv.cuda.ptx import poison

        return poison(np.empty(shape, dtype))

    def constant(self, values: NDArray[Any]) -> Any:
        return values

    def upload(self, values: NDArray[Any]) -> Any:
        recording.interrupt()
        return np.array(values).reshape(-1)

    def upload_ahead(self, values: NDArray[Any]) -> Callable[[], Any]:
        memory = self.upload(values)
        return lambda: memory

    def download(self, memory: Any) -> NDArray[Any]:
        recording.interrupt()
        return np.array(memory)

    def copy(self, source: Any, target: Any) -> None:
        target[...] = source

    def number(self, draw: Callable[[], int]) -> Any:
        memory = np.empty(1, np.uint64)

        def write() -> None:
            memory[0] = draw()

        self._done_now_and_again(write)
        return memory

    def give(self, array: Any) -> Any:
        return array

    def launch(self, kernel: Kernel, blocks: int, *arguments: Any) -> None:
        if blocks > 0:
            self._done_now_and_again(partial(self.run, kernel, blocks, arguments))

    def run(self, kernel: Kernel, blocks: int, arguments: tuple[Any, ...]) -> None:
        """What a launch does."""
        from fastconv.cuda.ptx import launch

        ptx = self.change(compiled(kernel, self.architecture))
        self.counters.append(launch(ptx, blocks, kernel.threads, arguments, traffic=self.traffic))

    def recording(self) -> Recording:
        return Recording(self)

    def _done_now_and_again(self, step: Callable[[], None]) -> None:
        step()
        if (now := recording.current(self)) is not None:
            now.add(step)
