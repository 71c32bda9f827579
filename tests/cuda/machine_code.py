"""What ptxas and the text of PTX say about a kernel: registers, memory, and the instructions of its main loop."""

from __future__ import annotations

import re
import shutil
import subprocess
import sysconfig
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

_WHEEL = Path(sysconfig.get_paths()["purelib"], "nvidia", "cu13", "bin", "ptxas")
PTXAS = str(_WHEEL) if _WHEEL.exists() else shutil.which("ptxas")

# What a thread's registers are handed out in, and what a multiprocessor has; shared memory: that of a T4, the least.
_REGISTERS, _REGISTER_UNIT, SHARED_MEMORY = 65536, 8, 64 * 1024


class Resources(NamedTuple):
    registers: int
    shared: int
    stack: int
    spilled: int


def needs_ptxas() -> None:
    if PTXAS is None:
        pytest.skip("ptxas is not installed: pip install 'nvidia-cuda-nvcc==13.*'", allow_module_level=True)


@cache
def resources(ptx: str, architecture: str) -> Resources:
    """What ptxas reports when it assembles for *architecture*."""
    assert PTXAS is not None
    command = [PTXAS, "-v", f"-arch={architecture}", "-o", "/dev/null", "-"]
    done = subprocess.run(command, input=ptx, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

    def number(pattern: str) -> int:
        found = re.search(pattern, done.stderr)
        return int(found[1]) if found else 0

    return Resources(
        number(r"Used (\d+) registers"),
        number(r"(\d+) bytes smem"),
        number(r"(\d+) bytes stack frame"),
        number(r"(\d+) bytes spill stores") + number(r"(\d+) bytes spill loads"),
    )


def blocks_of_multiprocessor(used: Resources, threads: int) -> int:
    """Blocks that fit at the same time, by registers and shared memory."""
    registers = -(-used.registers // _REGISTER_UNIT) * _REGISTER_UNIT * threads
    by_memory = SHARED_MEMORY // used.shared if used.shared else 32
    return min(_REGISTERS // registers, by_memory)


def main_loop(ptx: str) -> list[str]:
    """The instructions between a label and the last branch back to it, for the loop with the most multiply-adds."""
    lines = [line.strip() for line in ptx.splitlines()]
    labels = {line[:-1]: at for at, line in enumerate(lines) if re.fullmatch(r"\$?\w+:", line)}
    loops = []
    for at, line in enumerate(lines):
        branch = re.search(r"\bbra(?:\.uni)?\s+(\$?\w+);", line)
        if branch and labels[branch[1]] < at:
            loops.append(lines[labels[branch[1]] : at + 1])
    loop = max(loops, key=lambda lines: (sum("fma.rn" in line for line in lines), len(lines)))
    return [line for line in loop if re.match(r"(@!?%p\d+\s+)?[a-z]", line)]
