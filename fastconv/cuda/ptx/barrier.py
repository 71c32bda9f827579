"""Barriers of a CTA (PTX ISA, bar and barrier): who waits, and when the CTA is complete.

``bar.sync`` and ``barrier.sync.aligned`` must be executed by whole warps.  Threads that have exited are not waited for.
That all threads of a CTA wait at the *same* instruction is CUDA's rule for ``__syncthreads``; the ISA only asks for the
same barrier number, but a kernel that meets at two different places is a mistake waiting to happen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from fastconv.cuda.ptx.faults import BarrierDivergence, Deadlock
from fastconv.cuda.ptx.operations import Array, Form
from fastconv.cuda.ptx.parse import Instruction
from fastconv.cuda.ptx.state import State
from fastconv.cuda.ptx.threads import Lanes

Released = Iterator[tuple[int | None, Lanes]]
_BARRIERS = 16  # per CTA


class Barriers:
    """The 16 barriers of every CTA of a batch."""

    def __init__(self, state: State, exited: Array) -> None:
        self.state, self.threads, self.exited = state, state.threads, exited
        self.waits: list[tuple[Instruction, int | None, Callable[[Array], None] | None]] = []
        count = self.threads.count
        self.waiting = np.full(count, -1)  # index into self.waits, per thread
        self.barrier = np.zeros(count, np.int64)  # the barrier number it waits at
        self.arrived = np.zeros((self.threads.ctas, _BARRIERS), np.int64)
        self.expected = np.zeros((self.threads.ctas, _BARRIERS), np.int64)  # 0: all that have not exited

    def reset(self) -> None:
        self.waiting.fill(-1)
        self.arrived.fill(0)
        self.expected.fill(0)

    def decode(self, instruction: Instruction, following: int | None) -> Callable[[Lanes], Released]:
        """A function from the threads that arrive to the threads that may go on, and to which block."""
        form = Form(instruction.opcode)
        form.flag("cta")
        mode = form.choice("sync", "red", "arrive")
        # bar.* means barrier.*.aligned
        aligned = form.flag("aligned") or form.base == "bar"
        reduction = form.choice("popc", "and", "or")
        form.finish()
        operands = list(instruction.operands)
        combine = None
        if mode == "red":
            target_name, *operands, predicate_name = operands
            combine = self._reduction(str(target_name), str(predicate_name), reduction)
        number = self.state.read(operands[0], "u32")
        size = self.state.read(operands[1], "u32") if len(operands) > 1 else None
        if mode == "arrive" and size is None:
            raise form.unsupported("arrive without a number of threads")
        index = len(self.waits)
        self.waits.append((instruction, following, combine))

        def arrive(lanes: Lanes) -> Released:
            here = self.threads.numbers[lanes]
            if size is None and mode != "arrive" and len(here) == self.living():
                # the usual case: everybody at once
                if combine is not None:
                    combine(here)
                self._order(None)
                return iter([(following, lanes)])
            if aligned:
                self._check_whole_warps(instruction, here)
            self._check_same_instruction(index, here, number)
            self.arrived += self._tally(here, number[here])
            if size is not None:
                self.expected[self.threads.cta[here], number[here]] = size[here]
            self.barrier[here] = number[here]
            if mode != "arrive":
                self.waiting[here] = index
                return self._release()
            return iter([(following, lanes), *self._release()])

        return arrive

    def after_exit(self) -> Released:
        """A CTA may be complete without the threads that have just exited."""
        return self._release() if self.arrived.any() else iter(())

    def check_nobody_waits(self) -> None:
        """At the end of a batch."""
        if (self.waiting >= 0).any():
            lane = int(np.flatnonzero(self.waiting >= 0)[0])
            cta, barrier = self.threads.cta[lane], self.barrier[lane]
            expected = self.expected[cta, barrier] or self._alive()[cta]
            rule = f"waits for ever: {self.arrived[cta, barrier]} of {expected} threads have arrived"
            self.state.fault(Deadlock, rule, self.waits[self.waiting[lane]][0], lane)

    # ------------------------------------------------------------------ inside
    def living(self) -> int:
        """Threads of the batch that have not exited."""
        return len(self.exited) - int(np.count_nonzero(self.exited))

    def _alive(self) -> Array:
        return (~self.exited).reshape(self.threads.ctas, -1).sum(axis=1)

    def _tally(self, lanes: Array, number: Array) -> Array:
        size = self.threads.ctas * _BARRIERS
        index = self.threads.cta[lanes] * _BARRIERS + number
        return np.bincount(index, minlength=size).reshape(self.threads.ctas, _BARRIERS)

    def _release(self) -> Released:
        """The threads of complete CTAs, with the block they go on in."""
        alive = self._alive()
        expected = np.where(self.expected > 0, self.expected, alive[:, None])
        complete = (self.arrived > 0) & (self.arrived >= expected)
        if not complete.any():
            return
        whole = complete & (self.expected == 0) | complete & (self.expected == alive[:, None])
        free = (self.waiting >= 0) & complete[self.threads.cta, self.barrier]
        self.arrived[complete] = 0
        self.expected[complete] = 0
        lanes = np.flatnonzero(free)
        places = self.waiting[lanes]
        self.waiting[lanes] = -1
        self._order(np.flatnonzero(whole.any(axis=1)))
        for place in np.unique(places):
            _, following, combine = self.waits[place]
            released = lanes[places == place]
            if combine is not None:
                combine(released)
            yield following, self.threads.compact(released)

    def _order(self, ctas: Array | None) -> None:
        """What was done before the barrier is ordered before what follows; a part of a CTA orders nothing here."""
        if self.state.history is not None:
            self.state.history.barrier(ctas)

    def _check_whole_warps(self, instruction: Instruction, here: Array) -> None:
        if not self.state.checks:
            return
        warps = self.threads.ctas * self.threads.warps_per_cta
        present = np.bincount(self.threads.warp[here], minlength=warps)
        alive = np.bincount(self.threads.warp[~self.exited], minlength=warps)
        broken = (present > 0) & (present < alive)
        if broken.any():
            warp = int(np.flatnonzero(broken)[0])
            lane = int(here[np.flatnonzero(self.threads.warp[here] == warp)[0]])
            rule = f"only {present[warp]} of the {alive[warp]} threads of a warp reach the barrier"
            self.state.fault(BarrierDivergence, rule, instruction, lane)

    def _check_same_instruction(self, index: int, here: Array, number: Array) -> None:
        if not self.state.checks or not self.arrived.any():
            return
        elsewhere = np.flatnonzero((self.waiting >= 0) & (self.waiting != index))
        theirs = self.threads.cta[elsewhere] * _BARRIERS + self.barrier[elsewhere]
        ours = self.threads.cta[here] * _BARRIERS + number[here]
        together = np.isin(ours, theirs)
        if together.any():
            place = np.flatnonzero(together)[0]
            other = int(elsewhere[np.flatnonzero(theirs == ours[place])[0]])
            line = self.waits[self.waiting[other]][0].line
            rule = f"waits while thread {self.threads.thread_of(other)[0]} waits at another barrier, line {line}"
            self.state.fault(BarrierDivergence, rule, self.waits[index][0], int(here[place]))

    def _reduction(self, target_name: str, predicate_name: str, operation: str) -> Callable[[Array], None]:
        """``bar.red``: a count, a conjunction or a disjunction of the predicates of the CTA's threads."""
        target = self.state.write(target_name, "u32" if operation == "popc" else "pred")
        predicate, negated = self.state.predicate(predicate_name)
        assert target is not None

        def combine(lanes: Array) -> None:
            ctas = self.threads.cta[lanes]
            yes = np.bincount(ctas, weights=predicate[lanes] ^ negated, minlength=self.threads.ctas)
            total = np.bincount(ctas, minlength=self.threads.ctas)
            results = {"popc": yes, "and": yes == total, "or": yes > 0}[operation]
            target[lanes] = results[ctas].astype(target.dtype)

        return combine
