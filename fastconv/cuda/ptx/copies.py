"""``cp.async``: copies from global to shared memory that finish some time before their wait (PTX ISA, cp.async).

The source is read when the copy is issued; the destination changes when the issuing thread waits for it, the latest
moment that the ISA allows, and in between it is marked as in flight: whoever touches it has forgotten a wait.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fastconv.cuda.ptx.memory import AccessError
from fastconv.cuda.ptx.operations import Array, Form
from fastconv.cuda.ptx.parse import Instruction
from fastconv.cuda.ptx.state import State, Step
from fastconv.cuda.ptx.threads import Lanes


@dataclass
class _Pending:
    """Copies of one instruction: who, in which of the thread's groups, to where, what."""

    lanes: Array
    groups: Array
    offsets: Array
    data: Array

    def part(self, chosen: Array) -> _Pending:
        return _Pending(self.lanes[chosen], self.groups[chosen], self.offsets[chosen], self.data[chosen])


class AsyncCopies:
    """The copies in flight, and how many groups every thread has committed."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.committed = np.zeros(state.threads.count, np.int64)
        self.pending: list[_Pending] = []

    def reset(self) -> None:
        self.committed.fill(0)
        self.pending.clear()

    def step(self, instruction: Instruction) -> Step:
        form = Form(instruction.opcode)
        if form.flag("commit_group"):
            return self._commit
        if form.flag("wait_group"):
            allowed = int(str(instruction.operands[0]))
            return lambda lanes: self._wait(lanes, allowed)
        if form.flag("wait_all"):
            return self._wait_all
        return self._copy(form, instruction)

    def _copy(self, form: Form, instruction: Instruction) -> Step:
        """``cp.async.cg.shared.global [to], [from], size{, source_size}``: the rest is filled with zeros."""
        state = self.state
        form.flag("async")
        whole_only = form.choice("ca", "cg") == "cg"
        for name in ("shared", "shared_cta", "global", "L2_64B", "L2_128B", "L2_256B"):
            form.flag(name)
        form.finish()
        to, source, size_text, *rest = instruction.operands
        size = int(str(size_text))
        if size not in ((16,) if whole_only else (4, 8, 16)) or len(rest) > 1:
            raise form.unsupported("this copy size or operand")
        to_address, from_address = state.address(to), state.address(source)
        source_size = state.read(rest[0], "u32") if rest else None
        note = state.note_shared(instruction, size, "copy")

        def copy(lanes: Lanes) -> None:
            numbers = state.threads.numbers[lanes]
            addresses, sources = to_address(lanes), from_address(lanes)
            wanted = np.full(len(numbers), size) if source_size is None else source_size[lanes].astype(np.int64)
            try:
                offsets = state.shared.offsets(addresses, lanes, size, state.checks)
                data = self._read(sources, np.minimum(wanted, size), size, numbers)
            except AccessError as error:
                state.access_fault(error, instruction, lanes)
            note(addresses, offsets, lanes)
            self.pending.append(_Pending(numbers, self.committed[numbers], offsets, data))

        return copy

    def _read(self, sources: Array, wanted: Array, size: int, numbers: Array) -> Array:
        """The source bytes, one row per thread; nothing is read past the source size."""
        state = self.state
        data = np.zeros((len(sources), size), np.uint8)
        for length in np.unique(wanted):
            if length == 0:
                continue
            rows = np.flatnonzero(wanted == length)
            unit = size if length == size else 1
            try:
                for start in range(0, int(length), unit):
                    offsets = state.global_memory.offsets(sources[rows] + start, unit, False, state.checks)
                    words = state.global_memory.words(unit).take(offsets // unit, axis=0)
                    data[rows, start : start + unit] = words.view(np.uint8).reshape(len(rows), unit)
            except AccessError as error:
                error.row = int(rows[error.row])
                raise
            if state.traffic:
                first = sources[rows] - sources[rows] % size
                state.counters.count_global(first, int(length), state.threads.warp[numbers[rows]])
        return data

    def _commit(self, lanes: Lanes) -> None:
        self.committed[lanes] += 1

    def _wait_all(self, lanes: Lanes) -> None:
        self._commit(lanes)
        self._wait(lanes, 0)

    def _wait(self, lanes: Lanes, allowed: int) -> None:
        """Finish all but the latest *allowed* groups of these threads."""
        limit = np.zeros_like(self.committed)
        limit[lanes] = self.committed[lanes] - allowed
        still = []
        for copies in self.pending:
            done = copies.groups < limit[copies.lanes]
            if done.all():
                self._finish(copies)
            elif done.any():
                self._finish(copies.part(done))
                still.append(copies.part(~done))
            else:
                still.append(copies)
        self.pending = still

    def _finish(self, copies: _Pending) -> None:
        state = self.state
        size = copies.data.shape[1]
        words = state.shared.words(size)
        values = copies.data.view(words.dtype)
        words[copies.offsets // size] = values if words.ndim == 2 else values[:, 0]
        if state.history is not None:
            state.history.on_copy_done(state.granules(copies.offsets, size), copies.lanes)
