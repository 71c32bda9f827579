"""The host's side: launching a kernel on NumPy arrays, with numba's argument conventions.

Numba passes an array as ``(meminfo, parent, size, itemsize, data, *shape, *strides)``, the first two null, a scalar as
itself, and a tuple as its members; every part is a kernel parameter of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastconv.cuda.ptx.counters import Counters
from fastconv.cuda.ptx.floating import floating_point_rules
from fastconv.cuda.ptx.machine import Machine
from fastconv.cuda.ptx.memory import GlobalMemory
from fastconv.cuda.ptx.parse import Kernel, Parameter, parse
from fastconv.cuda.ptx.state import State
from fastconv.cuda.ptx.threads import Extent, Threads
from fastconv.cuda.ptx.types import DTYPE, FLOAT

# Threads that run side by side unless the caller says otherwise: enough to make NumPy's calls cheap per thread, few
# enough for the registers of a large kernel to stay in a second-level cache.
_THREADS_AT_ONCE = 8192


@dataclass(frozen=True)
class Pointer:
    """An array passed as its data pointer alone: for kernels not written in Numba, or to lie about a shape."""

    array: NDArray[Any]


def launch(
    ptx: str,
    grid: int | Sequence[int],
    block: int | Sequence[int],
    arguments: Sequence[Any],
    *,
    kernel: str | None = None,
    shared_bytes: int = 0,
    checks: bool = True,
    traffic: bool = False,
    one_writer: bool = False,
    batch: int | None = None,
) -> Counters:
    """Execute a kernel on the CPU; the arrays among the arguments are changed in place.

    Parameters
    ----------
    ptx : str
        The module's text, as from ``numba.cuda.compile(..., output="ptx", abi="numba")``.
    grid, block : int or sequence of up to three ints
        Extents of the grid in CTAs and of a CTA in threads, x first.
    arguments : sequence
        NumPy arrays of any strides, Python or NumPy scalars, and tuples of them, in the kernel's order;
        :class:`Pointer` for an array of which the kernel takes nothing but the address.
    kernel : str, optional
        Which ``.entry``, where the module has several.
    shared_bytes : int, default 0
        Dynamic shared memory.
    checks : bool, default True
        Check bounds, alignment, initialisation, races, barriers and asynchronous copies.  Without, a kernel that is
        right runs up to twice as fast, and one that is wrong may do anything to the arrays and to the result.
    traffic : bool, default False
        Count bank conflicts and memory sectors, which is slow.
    one_writer : bool, default False
        Complain where two threads store to one element of an array.
    batch : int, optional
        CTAs that run side by side; about 8192 threads by default.

    Returns
    -------
    Counters
        What ran.

    Raises
    ------
    Fault
        A rule was broken: :class:`OutOfBounds`, :class:`Race` and so on say which.  The arrays are then unchanged.
    Unsupported
        The kernel executed an instruction that this package does not have.
    ParseError
        The text cannot be read.
    ValueError
        The grid, the block or the arguments do not fit the kernel.

    Examples
    --------
    Thirty-two threads, of which five have something to do; C compilers pass pointers, Numba whole arrays:

    >>> text = '''
    ... .visible .entry square(.param .u64 x, .param .u32 n) {
    ...   .reg .pred %p; .reg .b32 %i, %n; .reg .f32 %v; .reg .b64 %x, %offset;
    ...   mov.u32 %i, %tid.x;  ld.param.u32 %n, [n];  setp.ge.u32 %p, %i, %n;
    ...   @%p bra DONE;
    ...   ld.param.u64 %x, [x];  mul.wide.u32 %offset, %i, 4;  add.u64 %x, %x, %offset;
    ...   ld.global.f32 %v, [%x];  mul.f32 %v, %v, %v;  st.global.f32 [%x], %v;
    ... DONE: ret;
    ... }'''
    >>> x = np.arange(5, dtype=np.float32)
    >>> counters = launch(text, grid=1, block=32, arguments=[Pointer(x), x.size])
    >>> x
    array([ 0.,  1.,  4.,  9., 16.], dtype=float32)
    >>> counters.warp_instructions
    11

    A guard that lets one thread too many through:

    >>> from fastconv.cuda.ptx import Fault
    >>> try:
    ...     launch(text.replace("ge", "gt"), 1, 32, [Pointer(x), x.size])
    ... except Fault as fault:
    ...     print(fault)
    global load of 4 bytes at byte 20, past the 20 bytes of array argument 0 at address 0x10000001014
      in square, line 7: `ld.global.f32 %v, [%x]`, thread (5, 0, 0) of CTA (0, 0, 0)
    """
    chosen = _choose(parse(ptx), kernel)
    grid_extent, block_extent = _extent(grid, "grid"), _extent(block, "block")
    ctas = grid_extent[0] * grid_extent[1] * grid_extent[2]
    per_cta = block_extent[0] * block_extent[1] * block_extent[2]
    if ctas == 0 or per_cta == 0 or per_cta > 1024:
        raise ValueError(f"cannot launch a grid of {grid_extent} with blocks of {block_extent} threads")
    at_once = min(ctas, batch or max(1, _THREADS_AT_ONCE // per_cta))
    at_once = -(-ctas // -(-ctas // at_once))  # batches of nearly the same size
    flat = list(flatten(arguments))
    arrays = [value for value in flat if isinstance(value, np.ndarray)]
    memory = GlobalMemory(arrays, chosen.variables)
    parameters = _parameter_bytes(chosen, flat, memory)
    threads = Threads(grid_extent, block_extent, at_once, shared_bytes)
    with floating_point_rules():
        state = State(chosen, threads, memory, parameters, shared_bytes, checks, traffic, one_writer)
        machine = Machine(state)
        for first in range(0, ctas, at_once):
            machine.run(first, min(at_once, ctas - first))
    memory.copy_back()
    machine.count_instructions()
    return state.counters


def flatten(arguments: Sequence[Any]) -> Iterator[Any]:
    """The kernel parameters of numba's calling convention; an array in the result stands for its data pointer."""
    for argument in arguments:
        if isinstance(argument, np.ndarray):
            yield from (0, 0, argument.size, argument.itemsize, argument, *argument.shape, *argument.strides)
        elif isinstance(argument, Pointer):
            yield argument.array
        elif isinstance(argument, tuple):
            yield from flatten(argument)
        else:
            yield argument


def _choose(kernels: dict[str, Kernel], name: str | None) -> Kernel:
    if name is None and len(kernels) == 1:
        return next(iter(kernels.values()))
    if name not in kernels:
        raise ValueError(f"kernel {name!r} is not one of {sorted(kernels)}")
    return kernels[name]


def _extent(value: int | Sequence[int], what: str) -> Extent:
    extents = (value,) if isinstance(value, int | np.integer) else tuple(value)
    if not 1 <= len(extents) <= 3:
        raise ValueError(f"{what} has one to three extents, not {value!r}")
    x, y, z = (*(int(extent) for extent in extents), 1, 1)[:3]
    return x, y, z


def _parameter_bytes(kernel: Kernel, values: list[Any], memory: GlobalMemory) -> bytes:
    """The parameter space: every value in the type of its parameter."""
    if len(values) != len(kernel.parameters):
        raise ValueError(
            f"the kernel takes {len(kernel.parameters)} parameters, the arguments make {len(values)}"
            " (an array makes 5 and two for every axis)"
        )
    space = bytearray(max([p.offset + p.size for p in kernel.parameters], default=0))
    array_index = 0
    for parameter, value in zip(kernel.parameters, values, strict=True):
        if isinstance(value, np.ndarray):
            value = memory.pointer(array_index)
            array_index += 1
        data = _encode(parameter, value)
        space[parameter.offset : parameter.offset + len(data)] = data
    return bytes(space)


def _encode(parameter: Parameter, value: Any) -> bytes:
    dtype = DTYPE[parameter.type_name]
    if dtype.kind != "f" and isinstance(value, float | np.floating):
        dtype = FLOAT[parameter.size * 8]  # newer compilers declare floats as plain bits
    if dtype.kind in "iu":
        return int(value).to_bytes(16, "little", signed=int(value) < 0)[: parameter.size]
    return np.array([value]).astype(dtype).tobytes()


# ---------------------------------------------------------------------------------------------- unwritten outputs
_POISON = {2: 0x7DAD, 4: 0x7FADDEAD, 8: 0x7FFDDEADBEEFDEAD}  # NaNs with a payload, where the array holds floats


def poison(array: NDArray[Any]) -> NDArray[Any]:
    """Fill an output with a pattern that no kernel computes; returns the array."""
    if array.itemsize in _POISON:
        array.view(f"u{array.itemsize}")[...] = _POISON[array.itemsize]
    else:
        array.view(np.uint8)[...] = 0xAD
    return array


def unwritten(array: NDArray[Any]) -> NDArray[np.intp]:
    """Indices of the elements that still hold the poison: one row per element."""
    clean = poison(np.empty(1, array.dtype))
    bits = f"u{array.itemsize}" if array.itemsize in _POISON else "u1"
    return np.argwhere(array.view(bits) == clean.view(bits)[0])
