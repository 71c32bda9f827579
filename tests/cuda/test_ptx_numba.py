"""PTX that Numba compiled: executed against NumPy, and with faults injected into its text."""

from __future__ import annotations

import functools
import importlib.util
import re
from typing import Any

import numpy as np
import pytest
from text_kernels import SAMPLES

from fastconv.cuda import ptx
from fastconv.cuda.ptx import launch, poison, unwritten
from fastconv.cuda.ptx.parse import parse

HAVE_NUMBA_CUDA = importlib.util.find_spec("numba_cuda") is not None
needs_numba_cuda = pytest.mark.skipif(
    not HAVE_NUMBA_CUDA, reason="numba-cuda is not installed: pip install numba-cuda[cu13] to compile kernels here"
)
ARCHITECTURES = [(8, 0), (10, 0)]  # libnvvm has one code generator below sm_100 and another from there


@functools.cache
def _compiled(name: str, cc: tuple[int, int], fastmath: bool = False) -> str:
    import kernels_for_ptx

    return kernels_for_ptx.ptx_of(getattr(kernels_for_ptx, name), cc, fastmath=fastmath)


def _run(name: str, cc: tuple[int, int], grid: Any, block: Any, arguments: list[Any], **options: Any) -> ptx.Counters:
    fastmath = options.pop("fastmath", False)
    return launch(_compiled(name, cc, fastmath), grid, block, arguments, **options)


def _random(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


# ---------------------------------------------------------------------------------------------- the committed sample
GEMM = (SAMPLES / "gemm.ptx").read_text()
A = np.random.default_rng(0).integers(-8, 9, (20, 18)).astype(np.float32)
B = np.random.default_rng(1).integers(-8, 9, (18, 33)).astype(np.float32)


def _gemm(text: str, a: np.ndarray = A, b: np.ndarray = B, c: np.ndarray | None = None) -> np.ndarray:
    c = poison(np.empty((20, 33), np.float32)) if c is None else c
    launch(text, (3, 2), (16, 16), [a, b, c])
    return c


def test_tiled_gemm_sample() -> None:
    c = _gemm(GEMM)
    assert (c == A @ B).all()
    assert len(unwritten(c)) == 0


@pytest.mark.parametrize("which", [0, 1])
def test_each_barrier_of_the_gemm_is_needed(which: int) -> None:
    pieces = re.split(r"(bar\.sync\s+0;)", GEMM)
    assert len(pieces) == 5
    pieces[1 + 2 * which] = ""
    with pytest.raises(ptx.Race):
        _gemm("".join(pieces))


@pytest.mark.parametrize("which", ["a", "b", "c"])
def test_each_array_of_the_gemm_has_to_be_large_enough(which: str) -> None:
    """Memory one element short, behind a shape that claims all of it."""
    arrays = {"a": A, "b": B, "c": np.zeros((20, 33), np.float32)}
    full = arrays[which]
    arguments: list[Any] = []
    for name, array in arrays.items():
        data = array.ravel()[:-1].copy() if name == which else array
        arguments += [0, 0, array.size, 4, ptx.Pointer(data), *array.shape, *array.strides]
    with pytest.raises(
        ptx.OutOfBounds, match=f"past the {full.nbytes - 4} bytes of array argument {'abc'.index(which)}"
    ):
        launch(GEMM, (3, 2), (16, 16), arguments)


def test_a_store_that_is_missing_leaves_poison() -> None:
    text = re.sub(r"st\.global\.f32[^;]*;", "", GEMM)
    assert len(unwritten(_gemm(text))) == 20 * 33


def test_a_missing_store_to_shared_memory() -> None:
    text = re.sub(r"st\.shared\.f32[^;]*;", "", GEMM, count=1)
    with pytest.raises(ptx.Uninitialised):
        _gemm(text)


# ---------------------------------------------------------------------------------------------- compiled here
@needs_numba_cuda
@pytest.mark.parametrize("cc", ARCHITECTURES)
class TestCompiled:
    def test_gemm(self, cc: tuple[int, int]) -> None:
        c = poison(np.empty((20, 33), np.float32))
        _run("gemm", cc, (3, 2), (16, 16), [A, B, c])
        assert (c == A @ B).all()

    def test_reduction_with_shuffles(self, cc: tuple[int, int]) -> None:
        x, out = np.arange(1000, dtype=np.float32), poison(np.empty(4, np.float32))
        _run("block_sum", cc, 4, 256, [x, out])
        assert (out == np.pad(x, (0, 24)).reshape(4, 256).sum(axis=1)).all()

    def test_max_pool(self, cc: tuple[int, int]) -> None:
        x = _random(2, 3, 9, 11)
        out, where = poison(np.empty((2, 3, 4, 5), np.float32)), poison(np.empty((2, 3, 4, 5), np.int32))
        _run("max_pool", cc, 1, 128, [x, out, where])
        windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), (2, 3))[:, :, ::2, ::2].reshape(2, 3, 4, 5, 9)
        assert (out == windows.max(axis=-1)).all()
        assert (where == windows.argmax(axis=-1)).all()

    @pytest.mark.parametrize("fastmath", [False, True])
    def test_functions_of_libdevice(self, cc: tuple[int, int], fastmath: bool) -> None:
        x = np.concatenate([_random(500) * 3, np.array([0.0, 20.0, -20.0], np.float32)])
        out = poison(np.empty((6, x.size), np.float32))
        _run("functions", cc, 4, 128, [x, out], fastmath=fastmath)
        v = x.astype(float)
        want = [np.tanh(v), np.exp(v), 1 / (1 + np.exp(-v)), np.sqrt(abs(v)), np.log(abs(v) + 1), np.sin(v)]
        np.testing.assert_allclose(out, want, rtol=1e-4 if fastmath else 1e-6, atol=1e-6)

    def test_atomics(self, cc: tuple[int, int]) -> None:
        x = np.random.default_rng(0).integers(0, 8, 1000).astype(np.int32)
        counts = np.zeros(8, np.int32)
        _run("histogram", cc, 4, 256, [x, counts])
        assert (counts == np.bincount(x, minlength=8)).all()

    def test_ballot(self, cc: tuple[int, int]) -> None:
        x, out = _random(512), np.zeros(1, np.int32)
        _run("positive", cc, 4, 128, [x, out])
        assert out[0] == (x > 0).sum()

    def test_integer_division(self, cc: tuple[int, int]) -> None:
        x = np.random.default_rng(0).integers(-(2**31), 2**31, 500).astype(np.int32)
        out = poison(np.empty((3, 500), np.int32))
        _run("divide", cc, 4, 128, [x, out])
        assert (out == [x // 7, x % 13, (x >> 2) ^ (x << 3)]).all()

    def test_local_arrays(self, cc: tuple[int, int]) -> None:
        x, out = _random(256), poison(np.empty(256, np.float32))
        _run("scatter", cc, 2, 128, [x, out])
        assert (out == x * ((abs(x) * np.float32(5)).astype(int) % 8).astype(np.float32)).all()

    def test_dynamic_shared_memory(self, cc: tuple[int, int]) -> None:
        x, out = _random(256), poison(np.empty(256, np.float32))
        _run("reverse", cc, 2, 128, [x, out], shared_bytes=512)
        assert (out.reshape(2, 128) == x.reshape(2, 128)[:, ::-1]).all()
        with pytest.raises(ptx.OutOfBounds, match="508 bytes of the shared memory"):
            _run("reverse", cc, 2, 128, [x, out], shared_bytes=508)

    def test_line_information_is_skipped(self, cc: tuple[int, int]) -> None:
        import kernels_for_ptx

        text = kernels_for_ptx.ptx_of(kernels_for_ptx.gemm, cc, lineinfo=True)
        assert ".loc" in text
        assert (_gemm(text) == A @ B).all()

    @pytest.mark.parametrize("name", ["block_sum", "histogram", "reverse"])
    def test_each_barrier_is_needed(self, cc: tuple[int, int], name: str) -> None:
        pieces = re.split(r"((?:bar|barrier)\.[\w.]*\s+0;)", _compiled(name, cc))
        assert len(pieces) > 1
        arguments: list[Any] = {
            "block_sum": [_random(512), np.zeros(2, np.float32)],
            "histogram": [np.arange(512, dtype=np.int32) % 8, np.zeros(8, np.int32)],
            "reverse": [_random(512), np.zeros(512, np.float32)],
        }[name]
        for cut in range(1, len(pieces), 2):
            text = "".join(pieces[:cut] + pieces[cut + 1 :])
            with pytest.raises((ptx.Race, ptx.Uninitialised)):
                launch(text, 2, 256, arguments, shared_bytes=1024)


@needs_numba_cuda
def test_the_committed_sample_is_what_the_compiler_writes() -> None:
    """The instructions that the faults above are injected into; a new compiler may move others."""

    def count(text: str) -> list[int]:
        (kernel,) = parse(text).values()
        opcodes = [instruction.opcode for instruction in kernel.instructions]
        return [opcodes.count(name) for name in ("bar.sync", "st.shared.f32", "st.global.f32", "fma.rn.f32")]

    assert count(GEMM) == count(_compiled("gemm", (8, 0)))
