"""The weight of the gradient: taps in reverse order, inputs and outputs exchanged.

``grad_x`` is a forward convolution over grad_out whose weight has the channels of each tap transposed.  NumPy copies a
transposed array number by number; here blocks of lanes x lanes numbers pass through registers, 10 times as fast, which
matters where a layer has more weights than pixels.
"""

from __future__ import annotations

from typing import Any

from numba import prange
from numpy.typing import NDArray

from fastconv import _jit, threads
from fastconv.cpu import product, simd, tiles
from fastconv.memory import empty

# Input channels of a task: two cache lines of float32, and whole vectors.
_CHANNELS_OF_TASK = 32
# Blocks between the one that is exchanged and the one whose rows are asked for: 512 -> 512 channels, 3x3, in 0.76 ms in
# place of 0.98; 8 blocks 0.80, 16 blocks 0.86 (one thread, Zen 5).  In new memory in place of kept memory 1.12.
_BLOCKS_AHEAD = 4


@_jit.tasks
def _swap_channels_tasks(weight, rows, columns, out, extents, first_task, last_task):
    """``out[t, u, oc, g * I + ic] = weight[rows[t], columns[u], ic, g * O + oc]``; a task: a few ic of a tap and group.

    Whole blocks of lanes x lanes go through registers, the rest one by one.  The blocks of a task lie side by side in
    out and are written together, because a cache line that is left half written may be gone when the other half comes.
    Each output element has one writer.
    """
    KW, I, O, G = extents  # noqa: E741 - channels of a group: I in, O out
    weight, out = simd.span(weight), simd.span(out)
    lanes = simd.lane_count(out)
    row_blocks = (I + _CHANNELS_OF_TASK - 1) // _CHANNELS_OF_TASK
    for task in range(first_task, last_task):
        first_ic = task % row_blocks * _CHANNELS_OF_TASK
        group = task // row_blocks % G
        tap = task // (row_blocks * G)
        source = (rows[tap // columns.size] * KW + columns[tap % columns.size]) * I * O * G + group * O
        target = tap * O * I * G + group * I
        last_ic = min(first_ic + _CHANNELS_OF_TASK, I)
        whole_ic = last_ic - (last_ic - first_ic) % lanes
        whole_oc = O - O % lanes
        for oc in range(0, whole_oc, lanes):
            for ic in range(first_ic, whole_ic, lanes):
                at = source + ic * O * G + oc
                product.fetch_rows(weight, at + _BLOCKS_AHEAD * lanes, O * G, lanes, lanes)
                tiles.transpose_block(weight, at, O * G, out, target + oc * I * G + ic, I * G)
        for oc in range(O):
            for ic in range(first_ic if oc >= whole_oc else whole_ic, last_ic):
                out[target + oc * I * G + ic] = weight[source + ic * O * G + oc]


@_jit.kernel
def swap_channels_serial(weight, rows, columns, out, extents, tasks):
    """All tasks; arrays are flat."""
    _swap_channels_tasks(weight, rows, columns, out, extents, 0, tasks)


@_jit.parallel_kernel
def swap_channels_parallel(workers, weight, rows, columns, out, extents, tasks):
    """The same tasks, an equal share for each worker."""
    for worker in prange(workers):
        first_task = tasks * worker // workers
        last_task = tasks * (worker + 1) // workers
        _swap_channels_tasks(weight, rows, columns, out, extents, first_task, last_task)


def swap_channels(weight: NDArray[Any], rows: NDArray[Any], columns: NDArray[Any], groups: int) -> NDArray[Any]:
    """The taps ``weight[rows][:, columns]`` of a (KH, KW, IC / G, OC) weight as a (rows, columns, OC / G, IC) one."""
    KW, ic_of_group, OC = weight.shape[1:]
    out = empty((rows.size, columns.size, OC // groups, ic_of_group * groups), weight.dtype)
    tasks = rows.size * columns.size * groups * -(-ic_of_group // _CHANNELS_OF_TASK)
    threads.run(
        swap_channels_serial,
        swap_channels_parallel,
        threads.worker_count(out.size),
        weight.reshape(-1),
        rows,
        columns,
        out.reshape(-1),
        (KW, ic_of_group, OC // groups, groups),
        tasks,
    )
    return out
