"""An interpreter for PTX, the assembly language of NVIDIA GPUs: kernels run, and are checked, on NumPy arrays.

>>> from fastconv.cuda.ptx import launch
>>> counters = launch(ptx, grid=(4,), block=(128,), arguments=[x, y, 2.0])    # doctest: +SKIP

It executes the text that numba compiled for a device, not Python in its place, so that inline assembly, shared
memory, barriers, tensor-core instructions and asynchronous copies are what is tested.  It needs no GPU and no driver,
and imports nothing but NumPy.  It is not a simulator of time: nothing here says how fast a kernel is.

The files, from the bottom up:

- ``types`` ``faults`` ``parse``: PTX types, the rules a kernel can break, the text to instructions;
- ``operations`` ``integer`` ``floating`` ``compare`` ``convert`` ``arithmetic``: opcodes as functions on arrays;
- ``threads`` ``memory`` ``race`` ``writers`` ``counters`` ``state``: one array per register, one element per thread;
  memory, and who touched it;
- ``access`` ``copies`` ``tensor`` ``warp`` ``barrier``: instructions that touch memory or other threads;
- ``control`` ``machine`` ``host``: which threads run when.
"""

from fastconv.cuda.ptx.arithmetic import evaluate
from fastconv.cuda.ptx.counters import Counters
from fastconv.cuda.ptx.faults import (
    ArithmeticFault,
    AsyncHazard,
    BarrierDivergence,
    Deadlock,
    Fault,
    Misaligned,
    OutOfBounds,
    ParseError,
    PtxError,
    Race,
    ReadOnly,
    SecondWriter,
    Trapped,
    Uninitialised,
    Unsupported,
    WarpDivergence,
)
from fastconv.cuda.ptx.host import Pointer, launch, poison, unwritten

__all__ = [
    "ArithmeticFault",
    "AsyncHazard",
    "BarrierDivergence",
    "Counters",
    "Deadlock",
    "Fault",
    "Misaligned",
    "OutOfBounds",
    "ParseError",
    "Pointer",
    "PtxError",
    "Race",
    "ReadOnly",
    "SecondWriter",
    "Trapped",
    "Uninitialised",
    "Unsupported",
    "WarpDivergence",
    "evaluate",
    "launch",
    "poison",
    "unwritten",
]
