"""Decoding, and the scheduler: which threads run which block next, branches, exits and barriers.

The threads of a batch of CTAs begin together at the entry.  A branch on which they disagree splits the set; the
scheduler always continues with the lowest block that has threads (control.py says why that lets them meet again), so
one pass over a block serves all threads of all CTAs that are there.  A barrier parks threads until its CTA is
complete.  Nothing depends on time: every launch runs in the same order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fastconv.cuda.ptx import access
from fastconv.cuda.ptx.arithmetic import complement, is_arithmetic, operation
from fastconv.cuda.ptx.barrier import Barriers
from fastconv.cuda.ptx.control import Block, blocks_of
from fastconv.cuda.ptx.copies import AsyncCopies
from fastconv.cuda.ptx.faults import ArithmeticFault, ParseError, Trapped, Unsupported
from fastconv.cuda.ptx.operations import CARRY, Array, Operation
from fastconv.cuda.ptx.parse import Instruction, Operand
from fastconv.cuda.ptx.state import State, Step
from fastconv.cuda.ptx.threads import Lanes
from fastconv.cuda.ptx.types import DTYPE, DType
from fastconv.cuda.ptx.warp import WarpInstructions


class Machine:
    """Runs batches of CTAs on a :class:`State`."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.threads = state.threads
        self.exited = np.zeros(self.threads.count, bool)
        self.copies = AsyncCopies(state)
        self.warp = WarpInstructions(state, self.exited)
        self.barriers = Barriers(state, self.exited)
        self.ready: dict[int, Lanes] = {}
        self.blocks = blocks_of(state.kernel)
        self.bodies = [[self._decode(instruction) for instruction in block.body] for block in self.blocks]
        self.ends = [self._decode_end(block) for block in self.blocks]
        self.warps_through = [0] * len(self.blocks)

    def run(self, first: int, ctas: int) -> None:
        """The CTAs ``first`` ... ``first + ctas - 1`` of the grid."""
        lanes = self.threads.place(first, ctas)
        self.state.reset()
        self.copies.reset()
        self.exited[:] = True
        self.exited[lanes] = False
        self.barriers.reset()
        self.ready = {0: lanes} if self.blocks else {}
        while self.ready:
            number = min(self.ready)
            lanes = self.ready.pop(number)
            self.warps_through[number] += self.threads.warps(lanes)
            for step in self.bodies[number]:
                step(lanes)
            self.ends[number](lanes)
        self.barriers.check_nobody_waits()

    def count_instructions(self) -> None:
        """Add what has run to the counters."""
        counters = self.state.counters
        for block, warps in zip(self.blocks, self.warps_through, strict=True):
            if warps:
                for instruction in (*block.body, *([block.end] if block.end else [])):
                    counters.opcodes[instruction.opcode] += warps
        counters.warp_instructions = sum(counters.opcodes.values())

    # ------------------------------------------------------------------ straight-line code
    def _decode(self, instruction: Instruction) -> Step:
        try:
            step = self._step(instruction)
        except (ParseError, Unsupported) as error:
            # only what is executed has to be understood
            return _refusal(type(error)(f"{error}\n  in {self.state.place(instruction)}"))
        except (KeyError, ValueError, IndexError, TypeError, AssertionError, StopIteration) as error:
            message = f"`{instruction.opcode}` cannot be read with these operands: {error!r}"
            return _refusal(ParseError(f"{message}\n  in {self.state.place(instruction)}"))
        return step if instruction.guard is None else self._guarded(instruction.guard, step)

    def _step(self, instruction: Instruction) -> Step:
        base = instruction.parts[0]
        if is_arithmetic(instruction.opcode):
            return self._arithmetic(instruction)
        if base in access.STEPS:
            return access.STEPS[base](self.state, instruction)
        if base == "cp" and "async" in instruction.parts:
            return self.copies.step(instruction)
        if base in self.warp.steps and ("warp" in instruction.parts or base not in ("bar", "barrier")):
            return self.warp.steps[base](instruction)
        raise Unsupported(f"`{instruction.opcode}` is not supported")

    def _guarded(self, guard: str, step: Step) -> Step:
        predicate, negated = self.state.predicate(guard)
        numbers, compact = self.threads.numbers, self.threads.compact

        def guarded(lanes: Lanes) -> None:
            chosen = predicate[lanes] ^ negated
            count = np.count_nonzero(chosen)
            if count == len(chosen):
                step(lanes)
            elif count:
                step(compact(numbers[lanes][chosen]))

        return guarded

    def _arithmetic(self, instruction: Instruction) -> Step:
        found = operation(instruction.opcode)
        operands = list(instruction.operands)
        first, _, second = str(operands[0]).partition("|")
        target = self.state.write(first, found.result[0])
        function, sources = self._bind(instruction, found, operands[1:])
        if second:  # setp p|q
            extra, other = self.state.write(second, "pred"), complement(instruction.opcode)
            function = _joined(function, self._bind(instruction, other, operands[1:])[0])
        elif found.writes_carry:
            extra = self.state.registers[CARRY]
        else:
            if found.may_divide_by_zero and self.state.checks:
                return self._checked_division(instruction, function, target, sources)
            return _nothing if target is None else _apply(function, target, sources, DTYPE[found.result[0]])

        def step(lanes: Lanes) -> None:
            results = function(*[source[lanes] for source in sources])
            for register, result in zip((target, extra), results, strict=True):
                if register is not None:
                    register[lanes] = result

        return step

    def _bind(
        self, instruction: Instruction, found: Operation, operands: list[Operand]
    ) -> tuple[Callable[..., Any], list[Array]]:
        """The function, and the lane arrays of its operands; ``!p`` is negated on the way in."""
        function = found.function
        names = [*operands, CARRY] if found.reads_carry else operands
        kinds = [*found.sources, "u32"] if found.reads_carry else list(found.sources)
        if len(names) != len(kinds):
            raise ParseError(f"`{instruction.opcode}` takes {len(kinds)} operands, not {len(names)}")
        negated = [isinstance(name, str) and name.startswith("!") for name in names]
        sources = [
            self.state.read(name.removeprefix("!") if isinstance(name, str) else name, kind)
            for name, kind in zip(names, kinds, strict=True)
        ]
        if any(negated):
            plain = function
            function = lambda *values: plain(*(~v if n else v for v, n in zip(values, negated, strict=True)))  # noqa: E731
        return function, sources

    def _checked_division(
        self, instruction: Instruction, divide: Callable[..., Array], target: Array | None, sources: list[Array]
    ) -> Step:
        def step(lanes: Lanes) -> None:
            dividend, divisor = (source[lanes] for source in sources)
            if not divisor.all():
                lane = int(self.threads.numbers[lanes][np.flatnonzero(divisor == 0)[0]])
                self.state.fault(ArithmeticFault, "integer division by zero", instruction, lane)
            if target is not None:
                target[lanes] = divide(dividend, divisor)

        return step

    # ------------------------------------------------------------------ the ends of blocks
    def go(self, block: int | None, lanes: Lanes) -> None:
        """Let these threads continue there, with whoever waits there already."""
        if block is None:
            self._exit(lanes)
            return
        others = self.ready.get(block)
        if others is not None:
            numbers = self.threads.numbers
            lanes = self.threads.compact(np.sort(np.concatenate([numbers[others], numbers[lanes]])))
        self.ready[block] = lanes

    def _exit(self, lanes: Lanes) -> None:
        self.exited[lanes] = True
        for block, released in self.barriers.after_exit():
            self.go(block, released)

    def _decode_end(self, block: Block) -> Step:
        end = block.end
        if end is None:
            return lambda lanes: self.go(block.following, lanes)
        base = end.parts[0]
        taken: Step
        if base == "bra":
            taken = lambda lanes: self.go(block.targets[0], lanes)  # noqa: E731
        elif base == "brx":
            taken = self._indexed_branch(block, end)
        elif base in ("ret", "exit"):
            taken = self._exit
        elif base == "trap":
            taken = self._trap(end)
        else:
            taken = self._barrier(block, end)
        if end.guard is None:
            return taken
        predicate, negated = self.state.predicate(end.guard)
        numbers, compact = self.threads.numbers, self.threads.compact

        def branch(lanes: Lanes) -> None:
            chosen = predicate[lanes] ^ negated
            count = np.count_nonzero(chosen)
            if count == len(chosen):
                taken(lanes)
            elif count == 0:
                self.go(block.following, lanes)
            else:
                here = numbers[lanes]
                self.go(block.following, compact(here[~chosen]))
                taken(compact(here[chosen]))

        return branch

    def _indexed_branch(self, block: Block, end: Instruction) -> Step:
        index = self.state.read(end.operands[0], "u32")

        def branch(lanes: Lanes) -> None:
            here, where = self.threads.numbers[lanes], index[lanes]
            for value in np.unique(where):
                if value >= len(block.targets):
                    lane = int(here[np.flatnonzero(where == value)[0]])
                    self.state.fault(ArithmeticFault, "index past the branch targets", end, lane)
                self.go(block.targets[value], self.threads.compact(here[where == value]))

        return branch

    def _trap(self, end: Instruction) -> Step:
        def trap(lanes: Lanes) -> None:
            self.state.fault(Trapped, "trap: the kernel gave up", end, int(self.threads.numbers[lanes][0]))

        return trap

    def _barrier(self, block: Block, end: Instruction) -> Step:
        try:
            arrive = self.barriers.decode(end, block.following)
        except (ParseError, Unsupported) as error:
            return _refusal(type(error)(f"{error}\n  in {self.state.place(end)}"))

        def step(lanes: Lanes) -> None:
            for following, released in arrive(lanes):
                self.go(following, released)

        return step


def _refusal(error: Exception) -> Step:
    def refuse(lanes: Lanes) -> None:
        raise error

    return refuse


def _nothing(lanes: Lanes) -> None:
    """An instruction whose only result goes to the sink."""


def _joined(first: Callable[..., Array], second: Callable[..., Array]) -> Callable[..., tuple[Array, Array]]:
    """Both results before either is written: a predicate may be an operand too."""
    return lambda *values: (first(*values), second(*values))


def _apply(function: Callable[..., Array], target: Array, sources: list[Array], dtype: DType) -> Step:
    """The step of an element-wise function; NumPy's own write their result in place."""
    in_place = isinstance(function, np.ufunc) and target.dtype == dtype

    def step(lanes: Lanes) -> None:
        if in_place and isinstance(lanes, slice):
            function(*[source[lanes] for source in sources], out=target[lanes])
        else:
            target[lanes] = function(*[source[lanes] for source in sources])

    return step
