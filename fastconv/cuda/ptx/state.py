"""The state of the machine, and how instructions reach it: registers, immediates, addresses, memory.

Binding an operand once, when the kernel is decoded, gives a lane array: a register's own storage seen through the
type that the instruction wants, or an immediate as one value repeated by a stride of zero.  What is left to do at run
time is NumPy's indexing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

import numpy as np

from fastconv.cuda.ptx.counters import Counters
from fastconv.cuda.ptx.faults import Fault, ParseError, Place
from fastconv.cuda.ptx.memory import (
    GLOBAL_WINDOW,
    AccessError,
    GlobalMemory,
    LocalMemory,
    SharedMemory,
)
from fastconv.cuda.ptx.operations import CARRY, Array
from fastconv.cuda.ptx.parse import Address, Instruction, Kernel, Operand, constant
from fastconv.cuda.ptx.race import Report, SharedHistory
from fastconv.cuda.ptx.threads import Lanes, Threads
from fastconv.cuda.ptx.types import DTYPE, DType, bits_of, storage
from fastconv.cuda.ptx.writers import Writers

# What an instruction is after decoding: run it for these threads.
Step = Callable[[Lanes], None]
Locator = Callable[[Array, Lanes], tuple[Array, Array]]


class State:
    """Registers and memory of a batch of CTAs."""

    def __init__(
        self,
        kernel: Kernel,
        threads: Threads,
        global_memory: GlobalMemory,
        parameters: bytes,
        shared_bytes: int,
        checks: bool,
        traffic: bool,
        one_writer: bool,
    ) -> None:
        self.kernel, self.threads, self.parameters = kernel, threads, parameters
        self.checks, self.traffic = checks, traffic
        self.counters = Counters()
        self.registers = {name: np.zeros(threads.count, storage(kind)) for name, kind in kernel.registers.items()}
        self.registers[CARRY] = np.zeros(threads.count, np.uint32)
        self.global_memory = global_memory
        self.writers = Writers(threads, len(global_memory.data)) if one_writer else None
        self.shared = SharedMemory(kernel.shared_size + shared_bytes, threads)
        self.local = LocalMemory(kernel.local_size, threads)
        self.granule = _granule(kernel)
        self.granule_shift = self.granule.bit_length() - 1
        self.history: SharedHistory | None = None
        if checks and self.shared.size:
            atomics = any(
                instruction.parts[0] in ("atom", "red") and "global" not in instruction.parts
                for instruction in kernel.instructions
            )
            self.history = SharedHistory(threads, self.shared.pitch // self.granule, atomics)
        self._places = {
            **kernel.shared,
            **kernel.local,
            **{parameter.name: parameter.offset for parameter in kernel.parameters},
            **{name: GLOBAL_WINDOW + offset for name, offset in global_memory.variable_offsets.items()},
        }

    def reset(self) -> None:
        """Before a batch of CTAs."""
        self.shared.reset()
        self.local.reset()
        if self.history is not None:
            self.history.reset()

    # ------------------------------------------------------------------ messages
    def place(self, instruction: Instruction, lane: int | None = None) -> Place:
        text = instruction.text.replace(self.kernel.name + "_", "")
        if lane is None:
            return Place(short_name(self.kernel.name), instruction.line, text)
        return Place(short_name(self.kernel.name), instruction.line, text, *self.threads.thread_of(lane))

    def fault(
        self, fault: type[Fault], rule: str, instruction: Instruction, lane: int, address: int | None = None
    ) -> NoReturn:
        raise fault(rule, self.place(instruction, lane), address) from None

    # ------------------------------------------------------------------ operands
    def read(self, operand: Operand, type_name: str) -> Array:
        """A lane array that follows the operand's value; not to be written."""
        if not isinstance(operand, str):
            raise ParseError(f"a single value is expected, not {operand}")
        dtype = DTYPE[type_name]
        if operand in self.registers:
            return _as_type(self.registers[operand], dtype)
        if operand in self.threads.special:
            return _as_type(self.threads.special[operand], dtype)
        if operand in ("%clock64", "%globaltimer"):
            return np.broadcast_to(np.zeros(1, dtype), self.threads.count)
        name, _, offset = operand.partition("+")
        if name in self._places:
            value = np.array([self._places[name] + int(offset or "0", 0)]).astype(dtype)
        else:
            try:
                value = np.array([constant(operand, type_name)])
            except ValueError as error:
                raise ParseError(f"unknown operand {operand!r}") from error
        return np.broadcast_to(value, self.threads.count)

    def write(self, operand: Operand, type_name: str) -> Array | None:
        """The lane array to write results of this type to; None for the sink ``_``."""
        if operand == "_":
            return None
        if not isinstance(operand, str) or operand not in self.registers:
            raise ParseError(f"a register is expected, not {operand}")
        register, dtype = self.registers[operand], DTYPE[type_name]
        if register.dtype == dtype or register.itemsize == dtype.itemsize:
            return register.view(dtype)
        if register.itemsize < dtype.itemsize:
            raise ParseError(f"{operand} is too small for {type_name}")
        # assignment extends the sign of signed integers, and fills with zeros otherwise
        return register.view(f"{'i' if dtype.kind == 'i' else 'u'}{register.itemsize}")

    def predicate(self, operand: str) -> tuple[Array, bool]:
        """A predicate register, and whether it counts negated."""
        negated = operand.startswith("!")
        return self.read(operand.removeprefix("!"), "pred"), negated

    def address(self, operand: Operand) -> Callable[[Lanes], Array]:
        """The byte addresses of ``[register+offset]`` or ``[variable+offset]``, as int64."""
        if not isinstance(operand, Address):
            raise ParseError(f"an address is expected, not {operand}")
        offset = operand.offset
        if operand.base not in self.registers:
            fixed = (self._places[operand.base] if operand.base else 0) + offset
            everywhere = np.broadcast_to(np.array([fixed], np.int64), self.threads.count)
            return lambda lanes: everywhere[lanes]
        register = self.registers[operand.base]
        if register.itemsize == 4:
            return lambda lanes: register[lanes].astype(np.int64) + offset
        wide = register.view(np.int64)
        if offset == 0:
            return lambda lanes: wide[lanes]
        return lambda lanes: wide[lanes] + offset

    # ------------------------------------------------------------------ memory
    def locator(self, instruction: Instruction, space: str, size: int, use: str) -> Locator:
        """A function from addresses in *space* to (memory as words of *size* bytes, index of each thread's word).

        *use* is ``"read"``, ``"write"`` or ``"atomic"``.  All checks and counts of an access happen here.
        """
        memory = {"global": self.global_memory, "const": self.global_memory, "shared": self.shared, "local": self.local}
        words = memory[space].words(size)
        write = use != "read"
        shift = size.bit_length() - 1
        note_shared = self.note_shared(instruction, size, use) if space == "shared" else None

        def locate(addresses: Array, lanes: Lanes) -> tuple[Array, Array]:
            try:
                if space == "shared":
                    offsets = self.shared.offsets(addresses, lanes, size, self.checks)
                elif space == "local":
                    offsets = self.local.offsets(addresses, lanes, size, self.checks)
                else:
                    offsets = self.global_memory.offsets(addresses, size, write, self.checks)
                    if self.writers is not None and use == "write":
                        self.writers.note(offsets, lanes, size)
                    if self.traffic:
                        self.counters.count_global(offsets, size, self.threads.warp[lanes])
            except AccessError as error:
                self.access_fault(error, instruction, lanes)
            if note_shared is not None:
                note_shared(addresses, offsets, lanes)
            return words, offsets >> shift

        return locate

    def access_fault(self, error: AccessError, instruction: Instruction, lanes: Lanes) -> NoReturn:
        lane = int(self.threads.numbers[lanes][error.row])
        self.fault(error.fault, error.rule, instruction, lane, error.address)

    def note_shared(self, instruction: Instruction, size: int, use: str) -> Callable[[Array, Array, Lanes], None]:
        """Count a shared access, and check it against the history."""
        history = self.history
        check = None
        if history is not None:
            check = {
                "read": history.on_read,
                "write": history.on_write,
                "atomic": history.on_atomic,
                "copy": history.on_copy_issued,
            }[use]
        report = self.reporter(instruction)
        text = f"line {instruction.line}: {self.place(instruction).text}"

        def note(addresses: Array, offsets: Array, lanes: Lanes) -> None:
            if self.traffic:
                threads = self.threads
                self.counters.count_shared(
                    addresses,
                    size,
                    threads.warp[lanes],
                    threads.lane[lanes],
                    text,
                )
            if check is not None:
                check(self.granules(offsets, size), lanes, report)

        return note

    def granules(self, offsets: Array, size: int) -> Array:
        """The granules of each access, one column per thread."""
        return (offsets >> self.granule_shift) + np.arange(size // self.granule)[:, None]

    def reporter(self, instruction: Instruction) -> Report:
        def report(fault: type[Fault], rule: str, lane: int, granule: int) -> NoReturn:
            self.fault(fault, rule, instruction, lane, granule * self.granule)

        return report


def _as_type(register: Array, dtype: DType) -> Array:
    """The register's bits as this type: the low part of a wider register."""
    if register.itemsize == dtype.itemsize:
        return register.view(dtype)
    if register.itemsize < dtype.itemsize:
        raise ParseError(f"a register of {register.itemsize} bytes is read as {dtype}")
    return register.view(dtype)[:: register.itemsize // dtype.itemsize]


def _granule(kernel: Kernel) -> int:
    """The smallest access that may reach shared memory, in bytes."""
    sizes = [16]
    for instruction in kernel.instructions:
        parts = instruction.parts
        if parts[0] in ("ld", "st", "atom", "red") and not {"global", "param", "const", "local"} & set(parts):
            count = next((int(part[1:]) for part in parts if part in ("v2", "v4", "v8")), 1)
            sizes.append(bits_of(parts[-1]) // 8 * count)
        elif parts[:2] == ("cp", "async") and len(instruction.operands) > 2:
            sizes.append(int(str(instruction.operands[2])))
    return min(sizes)


def short_name(name: str) -> str:
    """``_ZN3abc4gemmB2v1...`` is numba's spelling of ``abc::gemm``."""
    if not name.startswith("_ZN"):
        return name
    parts, rest = [], name[3:]
    while rest and rest[0].isdigit():
        digits = ""
        while rest and rest[0].isdigit():
            digits, rest = digits + rest[0], rest[1:]
        parts.append(rest[: int(digits)])
        rest = rest[int(digits) :]
    return "::".join(parts) or name
