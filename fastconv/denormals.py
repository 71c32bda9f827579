"""Numbers too small for a full mantissa, and the processor's switch that makes zeros of them.

A denormal (below 1.2e-38 in float32) costs many processors a hundred cycles and more wherever it goes into or comes out
of a multiplication: a convolution of nearly silent inputs, or the fading averages of an optimizer, would run many times
slower than usual.  The control register of each core has bits that replace such numbers by zero, on the way in and out.

But comparisons then see denormals as equal to zero, and tails end early.  So kernels that promise exact results
(pooling) or accurate tails (the activations) do without.  The register belongs to the caller: each call of a task
function (`_jit.tasks`, `_jit.flushing_tasks`) sets the bits as the function wants them, on the thread that runs it, and
puts back what was there, also on the way of an exception.  No result depends on the mode of the caller.
"""

from __future__ import annotations

import platform
from typing import Any

from llvmlite import ir
from numba.core import cgutils

# x86, control register MXCSR: flush results to zero (bit 15), take denormal operands as zero (bit 6).
_X86_FLUSH = 1 << 15 | 1 << 6
# ARM, control register FPCR: flush to zero, operands and results (bit 24).
_ARM_FLUSH = 1 << 24

_MACHINE = platform.machine().lower()
_IS_X86 = _MACHINE in ("x86_64", "amd64", "i686")
_IS_ARM = _MACHINE in ("aarch64", "arm64")


def read_mode(builder: Any) -> Any:
    """The floating-point control register of this thread; None on a processor that we do not know."""
    if _IS_X86:
        slot = cgutils.alloca_once(builder, ir.IntType(32))
        _call(builder, "llvm.x86.sse.stmxcsr", ir.VoidType(), builder.bitcast(slot, cgutils.voidptr_t))
        return builder.load(slot)
    if _IS_ARM:
        return _call(builder, "llvm.aarch64.get.fpcr", ir.IntType(64))
    return None


def write_mode(builder: Any, mode: Any) -> None:
    """Set what `read_mode` returned."""
    if _IS_X86:
        slot = cgutils.alloca_once_value(builder, mode)
        _call(builder, "llvm.x86.sse.ldmxcsr", ir.VoidType(), builder.bitcast(slot, cgutils.voidptr_t))
    elif _IS_ARM:
        _call(builder, "llvm.aarch64.set.fpcr", ir.VoidType(), mode)


def mode_with(builder: Any, mode: Any, flush: bool) -> Any:
    """*mode* with denormals flushed to zero, or not."""
    if mode is None:
        return None
    bits = _X86_FLUSH if _IS_X86 else _ARM_FLUSH
    return builder.or_(mode, mode.type(bits)) if flush else builder.and_(mode, mode.type(~bits))


def _call(builder: Any, name: str, result: Any, *arguments: Any) -> Any:
    kind = ir.FunctionType(result, [argument.type for argument in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), arguments)
