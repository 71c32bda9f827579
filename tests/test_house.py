"""The house as CONTRIBUTING.md draws it: every file and folder of the package is there, and imports run downwards."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import fastconv

PACKAGE = Path(fastconv.__file__).parent
DRAWN = PACKAGE.parent / "CONTRIBUTING.md"
NOT_DRAWN = {"__main__", "__pycache__"}


def rooms() -> list[str]:
    """Files and folders of the package from the top down, without endings."""
    if not DRAWN.exists():
        pytest.skip("there is no CONTRIBUTING.md beside the package")
    house = DRAWN.read_text(encoding="utf-8").partition("fastconv/\n")[2].partition("```")[0]
    return re.findall(r"^  (\w+)(?:\.py|/) ", house, re.MULTILINE)


def imports(source: str) -> Iterator[str]:
    """The rooms that a file imports from."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module == "fastconv":
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("fastconv."):
            yield str(node.module).split(".")[1]


def upwards(source: str, room: str, order: list[str]) -> list[str]:
    """What a file of *room* imports that does not lie below it."""
    return [name for name in imports(source) if name in order and order.index(name) < order.index(room)]


def test_every_file_and_folder_is_drawn() -> None:
    there = {path.stem for path in PACKAGE.iterdir() if path.is_dir() or path.suffix == ".py"}
    assert sorted(rooms()) == sorted(there - NOT_DRAWN)


def test_imports_run_downwards() -> None:
    order = rooms()
    wrong = [
        f"{path.relative_to(PACKAGE)} imports {name}"
        for path in PACKAGE.rglob("*.py")
        for room in [path.relative_to(PACKAGE).parts[0].removesuffix(".py")]
        if room in order
        for name in upwards(path.read_text(encoding="utf-8"), room, order)
    ]
    assert wrong == []


def test_an_import_upwards_is_seen() -> None:
    source = "from fastconv import keras, threads\nfrom fastconv.functional.conv import conv2d"
    assert upwards(source, "cpu", ["keras", "functional", "cpu", "threads"]) == ["keras", "functional"]
