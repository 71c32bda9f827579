"""The code of every kernel, for four architectures: no register goes to memory, and the main loop is what it should be.

Where a disassembler is installed, the main loops of the products are counted in machine code as well.
"""

import re
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from emulator import ARCHITECTURES, compiled, needs_target
from machine_code import (
    SHARED_MEMORY,
    blocks_of_multiprocessor,
    machine_loop,
    main_loop,
    needs_nvdisasm,
    needs_ptxas,
    resources,
)

from fastconv.cpu.activation import ACTIVATIONS
from fastconv.cuda import resources as written_down
from fastconv.cuda.conv_direct_plan import NARROW, QUAD, TILE_IN_PARTS, TILES, WEIGHT_TILES, Tile
from fastconv.cuda.device import Kernel

needs_target()
needs_ptxas()

from fastconv.cuda.kernels import (  # noqa: E402 - needs the target
    activation,
    arithmetic,
    conv_depthwise as depthwise,
    conv_direct as kernels,
    copies,
    dropout,
    elements,
    normalization,
    norms,
    pool as pool_kernels,
    rectify,
    reduction,
    scores,
    softmax,
    total,
    transpose,
    update,
)


def name_of(tile: Tile) -> str:
    return f"{tile.rows}x{tile.columns} by {tile.threads}"


PRODUCTS = {
    **{f"forward {name_of(tile)}": (kernels.forward, (tile,)) for tile in TILES},
    **{f"grad_weight {name_of(tile)}": (kernels.grad_weight, (tile,)) for tile in WEIGHT_TILES},
}
OTHERS = {
    "sum_parts": elements.sum_parts,
    "swap_channels": kernels.swap_channels,
    "fill_zeros": elements.fill_zeros,
    "sum_chains": elements.sum_chains,
}
# channels of a load, and columns of a window that are loaded together
POOLS = (4, 2), (4, 3), (4, pool_kernels.RUN), (1, pool_kernels.RUN)
# the kernels of depthwise convolution and of pooling
WINDOWS = {
    **{f"depthwise {lanes}": partial(depthwise.forward, lanes) for lanes in written_down.DEPTHWISE},
    **{f"depthwise windows {form}": partial(depthwise.window, *form) for form in written_down.DEPTHWISE_WINDOWS},
    **{
        f"depthwise grad_weight {form}": partial(depthwise.grad_weight, *form)
        for form in written_down.DEPTHWISE_GRAD_WEIGHT
    },
    **{f"extreme pool {form}": partial(pool_kernels.extreme, *form) for form in POOLS},
    **{f"average pool {form}": partial(pool_kernels.average, *form) for form in POOLS},
    **{f"extreme pool backward {lanes}": partial(pool_kernels.extreme_backward, lanes) for lanes in (4, 1)},
}
# what a layer API needs besides convolutions and pooling: name -> kernel
LAYERS = {
    **{f"{name} forward": activation.forward(code) for name, code in ACTIVATIONS.items() if name},
    **{f"{name} backward": activation.backward(code) for name, code in ACTIVATIONS.items() if name},
    **{operation: arithmetic.combined(operation) for operation in ("add", "subtract", "multiply", "divide", "maximum")},
    **{operation: arithmetic.mapped(operation) for operation in ("absolute", "sign", "square", "exp")},
    "rectify": rectify.forward(),
    "rectify backward": rectify.backward(),
    "normalize": normalization.normalize(),
    "normalize backward": normalization.normalize_backward(),
    "batch mean": normalization.mean(),
    "batch scale": normalization.scale(),
    "batch slopes": normalization.slopes(),
    "dropout": dropout.dropout(True),
    "dropout, misaligned": dropout.dropout(False),
    "sgd": update.sgd(False),
    "sgd, nesterov": update.sgd(True),
    "adam": update.adam(),
    "rmsprop": update.rmsprop(),
    "fill": copies.fill(),
    "convert": copies.convert("uint8"),
    "window": copies.window(),
    "copy_runs": copies.copy_runs(),
    "right_class": scores.right_class(True),
    "right_class of rows": scores.right_class(False),
    "right_side": scores.right_side(),
    "scatter": pool_kernels.scatter(),
    "take": pool_kernels.take(),
    "within_top": scores.within_top(True),
    "within_top of rows": scores.within_top(False),
    "positives": scores.positives(),
    "hits": total.hits(),
    "counts": total.counts(),
    "gather": transpose.gather(False),
    "transpose": transpose.transpose(False),
    "transpose of positions": transpose.transpose(True),
}
IN_FLOAT64 = {
    "column_sums": reduction.sums(),
    "column_products": reduction.products(),
    "folded_sums": reduction.folded_sums(),
    "total_sums": reduction.total_sums(),
    "softmax": softmax.forward(False),
    "log softmax": softmax.forward(True),
    "softmax backward": softmax.backward(),
    "losses": softmax.losses(True),
    "losses of rows": softmax.losses(False),
    "logit_gradients": softmax.logit_gradients(True),
    "logit_gradients of rows": softmax.logit_gradients(False),
    "log1p": arithmetic.mapped("log1p"),
    "numbers": total.numbers(),
    "squares": total.squares(),
    "sums": total.sums(),
    "factor of a norm": norms.factor(),
}
# Bytes of shared memory on an A100, in one multiprocessor, and for one block without asking for more.
LARGER_SHARED_MEMORY, SHARED_MEMORY_OF_BLOCK = 164 * 1024, 48 * 1024
# four channels at a time on every architecture; one at a time where the code generators differ
SINGLE_ARCHITECTURES = ("sm_80", "sm_100")


def check(kernel: Any, architecture: str, shared_memory: int = SHARED_MEMORY, *, float64: bool = False) -> str:
    """What holds for every kernel; its PTX."""
    ptx = compiled(kernel, architecture)
    used = resources(ptx, architecture)
    assert used.shared <= SHARED_MEMORY_OF_BLOCK
    assert used.stack == used.spilled == 0
    assert ".local" not in ptx
    assert float64 or not re.search(r"\.f64\b", ptx)
    assert not re.search(r"\b(div|rem)\.[su]64", ptx)
    assert not re.search(r"\bcall\b", ptx)
    assert not re.search(r"\b(atom|red)\.", ptx)
    assert blocks_of_multiprocessor(used, kernel.threads, shared_memory) >= kernel.residents >= 2
    return ptx


def count(lines: list[str], instruction: str) -> int:
    return sum(instruction in line for line in lines)


def runs_of_four(tile: Tile) -> int:
    """Loads of four factors for one number of the chain; a tile with fewer rows a thread has one of two besides."""
    return tile.height // QUAD + tile.width // QUAD


def check_products(kernel: Kernel, architecture: str, tile: Tile, vector: bool, least_share: float) -> None:
    """Every product of a turn once, factors four at a time, and loads from memory four at a time where they can be."""
    ptx = check(kernel, architecture, LARGER_SHARED_MEMORY)
    everything = ptx.splitlines()
    products = tile.depth * tile.height * tile.width
    assert count(everything, "fma.rn.ftz.f32") == products
    assert count(everything, "ld.shared.v4") == tile.depth * runs_of_four(tile)
    assert count(everything, "ld.shared") == tile.depth * -(-(tile.height + tile.width) // QUAD)
    assert count(everything, "bar.sync") + count(everything, "barrier.sync") == 1
    if ".target sm_100" in ptx:
        return  # its code generator puts parts of the loop behind it, where text does not show what belongs to it
    loop = main_loop(ptx)
    assert products / len(loop) >= least_share
    vectors = count(loop, "ld.global.v4")
    if vector:
        # of x, of the other factor, and of the table of taps where it is read in the loop
        loads = (tile.rows + tile.columns) * tile.depth // QUAD // tile.threads
        assert loads <= vectors == count(loop, "ld.global.") <= loads + tile.depth // QUAD // 2
    else:
        assert count(loop, "ld.global.") - vectors == (tile.rows + tile.columns) * tile.depth // tile.threads


# of products in a main loop of PTX, by the sums of a thread
LEAST_SHARES = {64: 0.7, 32: 0.6, 8: 0.5}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("name", PRODUCTS)
def test_four_channels_at_a_time(name: str, architecture: str) -> None:
    make, (tile,) = PRODUCTS[name]
    check_products(make(tile, True), architecture, tile, True, LEAST_SHARES[tile.height * tile.width])


@pytest.mark.parametrize("architecture", SINGLE_ARCHITECTURES)
@pytest.mark.parametrize("name", PRODUCTS)
def test_one_channel_at_a_time(name: str, architecture: str) -> None:
    make, (tile,) = PRODUCTS[name]
    check_products(make(tile, False), architecture, tile, False, LEAST_SHARES[tile.height * tile.width] - 0.1)


@pytest.mark.parametrize("tile", TILES, ids=name_of)
def test_only_columns_four_at_a_time(tile: Tile) -> None:
    check(kernels.forward(tile, False, False, True), "sm_90", LARGER_SHARED_MEMORY)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_sums_in_parts(architecture: str) -> None:
    check_products(kernels.forward(TILE_IN_PARTS, True, True), architecture, TILE_IN_PARTS, True, 0.5)
    check(kernels.forward(NARROW, True, True), architecture, LARGER_SHARED_MEMORY)


# What is written down is of sm_90; on sm_80 a turn has a few instructions more or less beside the products.
SHARE_TOLERANCE = 0.02


@pytest.mark.parametrize(("architecture", "vector"), [("sm_80", True), ("sm_80", False), ("sm_90", True)])
@pytest.mark.parametrize("name", PRODUCTS)
def test_machine_code_of_products(name: str, architecture: str, vector: bool) -> None:
    """Every product of a turn is one instruction, and what else there is leaves it the share that is written down."""
    needs_nvdisasm()
    make, (tile,) = PRODUCTS[name]
    forward = make is kernels.forward
    loop = machine_loop(compiled(make(tile, vector), architecture), architecture)
    products = tile.depth * tile.height * tile.width
    of_x, of_other = (extent * tile.depth // tile.threads for extent in (tile.rows, tile.columns))
    run = 4 if vector else 1
    assert opcodes(loop, "FFMA") == opcodes(loop, "FFMA.FTZ") == products
    assert opcodes(loop, "LDS.128") == tile.depth * runs_of_four(tile)
    assert opcodes(loop, "LDS") == tile.depth * -(-(tile.height + tile.width) // QUAD)
    # forward turns x over, number by number
    assert opcodes(loop, "STS") == (of_x if forward else of_x // run) + of_other // run
    assert opcodes(loop, "BAR") == 1
    # no calls either, but ptxas for sm_80 jumps out of a loop by one that does not return
    assert not any(opcodes(loop, name) for name in ("LDL", "STL", "BRX", "RET"))
    table = written_down.FORWARD if forward else written_down.GRAD_WEIGHT
    share = products / len(loop)
    assert share == pytest.approx(table[tile, vector].share, abs=SHARE_TOLERANCE)
    if vector and (tile.height, tile.width) == (8, 8):
        assert share >= 0.79


def opcodes(loop: list[str], name: str) -> int:
    """Instructions of this name, with any modifiers behind it."""
    return sum(f"{opcode}.".startswith(f"{name}.") for opcode in loop)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("name", OTHERS)
def test_element_by_element(name: str, architecture: str) -> None:
    check(OTHERS[name](), architecture)


@pytest.mark.parametrize("architecture", SINGLE_ARCHITECTURES)
@pytest.mark.parametrize("name", WINDOWS)
def test_window_by_window(name: str, architecture: str) -> None:
    check(WINDOWS[name](), architecture)


@pytest.mark.parametrize("form", [(3, 1), (5, 2)])
def test_products_of_windows_in_machine_code(form: tuple[int, int]) -> None:
    """A product is one instruction, predicated where its column may lie outside, and few others come with it.

    With 16 results of a thread, the turns of three rows of three taps are 20 instructions for each.
    """
    needs_nvdisasm()
    extent, step = form
    loop = machine_loop(compiled(depthwise.window(*form), "sm_90"), "sm_90")
    assert opcodes(loop, "FFMA") == depthwise.PIXELS * 4 * extent
    assert opcodes(loop, "LDG.E.128") == opcodes(loop, "LDG") == (depthwise.PIXELS - 1) * step + 2 * extent
    assert opcodes(loop, "FFMA") / len(loop) > 0.42
    assert not any(opcodes(loop, name) for name in ("FSEL", "LDL", "STL"))


def contractions(ptx: str) -> list[str]:
    """Sums of a product that ptxas may fuse with it: both without ``.rn``, so that it chooses the rounding."""
    products: set[str] = set()
    found = []
    for line in ptx.splitlines():
        parts = re.match(r"\s*(?:@!?%p\d+ )?([a-z][\w.]*)\s+(%\w+), (.*);", line)
        if parts is None:
            continue
        opcode, result, operands = parts.groups()
        read = set(re.findall(r"%\w+", operands))
        is_product = re.fullmatch(r"mul(\.ftz)?\.f(32|64)", opcode) is not None
        passes_one_on = re.fullmatch(r"(mov|neg|abs)\.[bf](32|64)", opcode) is not None and read & products
        if is_product or passes_one_on:
            products.add(result)
        elif re.fullmatch(r"(add|sub)(\.ftz)?\.f(32|64)", opcode) and read & products:
            found.append(line.strip())
    return found


@pytest.mark.parametrize("architecture", SINGLE_ARCHITECTURES)
@pytest.mark.parametrize("name", [*LAYERS, *IN_FLOAT64])
def test_kernels_of_layers(name: str, architecture: str) -> None:
    ptx = check({**LAYERS, **IN_FLOAT64}[name], architecture, float64=name in IN_FLOAT64)
    assert not contractions(ptx)


def test_contractions_are_seen() -> None:
    ptx = "mul.f32 %f3, %f1, %f2;\nneg.f32 %f4, %f3;\nadd.f32 %f5, %f4, %f1;\nadd.f32 %f6, %f1, %f2;"
    assert contractions(ptx) == ["add.f32 %f5, %f4, %f1;"]
    assert not contractions(ptx.replace("mul.f32", "mul.rn.f32"))


def test_spills_are_seen() -> None:
    """The guard fails where it should: a tile that must share a multiprocessor with too many others."""
    kernel = replace(kernels.forward(TILES[0], True), residents=4)
    assert resources(compiled(kernel, "sm_80"), "sm_80").spilled > 0
