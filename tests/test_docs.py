"""Documentation that runs: the examples of the docstrings, and the Python blocks of the README."""

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import fastconv

# Kernels are not called from Python, the command line is what `__main__` starts, and what we are compared with need not
# be installed.
MODULES = [
    module.name
    for module in pkgutil.walk_packages(fastconv.__path__, "fastconv.")
    if not module.name.startswith(("fastconv.cpu", "fastconv.bench.libraries."))
    and not module.name.endswith("__main__")
]
README = Path(__file__).parent.parent / "README.md"


@pytest.mark.parametrize("name", ["fastconv", *MODULES])
def test_the_examples_of_a_module_run(name, tmp_path, monkeypatch):
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        if not name.startswith("fastconv.cuda."):
            raise
        pytest.skip(str(error))
    monkeypatch.chdir(tmp_path)
    results = doctest.testmod(module, optionflags=doctest.ELLIPSIS)
    assert results.failed == 0


def test_most_public_functions_have_an_example():
    """That the search above finds them."""
    found = doctest.DocTestFinder().find(importlib.import_module("fastconv.functional.conv"))
    assert {test.name.rpartition(".")[2] for test in found if test.examples} >= {"conv2d", "conv2d_backward"}


def test_every_public_class_of_the_layer_api_has_an_example():
    names = ("callbacks", "initializers", "layers", "losses", "metrics", "models", "optimizers", "regularizers")
    without = []
    for module in [importlib.import_module(f"fastconv.keras.{name}") for name in names]:
        public = {name for name in getattr(module, "__all__", vars(module)) if not name.startswith("_")}
        classes = {name: value for name, value in vars(module).items() if name in public and isinstance(value, type)}
        assert len(classes) > 1
        without += [
            f"{cls.__module__}.{name}"
            for name, cls in classes.items()
            if cls.__module__.startswith(module.__name__) and ">>>" not in (cls.__doc__ or "")
        ]
    assert without == ["fastconv.keras.callbacks.progress.ProgressBar"]  # a bar that moves


def test_the_python_blocks_of_the_readme_run(tmp_path, monkeypatch):
    if not README.exists():
        pytest.skip("there is no README.md beside the tests")
    blocks = re.findall(r"^```python\n(.*?)^```", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert blocks
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "readme"}
    for number, block in enumerate(blocks):
        # One block after the other in one namespace, as a reader would type them.
        exec(compile(block, f"README.md, Python block {number + 1}", "exec"), names)
