"""The cache of compiled kernels: what is loaded is what would be compiled, or nothing is.

Kernels are compiled and linked here as for a GPU.  The driver alone is pretended (`compiling_for`): it says which
compute capability it has, and loads nothing.
"""

import ast
import os
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from emulator import needs_target

from fastconv import warmup
from fastconv.cuda import ahead, conv_direct_plan, device, kernel_cache
from fastconv.cuda.emulator import compiling_for

needs_target()

from fastconv.cuda.kernels import conv_direct, elements  # noqa: E402 - needs the target

CUDA = device.target()
HOPPER, AMPERE = (9, 0), (8, 0)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(CUDA.core.caching.config, "CACHE_DIR", str(tmp_path))
    return tmp_path


def get(kernel: device.Kernel, capability: tuple[int, int] = HOPPER) -> Any:
    """Numba's kernel, loaded or compiled as in a new process."""
    with compiling_for(capability):
        return device.cached(kernel, capability)


def is_loaded(kernel: Any) -> bool:
    return not hasattr(kernel, "py_func")


def machine_code(kernel: Any) -> bytes:
    with compiling_for(HOPPER):
        return bytes(kernel.library.get_cubin().code)


def entry_of(kernel: device.Kernel, capability: tuple[int, int] = HOPPER) -> kernel_cache.Entry:
    dispatcher = CUDA.jit(launch_bounds=(kernel.threads, kernel.residents))(kernel.function)
    entry = kernel_cache.entry_of(CUDA, dispatcher, kernel.signature, capability)
    assert entry is not None
    return entry


# ---- round trip -----------------------------------------------------------------------------------------------------


def test_a_loaded_kernel_is_the_compiled_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same machine code, and the same arguments for the driver's launch."""
    compiled, loaded = get(elements.sum_parts()), get(elements.sum_parts())
    assert not is_loaded(compiled)
    assert is_loaded(loaded)
    assert machine_code(loaded) == machine_code(compiled)
    launched: list[Any] = []
    layout = SimpleNamespace(strides_in_bytes=(4,))
    array = SimpleNamespace(size=8, dtype=np.dtype(np.float32), ptr=4096, shape=(8,), _layout=layout)
    monkeypatch.setattr(CUDA.dispatcher, "wrap_arg", lambda value: SimpleNamespace(to_device=lambda *others: value))
    monkeypatch.setattr(CUDA.dispatcher, "launch", lambda stream, config, kernel, *given: launched.append(given))
    function = SimpleNamespace(kernel=None)
    for kernel in (compiled, loaded):
        monkeypatch.setattr(kernel.library, "get_cufunc", lambda: function)
        kernel.launch((array, array, 3), (1, 1, 1), (256, 1, 1))
    told = [[getattr(value, "value", value) for value in given] for given in launched]
    assert told[0] == told[1] == [0, 0, 8, 4, 4096, 8, 4] * 2 + [3]
    assert [type(value) for value in launched[0]] == [type(value) for value in launched[1]]


# Tells whether a kernel was compiled or loaded, and its machine code.
PROCESS = """
from hashlib import sha256
from fastconv.cuda import device
from fastconv.cuda.emulator import compiling_for
from fastconv.cuda.kernels import elements

with compiling_for((9, 0)):
    kernel = device.cached(elements.sum_parts(), (9, 0))
    code = sha256(kernel.library.get_cubin().code).hexdigest()
print("compiled" if hasattr(kernel, "py_func") else "loaded", code)
"""


def test_another_process_loads_what_it_would_compile(run_python: Callable[..., str], tmp_path: Path) -> None:
    """Byte by byte, names of functions included, which tell what a process has compiled before."""
    runs = [("cache", "1"), ("cache", "2"), ("other cache", "3")]
    told = [run_python(PROCESS, NUMBA_CACHE_DIR=str(tmp_path / one), PYTHONHASHSEED=seed).split() for one, seed in runs]
    assert [state for state, _ in told] == ["compiled", "loaded", "compiled"]
    assert len({code for _, code in told}) == 1


def test_without_a_folder_to_write_to_kernels_are_compiled(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CUDA.core.caching.CacheImpl, "_locator_classes", [])
    assert not is_loaded(get(elements.fill_zeros()))
    assert not is_loaded(get(elements.fill_zeros()))
    assert not list(folder.rglob("*"))


def test_a_folder_that_can_be_read_only(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or a full disk: the kernel runs, nothing is left behind."""

    def refuse(*arguments: Any, **options: Any) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "replace", refuse)
    assert not is_loaded(get(elements.fill_zeros()))
    assert not [path for path in folder.rglob("*") if path.is_file()]
    monkeypatch.setattr(kernel_cache.tempfile, "NamedTemporaryFile", refuse)
    assert not is_loaded(get(elements.fill_zeros()))


# ---- damage, and several at once ------------------------------------------------------------------------------------

DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "cut off": lambda content: content[:-1],
    "one bit": lambda content: content[:-9] + bytes([content[-9] ^ 1]) + content[-8:],
    "something else": lambda content: b"no kernel at all",
    "code of nobody": lambda content: content[:32] + zlib.compress(b"cfastconv.gone\nKernel\n."),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_file_is_replaced(folder: Path, damage: Callable[[bytes], bytes]) -> None:
    get(elements.fill_zeros())
    path = entry_of(elements.fill_zeros()).path
    path.write_bytes(damage(path.read_bytes()))
    assert not is_loaded(get(elements.fill_zeros()))
    assert is_loaded(get(elements.fill_zeros()))


def test_a_whole_file_of_a_class_that_is_gone(folder: Path) -> None:
    entry = entry_of(elements.fill_zeros())
    code = zlib.compress(b"cfastconv.gone\nKernel\n.")
    entry.path.write_bytes(sha256(entry.key + code).digest() + code)
    assert not is_loaded(get(elements.fill_zeros()))
    assert is_loaded(get(elements.fill_zeros()))


def test_the_file_of_another_kernel_is_not_taken(folder: Path) -> None:
    get(elements.sum_parts())
    os.replace(entry_of(elements.sum_parts()).path, entry_of(elements.fill_zeros()).path)
    assert not is_loaded(get(elements.fill_zeros()))


def test_writers_and_readers_at_once(folder: Path) -> None:
    """A file is there whole or not at all; writers leave nothing else."""
    kernel = get(elements.fill_zeros())
    entry, code = entry_of(elements.fill_zeros()), machine_code(kernel)
    found = []
    writers = [Thread(target=lambda: [entry.save(CUDA, kernel) for _ in range(20)]) for _ in range(3)]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        found.append(entry.load())
    for writer in writers:
        writer.join()
    assert found
    assert all(one is not None and machine_code(one) == code for one in found[:: max(len(found) // 5, 1)])
    assert [path for path in folder.rglob("*") if path.is_file()] == [entry.path]


# ---- keys -----------------------------------------------------------------------------------------------------------


def test_everything_that_is_compiled_in_has_a_file_of_its_own(folder: Path) -> None:
    """Constants of a closure, or of one that it calls; types, launch bounds, compute capability."""
    large, small = conv_direct_plan.TILES[0], conv_direct_plan.TILES[-1]
    kernel = conv_direct.forward(large, True)
    others = [
        (conv_direct.forward(small, True), HOPPER),
        (conv_direct.forward(large, False), HOPPER),
        (conv_direct.forward(large, True, True), HOPPER),
        (conv_direct.grad_weight(large, True), HOPPER),
        (replace(kernel, residents=kernel.residents - 1), HOPPER),
        (replace(kernel, signature=elements.fill_zeros().signature), HOPPER),
        (kernel, AMPERE),
    ]
    paths = {entry_of(one, capability).path for one, capability in [(kernel, HOPPER), *others]}
    assert len(paths) == 1 + len(others)
    assert entry_of(kernel).path in paths


def scaled(factor: Any, table: Any = (1, 2), helper: Any = None) -> device.Kernel:
    """A kernel that is not compiled: only its constants count here."""

    def kernel(out):
        if helper is not None:
            helper(out)
        out[0] = factor * table[0]

    return elements.kernel_of_elements(kernel, elements.NUMBERS)


def adding(number: Any) -> Any:
    @CUDA.jit(device=True)
    def helper(out):
        out[1] = number

    return helper


def test_constants_of_every_kind_are_told_apart(folder: Path) -> None:
    array = np.linspace(0, 1, 2000)
    other = array.copy()
    other[1000] = np.nextafter(other[1000], 1)  # not to be seen in its text
    kernels = [
        scaled(1),
        scaled(1.0),
        scaled(np.float32(1)),
        scaled(True),
        scaled(0.1),
        scaled(np.nextafter(0.1, 1)),
        scaled(1, (1, 3)),
        scaled(1, [1, 2]),
        scaled(1, {"a": 1}),
        scaled(1, {"a": adding(1)}),
        scaled(1, array),
        scaled(1, other),
        scaled(1, helper=adding(1)),
        scaled(1, helper=adding(2)),
        scaled(1, helper=adding(adding(1))),
        scaled(1, helper=adding(adding(2))),
    ]
    assert len({entry_of(kernel).path for kernel in kernels}) == len(kernels)
    assert entry_of(scaled(1, helper=adding(2))).path == entry_of(scaled(1, helper=adding(2))).path


def test_a_constant_that_cannot_be_told_apart_is_not_cached(folder: Path) -> None:
    dispatcher = CUDA.jit(scaled(object()).function)
    assert kernel_cache.entry_of(CUDA, dispatcher, elements.fill_zeros().signature, HOPPER) is None


@pytest.mark.parametrize("name", ["source_fingerprint", "compilers"])
def test_other_sources_and_other_compilers_replace_the_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    get(elements.fill_zeros())
    before = entry_of(elements.fill_zeros())
    monkeypatch.setattr(kernel_cache, name, lambda *arguments: "others")
    assert entry_of(elements.fill_zeros()).path == before.path
    assert not is_loaded(get(elements.fill_zeros()))
    assert is_loaded(get(elements.fill_zeros()))
    assert before.load() is None


def test_compilers_are_told_by_version_and_file() -> None:
    told = kernel_cache.compilers(CUDA)
    for name in ("numba-cuda 0", "numba 0", "llvmlite 0", "libdevice", "nvvm", "nvJitLink"):
        assert any(name in line for line in told), name


@pytest.fixture
def fresh_fingerprint() -> Iterator[None]:
    kernel_cache.source_fingerprint.cache_clear()
    yield
    kernel_cache.source_fingerprint.cache_clear()


@pytest.mark.parametrize("edited", ["cuda/kernels/elements.py", "cuda/conv_direct_plan.py", "cpu/winograd.py"])
def test_an_edit_of_a_source_changes_the_fingerprint(
    fresh_fingerprint: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, edited: str
) -> None:
    before = kernel_cache.source_fingerprint()
    package = Path(kernel_cache.__file__).parent.parent
    for source in package.rglob("*.py"):
        copy = tmp_path / source.relative_to(package)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(source.read_bytes())
    folders = tuple(tmp_path / folder.relative_to(package) for folder in kernel_cache._SOURCES)
    monkeypatch.setattr(kernel_cache, "_PACKAGE", tmp_path)
    monkeypatch.setattr(kernel_cache, "_SOURCES", folders)
    kernel_cache.source_fingerprint.cache_clear()
    assert kernel_cache.source_fingerprint() == before
    with (tmp_path / edited).open("a") as file:
        file.write("\n")
    kernel_cache.source_fingerprint.cache_clear()
    assert kernel_cache.source_fingerprint() != before


def test_kernels_import_nothing_that_the_fingerprint_leaves_out() -> None:
    package = Path(kernel_cache.__file__).parent.parent
    hashed = {path for folder in kernel_cache._SOURCES for path in folder.glob("*.py")}
    seen: set[Path] = set()
    waiting = sorted((package / "cuda" / "kernels").glob("*.py"))
    assert waiting
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("fastconv"):
                place = package.parent.joinpath(*str(node.module).split("."))
                named = [place / name.name for name in node.names]
                waiting += [file for one in (place, *named) if (file := one.with_suffix(".py")).is_file()]
    assert len(seen) > len(list((package / "cuda" / "kernels").glob("*.py")))
    assert seen <= hashed


# ---- warm-up --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def kernels_of_the_warm_up() -> set[device.Kernel]:
    """What all calls launch, none of it compiled."""
    engine = ahead.Compiler(HOPPER)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ahead, "cached", lambda kernel, capability: None)
        for call in warmup.gpu_calls(engine):
            call()
    return engine.kernels


def test_all_kernels_of_the_warm_up_can_be_cached(folder: Path, kernels_of_the_warm_up: set[device.Kernel]) -> None:
    paths = {entry_of(kernel).path for kernel in kernels_of_the_warm_up}
    assert len(paths) == len(kernels_of_the_warm_up)
    functions = {kernel.function.__qualname__ for kernel in kernels_of_the_warm_up}
    for part in ("conv_direct", "conv_depthwise", "pool", "softmax", "update", "normalization", "dropout"):
        assert any(kernel.function.__module__.endswith(part) for kernel in kernels_of_the_warm_up), part
    assert len(functions) > 30


def test_a_kernel_compiled_ahead_is_loaded(folder: Path) -> None:
    engine = ahead.Compiler(HOPPER)
    out = engine.empty((8,), np.float32)
    elements.launch(engine, elements.fill_zeros(), out.size, out)
    assert engine.kernels == {elements.fill_zeros()}
    assert is_loaded(get(elements.fill_zeros()))
    assert not is_loaded(get(elements.fill_zeros(), AMPERE))


@pytest.mark.parametrize(
    ("name", "capability"),
    [("cuda:H100", (9, 0)), ("cuda:t4", (7, 5)), ("cuda:sm_86", (8, 6)), ("cuda:sm_120", (12, 0))],
)
def test_gpus_that_need_not_be_here(name: str, capability: tuple[int, int]) -> None:
    assert ahead.capability_of(name) == capability


def test_gpus_that_must_be_here_or_do_not_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "why_not", lambda: "nobody plugged one in")
    for name in ("cuda", "cuda:1"):
        with pytest.raises(ImportError, match="nobody plugged one in"):
            ahead.capability_of(name)
    with pytest.raises(ValueError, match="Received: 'voodoo'"):
        ahead.capability_of("voodoo")
    monkeypatch.setattr(ahead, "why_not", lambda: None)
    monkeypatch.setattr(ahead, "current", lambda ordinal: SimpleNamespace(capability=(9, ordinal)))
    assert ahead.capability_of("cuda:1") == (9, 1)
