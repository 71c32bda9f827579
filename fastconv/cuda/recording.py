"""Launches that are written down while they run, to be run again together: the same kernels on the same memory.

Python takes 10 to 30 us to find out what an operation launches, a small kernel 2 to 5 us to run.  Whoever does the same
to arrays of the same shapes again and again, as a network does with batches, need not ask twice.  On a GPU the launches
become a graph of the driver, which starts all of them in one call.

Two things must not change from time to time: where the arrays lie, and the numbers that a kernel is told.  So new
values are copied to where the old ones were, memory that was free meanwhile stays the recording's own
(`memory.Reserve`), and what differs each time, the seed of a dropout, lies in memory too (`Engine.number`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import Any

from fastconv.cuda.driver import calls, checked
from fastconv.cuda.memory import Lease, Memory, Pool, Reserve

_on: ContextVar[Recording | None] = ContextVar("recording", default=None)


def current(engine: Any) -> Recording | None:
    """The recording of *engine* that is on, in this thread (and asyncio task); that of another one is interrupted."""
    recording = _on.get()
    if recording is None or recording.engine is engine:
        return recording
    recording.complete = False
    return None


def interrupt() -> None:
    """Tell the recording that is on of what cannot happen again: a copy to or from the host."""
    recording = _on.get()
    if recording is not None:
        recording.complete = False


@contextmanager
def _chosen(recording: Recording | None) -> Iterator[None]:
    """In the ``with`` block *recording* is on, or none."""
    token = _on.set(recording)
    try:
        yield
    finally:
        _on.reset(token)


def aside() -> AbstractContextManager[None]:
    """For memory that no recorded kernel writes to: in the ``with`` block it is as if no recording were on."""
    return _chosen(None)


def taken_from(pool: Pool, stream: int) -> Pool:
    """*pool*, or where its memory comes from while a recording is on."""
    recording = _on.get()
    return pool if recording is None else recording.reserve(pool, stream)


class Recording:
    """What happens on an engine while it is `on`.

    Attributes
    ----------
    engine : Engine
        What is launched on others does not count.
    complete : bool
        Whether `replay` does again all that was done.
    """

    def __init__(self, engine: Any) -> None:
        self.engine = engine
        self.complete = True
        self._steps: list[Callable[[], object]] = []

    def on(self) -> AbstractContextManager[None]:
        """Write down what this thread does in the ``with`` block; it happens as well."""
        return _chosen(self)

    def add(self, step: Callable[[], object]) -> None:
        """Let *step* be done in each replay, behind those that were added before."""
        self._steps.append(step)

    def reserve(self, pool: Pool, stream: int) -> Pool:
        """Where memory of *pool* is taken from meanwhile: from there, as long as arrays keep their memory."""
        return pool

    def replay(self) -> None:
        """Do it all again."""
        for step in self._steps:
            step()


class Graph(Recording):
    """A recording on a `Device`: its kernels are a graph of the driver, each behind the one before it.

    Steps of `add`, which write numbers for the kernels to read, come before all of them.
    """

    def __init__(self, engine: Any) -> None:
        super().__init__(engine)
        self._graph = checked(calls().cuGraphCreate(0))
        self._last: list[Any] = []
        self._executable: Any = None
        self._reserves: dict[tuple[Pool, int], Reserve] = {}
        # what the kernels read and write besides: weights, constants, what came in
        self._kept: list[Any] = []

    def add_kernel(self, launcher: Any, blocks: int, arguments: tuple[Any, ...]) -> None:
        """Let a kernel run in each replay."""
        self._last = [launcher.node(self._graph, self._last, blocks, arguments)]
        owners = (argument.owner for argument in arguments if type(argument) is Memory)
        self._kept += (owner for owner in owners if type(owner) is not Lease or type(owner.pool) is not Reserve)

    def reserve(self, pool: Pool, stream: int) -> Pool:
        """Blocks that stay the recording's own, for they are written to in each replay."""
        place = pool, stream
        if place not in self._reserves:
            self._reserves[place] = Reserve(pool, stream)
        return self._reserves[place]

    def replay(self) -> None:
        super().replay()
        with self.engine.context():
            if self._executable is None:
                self._executable = checked(calls().cuGraphInstantiate(self._graph, 0))
            checked(calls().cuGraphLaunch(self._executable, self.engine.stream))

    def __del__(self) -> None:
        # a graph that still runs is freed by the driver once it is done
        if self._executable is not None:
            calls().cuGraphExecDestroy(self._executable)
        calls().cuGraphDestroy(self._graph)
