"""Kernels with one thread for each element, and what they share: the index, and places from positions."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from fastconv.cuda.device import Engine, Kernel, target
from fastconv.cuda.kernels.intrinsics import divide, store
from fastconv.cuda.kernels.windows import add_each, load_columns, places, there

cuda = target()
types = cuda.types
float32, float64, int32, int64 = types.float32, types.float64, types.int32, types.int64

#: A block of threads with one element each, and how many of them a multiprocessor is to hold.
THREADS, RESIDENTS = 256, 4
#: Flat arrays of a kernel's signature.
NUMBERS, SUMS, TABLE, POSITIONS = (types.Array(kind, 1, "C") for kind in (float32, float64, int32, int64))
#: Chains that `sum_chains` loads together.
_CHAINS_OF_RUN = 16
#: Positions that are divided in a kernel are 32-bit integers.
LARGEST = 2**31 - 2**16


def told(problem: Any) -> Any:
    """The type of a NamedTuple of 32-bit integers."""
    return types.NamedUniTuple(int32, len(problem._fields), problem)


@cuda.jit(device=True)
def element():
    """The index of this thread's element."""
    return int64(cuda.blockIdx.x) * THREADS + cuda.threadIdx.x


@cuda.jit(device=True)
def split_in_three(number, middle, inner):
    """(outer, middle, inner) index of a position in a sequence: a pixel (n, oh, ow), or a block."""
    rest = divide(number, inner)
    outer = divide(rest, middle)
    return outer, int32(rest - outer * middle), int32(number - rest * inner)


@cuda.jit(device=True)
def remainder(number, divisor):
    """What is left of a position: its channel, where *divisor* is the number of channels."""
    return int32(number - divide(int32(number), divisor) * divisor)


def check_size(*arrays: Any) -> None:
    """Raise ValueError for an array whose positions do not fit."""
    for array in arrays:
        if array.size >= LARGEST:
            raise ValueError(f"this kernel of the GPU takes fewer than {LARGEST} numbers. Received: {array.size}")


def kernel_of_elements(function: Any, *arguments: Any) -> Kernel:
    """The kernel that runs *function* for each element."""
    return Kernel(function, types.void(*arguments), THREADS, RESIDENTS)


def launch(engine: Engine, kernel: Kernel, elements: int, *arguments: Any) -> None:
    """Run *kernel* with a thread for each element."""
    engine.launch(kernel, -(-elements // THREADS), *arguments)


@lru_cache
def fill_zeros() -> Kernel:
    """The kernel that writes zeros."""

    def write_zeros(out):
        i = element()
        if i < out.size:
            out[i] = float32(0)

    return kernel_of_elements(write_zeros, NUMBERS)


@lru_cache
def sum_parts() -> Kernel:
    """The kernel that adds the partial sums of a gradient."""

    def sum_of_parts(partial, out, parts):
        """``out = partial[0] + partial[1] + ...``, in this order."""
        i = int32(element())
        if i < out.size:
            total = partial[i]
            for part in range(1, parts):
                total += partial[part * out.size + i]
            out[i] = total

    return kernel_of_elements(sum_of_parts, NUMBERS, NUMBERS, int32)


@lru_cache
def sum_chains() -> Kernel:
    """The kernel that adds the chains of each split."""

    places_of, there_of, load_chains = places(_CHAINS_OF_RUN), there(_CHAINS_OF_RUN), load_columns(1)
    add_chains = add_each(True)

    def sums_of_chains(chains, partial, starts, numbers):
        """``partial[split] = chains[starts[split]] + ...`` up to ``starts[split + 1]``, in this order.

        As many chains at a time as hide how long their loads take: there are few threads.
        """
        i = int32(element())
        if i < partial.size:
            split = divide(i, numbers)
            place = int32(i - split * numbers)
            last = starts[split + 1]
            # what a number is added to without being changed, -0 neither
            total = (float32(-0.0),)
            for chain in range(starts[split], last, _CHAINS_OF_RUN):
                some = load_chains(chains, place, places_of(int32(chain), 1, last, numbers))
                total = add_chains(total, some, there_of(int32(chain), 1, last))
            store(partial, i, total)

    return kernel_of_elements(sums_of_chains, NUMBERS, NUMBERS, TABLE, int32)
