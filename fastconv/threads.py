"""Who may run a parallel kernel now, and with how many threads.

Numba's default threading layer, ``workqueue``, aborts the process when two Python threads are inside parallel code at
once, and GNU OpenMP aborts in a forked child.  A library cannot choose the layer of its users' process, so every kernel
has two drivers around the same tasks, and this file decides between them: one parallel region at a time; a caller that
finds it taken, a forked child and a small problem run the serial driver.  The bits are the same either way, because
the tasks, and the order of every sum inside one, never depend on the number of threads.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

import numba
from numba.np.ufunc import parallel as numba_threads

# Below this many arithmetic operations, or bytes moved for kernels that only move data, the hand-over to other threads
# (about 5 us) costs more than it saves.
PARALLEL_THRESHOLD = 500_000

# Tasks of each thread from which on it does not matter that some have one more than others.
EVEN_TASKS = 4

_region = threading.Lock()
_forked_after_launch = False


def _after_fork_in_child() -> None:
    global _region, _forked_after_launch
    _region = threading.Lock()
    _forked_after_launch = _forked_after_launch or numba_threads._is_initialized


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


def worker_count(work: float) -> int:
    """Threads to use for *work* operations: Numba's current setting, or 1 where the problem is small."""
    # asking Numba the first time starts its threads
    if work < PARALLEL_THRESHOLD or _forked_after_launch or numba.config.NUMBA_NUM_THREADS == 1:
        return 1
    # its public function makes sure of that each time, which takes longer than the answer
    running = numba_threads._is_initialized
    return int(numba_threads._get_num_threads() if running else numba.get_num_threads())


def even(tasks: int, workers: int) -> bool:
    """Whether so many tasks are equal shares for all threads, or nearly."""
    return tasks % workers == 0 or tasks >= EVEN_TASKS * workers


def run(serial: Callable[..., None], parallel: Callable[..., None], workers: int, *arguments: Any) -> None:
    """Call ``parallel(workers, *arguments)``, or ``serial(*arguments)`` where a parallel region is not possible now."""
    region = _region
    if workers > 1 and region.acquire(blocking=False):
        try:
            parallel(workers, *arguments)
        finally:
            region.release()
    else:
        serial(*arguments)
