"""Tensor cores and asynchronous copies, instructions that neither Numba nor LLVM has words for: inline PTX.

Shared memory is named by 32-bit addresses here, in bytes, because that is what these instructions take.

Lines of a tile in shared memory are *swizzled*, since what one load reads of them, a chunk of each of eight lines,
would lie in the same few of the 32 banks: chunk c of line l lies where chunk c ^ f(l) would, so that the eight are in
different banks.  A distance between chunks that is a power of two is then an exclusive or, too.

Fragments, the parts of a matrix that the threads of a warp hold, are those of the PTX ISA, "Matrix Fragments for
mma.m16n8k16"; those of the other shapes lie in the same bytes.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from llvmlite import ir

from fastconv.cuda.conv_tensorcore_plan import CHUNK_BYTES, FRAGMENT, LINE, WORDS
from fastconv.cuda.device import target

_cuda = target()
_types, _cgutils, intrinsic = _cuda.types, _cuda.cgutils, _cuda.extending.intrinsic

_I32, _I64, _F32 = ir.IntType(32), ir.IntType(64), ir.FloatType()
#: Rows of A that one ``mma`` takes, and lines that one ``ldmatrix`` of four matrices reads.
_ROWS = 16


def _assemble(builder: Any, text: str, constraints: str, result: Any, *arguments: Any, ordered: bool = True) -> Any:
    """One instruction in PTX; an *ordered* one stays where it is among accesses to memory."""
    kind = ir.FunctionType(result, [argument.type for argument in arguments])
    if ordered:
        constraints = ",".join(part for part in (constraints, "~{memory}") if part)
    return builder.call(ir.InlineAsm(kind, text, constraints, side_effect=ordered), arguments)


def _registers(builder: Any, result: Any, count: int) -> list[Any]:
    return [builder.extract_value(result, i) for i in range(count)]


@intrinsic
def shared_address(typingctx, array):
    """Where an array in shared memory begins."""

    def generate(context, builder, signature, arguments):
        data = _cgutils.create_struct_proxy(signature.args[0])(context, builder, value=arguments[0]).data
        text = "{.reg .b64 address; cvta.to.shared.u64 address, $1; cvt.u32.u64 $0, address;}"
        return _assemble(builder, text, "=r,l", _I32, builder.ptrtoint(data, _I64), ordered=False)

    return _types.int32(array), generate


@lru_cache
def copy_chunk(near: bool) -> Any:
    """``copy_chunk(near)(address, array, chunk, there)``: start to copy a chunk of *array* to shared memory.

    Zeros if it is not *there*, and nothing is read.  *near*, it stays in the first-level cache of the multiprocessor.
    """
    cached = "ca" if near else "cg"

    @intrinsic
    def copy(typingctx, address, array, chunk, there):
        def generate(context, builder, signature, arguments):
            data = _cgutils.create_struct_proxy(signature.args[1])(context, builder, value=arguments[1]).data
            position = builder.select(arguments[3], arguments[2], ir.Constant(_I32, 0))
            chunks = builder.bitcast(data, ir.ArrayType(_F32, WORDS).as_pointer(data.type.addrspace))
            source = builder.gep(chunks, [builder.zext(position, _I64)])
            size = builder.select(arguments[3], ir.Constant(_I32, CHUNK_BYTES), ir.Constant(_I32, 0))
            text = f"cp.async.{cached}.shared.global [$0], [$1], {CHUNK_BYTES}, $2;"
            _assemble(builder, text, "r,l,r", ir.VoidType(), arguments[0], builder.ptrtoint(source, _I64), size)
            return context.get_dummy_value()

        return _types.void(_types.int32, array, _types.int32, _types.boolean), generate

    return copy


def _statement(text: str) -> Any:
    @intrinsic
    def statement(typingctx):
        def generate(context, builder, signature, arguments):
            _assemble(builder, text, "", ir.VoidType())
            return context.get_dummy_value()

        return _types.void(), generate

    return statement


#: All copies that this thread has started since the last time become one group.
close_group = _statement("cp.async.commit_group;")


@lru_cache
def wait_for_groups(still: int) -> Any:
    """``wait_for_groups(still)()``: until all groups of this thread but the latest *still* have arrived."""
    return _statement(f"cp.async.wait_group {still};")


@intrinsic
def store_chunk(typingctx, address, words):
    """Write a chunk to shared memory."""

    def generate(context, builder, signature, arguments):
        values = _registers(builder, arguments[1], WORDS)
        _assemble(
            builder, "st.shared.v4.f32 [$0], {$1, $2, $3, $4};", "r,f,f,f,f", ir.VoidType(), arguments[0], *values
        )
        return context.get_dummy_value()

    return _types.void(_types.int32, words), generate


def _load_matrices(builder: Any, address: Any, offset: int, transposed: bool = False) -> list[Any]:
    """Four 8 x 8 matrices of 16-bit elements, or 8 x 4 of 32-bit ones: lane 8 m + r gives line r of matrix m."""
    four = ir.LiteralStructType([_I32] * 4)
    order = ".trans" if transposed else ""
    text = f"ldmatrix.sync.aligned.m8n8.x4{order}.shared.b16 {{$0, $1, $2, $3}}, [$4+{offset}];"
    return _registers(builder, _assemble(builder, text, "=r,=r,=r,=r,r", four, address), 4)


def _load_word(builder: Any, address: Any, offset: int) -> Any:
    return _assemble(builder, f"ld.shared.b32 $0, [$1+{offset}];", "=r,r", _I32, address)


def _multiply(builder: Any, form: str, a: list[Any], b: list[Any], sums: list[Any]) -> list[Any]:
    """``mma``: 16 x 8 sums of a warp, four of them in each thread."""
    four = ir.LiteralStructType([_F32] * 4)
    names = iter(f"${i}" for i in range(4, 8 + len(a) + len(b)))
    operands = ["{" + ", ".join(next(names) for _ in part) + "}" for part in (a, b, sums)]
    text = f"mma.sync.aligned.{form} {{$0, $1, $2, $3}}, {', '.join(operands)};"
    constraints = ",".join(["=f"] * 4 + ["r"] * (len(a) + len(b)) + ["f"] * 4)
    return _registers(builder, _assemble(builder, text, constraints, four, *a, *b, *sums, ordered=False), 4)


def _round_to_tf32(builder: Any, bits: Any) -> Any:
    """The bits of a float32 rounded to 11 significant ones, ties away from zero; NaN stays NaN."""
    return _assemble(builder, "cvt.rna.tf32.f32 $0, $1;", "=r,r", _I32, bits, ordered=False)


def _pack(builder: Any, name: str, low: Any, high: Any) -> Any:
    """Two numbers rounded to 16 bits, as one word."""
    text = {
        "bf16": "cvt.rn.bf16x2.f32 $0, $2, $1;",
        "fp16": "{.reg .b16 low, high; cvt.rn.f16.f32 low, $1; cvt.rn.f16.f32 high, $2; mov.b32 $0, {low, high};}",
    }[name]
    return _assemble(builder, text, "=r,f,f", _I32, low, high, ordered=False)


@lru_cache
def to_words(name: str) -> Any:
    """``to_words(name)(numbers)``: a tuple of float32 in the precision *name*, as 32-bit words.

    The words are called float32 too, whatever their bits mean.
    """

    @intrinsic
    def words_of(typingctx, numbers):
        count = numbers.count if name == "tf32" else numbers.count // 2

        def generate(context, builder, signature, arguments):
            values = _registers(builder, arguments[0], numbers.count)
            if name == "tf32":
                words = [_round_to_tf32(builder, builder.bitcast(value, _I32)) for value in values]
            else:
                words = [_pack(builder, name, *values[i : i + 2]) for i in range(0, numbers.count, 2)]
            bits = [builder.bitcast(word, _F32) for word in words]
            return context.make_tuple(builder, signature.return_type, bits)

        return _types.UniTuple(_types.float32, count)(numbers), generate

    return words_of


#: The forms of ``mma``, by precision; and what its two halves are where the whole one does not exist (sm_75).
_FORMS = {
    "tf32": "m16n8k8.row.col.f32.tf32.tf32.f32",
    "bf16": "m16n8k16.row.col.f32.bf16.bf16.f32",
    "fp16": "m16n8k16.row.col.f32.f16.f16.f32",
}
_HALF_OF_FP16 = "m16n8k8.row.col.f32.f16.f16.f32"


def _add_products(
    builder: Any, name: str, halves: bool, left: list[list[Any]], right: list[list[Any]], totals: list[Any]
) -> None:
    """One step: each 16 rows of *left* times each 8 columns of *right*; *totals* in the order of `multiply_lines`."""
    for i, a in enumerate(left):
        for j, b in enumerate(right):
            # rows 8 apart are 2 * len(right) numbers apart
            first = (2 * i * len(right) + j) * 2
            at = (first, first + 1, first + 2 * len(right), first + 2 * len(right) + 1)
            values = [totals[k] for k in at]
            if halves:
                values = _multiply(builder, _HALF_OF_FP16, a[:2], b[:1], values)
                values = _multiply(builder, _HALF_OF_FP16, a[2:], b[1:], values)
            else:
                values = _multiply(builder, _FORMS[name], a, b, values)
            for k, value in zip(at, values, strict=True):
                totals[k] = value


#: A step takes up two chunks of the chain, and a turn has two steps.
_STEPS = LINE // (2 * CHUNK_BYTES)


def _moved(builder: Any, address: Any, chunks: int) -> Any:
    """The address *chunks* further on in a swizzled line, where these bits of the number of the chunk are zero."""
    return builder.xor(address, ir.Constant(_I32, chunks * CHUNK_BYTES))


@lru_cache
def multiply_lines(name: str, rows: int, columns: int, halves: bool) -> Any:
    """``sums = multiply_lines(...)(sums, a, b)``: the product of two tiles whose lines are along the chain.

    For one warp, of *rows* lines of A and *columns* of B; *a* and *b* are where this thread reads the first matrices:
    lane l line l % 16, chunk l / 16 of A, and line l % 8 + l / 16 * 8, chunk l / 8 % 2 of B.  Steps follow one another,
    so every sum is one chain of products, wherever it lies in the tile.  A thread's sums are those of rows
    ``16 i + 8 h + lane / 4`` and columns ``8 j + lane % 4 * 2``, + 1: in the order (i, h, j, column).

    Numbers of A that are to be rounded to tf32 are rounded here; those of B are already.
    """

    @intrinsic
    def multiply_tiles(typingctx, sums, a, b):
        def generate(context, builder, signature, arguments):
            totals = _registers(builder, arguments[0], sums.count)
            for step in range(_STEPS):
                a_at, b_at = (_moved(builder, address, 2 * step) for address in arguments[1:])
                left = [_load_matrices(builder, a_at, line * LINE) for line in range(0, rows, _ROWS)]
                pairs = [_load_matrices(builder, b_at, line * LINE) for line in range(0, columns, _ROWS)]
                right = [half for pair in pairs for half in (pair[:2], pair[2:])]
                if name == "tf32":
                    left = [[_round_to_tf32(builder, bits) for bits in matrices] for matrices in left]
                _add_products(builder, name, halves, left, right, totals)
            return context.make_tuple(builder, signature.return_type, totals)

        return sums(sums, _types.int32, _types.int32), generate

    return multiply_tiles


@lru_cache
def multiply_columns(name: str, rows: int, columns: int, line: int, halves: bool) -> Any:
    """``sums = multiply_columns(...)(sums, a, b)``: the same where a line of *line* bytes goes across the chain.

    Numbers of 16 bits are turned over by ``ldmatrix``: *a* is line l % 8 + l / 16 * 8, chunk l / 8 % 2 for lane l, and
    *b* line l % 16, chunk l / 16.  It cannot do that with 32 bits, which are loaded one by one and rounded to tf32: *a*
    and *b* are number l / 4 of line l % 4.  The lines of one load, 8 or 4, lie in different banks.
    """

    @intrinsic
    def multiply_tiles(typingctx, sums, a, b):
        def generate(context, builder, signature, arguments):
            totals = _registers(builder, arguments[0], sums.count)
            a_at, b_at = arguments[1:]
            for step in range(_STEPS):
                if name == "tf32":

                    def numbers(address, chunks, first=step * FRAGMENT):
                        """A number of each of two lines, 4 apart."""
                        moved = _moved(builder, address, chunks)
                        words = [_load_word(builder, moved, (first + below) * line) for below in (0, 4)]
                        return [_round_to_tf32(builder, word) for word in words]

                    left = []
                    for chunk in range(0, rows // WORDS, _ROWS // WORDS):
                        upper, lower = numbers(a_at, chunk), numbers(a_at, chunk + FRAGMENT // WORDS)
                        left.append([upper[0], lower[0], upper[1], lower[1]])
                    right = [numbers(b_at, chunk) for chunk in range(0, columns // WORDS, FRAGMENT // WORDS)]
                else:
                    first = step * _ROWS * line
                    chunks = range(0, rows // FRAGMENT, 2), range(0, columns // FRAGMENT, 2)
                    left = [_load_matrices(builder, _moved(builder, a_at, chunk), first, True) for chunk in chunks[0]]
                    pairs = [_load_matrices(builder, _moved(builder, b_at, chunk), first, True) for chunk in chunks[1]]
                    right = [half for pair in pairs for half in (pair[:2], pair[2:])]
                _add_products(builder, name, halves, left, right, totals)
            return context.make_tuple(builder, signature.return_type, totals)

        return sums(sums, _types.int32, _types.int32), generate

    return multiply_tiles
