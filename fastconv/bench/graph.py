"""Launches recorded once and replayed by the GPU: what kernels take, without the time that starting them takes Python.

A CUDA graph, in the words of the driver: what is launched on a stream while it is captured does not run, but becomes
a graph, which the driver then launches as a whole.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastconv import cuda
from fastconv.cuda.driver import calls as driver, checked
from fastconv.cuda.libraries import handle_of


class Graph:
    """So many *calls* in a row, on a stream of their own; *target* is Numba's CUDA target."""

    def __init__(self, target: Any, call: Callable[[], object], calls: int) -> None:
        self.stream = target.stream()
        self._handle = handle_of(self.stream)
        with cuda.stream(self.stream):
            call()  # what it has to compile, upload and allocate must be there before
            self.stream.synchronize()
            mode = driver().CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_RELAXED
            checked(driver().cuStreamBeginCapture(self._handle, mode))
            for _ in range(calls):
                call()
            graph = checked(driver().cuStreamEndCapture(self._handle))
        self._executable = checked(driver().cuGraphInstantiate(graph, 0))
        checked(driver().cuGraphDestroy(graph))

    def replay(self) -> None:
        """Launch all of it; what runs on the stream comes after."""
        checked(driver().cuGraphLaunch(self._executable, self._handle))
