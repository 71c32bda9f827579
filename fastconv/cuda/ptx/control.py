"""Basic blocks, and an order of them in which diverged threads meet again.

The scheduler always runs the lowest block that has threads.  For threads that took different branches to meet where
the branches join, a block must come after everything that can lead to it, and a loop must come as a whole before what
follows it.  Bourdoncle's *weak topological order* is that order: strongly connected components (loops) in topological
order, each one headed by its entry and ordered inside in the same way ("Efficient chaotic iteration strategies with
widenings", FMPA 1993, figure 4).  The order of the text would not do: compilers move unlikely blocks to the end.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

from fastconv.cuda.ptx.faults import ParseError
from fastconv.cuda.ptx.parse import Instruction, Kernel

# Instructions after which a thread may be elsewhere, or waits.
_ENDS = {"bra", "brx", "ret", "exit", "trap", "bar", "barrier"}


@dataclass(frozen=True)
class Block:
    """Straight-line instructions, the last one perhaps a branch, an exit or a barrier; the numbers of what follows."""

    body: tuple[Instruction, ...]
    end: Instruction | None
    following: int | None
    targets: tuple[int, ...]


def ends_block(instruction: Instruction) -> bool:
    """Whether threads may part after this instruction."""
    return instruction.parts[0] in _ENDS and "warp" not in instruction.parts


def blocks_of(kernel: Kernel) -> list[Block]:
    """The blocks of a kernel, numbered in the order in which they are to be scheduled; the first one is the entry."""
    code = kernel.instructions
    starts = {0, *kernel.labels.values()}
    starts.update(index + 1 for index, instruction in enumerate(code) if ends_block(instruction))
    cuts = sorted(start for start in starts if start < len(code))
    number = {start: index for index, start in enumerate(cuts)}
    rough = []
    for start, stop in zip(cuts, [*cuts[1:], len(code)], strict=True):
        last = code[stop - 1]
        end = last if ends_block(last) else None
        body = tuple(code[start : stop - 1 if end else stop])
        targets = tuple(number[kernel.labels[label]] for label in _labels(kernel, end))
        falls_through = end is None or end.guard is not None or end.parts[0] in ("bar", "barrier")
        following = number.get(stop) if falls_through else None
        rough.append(Block(body, end, following, targets))
    order = _weak_topological_order([_successors(block) for block in rough])
    place = {old: new for new, old in enumerate(order)}
    return [
        Block(
            block.body,
            block.end,
            None if block.following is None else place[block.following],
            tuple(place[target] for target in block.targets),
        )
        for block in (rough[old] for old in order)
    ]


def _labels(kernel: Kernel, end: Instruction | None) -> list[str]:
    if end is None:
        return []
    if end.parts[0] == "bra":
        return [str(end.operands[0])]
    if end.parts[0] == "brx":
        table = str(end.operands[1])
        if table not in kernel.branch_targets:
            raise ParseError(f"line {end.line}: no .branchtargets named {table!r}")
        return kernel.branch_targets[table]
    return []


def _successors(block: Block) -> list[int]:
    found = list(block.targets)
    return found if block.following is None else [*found, block.following]


def _weak_topological_order(successors: list[list[int]]) -> list[int]:
    """Bourdoncle's algorithm: Tarjan's components, each taken apart again without its head."""
    infinity = sys.maxsize
    number = [0] * len(successors)
    stack: list[int] = []
    count = 0

    def visit(vertex: int, partition: list[int]) -> int:
        nonlocal count
        stack.append(vertex)
        count += 1
        head = number[vertex] = count
        loop = False
        for successor in successors[vertex]:
            lowest = number[successor] or visit(successor, partition)
            if lowest <= head:
                head, loop = lowest, True
        if head == number[vertex]:
            number[vertex] = infinity
            element = stack.pop()
            if loop:
                while element != vertex:
                    number[element] = 0
                    element = stack.pop()
                inside: list[int] = []
                for successor in successors[vertex]:
                    if number[successor] == 0:
                        visit(successor, inside)
                partition[:0] = [vertex, *inside]
            else:
                partition.insert(0, vertex)
        return head

    order: list[int] = []
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(max(limit, 20 * len(successors) + 1000))
    try:
        visit(0, order)
    finally:
        sys.setrecursionlimit(limit)
    return order
