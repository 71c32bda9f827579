"""mma, ldmatrix and cp.async against the PTX ISA's tables, written out here element by element."""

from __future__ import annotations

import numpy as np
import pytest
from text_kernels import kernel

from fastconv.cuda import ptx
from fastconv.cuda.ptx import launch
from fastconv.cuda.ptx.tensor import a_positions, b_positions, c_positions

# The index formulas as the ISA prints them ("groupID = %laneid >> 2; threadID_in_group = %laneid % 4"), one lambda
# per fragment: i is the element's index in the thread's registers, g the group, t the thread in it.
A_16BIT_K16 = (
    lambda i, g, t: g if 0 <= i < 2 or 4 <= i < 6 else g + 8,
    lambda i, g, t: t * 2 + (i & 1) if i < 4 else t * 2 + (i & 1) + 8,
)
B_16BIT_K16 = (lambda i, g, t: t * 2 + (i & 1) if i < 2 else t * 2 + (i & 1) + 8, lambda i, g, t: g)
A_16BIT_K8 = (lambda i, g, t: g if i < 2 else g + 8, lambda i, g, t: t * 2 + (i & 1))
B_16BIT_K8 = (lambda i, g, t: t * 2 + i, lambda i, g, t: g)
A_TF32_K8 = (lambda i, g, t: g if i in (0, 2) else g + 8, lambda i, g, t: t if i in (0, 1) else t + 4)
B_TF32_K8 = (lambda i, g, t: t if i == 0 else t + 4, lambda i, g, t: g)
A_TF32_K4 = (lambda i, g, t: g if i == 0 else g + 8, lambda i, g, t: t)
B_TF32_K4 = (lambda i, g, t: t, lambda i, g, t: g)
C_ANY = (lambda i, g, t: g if i < 2 else g + 8, lambda i, g, t: t * 2 + (i & 1))

# type, k: elements of A and B in a thread, their formulas
FORMS = {
    ("f16", 16): (8, 4, A_16BIT_K16, B_16BIT_K16),
    ("bf16", 16): (8, 4, A_16BIT_K16, B_16BIT_K16),
    ("f16", 8): (4, 2, A_16BIT_K8, B_16BIT_K8),
    ("bf16", 8): (4, 2, A_16BIT_K8, B_16BIT_K8),
    ("tf32", 8): (4, 2, A_TF32_K8, B_TF32_K8),
    ("tf32", 4): (2, 1, A_TF32_K4, B_TF32_K4),
}


def _table(formulas, elements: int) -> list[list[tuple[int, int]]]:  # type: ignore[no-untyped-def]
    row, column = formulas
    return [
        [(row(i, lane >> 2, lane % 4), column(i, lane >> 2, lane % 4)) for i in range(elements)] for lane in range(32)
    ]


@pytest.mark.parametrize(("inputs", "k"), FORMS)
def test_fragment_positions(inputs: str, k: int) -> None:
    a_count, b_count, a_formula, b_formula = FORMS[inputs, k]
    per_register = 1 if inputs == "tf32" else 2
    for positions, formulas, count in (
        (a_positions(k, per_register), a_formula, a_count),
        (b_positions(k, per_register), b_formula, b_count),
        (c_positions(), C_ANY, 4),
    ):
        rows, columns = positions
        got = [list(zip(rows[lane].tolist(), columns[lane].tolist(), strict=True)) for lane in range(32)]
        assert got == _table(formulas, count)


def _encode(values: np.ndarray, inputs: str) -> np.ndarray:
    """Matrix elements as the bits that a register holds."""
    if inputs == "f16":
        return values.astype(np.float16).view(np.uint16)
    if inputs == "bf16":
        return (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    return values.astype(np.float32).view(np.uint32)


def _fragments(matrix: np.ndarray, table: list[list[tuple[int, int]]]) -> np.ndarray:
    """One row of 32-bit registers per lane."""
    bits = np.array([[matrix[place] for place in lane] for lane in table])
    return np.ascontiguousarray(bits).view(np.uint32)


def _mma_kernel(opcode: str, a: int, b: int, c: int) -> str:
    """Loads a, b and c registers of each thread from arrays 0 to 2, and stores d to array 3."""
    text, names = "", []
    for array, (count, first) in enumerate(((a, 0), (b, 10), (c, 20))):
        text += f"mul.wide.u32 %d1, %t, {4 * count}; add.u64 %d1, %d1, %a{array};"
        text += "".join(f"ld.global.b32 %r{first + i}, [%d1+{4 * i}];" for i in range(count))
        names.append("{" + ", ".join(f"%r{first + i}" for i in range(count)) + "}")
    d = "{" + ", ".join(f"%r{30 + i}" for i in range(c)) + "}"
    text += f"{opcode} {d}, {', '.join(names)};"
    text += f"mul.wide.u32 %d1, %t, {4 * c}; add.u64 %d1, %d1, %a3;"
    return kernel(text + "".join(f"st.global.b32 [%d1+{4 * i}], %r{30 + i};" for i in range(c)), arrays=4)


@pytest.mark.parametrize(
    ("inputs", "k", "accumulator"), [*((*form, "f32") for form in FORMS), ("f16", 16, "f16"), ("f16", 8, "f16")]
)
def test_mma_is_a_matrix_product(inputs: str, k: int, accumulator: str) -> None:
    rng = np.random.default_rng(0)
    a_count, b_count, a_formula, b_formula = FORMS[inputs, k]
    a, b, c = (rng.integers(-4, 5, shape).astype(float) for shape in ((16, k), (k, 8), (16, 8)))  # exact in any format
    dtype = np.float32 if accumulator == "f32" else np.float16
    registers = [
        _fragments(_encode(a, inputs), _table(a_formula, a_count)),
        _fragments(_encode(b, inputs), _table(b_formula, b_count)),
        _fragments(c.astype(dtype), _table(C_ANY, 4)),
    ]
    d = np.zeros_like(registers[2])
    opcode = f"mma.sync.aligned.m16n8k{k}.row.col.{accumulator}.{inputs}.{inputs}.{accumulator}"
    text = _mma_kernel(opcode, *(part.shape[1] for part in registers))
    launch(text, 1, 32, [part.ravel() for part in (*registers, d)])
    want = (a @ b + c).astype(dtype)
    assert (d == _fragments(want, _table(C_ANY, 4))).all()


def test_tf32_ignores_the_low_bits_of_its_inputs() -> None:
    a = np.full((16, 8), 1 + 2.0**-20)
    registers = [
        _fragments(_encode(a, "tf32"), _table(A_TF32_K8, 4)),
        _fragments(_encode(np.ones((8, 8)), "tf32"), _table(B_TF32_K8, 2)),
        np.zeros((32, 4), np.uint32),
    ]
    d = np.zeros((32, 4), np.uint32)
    text = _mma_kernel("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32", 4, 2, 4)
    launch(text, 1, 32, [part.ravel() for part in (*registers, d)])
    assert (d.view(np.float32) == 8).all()


def test_a_matrix_instruction_needs_its_whole_warp() -> None:
    body = "mov.u32 %r1, 0; setp.lt.u32 %p1, %t, 31; @%p1 mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 "
    body += "{%r2, %r3, %r4, %r5}, {%r1, %r1}, {%r1}, {%r1, %r1, %r1, %r1};"
    with pytest.raises(ptx.WarpDivergence, match="only 31 threads"):
        launch(kernel(body), 1, 32, [np.zeros(4, np.float32)])


def test_mma_forms_that_do_not_exist() -> None:
    for opcode in (
        "m16n8k4.row.col.f32.f16.f16.f32",
        "m8n8k4.row.col.f32.f16.f16.f32",
        "m16n8k16.row.row.f32.f16.f16.f32",
    ):
        with pytest.raises(ptx.Unsupported):
            launch(_mma_kernel(f"mma.sync.aligned.{opcode}", 4, 2, 4), 1, 32, [np.zeros(128, np.uint32)] * 4)


# ---------------------------------------------------------------------------------------------- ldmatrix
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_ldmatrix(count: int, transposed: bool) -> None:
    """Lane 8 m + r points at row r of matrix m; rows lie in any order."""
    values = np.arange(32 * 8, dtype=np.uint16)
    order = np.random.default_rng(1).permutation(32).astype(np.uint32)
    registers = ", ".join(f"%r{10 + i}" for i in range(count))
    body = f"""
        mul.wide.u32 %d1, %t, 16;  add.u64 %d2, %a0, %d1;  ld.global.v4.u32 {{%r1, %r2, %r3, %r4}}, [%d2];
        mul.lo.u32 %r5, %t, 16;  mov.u32 %r6, rows;  add.u32 %r5, %r5, %r6;
        st.shared.v4.u32 [%r5], {{%r1, %r2, %r3, %r4}};  bar.sync 0;
        add.u64 %d3, %a1, %i4;  ld.global.u32 %r7, [%d3];  mad.lo.u32 %r7, %r7, 16, %r6;
        ldmatrix.sync.aligned.m8n8.x{count}{".trans" if transposed else ""}.shared.b16 {{{registers}}}, [%r7];
        add.u64 %d4, %a2, %d1;
    """ + "".join(f"st.global.u32 [%d4+{4 * i}], %r{10 + i};" for i in range(count))
    out = np.zeros((32, 4), np.uint32)
    text = kernel(body, 3, ".shared .align 16 .b8 rows[512];")
    launch(text, 1, 32, [values, order, out.ravel()])
    rows = values.reshape(32, 8)
    for matrix in range(count):
        elements = np.array([rows[order[8 * matrix + row]] for row in range(8)])
        if transposed:
            elements = elements.T
        for lane in range(32):
            low, high = elements[lane // 4][2 * (lane % 4)], elements[lane // 4][2 * (lane % 4) + 1]
            assert out[lane, matrix] == int(low) | int(high) << 16


# ---------------------------------------------------------------------------------------------- cp.async
COPY = """
    mul.wide.u32 %d1, %t, 16;  add.u64 %d2, %a0, %d1;  mul.lo.u32 %r1, %t, 16;  mov.u32 %r2, buffer;
    add.u32 %r3, %r1, %r2;
    cp.async.cg.shared.global [%r3], [%d2], 16, SIZE;
    cp.async.commit_group;
    cp.async.wait_group 0;
    bar.sync 0;
    sub.u32 %r4, 1008, %r1;  add.u32 %r4, %r4, %r2;  ld.shared.v4.u32 {%r5, %r6, %r7, %r8}, [%r4];
    add.u64 %d3, %a1, %d1;  st.global.v4.u32 [%d3], {%r5, %r6, %r7, %r8};
"""
BUFFER = ".shared .align 16 .b8 buffer[1024];"


def _copy(body: str, source_bytes: int = 1024) -> np.ndarray:
    x = np.arange(1, 257, dtype=np.uint32)[: source_bytes // 4].copy()
    out = np.zeros(256, np.uint32)
    launch(kernel(body, 2, BUFFER), 1, 64, [x, out])
    return out.reshape(64, 4)


@pytest.mark.parametrize("size", [16, 0, 8, 6])
def test_cp_async_fills_the_rest_with_zeros(size: int) -> None:
    octets = np.arange(1, 257, dtype=np.uint32).view(np.uint8).reshape(64, 16).copy()
    octets[:, size:] = 0
    assert (_copy(COPY.replace("SIZE", str(size))) == octets.view(np.uint32)[::-1]).all()


def test_cp_async_of_nothing_reads_nothing() -> None:
    body = "setp.lt.u32 %p1, %t, 32; selp.u32 %r9, 16, 0, %p1;" + COPY.replace("SIZE", "%r9")
    assert (_copy(body, source_bytes=512)[:32] == 0).all()
    with pytest.raises(ptx.OutOfBounds, match="array argument 0"):
        _copy(COPY.replace("SIZE", "16"), source_bytes=512)


@pytest.mark.parametrize(
    ("fault", "old", "new"),
    [
        (ptx.AsyncHazard, "cp.async.wait_group 0;", "cp.async.wait_group 1;"),
        (ptx.AsyncHazard, "cp.async.wait_group 0;", ""),
        (ptx.AsyncHazard, "cp.async.commit_group;", ""),
        (ptx.Race, "bar.sync 0;", ""),
        (ptx.AsyncHazard, "cp.async.commit_group;", "st.shared.u32 [%r3], %t; cp.async.commit_group;"),
        (
            ptx.AsyncHazard,
            "cp.async.commit_group;",
            "cp.async.ca.shared.global [%r3], [%d2], 16; cp.async.commit_group;",
        ),
        (ptx.Misaligned, "add.u32 %r3, %r1, %r2;", "add.u32 %r3, %r1, %r2; add.u32 %r3, %r3, 8;"),
    ],
)
def test_cp_async_hazards(fault: type[ptx.Fault], old: str, new: str) -> None:
    body = COPY.replace("SIZE", "16")
    assert old in body
    with pytest.raises(fault):
        _copy(body.replace(old, new))


def test_wait_all_also_waits_for_what_is_not_committed() -> None:
    body = COPY.replace("SIZE", "16").replace("cp.async.commit_group;", "")
    assert _copy(body.replace("cp.async.wait_group 0", "cp.async.wait_all"))[63, 0] == 1


# A pipeline of three stages in shared memory: while stage i is read, i + 1 and i + 2 are filled.
PIPELINE = """
    mul.wide.u32 %d1, %t, 4;  add.u64 %d2, %a0, %d1;  mov.u32 %r2, buffer;
    shl.b32 %r1, %t, 2;  add.u32 %r3, %r1, %r2;  sub.u32 %r4, 252, %r1;  add.u32 %r4, %r4, %r2;
    mov.u32 %r10, 0;  mov.u32 %r11, 0;
    cp.async.ca.shared.global [%r3], [%d2], 4;  cp.async.commit_group;
    cp.async.ca.shared.global [%r3+256], [%d2+256], 4;  cp.async.commit_group;
    LOOP:
    cp.async.wait_group 1;
    bar.sync 0;
    add.u32 %r12, %r10, 2;  setp.lt.u32 %p1, %r12, 6;  rem.u32 %r13, %r12, 3;  shl.b32 %r13, %r13, 8;
    add.u32 %r14, %r3, %r13;  mul.wide.u32 %d3, %r12, 256;  add.u64 %d3, %d3, %d2;
    @%p1 cp.async.ca.shared.global [%r14], [%d3], 4;
    cp.async.commit_group;
    rem.u32 %r15, %r10, 3;  shl.b32 %r15, %r15, 8;  add.u32 %r15, %r15, %r4;  ld.shared.u32 %r16, [%r15];
    mad.lo.u32 %r11, %r11, 3, %r16;
    add.u32 %r10, %r10, 1;  setp.lt.u32 %p2, %r10, 6;  @%p2 bra LOOP;
    add.u64 %d4, %a1, %d1;  st.global.u32 [%d4], %r11;
"""


def _pipeline(body: str) -> np.ndarray:
    x = np.random.default_rng(2).integers(0, 1000, 6 * 64).astype(np.uint32)
    out = np.zeros(64, np.uint32)
    launch(kernel(body, 2, ".shared .align 16 .b8 buffer[768];"), 1, 64, [x, out])
    want = np.zeros(64, np.uint32)
    for stage in x.reshape(6, 64):
        want = want * np.uint32(3) + stage[::-1]
    assert (out == want).all()
    return out


def test_a_pipeline_of_three_stages() -> None:
    _pipeline(PIPELINE)


@pytest.mark.parametrize(
    ("fault", "old", "new"),
    [
        (ptx.AsyncHazard, "cp.async.wait_group 1;", "cp.async.wait_group 2;"),
        (ptx.Race, "bar.sync 0;", ""),
        (ptx.AsyncHazard, "rem.u32 %r13, %r12, 3;", "rem.u32 %r13, %r10, 3;"),  # fills the stage that is being read
        (ptx.OutOfBounds, "setp.lt.u32 %p1, %r12, 6;", "setp.lt.u32 %p1, %r12, 7;"),
    ],
    ids=["weaker wait", "no barrier", "wrong stage", "one copy too many"],
)
def test_faults_in_the_pipeline(fault: type[ptx.Fault], old: str, new: str) -> None:
    assert old in PIPELINE
    with pytest.raises(fault):
        _pipeline(PIPELINE.replace(old, new))
