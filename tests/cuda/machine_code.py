"""What ptxas, nvdisasm and the text of PTX say about a kernel: registers, memory, the instructions of its main loop."""

from __future__ import annotations

import re
import shutil
import subprocess
import sysconfig
import tempfile
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

_WHEELS = Path(sysconfig.get_paths()["purelib"], "nvidia", "cu13", "bin")


def _tool(name: str) -> str | None:
    wheel = _WHEELS / name
    return str(wheel) if wheel.exists() else shutil.which(name)


PTXAS, NVDISASM = _tool("ptxas"), _tool("nvdisasm")

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


def needs_nvdisasm() -> None:
    if NVDISASM is None:
        pytest.skip("nvdisasm is not installed: pip install 'nvidia-cuda-nvdisasm==13.*'")


def _assembled(ptx: str, architecture: str, file: str) -> str:
    """What ptxas reports."""
    assert PTXAS is not None
    command = [PTXAS, "-v", f"-arch={architecture}", "-o", file, "-"]
    done = subprocess.run(command, input=ptx, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stderr


@cache
def resources(ptx: str, architecture: str) -> Resources:
    """What ptxas reports when it assembles for *architecture*."""
    report = _assembled(ptx, architecture, "/dev/null")

    def number(pattern: str) -> int:
        found = re.search(pattern, report)
        return int(found[1]) if found else 0

    return Resources(
        number(r"Used (\d+) registers"),
        number(r"(\d+) bytes smem"),
        number(r"(\d+) bytes stack frame"),
        number(r"(\d+) bytes spill stores") + number(r"(\d+) bytes spill loads"),
    )


def blocks_of_multiprocessor(used: Resources, threads: int, shared_memory: int = SHARED_MEMORY) -> int:
    """Blocks that fit at the same time, by registers and shared memory."""
    registers = -(-used.registers // _REGISTER_UNIT) * _REGISTER_UNIT * threads
    by_memory = shared_memory // used.shared if used.shared else 32
    return min(_REGISTERS // registers, by_memory)


def loops(ptx: str) -> list[list[str]]:
    """The instructions between a label and each branch back to it."""
    lines = [line.strip() for line in ptx.splitlines()]
    labels = {line[:-1]: at for at, line in enumerate(lines) if re.fullmatch(r"\$?\w+:", line)}
    found = []
    for at, line in enumerate(lines):
        branch = re.search(r"\bbra(?:\.uni)?\s+(\$?\w+);", line)
        if branch and labels[branch[1]] < at:
            body = lines[labels[branch[1]] : at + 1]
            found.append([line for line in body if re.match(r"(@!?%p\d+\s+)?[a-z]", line)])
    return found


def main_loop(ptx: str, product: str = "fma.rn") -> list[str]:
    """The loop with the most products."""
    return max(loops(ptx), key=lambda lines: (sum(product in line for line in lines), len(lines)))


def machine_loop(ptx: str, architecture: str) -> list[str]:
    """The opcodes, without predicates and operands, of the loop of the machine code with the most multiply-adds."""
    assert NVDISASM is not None
    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder, "kernel.cubin"))
        _assembled(ptx, architecture, file)
        done = subprocess.run([NVDISASM, "-c", file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = [line.strip() for line in done.stdout.splitlines()]
    labels = {line[:-1]: at for at, line in enumerate(lines) if re.fullmatch(r"\.L_\w+:", line)}
    found: list[list[str]] = []
    for at, line in enumerate(lines):
        branch = re.search(r"\bBRA\b.*`\((\.L_\w+)\)", line)
        if branch and labels[branch[1]] < at:
            body = "\n".join(lines[labels[branch[1]] : at + 1])
            found.append(re.findall(r"^/\*[0-9a-f]+\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*)", body, re.MULTILINE))
    return max(found, key=lambda loop: (sum(opcode.startswith("FFMA") for opcode in loop), -len(loop)))
