"""The kernels of copies with the axes in another order: number by number, or tile by tile."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from fastconv.cuda.device import Kernel, target
from fastconv.cuda.kernels.elements import NUMBERS, POSITIONS, THREADS, element, kernel_of_elements
from fastconv.cuda.kernels.intrinsics import divide

cuda = target()
types = cuda.types
float32, int32, int64 = types.float32, types.int32, types.int64

#: Rows and columns of a tile, each as many as a warp has threads, and the warps that move it.
TILE = 32
WARPS = THREADS // TILE
#: A row in shared memory is one number longer, so that the numbers of a column lie in different banks.
PITCH = TILE + 1
#: Extents from which on tiles move fewer sectors of memory than reading number by number: with 8 channels 1.5 times
#: fewer to NHWC and 4.5 times fewer to NCHW, with 32 or more 4.5 times fewer both ways.
LEAST = 8


class Strides(NamedTuple):
    """Extents of the copy, and the distances of neighbours in the original."""

    A: int
    B: int
    C: int
    D: int
    a_step: int
    b_step: int
    c_step: int
    d_step: int


@lru_cache
def gather(positions: bool) -> Kernel:
    """The kernel that reads with strides and writes side by side: 64-bit integers with *positions*, else float32."""

    def gather_strided(source, out, problem):
        """Neighbouring threads write neighbouring elements; what they read lies ``d_step`` apart."""
        p = problem
        i = element()
        if i < out.size:
            row = divide(int32(i), int32(p.D))
            d = int32(i - row * p.D)
            plane = divide(row, int32(p.C))
            c = int32(row - plane * p.C)
            a = divide(plane, int32(p.B))
            b = int32(plane - a * p.B)
            out[i] = source[a * p.a_step + b * p.b_step + c * p.c_step + d * p.d_step]

    numbers = POSITIONS if positions else NUMBERS
    return kernel_of_elements(
        gather_strided, numbers, numbers, types.NamedUniTuple(int64, len(Strides._fields), Strides)
    )


class Tiles(NamedTuple):
    """Two axes outside of the tiles, A and B, and those of a tile, rows R and columns C.

    Of each its extent and the distance of neighbours in the original and in the copy.  Neighbours along R lie side by
    side in the original, those along C in the copy.
    """

    A: int
    a_step: int
    a_out: int
    B: int
    b_step: int
    b_out: int
    R: int
    r_out: int
    C: int
    c_step: int


@lru_cache
def transpose(positions: bool) -> Kernel:
    """The kernel that moves tiles: of 64-bit integers with *positions*, else of float32 numbers."""
    number = int64 if positions else float32

    def transpose_tile(source, out, problem):
        """A block moves one tile: element (a, b, r, c) of *out* is element (a, b, r, c) of *source*.

        A warp reads TILE neighbours along R at a time, which lie side by side in *source*, and after the barrier writes
        TILE neighbours along C, which lie side by side in *out*: whole sectors both times.  A tile has one writer.
        """
        p = problem
        tile = cuda.shared.array((TILE, PITCH), number)
        lane = int32(cuda.threadIdx.x & (TILE - 1))
        warp = int32(cuda.threadIdx.x >> 5)
        across = divide(int32(p.C + TILE - 1), int32(TILE))
        down = divide(int32(p.R + TILE - 1), int32(TILE))
        block = int32(cuda.blockIdx.x)
        rest = divide(block, across)
        first_c = int32(block - rest * across) * TILE
        outer = divide(rest, down)
        first_r = int32(rest - outer * down) * TILE
        a = divide(outer, int32(p.B))
        b = int32(outer - a * p.B)

        r = first_r + lane
        start = a * p.a_step + b * p.b_step + r
        for turn in range(TILE // WARPS):
            row = warp + turn * WARPS
            c = first_c + row
            if r < p.R and c < p.C:
                tile[row, lane] = source[start + c * p.c_step]
        cuda.syncthreads()
        c = first_c + lane
        start = a * p.a_out + b * p.b_out + c
        for turn in range(TILE // WARPS):
            row = warp + turn * WARPS
            r = first_r + row
            if r < p.R and c < p.C:
                out[start + r * p.r_out] = tile[lane, row]

    numbers = POSITIONS if positions else NUMBERS
    return kernel_of_elements(transpose_tile, numbers, numbers, types.NamedUniTuple(int64, len(Tiles._fields), Tiles))
