"""Compiled kernels on disk: compiling takes 0.4 to 2 s a kernel, loading what another process has compiled a few ms.

A file holds one specialisation of a kernel, in the form in which Numba's own cache (``jit(cache=True)``) stores it:

    name      what is compiled: the function, the constants that it refers to, its types and options, the capability
    content   SHA-256 of what the machine code depends on besides (sources, compilers) with the rest; the rest

So one comparison answers for a file that is damaged, of another kernel, of older sources or of other compilers: the
kernel is compiled again and takes its place.  A file appears whole or not at all, whoever writes beside.

Numba's own cache would not do.  Its key sees neither the functions that a kernel calls nor its launch bounds nor the
compilers of CUDA, and all specialisations of a function share one index: two processes that write at the same time can
leave it with the name of one kernel at the code of another.
"""

from __future__ import annotations

import inspect
import os
import pickle
import sys
import tempfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from hashlib import sha256
from importlib import import_module, metadata
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any, NamedTuple

_PACKAGE = Path(__file__).parent.parent
#: Folders of everything that can end up inside a kernel.
_SOURCES = tuple(_PACKAGE / folder for folder in ("", "cpu", "cuda", "cuda/kernels"))
_PACKAGES = ("numba-cuda", "numba", "llvmlite", "cuda-bindings", "cuda-core")
_LIBRARIES = ("nvvm", "nvJitLink")
_DIGEST_BYTES = sha256().digest_size
#: In the text of an object that tells nothing but where it lies.
_ADDRESS = " at 0x"


def compiled(
    cuda: Any, function: Callable[..., None], signature: Any, bounds: tuple[int, int], capability: tuple[int, int]
) -> Any:
    """A kernel, loaded, or compiled and stored.

    Parameters
    ----------
    cuda : module
        Numba's CUDA target.
    function : callable
        The kernel, with the types of its arguments in *signature*.
    bounds : (int, int)
        Its launch bounds.
    capability : (int, int)
        The compute capability of the current device.

    Returns
    -------
    numba.cuda.dispatcher._Kernel
    """
    dispatcher = cuda.jit(launch_bounds=bounds)(function)
    entry = entry_of(cuda, dispatcher, signature, capability)
    kernel = None if entry is None else entry.load()
    if kernel is None:
        kernel = dispatcher.compile(signature.args)
        if entry is not None:
            entry.save(cuda, kernel)
    return kernel


class Entry(NamedTuple):
    """A place on disk for one kernel."""

    path: Path
    #: What the content must have been made for.
    key: bytes
    #: Numba's way to take kernels apart and put them together.
    numba: Any

    def load(self) -> Any:
        """The kernel, or None where there is none for this key."""
        try:
            content = self.path.read_bytes()
            digest, code = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
            if digest != sha256(self.key + code).digest():
                return None
            return self.numba.rebuild(None, pickle.loads(zlib.decompress(code)))
        except Exception:  # no such file, no right to read it, a class that is gone: start afresh, whatever it is
            return None

    def save(self, cuda: Any, kernel: Any) -> None:
        """Put a kernel there, if it is possible: without it, kernels are compiled in each process."""
        code = zlib.compress(cuda.serialize.dumps(self.numba.reduce(kernel)), level=1)
        unfinished = None
        try:
            with tempfile.NamedTemporaryFile(dir=self.path.parent, prefix=self.path.name, delete=False) as file:
                unfinished = file.name
                file.write(sha256(self.key + code).digest() + code)
            os.replace(unfinished, self.path)
        except OSError:
            if unfinished is not None:
                with suppress(OSError):
                    os.unlink(unfinished)


def entry_of(cuda: Any, dispatcher: Any, signature: Any, capability: tuple[int, int]) -> Entry | None:
    """The place of a kernel; None without a folder to write to, or if its constants cannot be told apart."""
    function = dispatcher.py_func
    try:
        numba = cuda.dispatcher.CUDACacheImpl(function)
    except RuntimeError:
        return None
    options = sorted(dispatcher.targetoptions.items())
    what = repr((_described(function, []), str(signature), options, capability))
    if _ADDRESS in what:
        return None
    key = "\n".join((what, source_fingerprint(), *compilers(cuda), sys.version))
    name = f"{numba.filename_base}.sm_{capability[0]}{capability[1]}.{sha256(what.encode()).hexdigest()[:16]}.kernel"
    return Entry(Path(numba.locator.get_cache_path(), name), key.encode(), numba)


def _described(value: Any, met: list[FunctionType]) -> Any:
    """A constant as plain data that is the same in every process; a function by its code and all that it refers to."""
    value = inspect.unwrap(value) if callable(value) else value  # what is behind device functions, intrinsics, caches
    if isinstance(value, dict):
        return [(str(name), _described(item, met)) for name, item in value.items()]
    if isinstance(value, tuple | list):
        return type(value).__qualname__, [_described(item, met) for item in value]
    if hasattr(value, "tolist"):  # the text of an array leaves digits out
        return str(value.dtype), value.shape, value.tolist()
    if isinstance(value, CodeType):
        return value.co_code, value.co_names, _described(value.co_consts, met)
    if not isinstance(value, FunctionType):
        return repr(value)
    name = f"{value.__module__}.{value.__qualname__}"
    if value in met:
        return met.index(value)
    if met and _library(value) != _library(met[0]):
        return name  # of another package
    met.append(value)
    inner, outer, *_ = inspect.getclosurevars(value)
    return name, _described((value.__code__, value.__defaults__, {**outer, **inner}), met)


def _library(function: FunctionType) -> str:
    return str(function.__module__).partition(".")[0]


@lru_cache(maxsize=1)
def source_fingerprint() -> str:
    """Hash of every file that can end up inside a kernel."""
    digest = sha256()
    for path in sorted(path for folder in _SOURCES for path in folder.glob("*.py")):
        digest.update(str(path.relative_to(_PACKAGE)).encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


@lru_cache(maxsize=1)
def compilers(cuda: Any) -> tuple[str, ...]:
    """What makes machine code of a kernel.

    NVIDIA's libraries carry no version that tells two builds apart, so their files stand for them.
    """
    pathfinder = import_module("cuda.pathfinder")
    paths = [cuda.cudadrv.libs.get_libdevice()]
    for name in _LIBRARIES:
        with suppress(pathfinder.DynamicLibNotFoundError):  # without nvJitLink Numba links by the driver
            paths.append(pathfinder.load_nvidia_dynamic_lib(name).abs_path)
    files = [(path, os.stat(path)) for path in paths]
    return (
        *(f"{name} {metadata.version(name)}" for name in _PACKAGES),
        *(f"{path} {status.st_size} {status.st_mtime_ns}" for path, status in files),
    )
