"""The interpreter stands alone: NumPy and the standard library, imports that run downwards, nothing that imports it."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import fastconv.cuda.ptx as package

ROOM = Path(package.__file__).parent
# the files from the bottom up, as the package's docstring lists them
ORDER = [
    name for line in re.findall(r"^- (.*?):", package.__doc__ or "", re.M | re.S) for name in re.findall(r"\w+", line)
]


def _imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            found.update(f"{module}.{alias.name}" if module == "fastconv.cuda.ptx" else module for alias in node.names)
    return found


def test_the_docstring_lists_every_file() -> None:
    assert sorted(ORDER) == sorted(path.stem for path in ROOM.glob("*.py") if path.stem != "__init__")


def test_imports_run_downwards_and_need_nothing_but_numpy() -> None:
    for path in ROOM.glob("*.py"):
        below = ORDER[: ORDER.index(path.stem)] if path.stem != "__init__" else ORDER
        for module in _imports(path):
            top, *rest = module.split(".")
            if top == "fastconv":
                assert rest[:2] == ["cuda", "ptx"], f"{path.name} imports {module}"
                assert rest[2] in below, f"{path.name} imports {module}, which is not below it"
            else:
                assert top == "numpy" or top in sys.stdlib_module_names, f"{path.name} imports {module}"


def test_nothing_but_the_emulator_imports_the_interpreter() -> None:
    for path in ROOM.parent.rglob("*.py"):
        if ROOM not in path.parents and path.name != "emulator.py":
            assert not any(module.startswith("fastconv.cuda.ptx") for module in _imports(path)), path
