"""Memory that is kept from call to call, because fresh memory comes from the system page by page, each cleared first.

Fresh pages cost more than half of a small convolution, and a third of the first layer of vgg_19, whose result for eight
images has 103 MB: more than what `malloc` keeps.  A large result is also written past the caches (`simd.streams`).
Both together, the time before over the time after, one core (Zen 3), 8 images, in several noisy runs:

    vgg_19, 3x3 at 224 x 224: 3 -> 64; 64 -> 64         1.5 to 1.6; 1.1 to 1.3
    vgg_19, 64 -> 128 at 112 x 112                      1.2 to 1.3
    1x1: 32 -> 64 at 112 x 112; 64 -> 128 at 56 x 56    1.1 to 1.3; 1.1
    depthwise, 128 channels at 56 x 56                  1.1 to 1.2
    its gradient for x with stride 2                    1.3 to 1.7
    the gradient of 2x2 pooling: maximum; average       1.1 to 2.3; 1.3 to 1.6

    python bench/against.py a8f9048 main --net vgg_19 mobilenet mobilenet_dw pool

Results of 1 to 8 MB are kept, too, but written as usual: they are still in the last cache when they are read, and past
the caches lost as often as they won.  `malloc` gives such memory back to the system between the batches of a training:
121 pages for each of the tutorial network's, 32 images of 28 x 28.  Kept, its epochs are 1.04 to 1.12 times as fast on
one thread of an AVX-512 core and 1.04 to 1.15 times on two, with 8 images 1.0 times.  Cache lines as beginnings alone,
for results of any size, made no difference to vectors of 32 bytes.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

# Bytes of a cache line: where vectors should begin.
ALIGNMENT = 64
# Bytes of a result that begins a cache line and lies in a block that others had before it.
KEPT = 1 << 20
# Bytes of a large result: it is also written past the caches, a core's share of which it exceeds.
LARGE = 8 << 20
# Bytes of blocks that wait for a result.
_MOST_WAITING = 256 << 20

_scratch = threading.local()


class _Waiting:
    """Blocks that no result uses, by size; a size that was not asked for or given back for the longest time is first.

    The lock is one that a thread may take twice, because the garbage collector can give a block back at any time.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self._lock = threading.RLock()
        self._blocks: OrderedDict[int, list[Any]] = OrderedDict()
        self.bytes = 0

    def add(self, block: Any) -> None:
        with self._lock:
            self._blocks.setdefault(block.size, []).append(block)
            self._blocks.move_to_end(block.size)
            self.bytes += block.size
            while self.bytes > _MOST_WAITING:
                self.take(next(iter(self._blocks)))

    def take(self, size: int) -> Any:
        """A block of *size* bytes, or None where none waits."""
        with self._lock:
            blocks = self._blocks.get(size)
            if blocks is None:
                return None
            block = blocks.pop()
            self.bytes -= size
            if not blocks:
                del self._blocks[size]
            return block


_waiting = _Waiting()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_waiting.reset)  # another thread of the parent may have held the lock


class _Block(np.ndarray[Any, Any]):
    """Bytes that results have lain in; a view of them is what holds the block while a result, or a part of it, lives.

    That the view is of this class too keeps it between an array and the block: NumPy makes the array's base the
    innermost one of the array's own class.
    """

    #: The first byte that begins a cache line.
    __slots__ = ("start",)
    start: int

    def __del__(self, give_back: Callable[[Any], None] = _waiting.add) -> None:
        if self.base is not None:
            give_back(self.base)


def empty(shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """An array for a result, with any content.  A block of memory serves another one when its last view has died."""
    kind = np.dtype(dtype)
    size = prod(shape) * kind.itemsize
    if size < KEPT:
        return np.empty(shape, kind)
    size += ALIGNMENT
    block = _waiting.take(size)
    if block is None:
        block = _Block((size,), np.uint8)
        block.start = -block.ctypes.data % ALIGNMENT
    return np.ndarray(shape, kind, block.view(), block.start)


def aligned(numbers: int, dtype: DTypeLike) -> NDArray[Any]:
    """New memory that begins a cache line, so that vectors in it lie in one."""
    kind = np.dtype(dtype)
    memory = np.empty(numbers * kind.itemsize + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    view: NDArray[Any] = memory[start : start + numbers * kind.itemsize].view(kind)
    return view


def scratch(numbers: int, dtype: DTypeLike) -> NDArray[Any]:
    """Memory for the intermediate results of one call, left as the last call of this Python thread left it."""
    kind = np.dtype(dtype)
    memory = getattr(_scratch, "bytes", None)
    if memory is None or memory.size < numbers * kind.itemsize:
        memory = _scratch.bytes = aligned(numbers * kind.itemsize, np.uint8)
    view: NDArray[Any] = memory[: numbers * kind.itemsize].view(kind)
    return view
