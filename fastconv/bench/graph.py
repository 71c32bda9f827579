"""Launches recorded once and replayed by the GPU: what kernels take, without the time that starting them takes Python.

A CUDA graph, in the words of the driver: what is launched on a stream while it is captured does not run, but becomes
a graph, which the driver then launches as a whole.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from fastconv import cuda
from fastconv.cuda.libraries import handle_of


class Graph:
    """So many *calls* in a row, on a stream of their own; *target* is Numba's CUDA target."""

    def __init__(self, target: Any, call: Callable[[], object], calls: int) -> None:
        self._driver = import_module("cuda.bindings.driver")
        self.stream = target.stream()
        with cuda.stream(self.stream):
            call()  # what it has to compile, upload and allocate must be there before
            self.stream.synchronize()
            mode = self._driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_RELAXED
            self._ask("cuStreamBeginCapture", handle_of(self.stream), mode)
            for _ in range(calls):
                call()
            graph = self._ask("cuStreamEndCapture", handle_of(self.stream))
        self._executable = self._ask("cuGraphInstantiate", graph, 0)
        self._ask("cuGraphDestroy", graph)

    def replay(self) -> None:
        """Launch all of it; what runs on the stream comes after."""
        self._ask("cuGraphLaunch", self._executable, handle_of(self.stream))

    def _ask(self, function: str, *arguments: Any) -> Any:
        status, *result = getattr(self._driver, function)(*arguments)
        if int(status):
            raise RuntimeError(f"{function} failed: {status}")
        return result[0] if result else None
