"""The one place where compile options live, each with its reason.

``nogil``              kernels never touch a Python object, so other Python threads run meanwhile
``error_model=numpy``  a division by zero gives inf as in NumPy; the branch for a Python exception would block vectors
no ``fastmath``        it lets LLVM assume that NaN does not occur and reorder sums: max-pooling would lose NaN and
                       results would depend on the vector width.  Fused multiply-adds are written out instead
lazy signatures        nothing compiles on import, and read-only arrays are accepted
own cache key          see `KernelCache`
level 2                see `_WrittenOut`
wrappers               only a function that Python calls needs the code that takes Python's arguments apart; no function
                       is called from C
tasks                  a kernel's loops are compiled once, not once for each of its drivers: see `tasks`
"""

from __future__ import annotations

import hashlib
import inspect
import pickle
from collections.abc import Callable
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any

from llvmlite import binding as llvm
from numba import config, njit, types
from numba.core import caching, cgutils
from numba.core.compiler import Compiler
from numba.extending import intrinsic, register_jitable

from fastconv import denormals, memory

_LEVEL = type(config.OPT)(2)
_PACKAGE = Path(__file__).parent
_OPTIONS = {"nogil": True, "error_model": "numpy", "no_cfunc_wrapper": True}


@lru_cache(maxsize=1)
def _source_fingerprint() -> str:
    """Hash of every file that can end up inside a compiled kernel."""
    digest = hashlib.sha256()
    kernels = [path for folder in ("cpu", "nopython") for path in sorted((_PACKAGE / folder).glob("*.py"))]
    for path in [Path(__file__), Path(denormals.__file__), Path(memory.__file__), *kernels]:
        digest.update(path.name.encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


class _FilePerKey(caching.IndexDataCacheFile):
    """The machine code of one function on disk: a file for each key, named by it, that says what it was made from.

    Numba numbers these files, and reads, changes and rewrites an index of them.  Two processes that do so at once, for
    two signatures, take the same number: an entry is lost, or the index gives one signature the code of the other.
    Without an index there is nothing to agree on.  A file is written beside its place and moved there when it is whole.
    """

    def save(self, key: Any, data: Any) -> None:
        with self._open_for_write(self._path(key)) as file:
            file.write(self._dump(self._origin(key)))
            file.write(self._dump(data))

    def load(self, key: Any) -> Any:
        try:
            with open(self._path(key), "rb") as file:
                origin = pickle.load(file)
                return pickle.load(file) if origin == self._origin(key) else None
        except FileNotFoundError:
            return None

    def flush(self) -> None:
        for path in Path(self._cache_path).glob(self._data_name("*")):
            path.unlink(missing_ok=True)

    def _data_name(self, key: str) -> str:
        return f"{self._index_name.removesuffix('.nbi')}.{key}.nbc"

    def _path(self, key: Any) -> str:
        return self._data_path(self._data_name(hashlib.sha256(repr(key).encode()).hexdigest()[:16]))

    def _origin(self, key: Any) -> Any:
        return self._version, self._source_stamp, key


class KernelCache(caching.FunctionCache):
    """Numba's disk cache with a key that sees helpers and options, for any number of processes.

    Numba keys a compiled function by its signature, the CPU and its own bytecode.  A helper edited in another file,
    another option or ``NUMBA_BOUNDSCHECK=1`` would find the old machine code and use it (numba/numba#1833, #6845).
    Here the key also holds the options and whether bounds are checked, and a file of machine code also a hash of all
    kernel sources: an edit overwrites what the sources before it have left.
    """

    def __init__(self, function: Callable[..., Any], parallel: bool) -> None:
        super().__init__(function)
        self._parallel = parallel
        sources = self._impl.locator.get_source_stamp(), _source_fingerprint()
        self._cache_file = _FilePerKey(self._cache_path, self._impl.filename_base, sources)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(sig, target_context)
        except Exception:
            # Written by another version, whose argument types are gone, or damaged: start afresh, whatever it is.
            self.flush()
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        # machine code that calls tasks can only be loaded where those have been
        declared = {function.name for function in data.library._final_module.functions if function.is_declaration}
        data.reload_init.extend(partial(_link, *_linked[symbol]) for symbol in sorted(declared & _linked.keys()))
        super().save_overload(sig, data)

    def _index_key(self, sig: Any, codegen: Any) -> Any:
        numba_key = super()._index_key(sig, codegen)
        return (*numba_key, tuple(_OPTIONS.items()), self._parallel, config.BOUNDSCHECK)


class _CacheOnFirstUse:
    """The cache of one function, looked for when it is first needed.

    Numba finds out which directory is writable by writing a file there, for each function anew: too much for an import.
    """

    def __init__(self, function: Callable[..., Any], parallel: bool) -> None:
        self._arguments = function, parallel

    @cached_property
    def _cache(self) -> Any:
        try:
            return KernelCache(*self._arguments)
        except RuntimeError:  # no writable cache directory (a read-only install): compile in each process instead
            return caching.NullCache()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cache, name)


def _compile(function: Callable[..., Any], **options: Any) -> Any:
    dispatcher = njit(**_OPTIONS, **options)(function)
    if not config.DISABLE_JIT:
        dispatcher._cache = _CacheOnFirstUse(function, options.get("parallel", False))
    return dispatcher


def kernel(function: Callable[..., Any]) -> Any:
    """Compile *function* for one thread on first use and cache the machine code on disk."""
    return _compile(function)


def parallel_kernel(function: Callable[..., Any]) -> Any:
    """Compile *function*, whose outer loop is a ``prange``, on first use and cache the machine code on disk."""
    return _compile(function, parallel=True)


def inline(function: Callable[..., Any]) -> Any:
    """Compile *function* as a part of the kernels that call it; from Python it is called as it stands."""
    return register_jitable(forceinline=True, no_cpython_wrapper=True, **_OPTIONS)(function)


def splice(function: Callable[..., Any]) -> Any:
    """Put the source of *function* in the place of each of its calls; it is never compiled on its own.

    A function that is `inline` is compiled, optimised and turned into machine code once by itself before it becomes
    part of a kernel.  For the large ones with one or two callers that is half the compile time of the kernel.

    To leave that out for all inline functions would cut the compile time of all kernels by a third, and makes Winograd
    and depthwise convolutions 4% slower: LLVM's last steps change a function, and what it is put into is better for it.
    """
    return njit(inline="always", **_OPTIONS)(function)


# ---- tasks ------------------------------------------------------------------------------------------------------

#: Name of a task function -> its dispatcher.
_tasks: dict[str, Any] = {}
#: Symbol in the machine code of drivers -> name and argument types of the task function that it stands for.
_linked: dict[str, tuple[str, Any]] = {}


def tasks(function: Callable[..., None]) -> Any:
    """Compile *function*, which both drivers of a kernel call, once, with a cache entry of its own.

    Numba compiles what a ``prange`` calls five times over: it lies in a module that is linked into the module of the
    loop's body, that into the body's two wrappers, and those into the driver, and every module is optimised and
    translated.  A serial driver is one module more.  So drivers do not contain the loops: they call them by the name of
    a symbol, as they would a function of the C library, and both compile in a fraction of the time.
    """
    return _called_by_symbol(function, flush=False)


def flushing_tasks(function: Callable[..., None]) -> Any:
    """The same for a *function* that sums products: it takes denormal numbers as zero (see `denormals`).

    Its vectors and register tiles are written out.
    """
    return _called_by_symbol(function, flush=True, pipeline_class=_WrittenOut)


class _WrittenOut(Compiler):
    """Numba's compiler with LLVM's passes of level 2.

    Where vectors are written out, level 3 finds nothing more to do, and looks for it: Winograd's forward pass compiled
    in 9 s rather than 6.  Loops that LLVM vectorises lose without it, an average pooling 6 to 10% of its speed.
    """

    def _compile_core(self) -> Any:
        # read when a module is optimised; Numba compiles one function at a time
        before = config.OPT
        config.OPT = min(before, _LEVEL)
        try:
            return super()._compile_core()
        finally:
            config.OPT = before


def _called_by_symbol(function: Callable[..., None], flush: bool, **options: Any) -> Any:
    if config.DISABLE_JIT:
        return function
    name = f"{function.__module__}.{function.__qualname__}"
    dispatcher = _tasks[name] = _compile(function, no_cpython_wrapper=True, **options)

    def call(typingctx: Any, *arguments: Any) -> Any:
        signature = tuple(types.unliteral(argument) for argument in arguments)
        symbol = _link(name, signature)

        def generate(context: Any, builder: Any, _: Any, values: Any) -> Any:
            convention = context.call_conv
            kind = convention.get_function_type(types.none, signature)
            target = cgutils.get_or_insert_function(builder.module, kind, symbol)
            mode = denormals.read_mode(builder)
            denormals.write_mode(builder, denormals.mode_with(builder, mode, flush))
            status, _ = convention.call_function(builder, target, types.none, signature, values)
            # what tasks have written past the caches is there before anybody hears that they are done
            builder.fence("seq_cst")
            denormals.write_mode(builder, mode)
            with cgutils.if_unlikely(builder, status.is_error):
                convention.return_status_propagate(builder, status)
            return context.get_dummy_value()

        return types.none(*signature), generate

    # the intrinsic takes over what this function carries; Numba asks the signature for the names of the arguments
    call.__name__, call.__doc__ = function.__name__, function.__doc__
    typing = inspect.Parameter("typingctx", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    own = inspect.signature(function).parameters.values()
    call.__dict__.update(dispatcher=dispatcher, __signature__=inspect.Signature([typing, *own]))
    return intrinsic(call)


def _link(name: str, signature: tuple[Any, ...]) -> str:
    """Compile or load a task function for these argument types; the symbol by which drivers call it."""
    symbol = f"fastconv.{name}.{hashlib.sha256(str(signature).encode()).hexdigest()}"
    if symbol not in _linked:
        llvm.add_symbol(symbol, address_of(_tasks[name], signature))
        _linked[symbol] = name, signature
    return symbol


def address_of(dispatcher: Any, signature: tuple[Any, ...]) -> int:
    """The address of a function's machine code for these types; compiled or loaded on first use."""
    dispatcher.compile(signature)
    compiled = dispatcher.overloads[signature]
    return int(compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name))
