"""The machine code of the main loops, for CPUs that this one need not be: compiled, not run."""

import platform

import pytest

pytestmark = pytest.mark.skipif(
    platform.machine().lower() not in ("x86_64", "amd64"), reason="LLVM compiles here for another kind of processor"
)

COMPILED = """
import re
from numba import types
from fastconv import _jit
from fastconv.cpu import conv_winograd, product, simd, tiles
from fastconv.cpu.product import TILE_ROWS, TILE_VECTORS

multiply = product.placed_product(TILE_VECTORS)

@_jit.kernel
def placed(left, places, panel, sums, length):
    left, places, panel, sums = simd.span(left), simd.span(places), simd.span(panel), simd.span(sums)
    tile = tiles.zeros(sums, TILE_ROWS, TILE_VECTORS)
    tile = multiply(tile, left, places, 0, 0, length, panel, 0)
    tiles.store(tile, sums, 0, TILE_VECTORS * simd.lane_count(sums))

@_jit.kernel
def stepped(left, panel, sums, length, next_rows):
    panel, sums = simd.span(panel), simd.span(sums)
    conv_winograd._multiply(simd.span(left), 0, panel, 0, sums, 0, 64, length, True, TILE_ROWS, 64, 0, next_rows)

numbers, integers = types.Array(types.float32, 1, "C"), types.Array(types.int64, 1, "C")
for kernel, kinds in [
    (placed, (numbers, integers, numbers, numbers, types.intp)),
    (stepped, (numbers, numbers, numbers, types.intp, types.intp)),
]:
    kernel.compile(kinds)
    lines = kernel.inspect_asm(kernel.signatures[0]).splitlines()
    labels = {line[:-1]: number for number, line in enumerate(lines) if line.startswith(".L")}
    loops = []
    for end, line in enumerate(lines):
        jump = re.match(r"\\s+j\\w+\\s+(\\.L\\w+)", line)
        if jump and labels.get(jump[1], end) < end:
            loops.append(lines[labels[jump[1]] : end])
    # the loop with the largest share of multiply-adds
    loop = max(loops, key=lambda part: sum("vfmadd" in line for line in part) / len(part))
    vectors = [line for line in loop if re.search("%[xyz]mm", line)]
    print(
        *[sum(name in line for line in vectors) for name in ("vfmadd", "vbroadcast", "vmovup", "rsp")],
        "+".join(sorted({register[:3] for line in vectors for register in re.findall("[xyz]mm", line)})),
    )
"""


@pytest.mark.parametrize(("cpu", "rows", "register"), [("haswell", 6, "ymm"), ("skylake-avx512", 14, "zmm")])
def test_a_product_is_multiply_adds_and_their_loads_alone(run_python, cpu, rows, register):
    """A step of a tile: two vectors loaded, a number of each row broadcast, all sums in registers of the full width.

    Numba would give a named CPU the features of this one, so it is told to leave them alone; and checks of bounds are
    loads, too.
    """
    code = run_python(COMPILED, NUMBA_CPU_NAME=cpu, NUMBA_CPU_FEATURES="+avx2", NUMBA_BOUNDSCHECK=None)
    assert code.splitlines() == [f"{2 * rows} {rows} 2 0 {register}"] * 2


def test_a_named_cpu_has_no_wider_vectors_than_this_one(run_python):
    """Numba compiles for it with the features of this one."""
    source = "from fastconv.cpu import codegen; print(codegen.VECTOR_BYTES)"
    own, named = (
        int(run_python(source, NUMBA_CPU_NAME=name, NUMBA_CPU_FEATURES=None)) for name in (None, "skylake-avx512")
    )
    assert named == own


STREAMED = """
from numba import types
from fastconv import _jit
from fastconv.cpu import simd, tiles

@_jit.tasks
def moved(x, out, stream):
    tiles.put(tiles.load(simd.span(x), 0, 64, 3, 2), simd.span(out), 0, 64, stream)

@_jit.kernel
def driver(x, out, stream):
    moved(x, out, stream)

numbers = types.Array(types.float32, 1, "C")
driver.compile((numbers, numbers, types.boolean))
tasks, calls = (one.inspect_asm(one.signatures[0]) for one in (_jit._tasks["__main__.moved"], driver))
print(tasks.count("vmovntps"), "mfence" in calls or "lock" in calls)
"""


def test_what_goes_past_the_caches_is_written_by_the_instruction_for_that(run_python):
    assert run_python(STREAMED, NUMBA_CPU_NAME="haswell", NUMBA_CPU_FEATURES="+avx2").split() == ["6", "True"]
