"""The one place where compile options live, each with its reason.

``nogil``              kernels never touch a Python object, so other Python threads run meanwhile
``error_model=numpy``  a division by zero gives inf as in NumPy; the branch for a Python exception would block vectors
no ``fastmath``        it lets LLVM assume that NaN does not occur and reorder sums: max-pooling would lose NaN and
                       results would depend on the vector width.  Fused multiply-adds are written out instead
lazy signatures        nothing compiles on import, and read-only arrays are accepted
own cache key          see `KernelCache`
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

from numba import config, njit
from numba.core import caching

_PACKAGE = Path(__file__).parent
_OPTIONS = {"nogil": True, "error_model": "numpy"}


@lru_cache(maxsize=1)
def _source_fingerprint() -> str:
    """Hash of every file that can end up inside a compiled kernel."""
    digest = hashlib.sha256()
    for path in [Path(__file__), *sorted((_PACKAGE / "cpu").glob("*.py"))]:
        digest.update(path.name.encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


class KernelCache(caching.FunctionCache):
    """Numba's disk cache with a key that sees helpers and options.

    Numba keys a compiled function by its signature, the CPU and its own bytecode.  A helper edited in another file,
    another option or ``NUMBA_BOUNDSCHECK=1`` would find the old machine code and use it (numba/numba#1833, #6845).
    Here the key also holds a hash of all kernel sources, the options, and whether bounds are checked.
    """

    def __init__(self, function: Callable[..., Any], parallel: bool) -> None:
        super().__init__(function)
        self._parallel = parallel

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(sig, target_context)
        except Exception:
            # Written by another version, whose argument types are gone, or damaged: start afresh, whatever it is.
            self.flush()
            return None

    def _index_key(self, sig: Any, codegen: Any) -> Any:
        numba_key = super()._index_key(sig, codegen)
        return (*numba_key, _source_fingerprint(), tuple(_OPTIONS.items()), self._parallel, config.BOUNDSCHECK)


def _compile(function: Callable[..., Any], parallel: bool) -> Any:
    dispatcher = njit(parallel=parallel, **_OPTIONS)(function)
    if not config.DISABLE_JIT:
        try:
            dispatcher._cache = KernelCache(function, parallel)
        except RuntimeError:  # no writable cache directory (a read-only install): compile in each process instead
            return dispatcher
    return dispatcher


def kernel(function: Callable[..., Any]) -> Any:
    """Compile *function* for one thread on first use and cache the machine code on disk."""
    return _compile(function, parallel=False)


def parallel_kernel(function: Callable[..., Any]) -> Any:
    """Compile *function*, whose outer loop is a ``prange``, on first use and cache the machine code on disk."""
    return _compile(function, parallel=True)


def inline(function: Callable[..., Any]) -> Any:
    """Compile *function* as a part of the kernels that call it; it has no cache entry of its own."""
    return njit(forceinline=True, **_OPTIONS)(function)
