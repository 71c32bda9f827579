"""Small Numba CUDA kernels whose PTX the interpreter's tests run; importing this file needs numba-cuda.

``python tests/cuda/kernels_for_ptx.py`` writes the PTX of the sample that is committed next to it.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

from numba import cuda
from numba.cuda import types

f32, i32 = types.float32, types.int32
WARPS = 8


def gemm(a, b, c):
    """C = A B by 16 x 16 tiles in shared memory."""
    tile_a = cuda.shared.array((16, 16), f32)
    tile_b = cuda.shared.array((16, 16), f32)
    x, y = cuda.threadIdx.x, cuda.threadIdx.y
    row, column = cuda.blockIdx.y * 16 + y, cuda.blockIdx.x * 16 + x
    total = f32(0)
    for start in range(0, a.shape[1], 16):
        tile_a[y, x] = a[row, start + x] if row < a.shape[0] and start + x < a.shape[1] else f32(0)
        tile_b[y, x] = b[start + y, column] if column < b.shape[1] and start + y < b.shape[0] else f32(0)
        cuda.syncthreads()
        for k in range(16):
            total += tile_a[y, k] * tile_b[k, x]
        cuda.syncthreads()
    if row < c.shape[0] and column < c.shape[1]:
        c[row, column] = total


def block_sum(x, out):
    """One sum per CTA: shuffles inside a warp, shared memory between warps."""
    partial = cuda.shared.array(WARPS, f32)
    i, lane, warp = cuda.grid(1), cuda.laneid, cuda.threadIdx.x // 32
    value = x[i] if i < x.size else f32(0)
    step = 16
    while step > 0:
        value += cuda.shfl_down_sync(0xFFFFFFFF, value, step)
        step //= 2
    if lane == 0:
        partial[warp] = value
    cuda.syncthreads()
    if warp == 0:
        value = partial[lane] if lane < WARPS else f32(0)
        for step in (4, 2, 1):
            value += cuda.shfl_down_sync(0xFFFFFFFF, value, step)
        if lane == 0:
            out[cuda.blockIdx.x] = value


def max_pool(x, out, where):
    """3 x 3 windows, stride 2, over the last two axes."""
    i = cuda.grid(1)
    N, C, OH, OW = out.shape
    if i < N * C * OH * OW:
        ow, oh = i % OW, (i // OW) % OH
        c, n = (i // (OH * OW)) % C, i // (OH * OW * C)
        best, index = f32(-math.inf), 0
        for kh in range(3):
            for kw in range(3):
                value = x[n, c, oh * 2 + kh, ow * 2 + kw]
                if value > best:
                    best, index = value, kh * 3 + kw
        out[n, c, oh, ow] = best
        where[n, c, oh, ow] = index


def functions(x, out):
    """What libdevice makes of the usual activations."""
    i = cuda.grid(1)
    if i < x.size:
        v = x[i]
        out[0, i] = math.tanh(v)
        out[1, i] = math.exp(v)
        out[2, i] = f32(1) / (f32(1) + math.exp(-v))
        out[3, i] = math.sqrt(abs(v))
        out[4, i] = math.log(abs(v) + f32(1))
        out[5, i] = math.sin(v)


def histogram(x, counts):
    """Integer atomics in shared and global memory."""
    local = cuda.shared.array(8, i32)
    if cuda.threadIdx.x < 8:
        local[cuda.threadIdx.x] = 0
    cuda.syncthreads()
    i = cuda.grid(1)
    if i < x.size:
        cuda.atomic.add(local, x[i], 1)
    cuda.syncthreads()
    if cuda.threadIdx.x < 8:
        cuda.atomic.add(counts, cuda.threadIdx.x, local[cuda.threadIdx.x])


def positive(x, out):
    """Ballots."""
    votes = cuda.ballot_sync(0xFFFFFFFF, x[cuda.grid(1)] > 0)
    if cuda.laneid == 0:
        cuda.atomic.add(out, 0, cuda.popc(votes))


def divide(x, out):
    """Integer division and remainder, which Numba defines as Python does."""
    i = cuda.grid(1)
    if i < x.size:
        out[0, i] = x[i] // 7
        out[1, i] = x[i] % 13
        out[2, i] = (x[i] >> 2) ^ (x[i] << 3)


def scatter(x, out):
    """A local array with an index that the compiler cannot see through."""
    values = cuda.local.array(8, f32)
    i = cuda.grid(1)
    for k in range(8):
        values[k] = x[i] * f32(k)
    out[i] = values[int(abs(x[i]) * f32(5)) % 8]


def reverse(x, out):
    """Dynamic shared memory."""
    values = cuda.shared.array(0, f32)
    t = cuda.threadIdx.x
    values[t] = x[cuda.grid(1)]
    cuda.syncthreads()
    out[cuda.grid(1)] = values[cuda.blockDim.x - 1 - t]


def _array(dtype: Any, ndim: int) -> Any:
    return types.Array(dtype, ndim, "C")


SIGNATURES = {
    gemm: types.void(_array(f32, 2), _array(f32, 2), _array(f32, 2)),
    block_sum: types.void(_array(f32, 1), _array(f32, 1)),
    max_pool: types.void(_array(f32, 4), _array(f32, 4), _array(i32, 4)),
    functions: types.void(_array(f32, 1), _array(f32, 2)),
    histogram: types.void(_array(i32, 1), _array(i32, 1)),
    positive: types.void(_array(f32, 1), _array(i32, 1)),
    divide: types.void(_array(i32, 1), _array(i32, 2)),
    scatter: types.void(_array(f32, 1), _array(f32, 1)),
    reverse: types.void(_array(f32, 1), _array(f32, 1)),
}


def ptx_of(kernel: Any, cc: tuple[int, int], **options: Any) -> str:
    """The PTX of one of the kernels above; no driver is needed."""
    return str(cuda.compile(kernel, SIGNATURES[kernel], cc=cc, device=False, abi="numba", output="ptx", **options)[0])


if __name__ == "__main__":
    text = ptx_of(gemm, (8, 0))
    name = re.search(r"\.entry (\w+)\(", text)
    assert name is not None
    text = text.replace(name[1], "gemm")
    lines = (line.split("//")[0].rstrip() for line in text.splitlines() if not line.startswith(".common"))
    text = "\n".join(lines)
    text = re.sub(r"\n{2,}", "\n", text).replace("\t", " ")
    head = "// kernels_for_ptx.py, gemm, for sm_80: written by `python tests/cuda/kernels_for_ptx.py`\n"
    (Path(__file__).parent / "ptx" / "gemm.ptx").write_text(head + text.strip() + "\n")
