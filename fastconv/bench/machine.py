"""The machine that a number belongs to: what it is, and how many of its threads every library uses."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numba
from competitors import torch
from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

import fastconv
from fastconv.cpu import codegen

PACKAGES = ("numpy", "numba", "llvmlite", "torch")
# Settings that choose other machine code than the libraries would; a ratio taken with one of them set means little.
SLOWING = (
    "OPENBLAS_CORETYPE",
    "OPENBLAS_L2_SIZE",
    "ONEDNN_MAX_CPU_ISA",
    "ATEN_CPU_CAPABILITY",
    "NUMBA_CPU_NAME",
    "NUMBA_BOUNDSCHECK",
    "NUMBA_DISABLE_JIT",
)

_POOLS = ThreadpoolController()


def describe() -> dict[str, Any]:
    """What a reader must know to judge a time: processor, versions, BLAS, environment, date."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "cpu": _processor(),
        "vector_bits": 8 * codegen.VECTOR_BYTES,
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "versions": {"python": platform.python_version(), "fastconv": fastconv.__version__, **_versions()},
        "threading_layer": _threading_layer(),
        "blas": [
            {key: pool.get(key) for key in ("internal_api", "version", "architecture", "threading_layer")}
            for pool in _POOLS.info()
            if pool["user_api"] == "blas"
        ],
        "environment": {name: os.environ[name] for name in SLOWING if name in os.environ},
    }


def warning() -> str | None:
    """One line where the environment slows a library, or None."""
    names = [f"{name}={os.environ[name]}" for name in SLOWING if name in os.environ]
    return f"Warning: {', '.join(names)} is set, so the ratios are not fair." if names else None


def check_threads(counts: list[int]) -> None:
    """Raise ValueError where a number of threads is not possible here."""
    most = numba.config.NUMBA_NUM_THREADS
    for count in counts:
        if not 1 <= count <= most:
            raise ValueError(f"threads must be from 1 to {most} on this machine. Received: threads={count}")


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Every library uses *count* threads inside."""
    before = numba.get_num_threads(), torch.get_num_threads() if torch else count
    numba.set_num_threads(count)
    if torch:
        torch.set_num_threads(count)
    try:
        with _POOLS.limit(limits=count, user_api="blas"):
            yield
    finally:
        numba.set_num_threads(before[0])
        if torch:
            torch.set_num_threads(before[1])


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _threading_layer() -> str:
    try:
        return str(numba.threading_layer())
    except ValueError:  # no parallel kernel has run
        return "none used"
