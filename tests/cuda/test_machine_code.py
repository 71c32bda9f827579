"""The code of every kernel, for four architectures: no register goes to memory, and the main loop is what it should be.

Shares are counted in PTX, a proxy for machine code: `cuda.conv_direct` tells what a disassembler counted.
"""

import re
from typing import Any

import pytest
from emulator import ARCHITECTURES, compiled, needs_target
from machine_code import SHARED_MEMORY, blocks_of_multiprocessor, main_loop, needs_ptxas, resources

from fastconv.cuda.conv_direct_plan import DEPTH, TILE_IN_PARTS, TILES

needs_target()
needs_ptxas()

from fastconv.cuda import (  # noqa: E402 - needs the target
    conv_depthwise_kernels as depthwise,
    conv_direct_kernels as kernels,
    elements,
    pool_kernels,
)

PRODUCTS = {
    **{f"forward {tile.rows}x{tile.columns}": (kernels.forward, (tile,)) for tile in TILES},
    **{f"grad_weight {tile.rows}x{tile.columns}": (kernels.grad_weight, (tile,)) for tile in TILES},
}
OTHERS = {
    "sum_parts": elements.sum_parts,
    "swap_channels": kernels.swap_channels,
    "depthwise": depthwise.forward,
    "depthwise grad_weight": depthwise.grad_weight,
    "extreme pool": pool_kernels.extreme,
    "average pool": pool_kernels.average,
    "extreme pool backward": pool_kernels.extreme_backward,
    "fill_zeros": elements.fill_zeros,
}
# four channels at a time on every architecture; one at a time where the code generators differ
SINGLE_ARCHITECTURES = ("sm_80", "sm_100")


def check(kernel: Any, architecture: str, shared_memory: int = SHARED_MEMORY) -> str:
    """What holds for every kernel; its PTX."""
    ptx = compiled(kernel, architecture)
    used = resources(ptx, architecture)
    assert used.stack == used.spilled == 0
    assert ".local" not in ptx
    assert not re.search(r"\.f64\b", ptx)
    assert not re.search(r"\b(div|rem)\.[su]64", ptx)
    assert not re.search(r"\bcall\b", ptx)
    assert not re.search(r"\b(atom|red)\.", ptx)
    assert blocks_of_multiprocessor(used, kernel.threads, shared_memory) >= kernel.residents >= 2
    return ptx


def count(lines: list[str], instruction: str) -> int:
    return sum(instruction in line for line in lines)


def check_products(ptx: str, tile: Any, vector: bool, least_share: float) -> None:
    """Every product of a turn once, factors four at a time, and loads from memory four at a time where they can be."""
    everything = ptx.splitlines()
    products = DEPTH * 8 * tile.width
    assert count(everything, "fma.rn.ftz.f32") == products
    assert count(everything, "ld.shared.v4") == count(everything, "ld.shared") == DEPTH * (2 + tile.width // 4)
    assert count(everything, "bar.sync") + count(everything, "barrier.sync") == 1
    if ".target sm_100" in ptx:
        return  # its code generator puts parts of the loop behind it, where text does not show what belongs to it
    loop = main_loop(ptx)
    assert products / len(loop) >= least_share
    vectors = count(loop, "ld.global.v4")
    if vector:
        # of x, of the other factor, and of the table of taps where it is read in the loop
        of_x = tile.rows * DEPTH // 4 // tile.threads
        assert of_x + 1 <= vectors == count(loop, "ld.global.") <= of_x + 2
    else:
        assert count(loop, "ld.global.") - vectors == (tile.rows + tile.columns) * DEPTH // tile.threads


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("name", PRODUCTS)
def test_four_channels_at_a_time(name: str, architecture: str) -> None:
    make, (tile,) = PRODUCTS[name]
    check_products(check(make(tile, True), architecture), tile, True, 0.7 if tile.width == 8 else 0.55)


@pytest.mark.parametrize("architecture", SINGLE_ARCHITECTURES)
@pytest.mark.parametrize("name", PRODUCTS)
def test_one_channel_at_a_time(name: str, architecture: str) -> None:
    make, (tile,) = PRODUCTS[name]
    check_products(check(make(tile, False), architecture), tile, False, 0.6 if tile.width == 8 else 0.4)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_sums_in_parts(architecture: str) -> None:
    ptx = check(kernels.forward(TILE_IN_PARTS, True, True), architecture)
    check_products(ptx, TILE_IN_PARTS, True, 0.5)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("name", OTHERS)
def test_element_by_element(name: str, architecture: str) -> None:
    check(OTHERS[name](), architecture)


def test_spills_are_seen() -> None:
    """The guard fails where it should: a tile that must share a multiprocessor with too many others."""
    kernel = kernels.forward(TILES[0], True)._replace(residents=4)
    assert resources(compiled(kernel, "sm_80"), "sm_80").spilled > 0
