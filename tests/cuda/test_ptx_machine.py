"""The PTX machine: branches, barriers, shuffles, votes, atomics, memory; and the rules that it checks."""

from __future__ import annotations

import re

import numpy as np
import pytest
from text_kernels import SAMPLES, kernel, load_operand, store_result

from fastconv.cuda import ptx
from fastconv.cuda.ptx import launch, poison, unwritten
from fastconv.cuda.ptx.control import _weak_topological_order, blocks_of
from fastconv.cuda.ptx.parse import parse

LANES = np.arange(32)


def run(body: str, *arrays: np.ndarray, block: int | tuple[int, ...] = 32, grid: int = 1, **options):  # type: ignore[no-untyped-def]
    declarations = options.pop("declarations", "")
    return launch(kernel(body, len(arrays), declarations), grid, block, arrays, **options)


def ints(size: int = 32) -> np.ndarray:
    return poison(np.empty(size, np.int32))


# ---------------------------------------------------------------------------------------------- control flow
def test_branches_diverge_and_meet_again() -> None:
    out = ints()
    run(
        """
        and.b32 %r1, %t, 1;  setp.eq.u32 %p1, %r1, 0;
        @%p1 bra EVEN;
        mov.u32 %r2, 100;
        bra.uni JOIN;
        EVEN: mov.u32 %r2, 200;
        JOIN: activemask.b32 %r3;  add.u32 %r2, %r2, %t;
        popc.b32 %r4, %r3;  shl.b32 %r4, %r4, 16;  or.b32 %r2, %r2, %r4;
        """
        + store_result("%r2"),
        out,
    )
    assert (out & 0xFFFF == np.where(LANES % 2 == 0, 200, 100) + LANES).all()
    assert (out >> 16 == 32).all(), "all lanes of the warp are together at the join"


def test_threads_meet_behind_a_block_that_the_compiler_moved_to_the_end() -> None:
    """The order of the text would run JOIN before RARE has come back to it."""
    out = ints()
    run(
        """
        setp.eq.u32 %p1, %t, 5;  mov.u32 %r2, 1;
        @%p1 bra RARE;
        JOIN: activemask.b32 %r3;  popc.b32 %r3, %r3;  mad.lo.u32 %r2, %r2, 1000, %r3;
        """
        + store_result("%r2")
        + "ret; RARE: mov.u32 %r2, 7; bra JOIN;",
        out,
    )
    assert (out == np.where(LANES == 5, 7032, 1032)).all()


def test_loops_of_different_lengths() -> None:
    out = ints()
    counters = run(
        """
        mov.u32 %r1, 0;  mov.u32 %r2, 0;
        LOOP: setp.ge.u32 %p1, %r1, %t;
        @%p1 bra DONE;
        add.u32 %r1, %r1, 1;  add.u32 %r2, %r2, %r1;
        bra LOOP;
        DONE: activemask.b32 %r3;  setp.ne.u32 %p2, %r3, -1;  @%p2 mov.u32 %r2, -1;
        """
        + store_result("%r2"),
        out,
    )
    assert (out == LANES * (LANES + 1) // 2).all()
    assert counters.opcodes["setp.ge.u32"] == 32, "the warp goes round as often as its longest thread"


def test_loops_come_whole_before_what_follows() -> None:
    #      0 -> 1 <-> 2 -> 1, 1 -> 3 (exit), 2 -> 3
    assert _weak_topological_order([[1], [3, 2], [1, 3], []]) == [0, 1, 2, 3]
    # nested: 1 -> 2 -> 3 -> 2, 3 -> 1, 1 -> 4
    assert _weak_topological_order([[1], [4, 2], [3], [2, 1], []]) == [0, 1, 2, 3, 4]


def test_predicated_instructions_and_indexed_branches() -> None:
    out = ints()
    run(
        """
        and.b32 %r1, %t, 3;  mov.u32 %r2, 5;
        TABLE: .branchtargets ZERO, ONE, TWO, TWO;
        brx.idx %r1, TABLE;
        ZERO: mov.u32 %r2, 10;  bra END;
        ONE: mov.u32 %r2, 11;  bra END;
        TWO: setp.gt.u32 %p3, %r1, 2;  @!%p3 mov.u32 %r2, 12;
        END:
        """
        + store_result("%r2"),
        out,
    )
    assert (out == np.choose(LANES % 4, [10, 11, 12, 5])).all()


def test_exit_of_some_threads() -> None:
    out = ints(64)
    run("setp.ge.u32 %p1, %t, 40; @%p1 exit; bar.sync 0; mov.u32 %r1, 3;" + store_result("%r1"), out, block=64)
    assert (out[:40] == 3).all()
    assert len(unwritten(out)) == 24


def test_scopes_of_inline_assembly_have_registers_of_their_own() -> None:
    out = ints()
    run(
        "mov.u32 %r1, 1; { .reg .b32 x; mov.u32 x, 5; add.u32 %r1, %r1, x; } { .reg .b32 x; add.u32 %r1, %r1, x; }"
        + store_result("%r1"),
        out,
    )
    assert (out == 6).all()


def test_special_registers_and_three_dimensions() -> None:
    out = poison(np.empty(2 * 3 * 2 * 4 * 2 * 2, np.int32)).reshape(-1)
    body = """
        mov.u32 %r1, %tid.x;  mov.u32 %r2, %tid.y;  mov.u32 %r3, %tid.z;  mov.u32 %r4, %ntid.x;  mov.u32 %r5, %ntid.y;
        mad.lo.u32 %r6, %r3, %r5, %r2;  mad.lo.u32 %r6, %r6, %r4, %r1;
        mov.u32 %r7, %ctaid.x;  mov.u32 %r8, %ctaid.y;  mov.u32 %r9, %ctaid.z;  mov.u32 %r10, %nctaid.x;
        mov.u32 %r11, %nctaid.y;  mad.lo.u32 %r12, %r9, %r11, %r8;  mad.lo.u32 %r12, %r12, %r10, %r7;
        mov.u32 %r13, %ntid.z;  mul.lo.u32 %r14, %r4, %r5;  mul.lo.u32 %r14, %r14, %r13;
        mad.lo.u32 %r15, %r12, %r14, %r6;  mul.wide.u32 %d1, %r15, 4;  add.u64 %d1, %d1, %a0;
        st.global.u32 [%d1], %r15;
    """
    for batch in (1, 3, 16):
        poison(out)
        launch(kernel(body), (2, 3, 2), (4, 2, 2), [out[: 2 * 3 * 2 * 16]], batch=batch)
        assert (out == np.arange(192)).all(), batch


def test_both_predicates_of_a_comparison() -> None:
    out = ints()
    body = "setp.lt.u32 %p1, %t, 24; setp.lt.and.u32 %p1|%p2, %t, 8, %p1;"
    run(body + "selp.u32 %r1, 1, 0, %p1; selp.u32 %r2, 2, 0, %p2; add.u32 %r1, %r1, %r2;" + store_result("%r1"), out)
    assert (out == np.repeat([1, 2, 2, 0], 8)).all()


# ---------------------------------------------------------------------------------------------- warps
def test_shuffles() -> None:
    values = (LANES * 3 + 1).astype(np.int32)
    for mode, b, c, want in (
        ("down", 4, 31, np.where(LANES + 4 < 32, LANES + 4, LANES)),
        ("up", 3, 0, np.where(LANES >= 3, LANES - 3, LANES)),
        ("bfly", 5, 31, LANES ^ 5),
        ("idx", 9, 31, np.full(32, 9)),
        ("down", 2, 0x181F, np.where(LANES % 8 + 2 < 8, LANES + 2, LANES)),  # segments of 8
        ("idx", 1, 0x1C1F, LANES // 4 * 4 + 1),  # segments of 4
    ):
        out, valid = ints(), ints()
        run(
            load_operand("%r1", 2)
            + f"shfl.sync.{mode}.b32 %r2|%p1, %r1, {b}, {c}, -1; selp.u32 %r3, 1, 0, %p1;"
            + store_result("%r2")
            + store_result("%r3", 1),
            out,
            valid,
            values,
        )
        assert (out == values[want]).all(), mode
        inside = {"down": want != LANES, "up": want != LANES}.get(mode, np.ones(32, bool))
        assert (valid.astype(bool) == inside).all(), mode


def test_votes_match_and_reductions() -> None:
    values = (LANES % 5).astype(np.int32)
    out = ints(32)

    def result(text: str) -> np.ndarray:
        run(load_operand("%r1", 1) + "setp.lt.u32 %p1, %r1, 2;" + text + store_result("%r2"), out, values)
        return out.view(np.uint32)

    bits = sum(1 << int(lane) for lane in LANES[values < 2])
    assert (result("vote.sync.ballot.b32 %r2, %p1, -1;") == bits).all()
    assert (result("vote.sync.any.pred %p2, %p1, -1; selp.u32 %r2, 1, 0, %p2;") == 1).all()
    assert (result("vote.sync.all.pred %p2, %p1, -1; selp.u32 %r2, 1, 0, %p2;") == 0).all()
    assert (result("vote.sync.ballot.b32 %r2, !%p1, -1;") == bits ^ 0xFFFFFFFF).all()
    same = [sum(1 << int(other) for other in LANES[values == values[lane]]) for lane in LANES]
    assert (result("match.any.sync.b32 %r2, %r1, -1;") == same).all()
    assert (result("redux.sync.add.s32 %r2, %r1, -1;") == values.sum()).all()
    assert (result("redux.sync.max.u32 %r2, %r1, -1;") == 4).all()


def test_a_mask_may_name_a_part_of_the_warp() -> None:
    out = ints()
    run(
        "setp.lt.u32 %p1, %t, 16; mov.u32 %r2, 0; @!%p1 bra END; shfl.sync.bfly.b32 %r2, %t, 1, 31, 0xffff; END:"
        + store_result("%r2"),
        out,
    )
    assert (out == np.where(LANES < 16, LANES ^ 1, 0)).all()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("setp.lt.u32 %p1, %t, 8; @%p1 shfl.sync.down.b32 %r1, %t, 1, 31, -1;", "waits for lane 8"),
        ("setp.lt.u32 %p1, %t, 8; @%p1 shfl.sync.down.b32 %r1, %t, 1, 31, 0xff;", "reads the register of lane 8"),
        ("shfl.sync.down.b32 %r1, %t, 1, 31, 0xff;", "does not name it"),
        ("setp.lt.u32 %p1, %t, 8; @%p1 bar.warp.sync -1;", "waits for lane 8"),
    ],
)
def test_threads_missing_from_a_warp(text: str, message: str) -> None:
    with pytest.raises(ptx.WarpDivergence, match=message):
        run(text, ints())


# ---------------------------------------------------------------------------------------------- barriers
SHARED = ".shared .align 16 .b8 buffer[4096];"
REVERSE = (
    "mul.lo.u32 %r1, %t, 4; mov.u32 %r2, buffer; add.u32 %r3, %r2, %r1; st.shared.u32 [%r3], %t;"
    "bar.sync 0;"
    "sub.u32 %r4, 252, %r1; add.u32 %r4, %r4, %r2; ld.shared.u32 %r5, [%r4];"
) + store_result("%r5")


def test_shared_memory_and_a_barrier() -> None:
    out = ints(64)
    run(REVERSE, out, block=64, declarations=SHARED)
    assert (out == 63 - np.arange(64)).all()


@pytest.mark.parametrize("swap", [False, True])
def test_a_race_is_found_whatever_the_order(swap: bool) -> None:
    """Each warp reads what the other wrote, or overwrites what the other reads."""
    body = REVERSE.replace("bar.sync 0;", "")
    if swap:
        body = (
            "mul.lo.u32 %r1, %t, 4; mov.u32 %r2, buffer; add.u32 %r3, %r2, %r1; st.shared.u32 [%r3], %t; bar.sync 0;"
            "sub.u32 %r4, 252, %r1; add.u32 %r4, %r4, %r2; ld.shared.u32 %r5, [%r4]; st.shared.u32 [%r3], %r5;"
        )
    with pytest.raises(ptx.Race, match="no barrier between"):
        run(body, ints(64), block=64, declarations=SHARED)


def test_a_race_in_one_instruction() -> None:
    with pytest.raises(ptx.Race, match="in the same instruction"):
        run("mov.u32 %r2, buffer; st.shared.u32 [%r2], %t;", ints(64), block=64, declarations=SHARED)


def test_neighbouring_bytes_are_no_race() -> None:
    body = "mov.u32 %r2, buffer; add.u32 %r2, %r2, %t; cvt.u16.u32 %h1, %t; st.shared.u8 [%r2], %h1;"
    run(body, ints(64), block=64, declarations=SHARED)


def test_uninitialised_shared_memory() -> None:
    with pytest.raises(ptx.Uninitialised, match="no thread has written"):
        run(REVERSE.replace("st.shared.u32 [%r3], %t;", ""), ints(64), block=64, declarations=SHARED)


def test_barrier_reductions() -> None:
    out = ints(64)
    body = (
        "setp.lt.u32 %p1, %t, 20; bar.red.popc.u32 %r1, 0, %p1; bar.red.or.pred %p2, 0, %p1; selp.u32 %r2, 100, 0, %p2;"
    )
    run(body + "add.u32 %r1, %r1, %r2;" + store_result("%r1"), out, block=64)
    assert (out == 120).all()


def test_named_barriers_of_a_part_of_the_cta() -> None:
    out = ints(64)
    body = "setp.lt.u32 %p1, %t, 32; mov.u32 %r1, 1; @%p1 bra LOW; bar.sync 1, 32; bra END; LOW: bar.sync 2, 32; END:"
    run(body + store_result("%r1"), out, block=64)
    assert (out == 1).all()


def test_a_barrier_that_one_warp_only_announces() -> None:
    out = ints(64)
    body = (
        "mov.u32 %r2, buffer; mul.lo.u32 %r1, %t, 4; add.u32 %r3, %r1, %r2; setp.ge.u32 %p1, %t, 32; mov.u32 %r5, 9;"
        "@%p1 bra CONSUMER; st.shared.u32 [%r3], %t; bar.arrive 1, 64; bra END;"
        "CONSUMER: bar.sync 1, 64; ld.shared.u32 %r5, [%r3+-128]; END:"
    )
    run(body + store_result("%r5"), out, block=64, declarations=SHARED)
    assert (out == np.where(np.arange(64) < 32, 9, np.arange(64) - 32)).all()


@pytest.mark.parametrize(
    ("fault", "body"),
    [
        (ptx.BarrierDivergence, "setp.lt.u32 %p1, %t, 8; @%p1 bra A; bar.sync 0; A:"),
        (ptx.BarrierDivergence, "setp.lt.u32 %p1, %t, 32; @%p1 bra A; bar.sync 0; bra E; A: bar.sync 0; E:"),
        (ptx.Deadlock, "setp.lt.u32 %p1, %t, 32; @%p1 bra A; bar.sync 1, 64; bra E; A: bar.sync 2, 64; E:"),
        (ptx.Deadlock, "bar.sync 0, 96;"),
    ],
    ids=["half a warp", "two places", "two barriers", "too many"],
)
def test_barriers_that_cannot_work(fault: type[ptx.Fault], body: str) -> None:
    with pytest.raises(fault):
        run(body, ints(64), block=64)


# ---------------------------------------------------------------------------------------------- memory
def test_vectors_and_narrow_accesses() -> None:
    x = np.arange(128, dtype=np.float32)
    out = poison(np.empty(128, np.float32))
    run(
        """
        mul.wide.u32 %d1, %t, 16;  add.u64 %d2, %a1, %d1;  add.u64 %d3, %a0, %d1;
        ld.global.nc.v4.f32 {%f1, %f2, %f3, %f4}, [%d2];
        st.global.v2.f32 [%d3], {%f4, %f3};  st.global.v2.f32 [%d3+8], {%f2, %f1};
        """,
        out,
        x,
    )
    assert (out.reshape(-1, 4) == x.reshape(-1, 4)[:, ::-1]).all()
    octets = np.arange(-16, 16, dtype=np.int8)
    wide = ints()
    run("cvt.u64.u32 %d1, %t; add.u64 %d1, %d1, %a1; ld.global.s8 %r1, [%d1];" + store_result("%r1"), wide, octets)
    assert (wide == octets).all()
    run("cvt.u64.u32 %d1, %t; add.u64 %d1, %d1, %a1; ld.global.u8 %r1, [%d1];" + store_result("%r1"), wide, octets)
    assert (wide == octets.view(np.uint8)).all()


def test_registers_in_pieces_and_carries() -> None:
    out = ints()
    run(
        """
        mov.b64 %d1, {%t, 7};  mov.b64 {_, %r2}, %d1;  mov.b32 {%h1, %h2}, %t;  mov.b32 %r3, {%h1, %h1};
        add.cc.u32 %r4, -1, 1;  addc.u32 %r5, %r2, 0;  add.u32 %r5, %r5, %r3;
        """
        + store_result("%r5"),
        out,
    )
    assert (out == 8 + LANES * 65537).all()


def test_generic_addresses_and_local_memory() -> None:
    out = ints()
    run(
        """
        mov.u64 %d1, buffer;  cvta.shared.u64 %d2, %d1;  add.u64 %d2, %d2, %i4;  st.u32 [%d2], %t;
        mov.u64 %d3, depot+4;  cvta.local.u64 %d4, %d3;  st.u32 [%d4], 1000;
        isspacep.shared %p1, %d2;  selp.b64 %d5, %d2, %d4, %p1;
        setp.lt.u32 %p2, %t, 16;  add.u64 %d6, %d4, 0;  selp.b64 %d5, %d5, %d6, %p2;
        ld.u32 %r1, [%d5];
        """
        + store_result("%r1"),
        out,
        declarations=SHARED + ".local .align 8 .b8 depot[16];",
    )
    assert (out == np.where(LANES < 16, LANES, 1000)).all()


def test_constants_of_the_module() -> None:
    text = kernel("mov.u64 %d1, table; add.u64 %d1, %d1, %i4; ld.const.u32 %r1, [%d1];" + store_result("%r1"))
    values = ", ".join(str(3 * i) for i in range(32))
    text = text.replace(".visible .entry", f".const .align 4 .u32 table[32] = {{{values}}};\n.visible .entry")
    out = ints()
    launch(text, 1, 32, [out])
    assert (out == 3 * LANES).all()
    with pytest.raises(ptx.OutOfBounds, match="variable table"):
        launch(text.replace("table[32]", "table[31]").replace(", 93", ""), 1, 32, [out])


@pytest.mark.parametrize("space", ["global", "shared"])
def test_atomics(space: str) -> None:
    operations = {"add": 32 * 31 // 2, "max": 31, "min": 0, "or": 31, "xor": 0}
    for name, want in operations.items():
        out, old = np.zeros(1, np.int32), ints()
        type_name = "b32" if name in ("or", "xor") else "u32"
        if space == "global":
            body = f"atom.global.{name}.{type_name} %r1, [%a0], %t;" + store_result("%r1", 1)
        else:
            body = (
                "mov.u32 %r2, buffer; setp.eq.u32 %p1, %t, 0; @%p1 st.shared.u32 [%r2], 0; bar.sync 0;"
                f"atom.shared.{name}.{type_name} %r1, [%r2], %t; bar.sync 0; ld.shared.u32 %r3, [%r2];"
                "@%p1 st.global.u32 [%a0], %r3;"
            ) + store_result("%r1", 1)
        run(body, out, old, declarations=SHARED)
        assert out[0] == want, name
        if name == "add":
            assert (old == np.cumsum(LANES) - LANES).all()


def test_more_atomics() -> None:
    out = np.zeros(1, np.uint32)
    run("red.global.add.u32 [%a0], 2;", out)
    assert out[0] == 64
    run("atom.global.inc.u32 %r1, [%a0], 9;", out)
    assert out[0] == 1  # 64 is above the limit: 0, then 31 steps round ten values
    run("atom.global.cas.b32 %r1, [%a0], 1, 77;", out)
    assert out[0] == 77
    run("atom.global.exch.b32 %r1, [%a0], %t;", out)
    assert out[0] == 31
    total = np.zeros(1, np.float32)
    run("red.global.add.f32 [%a0], 0f3F000000;", total)
    assert total[0] == 16


def test_an_atomic_races_with_a_plain_access() -> None:
    body = "mov.u32 %r2, buffer; setp.eq.u32 %p1, %t, 0; @%p1 st.shared.u32 [%r2], 0; bar.sync 0;"
    body += "red.shared.add.u32 [%r2], 1; ld.shared.u32 %r1, [%r2];"
    with pytest.raises(ptx.Race, match="reads what several warps changed"):
        run(body, ints(64), block=64, declarations=SHARED)


@pytest.mark.parametrize(
    ("fault", "body", "message"),
    [
        (ptx.OutOfBounds, "add.u64 %d1, %a0, %i4; ld.global.u32 %r1, [%d1+4];", "at byte 128, past the 128 bytes"),
        (ptx.OutOfBounds, "add.u64 %d1, %a0, %i4; st.global.u32 [%d1+-4], %t;", "4 bytes before array argument 0"),
        (ptx.OutOfBounds, "ld.global.v2.u32 {%r1, %r2}, [%a0+128];", "load of 8 bytes"),
        (ptx.OutOfBounds, "mov.u64 %d1, 0; ld.u32 %r1, [%d1];", "null pointer"),
        (ptx.OutOfBounds, "mov.u32 %r1, buffer; st.shared.u32 [%r1+4096], %t;", "4096 bytes of the shared memory"),
        (ptx.Misaligned, "ld.global.v2.u32 {%r1, %r2}, [%a0+4];", "not a multiple of 8"),
        (ptx.Misaligned, "mov.u32 %r1, buffer; st.shared.u32 [%r1+2], %t;", "not a multiple of 4"),
        (ptx.ArithmeticFault, "div.u32 %r1, 7, %t;", "division by zero"),
        (ptx.Trapped, "trap;", "gave up"),
    ],
)
def test_faults_say_what_and_where(fault: type[ptx.Fault], body: str, message: str) -> None:
    out = np.zeros(32, np.int32)
    with pytest.raises(fault, match=re.escape(message)) as caught:
        run(body, out, declarations=SHARED)
    place = caught.value.place
    assert place.kernel == "k"
    assert place.text in str(caught.value)
    assert place.cta == (0, 0, 0)
    assert (out == 0).all(), "the arrays are unchanged"


def test_read_only_and_strided_arrays() -> None:
    x = np.zeros(32, np.int32)
    x.flags.writeable = False
    with pytest.raises(ptx.ReadOnly, match="array argument 0"):
        run(store_result("%t"), x)
    columns = np.zeros((32, 2), np.int32)
    with pytest.raises(ptx.OutOfBounds, match="between the elements"):
        run(store_result("%t"), columns[:, 0])
    backwards = np.zeros(32, np.int32)
    run("add.u64 %d1, %a0, 0; sub.u64 %d1, %d1, %i4; st.global.u32 [%d1], %t;", backwards[::-1])
    assert (backwards == LANES[::-1]).all()


def test_views_of_one_array_share_memory() -> None:
    x = np.zeros(64, np.int32)
    run("st.global.u32 [%a0+128], 5; ld.global.u32 %r1, [%a1];" + "st.global.u32 [%a1+4], %r1;", x, x[32:], block=1)
    assert x[32] == x[33] == 5


def test_a_view_keeps_its_misalignment() -> None:
    x = np.zeros(64, np.int32)
    with pytest.raises(ptx.Misaligned):
        run("ld.global.v2.u32 {%r1, %r2}, [%a0];", x[1:])


def test_unwritten_elements() -> None:
    out = poison(np.empty((4, 8), np.float32))
    body = "setp.eq.u32 %p1, %t, 9; @%p1 exit;" + store_result("0f3F800000")
    run(body, out.reshape(-1))
    assert unwritten(out).tolist() == [[1, 1]]


def test_one_writer_for_every_element() -> None:
    half = "shr.u32 %r1, %t, {}; mul.wide.u32 %d1, %r1, 4; add.u64 %d1, %a0, %d1; st.global.u32 [%d1], 1;"
    run(half.format(1), ints())
    run(half.format(0) * 2, ints(), one_writer=True)
    with pytest.raises(ptx.SecondWriter, match="after thread 1 of CTA 0"):
        run(half.format(1), ints(), one_writer=True)
    for batch in (1, 2):
        with pytest.raises(ptx.SecondWriter, match="after thread 0 of CTA"):
            run(half.format(0), ints(), grid=2, one_writer=True, batch=batch)
    run("red.global.add.u32 [%a0], 1;", np.zeros(1, np.int32), one_writer=True)


# ---------------------------------------------------------------------------------------------- counters, arguments
def test_counters_of_bank_conflicts_and_sectors() -> None:
    def counters(stride: int, size: str = "u32"):  # type: ignore[no-untyped-def]
        body = f"mul.lo.u32 %r1, %t, {stride}; mov.u32 %r2, buffer; add.u32 %r1, %r1, %r2; st.shared.{size}"
        value = "{%t, %t, %t, %t}" if "v4" in size else "%t"
        out = np.zeros(1024, np.int32)
        return run(f"{body} [%r1], {value};" + store_result("%t"), out, declarations=SHARED, traffic=True)

    one = counters(4)
    assert (one.shared_requests, one.shared_wavefronts, one.shared_ideal) == (1, 1, 1)
    assert (one.global_requests, one.global_sectors, one.sector_efficiency) == (1, 4, 1.0)
    assert counters(8).bank_conflicts == 1
    assert counters(128).shared_wavefronts == 32
    assert counters(132).bank_conflicts == 0
    vector = counters(16, "v4.u32")
    assert (vector.shared_wavefronts, vector.shared_ideal) == (4, 4)
    assert "sectors" in str(vector)


def test_batches_give_the_same_result() -> None:
    text = (SAMPLES / "gemm.ptx").read_text()
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal(shape).astype(np.float32) for shape in ((37, 21), (21, 50)))
    results, instructions = [], []
    for batch in (1, 2, 5, None):
        c = poison(np.empty((37, 50), np.float32))
        counters = launch(text, (4, 3), (16, 16), [a, b, c], batch=batch)
        assert len(unwritten(c)) == 0
        results.append(c)
        instructions.append(counters.warp_instructions)
    want = np.zeros((37, 50), np.float32)
    for k in range(21):  # the chain of fused multiply-adds, in float64 with one rounding by hand
        want = ptx.evaluate("fma.rn.f32", a[:, k : k + 1] + 0 * want, b[k] + 0 * want, want).reshape(want.shape)
    for c in results:
        assert (c == want).all()
    assert len(set(instructions)) == 1


def test_checks_do_not_change_the_result() -> None:
    text = (SAMPLES / "gemm.ptx").read_text()
    rng = np.random.default_rng(1)
    a, b = (rng.standard_normal((20, 20)).astype(np.float32) for _ in range(2))
    with_checks, without = np.empty((2, 20, 20), np.float32)
    launch(text, (2, 2), (16, 16), [a, b, with_checks])
    launch(text, (2, 2), (16, 16), [a, b, without], checks=False)
    assert (with_checks == without).all()


def test_arguments() -> None:
    text = """
    .visible .entry s(.param .u64 s_0, .param .u64 s_1, .param .u64 s_2, .param .u64 s_3, .param .u64 s_4,
      .param .u64 s_5, .param .u64 s_6, .param .f32 s_7, .param .b32 s_8, .param .u8 s_9,
      .param .u64 .ptr .align 1 s_10)
    { .reg .f32 %f<4>; .reg .b32 %r<4>; .reg .b64 %d<4>; .reg .b16 %h<2>;
      ld.param.u64 %d1, [s_4]; ld.param.f32 %f1, [s_7]; ld.param.f32 %f2, [s_8]; ld.param.s8 %h1, [s_9];
      ld.param.u32 %r1, [s_10+4]; ld.param.u64 %d2, [s_6]; cvt.rn.f32.s16 %f3, %h1; cvt.rn.f32.u64 %f0, %d2;
      st.global.v4.f32 [%d1], {%f1, %f2, %f3, %f0}; ret; }
    """
    out = np.zeros(4, np.float32)
    launch(text, 1, 1, [out, (1.5, np.float32(2.5)), -3, 1 << 40])
    assert out.tolist() == [1.5, 2.5, -3.0, 4.0]
    with pytest.raises(ValueError, match="takes 11 parameters"):
        launch(text, 1, 1, [out])
    with pytest.raises(ValueError, match="is not one of"):
        launch(text, 1, 1, [], kernel="t")
    with pytest.raises(ValueError, match="cannot launch"):
        launch(text, 1, 2048, [out, 1.0, 1.0, 0, 0])


def test_an_unknown_instruction_matters_only_where_it_is_executed() -> None:
    out = ints()
    body = "setp.gt.u32 %p1, %t, 99; @%p1 bra NEVER; bra END; NEVER: tex.1d.v4.f32 %f1, %f2; END:"
    run(body + store_result("%t"), out)
    with pytest.raises(ptx.Unsupported, match=r"tex.1d.v4.f32.*\n.*line"):
        run("tex.1d.v4.f32 %f1, %f2;", out)


def test_blocks_end_where_threads_may_part() -> None:
    (parsed,) = parse((SAMPLES / "gemm.ptx").read_text()).values()
    blocks = blocks_of(parsed)
    assert sum(len(block.body) + (block.end is not None) for block in blocks) == len(parsed.instructions)
    assert sum(block.end is not None and block.end.parts[0] == "bar" for block in blocks) == 2
