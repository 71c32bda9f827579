"""Who runs: each file holds one `Library`, and imports it only when `load` is asked for it.

``library.variants[operation, pass][variant]`` prepares one way to compute a pass.  Everything that a library may do
ahead (its own layout, its own copies of the inputs, packed weights, a compiled graph) is done while preparing, outside
the timed call.  Where a library has several variants, all are checked and the fastest counts.  A preparation that
raises ValueError refuses the problem with a sentence.

Threads: NumPy and SciPy follow threadpoolctl, PyTorch its own setting; ONNX Runtime and OpenVINO are told while
preparing.  JAX and TensorFlow size their pools once per process, so for them, and for fastconv in their rows, the whole
process is confined to as many cores (`cores`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fastconv.bench.problems import Inputs

#: Those that we are compared with; each is a module here.
NAMES = ("numpy", "scipy", "torch", "onnxruntime", "openvino", "jax", "tensorflow")
OURS = "ours"


def _as_array(result: Any) -> Any:
    return np.asarray(result)


class Contender(NamedTuple):
    """One way to compute a pass: `compute` takes the number of a copy of the inputs.

    `as_ours`, which is not timed, turns its result into an array in fastconv's layout, or, for several passes in one,
    a tuple of arrays.
    """

    compute: Callable[[int], Any]
    as_ours: Callable[[Any], Any] = _as_array


#: Takes inputs (`ConvProblem` for "conv2d" ...) and the number of threads.
Prepare = Callable[[Any, int], Contender]


def rotating(contender: Contender, problem: Inputs) -> Callable[[], Any]:
    """The timed call: each one takes the next copy of the inputs."""
    return lambda: contender.compute(problem.turn())


def _unlimited(count: int) -> AbstractContextManager[None]:
    return nullcontext()


@dataclass(frozen=True)
class Library:
    """A library and what it can compute."""

    #: Packages whose versions belong to a result.
    packages: tuple[str, ...]
    #: By operation ("conv2d", "max_pool2d" ...) and pass, the ways to compute it by name.
    variants: Mapping[tuple[str, str], Mapping[str, Prepare]]
    #: Context in which it uses so many threads; nothing to do where a preparation says it.
    threads: Callable[[int], AbstractContextManager[None]] = _unlimited


def load(name: str) -> Library:
    """The library of that name, imported.

    Raises
    ------
    ImportError
        If it is not installed.
    """
    library: Library = import_module(f"{__name__}.{name}").LIBRARY
    return library


def together(*parts: Prepare) -> Prepare:
    """Several passes in one call, one after the other."""

    def prepare(problem: Any, threads: int) -> Contender:
        contenders = [part(problem, threads) for part in parts]

        def compute(copy: int) -> Any:
            return tuple(contender.compute(copy) for contender in contenders)

        def as_ours(results: Any) -> Any:
            return tuple(c.as_ours(result) for c, result in zip(contenders, results, strict=True))

        return Contender(compute, as_ours)

    return prepare


def with_all(variants: Mapping[tuple[str, str], Mapping[str, Prepare]]) -> dict[tuple[str, str], Mapping[str, Prepare]]:
    """Adds the pass "all": for each variant, its passes one after the other."""
    passes: dict[str, list[Mapping[str, Prepare]]] = {}
    for (operation, _), part in variants.items():
        passes.setdefault(operation, []).append(part)
    every = {
        (operation, "all"): {name: together(*(part[name] for part in parts)) for name in parts[0]}
        for operation, parts in passes.items()
    }
    return {**variants, **every}


def require_cores() -> None:
    """Raise ImportError where `cores` cannot work: a library that needs it is then as good as not installed."""
    if not hasattr(os, "sched_setaffinity"):
        raise ImportError("its number of threads can be set on Linux only")


@contextmanager
def cores(count: int) -> Iterator[None]:
    """Confine all threads of this process to *count* cores."""
    before = os.sched_getaffinity(0)
    _confine(set(sorted(before)[:count]))
    try:
        yield
    finally:
        _confine(before)


def _confine(allowed: set[int]) -> None:
    for thread in Path("/proc/self/task").iterdir():
        try:
            os.sched_setaffinity(int(thread.name), allowed)
        except ProcessLookupError:  # it has ended since
            continue
