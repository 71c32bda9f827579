"""The kernel cache: an edit, an option, a damaged file or a missing directory never gives an old or a wrong kernel."""

import pickle
import shutil
from pathlib import Path

import numba
import pytest
from conftest import PACKAGE

from fastconv import _jit


@pytest.fixture
def package(tmp_path):
    """A copy of the package's sources, to be edited."""
    copy = tmp_path / "copy" / "fastconv"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__", "data"))
    return copy


@pytest.fixture
def cache(tmp_path):
    directory = tmp_path / "cache"
    directory.mkdir()
    return directory


# A helper in a file of its own, as kernels have them, and a kernel in another file that calls it.
HELPER = """
from fastconv import _jit

@_jit.inline
def scaled(number):
    return {factor} * number
"""
CALLER = """
from fastconv import _jit
from fastconv.cpu import scaling

@_jit.kernel
def kernel(number):
    return scaling.scaled(number)

print(kernel(1.0), "loaded" if kernel.stats.cache_hits else "compiled")
"""


def test_an_edited_helper_leaves_no_stale_kernel(run_python, package, cache):
    """Numba's own cache looks at the file of the kernel alone (numba/numba#1833)."""
    run = {"package": package, "NUMBA_CACHE_DIR": str(cache)}
    helper = package / "cpu" / "scaling.py"
    helper.write_text(HELPER.format(factor=2))
    assert run_python(CALLER, **run) == "2.0 compiled"
    assert run_python(CALLER, **run) == "2.0 loaded"
    helper.write_text(HELPER.format(factor=3))
    assert run_python(CALLER, **run) == "3.0 compiled"


# A task function and the two drivers that call it by its symbol.
TASKS = """
import numba
import numpy as np
from fastconv import _jit

@_jit.tasks
def fill(out, value, first, last):
    for task in range(first, last):
        out[task] = value

@_jit.kernel
def serial(out, value):
    fill(out, value, 0, out.size)

@_jit.parallel_kernel
def parallel(workers, out, value):
    for worker in numba.prange(workers):
        fill(out, value, out.size * worker // workers, out.size * (worker + 1) // workers)

for number in (np.float32, np.float64):
    out = np.zeros(7, number)
    for call in (lambda: serial(out, number(3)), lambda: parallel(2, out, number(5))):
        call()
        print(out[0], set(out) == {out[0]}, end=" ")
print(*(sum(kernel.stats.cache_hits.values()) for kernel in (fill.dispatcher, serial, parallel)))
"""


def test_tasks_compile_once_and_load_with_the_drivers_that_call_them(run_python, cache):
    run = {"NUMBA_CACHE_DIR": str(cache), "NUMBA_NUM_THREADS": "2"}
    values = "3.0 True 5.0 True " * 2
    assert run_python(TASKS, **run) == values + "0 0 0"
    assert run_python(TASKS, **run) == values + "2 2 2"
    # drivers whose tasks are gone from the cache
    for path in cache.rglob("*fill*"):
        path.unlink()
    assert run_python(TASKS, **run) == values + "0 2 2"


# Reads one number behind the end of an array of 4.
OUTSIDE = """
import numpy as np
from fastconv import _jit
from fastconv.cpu import simd

@_jit.kernel
def read(numbers, at):
    return simd.span(numbers)[at]

numbers = np.arange(8, dtype=np.float32)[:4]
assert read(numbers, 3) == 3
try:
    print("read", read(numbers, 4))
except IndexError as error:
    print("refused:", error)
"""


def test_bounds_are_checked_on_a_warm_cache_too(run_python, cache):
    """Numba's key does not hold NUMBA_BOUNDSCHECK: kernels compiled without checks would be taken for checked ones."""
    run = {"NUMBA_CACHE_DIR": str(cache)}
    assert run_python(OUTSIDE, NUMBA_BOUNDSCHECK=None, **run) == "read 4.0"
    assert run_python(OUTSIDE, NUMBA_BOUNDSCHECK="1", **run) == "refused: access outside the array"


def test_the_options_are_in_the_key(monkeypatch):
    def add_one(x):
        return x + 1

    serial, parallel = _jit.KernelCache(add_one, parallel=False), _jit.KernelCache(add_one, parallel=True)
    codegen = _CodegenStandIn()
    key = serial._index_key("signature", codegen)
    assert key == serial._index_key("signature", codegen)
    assert key != parallel._index_key("signature", codegen)
    monkeypatch.setattr(_jit, "_OPTIONS", {**_jit._OPTIONS, "fastmath": True})
    with_fastmath = serial._index_key("signature", codegen)
    assert key != with_fastmath
    monkeypatch.setattr(_jit, "_OPTIONS", {**_jit._OPTIONS, "fastmath": False})
    assert with_fastmath != serial._index_key("signature", codegen)


class _CodegenStandIn:
    """The part of Numba's code generator that its cache asks for."""

    def magic_tuple(self):
        return ("triple", "cpu", "features")


def twice(number):
    """A kernel that is quick to compile."""
    return number + number


def whether_loaded(number=3.0):
    """Compile or load `twice` as a new process would, and tell which."""
    kernel = _jit.kernel(twice)
    assert kernel(number) == 2 * number
    return bool(kernel.stats.cache_hits)


DAMAGE = {
    "empty": lambda content: b"",
    "cut off": lambda content: content[: len(content) // 2],
    "something else": lambda content: b"no pickle at all",
    "another version": lambda content: pickle.dumps("0.0") + content,
    "types that are gone": lambda content: b"cfastconv.gone\nVector\n.",
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_cache_is_replaced(cache, monkeypatch, damage):
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(cache))
    assert not whether_loaded()
    assert whether_loaded()
    (path,) = filter(Path.is_file, cache.rglob("*"))
    path.write_bytes(damage(path.read_bytes()))
    assert not whether_loaded()
    assert whether_loaded()


def test_other_sources_overwrite_what_was_compiled(cache, monkeypatch):
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(cache))
    assert not whether_loaded()
    monkeypatch.setattr(_jit, "_source_fingerprint", lambda: "other sources")
    assert not whether_loaded()
    assert whether_loaded()
    assert len(list(filter(Path.is_file, cache.rglob("*")))) == 1


def test_two_processes_at_once_keep_what_both_compile(tmp_path, monkeypatch):
    """Both find the directory empty; the code of the first comes to lie there after that of the second.

    Numba's own cache gives both codes the same name, and would run the first on the arguments of the second.
    """
    for process, number in (("first", 3), ("second", 1.25)):
        monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / process))
        assert not whether_loaded(number)
    for process, files in (("first", "*.nbi"), ("second", "*"), ("first", "*.nbc")):
        for path in filter(Path.is_file, (tmp_path / process).rglob(files)):
            place = tmp_path / "both" / path.relative_to(tmp_path / process)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, place)
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "both"))
    assert whether_loaded(1.25)
    assert whether_loaded(3)


# The smallest kernel of the package.
SWAP = """
import numpy as np
from fastconv.cpu.transpose import swap_channels
one = np.zeros(1, np.int64)
print(swap_channels(np.arange(6, dtype=np.float32).reshape(1, 1, 2, 3), one, one, 1).ravel().tolist())
"""


def test_without_a_writable_directory_kernels_compile_in_each_process(run_python, package, tmp_path):
    """Neither the chosen directory, nor the one beside the sources, nor the user's own can be made."""
    in_the_way = tmp_path / "a file"
    in_the_way.write_text("")
    for folder in (package, package / "cpu"):
        (folder / "__pycache__").write_text("")
    settings = {name: str(in_the_way / "cache") for name in ("NUMBA_CACHE_DIR", "HOME", "XDG_CACHE_HOME")}
    assert run_python(SWAP, package=package, **settings) == "[0.0, 3.0, 1.0, 4.0, 2.0, 5.0]"


def test_nothing_compiles_on_import(run_python, cache):
    source = "import fastconv.functional.conv, fastconv.functional.pool, fastconv.keras"
    run_python(source, NUMBA_CACHE_DIR=str(cache))
    assert not list(cache.rglob("*.nbc"))
