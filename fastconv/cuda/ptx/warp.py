"""Instructions of a whole warp: shuffles, votes, matrix products (PTX ISA: shfl.sync, vote.sync, mma).

Threads are gathered into rows of 32, one row per warp that has a thread here.  The ISA demands that all threads named
in a member mask execute the instruction together; threads that have exited, or that a CTA of a broken last warp never
had, are not waited for, as on hardware.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fastconv.cuda.ptx.faults import WarpDivergence
from fastconv.cuda.ptx.operations import Array, Form
from fastconv.cuda.ptx.parse import Instruction, Operand, Vector
from fastconv.cuda.ptx.state import State, Step
from fastconv.cuda.ptx.tensor import ldmatrix, mma_form
from fastconv.cuda.ptx.threads import Lanes, Threads
from fastconv.cuda.ptx.types import WARP_SIZE, bits_of

_LANES = np.arange(WARP_SIZE)


class Rows:
    """The threads of a set as rows of warps."""

    def __init__(self, threads: Threads, lanes: Lanes) -> None:
        self.numbers = threads.numbers[lanes]
        warps = threads.warp[lanes]
        starts = np.concatenate([[True], warps[1:] != warps[:-1]])
        self.row = np.cumsum(starts) - 1
        self.lane = threads.lane[lanes]
        self.warps = warps[starts]
        self.active = np.zeros((len(self.warps), WARP_SIZE), bool)
        self.active[self.row, self.lane] = True

    def spread(self, values: Array) -> Array:
        """One value per thread to shape (warps, 32), zeros where no thread is."""
        matrix = np.zeros((len(self.warps), WARP_SIZE), values.dtype)
        matrix[self.row, self.lane] = values
        return matrix

    def collect(self, matrix: Array) -> Array:
        """Shape (warps, 32) back to one value per thread."""
        return np.asarray(matrix[self.row, self.lane])


def ballot(truth: Array) -> Array:
    """(warps, 32) of bool to one 32-bit word per warp."""
    return np.packbits(truth, axis=1, bitorder="little").view(np.uint32)[:, 0]


class WarpInstructions:
    """Decodes the instructions; *exited* is the scheduler's record of the threads that are gone."""

    def __init__(self, state: State, exited: Array) -> None:
        self.state = state
        self.exited = exited
        self.steps: dict[str, Callable[[Instruction], Step]] = {
            "shfl": self.shuffle,
            "vote": self.vote,
            "match": self.match,
            "redux": self.reduce,
            "activemask": self.active_mask,
            "mma": self.mma,
            "ldmatrix": self.load_matrix,
            "bar": self.warp_barrier,
            "barrier": self.warp_barrier,
        }

    def rows(self, lanes: Lanes) -> Rows:
        return Rows(self.state.threads, lanes)

    def alive(self, rows: Rows) -> Array:
        """(warps, 32): the thread exists and has not exited."""
        threads = self.state.threads
        alive = np.zeros((threads.ctas * threads.warps_per_cta, WARP_SIZE), bool)
        alive[threads.warp, threads.lane] = ~self.exited
        return alive[rows.warps]

    def members(self, rows: Rows, mask: Array, instruction: Instruction) -> None:
        """All living threads of every thread's member mask are here, itself among them."""
        if not self.state.checks:
            return
        itself = (mask >> rows.lane.astype(np.uint32)) & np.uint32(1)
        if not itself.all():
            place = np.flatnonzero(itself == 0)[0]
            rule = "executes with a member mask that does not name it"
            self._divergence(rows, rows.row[place], rule, rows.lane[place], instruction)
        if rows.active.all():
            return
        named = (rows.spread(mask)[:, :, None] >> _LANES.astype(np.uint32)) & np.uint32(1) != 0
        missing = named & rows.active[:, :, None] & ~rows.active[:, None, :] & self.alive(rows)[:, None, :]
        if missing.any():
            row, _, lane = np.argwhere(missing)[0]
            self._divergence(rows, row, f"waits for lane {lane}, which is elsewhere", None, instruction)

    def _divergence(self, rows: Rows, row: int, rule: str, lane: int | None, instruction: Instruction) -> None:
        here = np.flatnonzero(rows.row == row)
        if lane is not None:
            here = here[rows.lane[here] == lane]
        self.state.fault(WarpDivergence, rule, instruction, int(rows.numbers[here[0]]))

    # ------------------------------------------------------------------ shuffles and votes
    def shuffle(self, instruction: Instruction) -> Step:
        """``shfl.sync.mode d|p, a, b, c, mask``: the register of another lane of the segment that c describes."""
        state = self.state
        form = Form(instruction.opcode)
        form.flag("sync")
        mode = form.choice("up", "down", "bfly", "idx")
        form.type()
        form.finish()
        names = str(instruction.operands[0]).split("|")
        target = state.write(names[0], "u32")
        valid = state.write(names[1], "pred") if len(names) > 1 else None
        value, b, c, mask = (state.read(operand, "u32") for operand in instruction.operands[1:])

        def step(lanes: Lanes) -> None:
            rows = self.rows(lanes)
            self.members(rows, mask[lanes], instruction)
            offset = rows.spread(b[lanes]).astype(np.int64) & 31
            control = rows.spread(c[lanes]).astype(np.int64)
            segment, clamp = (control >> 8) & 31, control & 31
            lowest = _LANES & segment
            limit = lowest | (clamp & ~segment)
            wanted = {
                "up": _LANES - offset,
                "down": _LANES + offset,
                "bfly": _LANES ^ offset,
                "idx": lowest | (offset & ~segment),
            }[mode]
            inside = (wanted >= limit) if mode == "up" else (wanted <= limit)
            source = np.where(inside, wanted, _LANES)
            silent = rows.active & ~np.take_along_axis(rows.active, source, axis=1)
            if state.checks and silent.any():
                row, lane = np.argwhere(silent)[0]
                rule = f"reads the register of lane {source[row, lane]}, which does not execute this"
                self._divergence(rows, row, rule, lane, instruction)
            found = np.take_along_axis(rows.spread(value[lanes]), source, axis=1)
            if target is not None:
                target[lanes] = rows.collect(found)
            if valid is not None:
                valid[lanes] = rows.collect(inside)

        return step

    def vote(self, instruction: Instruction) -> Step:
        """``vote.sync.{all, any, uni, ballot}``."""
        state = self.state
        form = Form(instruction.opcode)
        form.flag("sync")
        mode = form.choice("all", "any", "uni", "ballot")
        form.type()
        form.finish()
        target = state.write(instruction.operands[0], "b32" if mode == "ballot" else "pred")
        predicate, negated = state.predicate(str(instruction.operands[1]))
        mask = state.read(instruction.operands[2], "u32")
        assert target is not None

        def step(lanes: Lanes) -> None:
            rows = self.rows(lanes)
            masks = mask[lanes]
            self.members(rows, masks, instruction)
            asked = rows.collect(ballot(rows.active)[:, None] + np.zeros(WARP_SIZE, np.uint32)) & masks
            yes = rows.collect(
                ballot(rows.spread(predicate[lanes] ^ negated))[:, None] + np.zeros(WARP_SIZE, np.uint32)
            )
            yes &= masks
            if mode == "ballot":
                target[lanes] = yes
            elif mode == "any":
                target[lanes] = yes != 0
            elif mode == "all":
                target[lanes] = yes == asked
            else:
                target[lanes] = (yes == asked) | (yes == 0)

        return step

    def active_mask(self, instruction: Instruction) -> Step:
        """``activemask``: the threads that the scheduler runs together."""
        target = self.state.write(instruction.operands[0], "b32")
        assert target is not None

        def step(lanes: Lanes) -> None:
            rows = self.rows(lanes)
            target[lanes] = ballot(rows.active)[rows.row]

        return step

    def match(self, instruction: Instruction) -> Step:
        """``match.sync.{any, all} d, a, mask``: the lanes that hold the same value."""
        state = self.state
        form = Form(instruction.opcode)
        form.flag("sync")
        mode = form.choice("any", "all")
        type_name = form.type()
        form.finish()
        names = str(instruction.operands[0]).split("|")
        target = state.write(names[0], "b32")
        truth = state.write(names[1], "pred") if len(names) > 1 else None
        value, mask = state.read(instruction.operands[1], type_name), state.read(instruction.operands[2], "u32")

        def step(lanes: Lanes) -> None:
            rows = self.rows(lanes)
            masks = mask[lanes]
            self.members(rows, masks, instruction)
            values = rows.spread(value[lanes])
            equal = (values[:, :, None] == values[:, None, :]) & rows.active[:, None, :]
            same = np.packbits(equal, axis=2, bitorder="little").view(np.uint32)[:, :, 0]
            found = rows.collect(same) & masks
            agreed = found == (ballot(rows.active)[rows.row] & masks)
            if mode == "all":
                found = np.where(agreed, found, np.uint32(0))
            if target is not None:
                target[lanes] = found
            if truth is not None:
                truth[lanes] = agreed

        return step

    def reduce(self, instruction: Instruction) -> Step:
        """``redux.sync.op d, a, mask``."""
        state = self.state
        form = Form(instruction.opcode)
        form.flag("sync")
        name = form.choice("add", "min", "max", "and", "or", "xor")
        type_name = form.type()
        form.finish()
        function = {
            "add": np.add,
            "min": np.minimum,
            "max": np.maximum,
            "and": np.bitwise_and,
            "or": np.bitwise_or,
            "xor": np.bitwise_xor,
        }[name]
        target, value = state.write(instruction.operands[0], type_name), state.read(instruction.operands[1], type_name)
        mask = state.read(instruction.operands[2], "u32")
        assert target is not None

        def step(lanes: Lanes) -> None:
            rows = self.rows(lanes)
            masks = mask[lanes]
            self.members(rows, masks, instruction)
            values, results = value[lanes], np.empty(len(rows.numbers), value.dtype)
            group = (rows.row.astype(np.int64) << 32) | masks
            for key in np.unique(group):
                chosen = group == key
                results[chosen] = function.reduce(values[chosen], dtype=value.dtype)
            target[lanes] = results

        return step

    def warp_barrier(self, instruction: Instruction) -> Step:
        """``bar.warp.sync mask``."""
        mask = self.state.read(instruction.operands[0], "u32")
        return lambda lanes: self.members(self.rows(lanes), mask[lanes], instruction)

    # ------------------------------------------------------------------ matrices
    def _whole_warps(self, lanes: Lanes, instruction: Instruction) -> int:
        """The number of warps, all of them complete."""
        threads = self.state.threads
        size = threads.size(lanes)
        warps = threads.warps(lanes)
        if size != warps * WARP_SIZE:
            rows = self.rows(lanes)
            row = int(np.argwhere(~rows.active.all(axis=1))[0, 0])
            rule = f"only {int(rows.active[row].sum())} threads of a warp execute a matrix instruction"
            self._divergence(rows, row, rule, None, instruction)
        return warps

    def mma(self, instruction: Instruction) -> Step:
        """``mma.sync``: D = A B + C."""
        state = self.state
        form = mma_form(instruction.opcode)
        d, a, b, c = (_names(operand) for operand in instruction.operands)
        if tuple(len(names) for names in (a, b, c, d)) != (*form.registers, form.registers[2]):
            raise Form(instruction.opcode).unsupported("this number of registers")
        targets = [state.write(name, "b32") for name in d]
        sources = [[state.read(name, "b32") for name in names] for names in (a, b, c)]

        def step(lanes: Lanes) -> None:
            warps = self._whole_warps(lanes, instruction)
            fragments = (
                np.stack([register[lanes] for register in names], axis=-1).reshape(warps, WARP_SIZE, -1)
                for names in sources
            )
            result = form(*fragments).reshape(warps * WARP_SIZE, -1)
            for index, target in enumerate(targets):
                if target is not None:
                    target[lanes] = result[:, index]

        return step

    def load_matrix(self, instruction: Instruction) -> Step:
        """``ldmatrix``: 1, 2 or 4 matrices of 8 rows of 16 bytes."""
        state = self.state
        form = Form(instruction.opcode)
        for name in ("sync", "aligned", "m8n8", "shared", "shared_cta"):
            form.flag(name)
        count = int(form.choice("x1", "x2", "x4")[1:])
        transposed = form.flag("trans")
        if bits_of(form.type()) != 16:
            raise form.unsupported()
        form.finish()
        targets = [state.write(name, "b32") for name in _names(instruction.operands[0])]
        address = state.address(instruction.operands[1])
        locate = state.locator(instruction, "shared", 16, "read")

        def step(lanes: Lanes) -> None:
            warps = self._whole_warps(lanes, instruction)
            # lanes 0 ... 8 count - 1 of every warp give the addresses of the rows
            givers = state.threads.numbers[lanes].reshape(warps, WARP_SIZE)[:, : 8 * count].ravel()
            addresses = address(lanes).reshape(warps, WARP_SIZE)[:, : 8 * count].ravel()
            words, index = locate(addresses, givers)
            rows = words.take(index, axis=0).view(np.uint8).reshape(warps, count, 8, 16)
            registers = ldmatrix(rows, transposed)
            for matrix, target in enumerate(targets):
                if target is not None:
                    target[lanes] = registers[:, matrix].ravel()

        return step


def _names(operand: Operand) -> tuple[str, ...]:
    return operand.elements if isinstance(operand, Vector) else (str(operand),)
