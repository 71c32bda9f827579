"""Copies to a GPU beside the kernels that run there: from pinned memory, on a stream of their own.

The driver copies from ordinary memory only while the caller waits.  Pinned memory it reads by itself, so values are put
there first, in a buffer that serves again once its copy is done.
"""

from __future__ import annotations

from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastconv.cuda.memory import block_size


class Copier:
    """The copies to one device, in the order in which they are asked for."""

    def __init__(self, cuda: Any) -> None:
        self._cuda = cuda
        self._stream = cuda.stream()
        self._launched = cuda.event(timing=False)
        #: Buffers, each with the event of its last copy.
        self._pinned: list[tuple[Any, NDArray[np.uint8]]] = []
        self._lock = Lock()  # of the event and the buffers, which all threads share

    def copy(self, values: NDArray[Any], memory: Any, kernels: Any) -> Any:
        """Start a copy of *values* to *memory*; the result is an event that comes at its end or later.

        It begins when the kernels are done that have been launched on stream *kernels* so far: one of them may have
        been the last to use the memory.
        """
        with self._lock:
            done, buffer = self._buffer(values.nbytes)
            pinned = buffer[: values.nbytes].view(values.dtype)
            pinned[...] = values.reshape(-1)
            self._launched.record(kernels)
            self._launched.wait(self._stream)
            memory.copy_to_device(pinned, int(self._stream.handle))
            done.record(self._stream)
            self._pinned.append((done, buffer))
        return done

    def _buffer(self, nbytes: int) -> tuple[Any, NDArray[np.uint8]]:
        """The smallest buffer that is free and large enough, or a new one, and its event."""
        free = [index for index, (done, buffer) in enumerate(self._pinned) if buffer.nbytes >= nbytes and done.query()]
        if free:
            return self._pinned.pop(min(free, key=lambda index: self._pinned[index][1].nbytes))
        return self._cuda.event(timing=False), self._cuda.pinned_array(block_size(nbytes), np.uint8)
