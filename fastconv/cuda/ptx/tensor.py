"""Tensor-core fragments: which thread holds which matrix element (PTX ISA, Matrix Fragments), and the product itself.

A warp holds the matrices of ``mma`` in registers spread over its 32 threads.  With ``group = lane / 4`` and
``member = lane % 4`` the ISA's figures are all of one kind, so the positions are computed from the shape.  The
products are summed in float64 and rounded once: hardware sums in an order and with a truncation that NVIDIA does not
document, so a device may differ in the last bits.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastconv.cuda.ptx.convert import from_bfloat16
from fastconv.cuda.ptx.operations import Array, Form
from fastconv.cuda.ptx.types import WARP_SIZE

Positions = tuple[NDArray[np.intp], NDArray[np.intp]]

_LANE = np.arange(WARP_SIZE)
_GROUP, _MEMBER = _LANE // 4, _LANE % 4


def a_positions(k: int, per_register: int) -> Positions:
    """Row and column of A (16 x k, row-major) of element i of lane l: two arrays of shape (32, elements).

    Registers alternate between rows ``group`` and ``group + 8``, then step 4 * per_register columns.
    """
    elements = 16 * k // WARP_SIZE
    index = np.arange(elements)
    register, within = index // per_register, index % per_register
    row = _GROUP[:, None] + 8 * (register % 2)
    column = _MEMBER[:, None] * per_register + within + 4 * per_register * (register // 2)
    return row, column


def b_positions(k: int, per_register: int) -> Positions:
    """Row and column of B (k x 8, column-major): a register steps 4 * per_register rows."""
    elements = k * 8 // WARP_SIZE
    index = np.arange(elements)
    register, within = index // per_register, index % per_register
    row = _MEMBER[:, None] * per_register + within + 4 * per_register * register
    return row, np.broadcast_to(_GROUP[:, None], row.shape)


def c_positions() -> Positions:
    """Row and column of C and D (16 x 8): two neighbouring columns in row ``group``, two in row ``group + 8``."""
    index = np.arange(4)
    return _GROUP[:, None] + 8 * (index // 2), _MEMBER[:, None] * 2 + index % 2


# input type: (elements in a 32-bit register, the depths k that mma has for it)
_INPUTS = {"f16": (2, (8, 16)), "bf16": (2, (8, 16)), "tf32": (1, (4, 8))}


@dataclass(frozen=True)
class Mma:
    """One ``mma.sync.m16n8k*`` form."""

    k: int
    inputs: str
    accumulator: str

    @property
    def per_register(self) -> int:
        return _INPUTS[self.inputs][0]

    @property
    def registers(self) -> tuple[int, int, int]:
        """32-bit registers of A, B and C."""
        width = WARP_SIZE * self.per_register
        return 16 * self.k // width, self.k * 8 // width, 4 if self.accumulator == "f32" else 2

    def __call__(self, a: Array, b: Array, c: Array) -> Array:
        """Registers of a batch of warps, shape (warps, 32, registers), as uint32; those of D in the same form."""
        matrix_a = self._gather(a, a_positions(self.k, self.per_register), (16, self.k))
        matrix_b = self._gather(b, b_positions(self.k, self.per_register), (self.k, 8))
        dtype = np.float32 if self.accumulator == "f32" else np.float16
        row, column = c_positions()
        addend = np.empty((len(c), 16, 8))
        addend[:, row, column] = np.ascontiguousarray(c).view(dtype)
        result = (matrix_a @ matrix_b + addend).astype(dtype)
        return np.ascontiguousarray(result[:, row, column]).view(np.uint32)

    def _gather(self, registers: Array, positions: Positions, shape: tuple[int, int]) -> Array:
        matrix = np.empty((len(registers), *shape))
        matrix[:, positions[0], positions[1]] = unpack(registers, self.inputs)
        return matrix


def unpack(registers: Array, inputs: str) -> Array:
    """32-bit registers (..., n) to values (..., n * elements per register), the lower half first."""
    registers = np.ascontiguousarray(registers)
    if inputs == "tf32":  # the tensor core ignores the low 13 bits
        return (registers & np.uint32(0xFFFFE000)).view(np.float32)
    if inputs == "f16":
        return registers.view(np.float16)
    return from_bfloat16(registers.view(np.uint16))


@functools.cache
def mma_form(opcode: str) -> Mma:
    """``mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32`` and its relatives."""
    form = Form(opcode)
    shape = next((part for part in form.modifiers if re.fullmatch(r"m\d+n\d+k\d+", part)), "")
    if form.types[0] != form.types[3] or form.types[1] != form.types[2] or form.types[0] not in ("f32", "f16"):
        raise form.unsupported("these types")
    inputs = form.types[1]
    if inputs not in _INPUTS or not shape.startswith("m16n8k") or int(shape[6:]) not in _INPUTS[inputs][1]:
        raise form.unsupported("this shape with these types")
    for name in ("sync", "aligned", shape, "row", "col"):
        form.flag(name)
    form.finish()
    return Mma(int(shape[6:]), inputs, form.types[0])


def ldmatrix(rows: Array, transposed: bool) -> Array:
    """8 x 8 matrices of 16-bit elements, spread over the warp (PTX ISA, ldmatrix).

    *rows* has shape (warps, matrices, 8, 16) of bytes: lane ``8 m + r`` gave the address of row r of matrix m.  Lane l
    receives elements ``2 (l % 4)`` and ``+ 1`` of row ``l / 4``; with ``.trans``, of column ``l / 4``.  Returns uint32
    of shape (warps, matrices, 32).
    """
    halves = np.ascontiguousarray(rows).view(np.uint16)
    if transposed:
        halves = halves.swapaxes(2, 3)
    return np.ascontiguousarray(halves).view(np.uint32).reshape(len(rows), -1, WARP_SIZE)
