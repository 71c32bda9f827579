"""The code of the tensor core kernels: nothing in local memory, and every instruction of the main loop counted."""

import re
from typing import Any

import pytest
from emulator import ARCHITECTURES, needs_target
from machine_code import main_loop, needs_ptxas
from test_machine_code import check

from fastconv.cuda.conv_tensorcore_plan import (
    BF16,
    CHUNKS,
    FP16,
    PRECISIONS,
    TF32,
    TILES,
    TILES_BY_REGISTERS,
    WEIGHT_TILES,
    Precision,
    Tile,
)

needs_target()
needs_ptxas()

from fastconv.cuda.kernels import conv_tensorcore as kernels  # noqa: E402 - needs the target

#: Shared memory of a multiprocessor, less what the system takes of it for every block that it is to hold at most.
_OF_SYSTEM = 8 * 1024
SHARED = {"sm_75": 64 * 1024, "sm_80": 164 * 1024 - _OF_SYSTEM, "sm_90": 228 * 1024 - _OF_SYSTEM}
SHARED["sm_100"] = SHARED["sm_90"]
BOTH = ("sm_80", "sm_100")

# all precisions and tiles, but not all pairs, for one architecture of each code generator; the largest tile for others
FORWARD = [
    *((architecture, TILES[0], precision) for architecture in BOTH for precision in (TF32, BF16, FP16)),
    *((architecture, tile, FP16) for architecture in BOTH for tile in TILES[1:]),
    ("sm_90", TILES[0], TF32),
    *(("sm_75", tile, FP16) for tile in TILES_BY_REGISTERS),
]
GRAD_WEIGHT = [
    *((architecture, tile, precision) for architecture in BOTH for tile in WEIGHT_TILES for precision in (TF32, FP16)),
    ("sm_90", WEIGHT_TILES[0], TF32),
    ("sm_75", WEIGHT_TILES[1], FP16),
]


def name(parameter: Any) -> str:
    if isinstance(parameter, Tile):
        return f"{parameter.rows}x{parameter.columns}"
    return parameter.name if isinstance(parameter, Precision) else str(parameter)


class Turn:
    """How often an instruction occurs in a turn; a compiler may have put several turns in a row, each has a barrier."""

    def __init__(self, ptx: str) -> None:
        self.loop = main_loop(ptx, "mma.sync")
        self.turns = self._occurrences(r"\bbar(rier)?\.sync")
        assert self.turns in (1, 2)

    def _occurrences(self, pattern: str) -> int:
        return sum(bool(re.search(pattern, line)) for line in self.loop)

    def __call__(self, pattern: str) -> float:
        return self._occurrences(pattern) / self.turns


@pytest.mark.parametrize(("architecture", "tile", "precision"), FORWARD, ids=name)
def test_forward(architecture: str, tile: Tile, precision: Precision) -> None:
    asynchronous = architecture != "sm_75"
    count = Turn(check(kernels.forward(tile, precision, asynchronous), architecture, SHARED[architecture]))
    steps, down, across = 2, tile.warp_rows // 16, tile.warp_columns // 8
    products = steps * down * across * (1 if asynchronous else 2)
    forms = {"tf32": r"m16n8k8\S*tf32", "bf16": r"m16n8k16\S*bf16", "fp16": r"m16n8k16\S*f16"}
    assert count(forms[precision.name] if asynchronous else r"m16n8k8\S*f16") == products
    assert count(r"mma\.sync") == products
    assert count(r"ldmatrix\S*\.x4") == count("ldmatrix") == steps * (down + across // 2)
    roundings = steps * down * 4 if precision == TF32 else 0
    assert count(r"cvt\.rna\.tf32") == roundings
    copies = (tile.rows + tile.columns) * CHUNKS // tile.threads
    if asynchronous:
        assert count(r"cp\.async\.ca\.shared\.global") == copies
        assert count(r"cp\.async\.commit_group") == count(rf"cp\.async\.wait_group\s+{tile.stages - 2};") == 1
        assert count(r"ld\.global") == count(r"\b(st|ld)\.shared") == 0
    else:
        assert count(r"ld\.global") == count(r"ld\.global\.v4") == copies
        assert count(r"st\.shared") == count(r"st\.shared\.v4") == copies
    others = count("") - products - roundings
    assert others <= (120 if tile.warp_rows == 64 else 135)


@pytest.mark.parametrize(("architecture", "tile", "precision"), GRAD_WEIGHT, ids=name)
def test_grad_weight(architecture: str, tile: Tile, precision: Precision) -> None:
    asynchronous, tf32 = architecture != "sm_75", precision == TF32
    count = Turn(check(kernels.grad_weight(tile, precision, asynchronous), architecture, SHARED[architecture]))
    steps, down, across = 2, tile.warp_rows // 16, tile.warp_columns // 8
    products = steps * down * across * (1 if asynchronous else 2)
    assert count(r"mma\.sync") == products
    assert count(r"ldmatrix\S*\.x4\.trans") == count("ldmatrix") == (0 if tf32 else steps * (down + across // 2))
    # of 32 bits, every number of a fragment is loaded and rounded
    numbers = steps * (down * 4 + across * 2) if tf32 else 0
    assert count(r"\bld\.shared") == count(r"cvt\.rna\.tf32") == numbers
    assert count(r"\bbar(rier)?\.sync") == 1
    copies = 2 * tile.rows * CHUNKS // tile.threads
    if asynchronous:
        # of x and of grad_out
        assert count(r"cp\.async\.ca\.shared\.global") == count(r"cp\.async\.cg\.shared\.global") == copies / 2
        assert count(r"cp\.async\.commit_group") == count(rf"cp\.async\.wait_group\s+{tile.stages - 2};") == 1
        assert count(r"ld\.global") == count(r"\bst\.shared") == 0
    else:
        assert count(r"ld\.global") == count(r"ld\.global\.v4") == copies
        assert count(r"st\.shared") == count(r"st\.shared\.v4") == copies
    assert count("") - products - 2 * numbers <= (140 if asynchronous else 160)


@pytest.mark.parametrize("architecture", ["sm_75", "sm_80", "sm_100"])
def test_what_prepares_the_factors(architecture: str) -> None:
    for precision in PRECISIONS.values():
        if ARCHITECTURES[architecture] < precision.capability:
            continue
        if precision.name != "tf32":
            check(kernels.convert(precision), architecture)
        for transposed in (False, True):
            check(kernels.pack_weight(precision, transposed), architecture)
