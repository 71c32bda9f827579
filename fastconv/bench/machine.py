"""The machine that a number belongs to: what it is, and how many of its threads every library uses."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path
from typing import Any

import numba
from threadpoolctl import threadpool_info, threadpool_limits

import fastconv
from fastconv.bench.libraries import Library
from fastconv.cpu import codegen

PACKAGES = ("numpy", "numba", "llvmlite")
# Settings that choose other machine code than a library would, and whose: a ratio taken with one of them means little.
SLOWING = {
    "OPENBLAS_CORETYPE": ("numpy", "scipy"),
    "OPENBLAS_L2_SIZE": ("numpy", "scipy"),
    "ONEDNN_MAX_CPU_ISA": ("torch", "tensorflow", "openvino"),
    "ATEN_CPU_CAPABILITY": ("torch",),
    "NUMBA_CPU_NAME": ("numba",),
    "NUMBA_BOUNDSCHECK": ("numba",),
    "NUMBA_DISABLE_JIT": ("numba",),
}


def describe(libraries: Sequence[Library] = ()) -> dict[str, Any]:
    """What a reader must know to judge a time: processor, versions, BLAS, environment, date."""
    packages = [package for library in libraries for package in library.packages if package not in PACKAGES]
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "cpu": _processor(),
        "vector_bits": 8 * codegen.VECTOR_BYTES,
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "versions": {
            "python": platform.python_version(),
            "fastconv": fastconv.__version__,
            **{package: _version(package) for package in (*PACKAGES, *packages)},
        },
        "threading_layer": _threading_layer(),
        "blas": [
            {key: pool.get(key) for key in ("internal_api", "version", "architecture", "threading_layer")}
            for pool in threadpool_info()
            if pool["user_api"] == "blas"
        ],
        "environment": _slowing(libraries),
    }


def _slowing(libraries: Sequence[Library]) -> dict[str, str]:
    """The settings here that slow us or one of *libraries*."""
    timed = {"numba", *(package for library in libraries for package in library.packages)}
    return {name: os.environ[name] for name, whose in SLOWING.items() if name in os.environ and timed & set(whose)}


def line(machine: dict[str, Any]) -> str:
    """What `describe` found, in one line: what the numbers below it belong to."""
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    processor = f"{machine['cpu']}, {machine['cores']} cores, {machine['vector_bits']}-bit vectors"
    return f"{processor}; {versions}; {machine['date']}"


def settings(machine: dict[str, Any]) -> str | None:
    """The settings that were unfair to a library, or None."""
    return ", ".join(f"{name}={value}" for name, value in machine["environment"].items()) or None


def warning(libraries: Sequence[Library] = ()) -> str | None:
    """One line where the environment slows us or one of *libraries*, or None."""
    names = [f"{name}={value}" for name, value in _slowing(libraries).items()]
    return f"Warning: {', '.join(names)} is set, so the ratios are not fair." if names else None


def check_threads(counts: Sequence[int]) -> None:
    """Raise ValueError where a number of threads is not possible here."""
    most = numba.config.NUMBA_NUM_THREADS
    for count in counts:
        if not 1 <= count <= most:
            raise ValueError(f"threads must be from 1 to {most} on this machine. Received: threads={count}")


@contextmanager
def threads(count: int, libraries: Sequence[Library] = ()) -> Iterator[None]:
    """We, every BLAS and *libraries* use *count* threads inside."""
    before = numba.get_num_threads()
    numba.set_num_threads(count)
    try:
        with ExitStack() as stack:
            stack.enter_context(threadpool_limits(limits=count, user_api="blas"))
            for library in libraries:
                stack.enter_context(library.threads(count))
            yield
    finally:
        numba.set_num_threads(before)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # imported all the same: another distribution holds it, as tensorflow-cpu
        return version(packages_distributions()[package][0])


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for entry in cpuinfo.read_text().splitlines():
            if entry.startswith("model name"):
                return entry.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _threading_layer() -> str:
    try:
        return str(numba.threading_layer())
    except ValueError:  # no parallel kernel has run
        return "none used"
