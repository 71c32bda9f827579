"""On a GPU: the tests of the emulator once more, each kernel on the device, and what the emulator cannot show.

``pytest -m gpu`` runs these alone; without a GPU they are skipped, with the reason.  Tests that provoke a fault, count
traffic or change the PTX stay with the interpreter: a GPU would not notice, or would not survive.
"""

from contextlib import suppress
from contextvars import Context
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from emulator import Emulator, needs_target

from fastconv.cuda import device, libraries

# Numba warns of every launch with less than 128 blocks, which these small problems are
pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("ignore:Grid size")]

needs_target()
if (_reason := device.why_not()) is not None:
    pytest.skip(_reason, allow_module_level=True)

#: Modules that run before the others: what no GPU has ever done first.
FIRST = ("test_conv_direct", "test_conv_tensorcore", "test_conv_winograd")


class OnDevice(Emulator):
    """An emulator in name: its arrays are NumPy's, and each launch takes copies of them to the GPU and back."""

    def __init__(self, architecture: str = "", traffic: bool = False, change: Any = str) -> None:
        super().__init__(architecture, traffic, change)
        if traffic or change is not str:
            pytest.skip("only the interpreter counts traffic and changes PTX")

    @property
    def capability(self) -> tuple[int, int]:
        return super().capability if self.architecture else libraries.current().capability

    def run(self, kernel: device.Kernel, blocks: int, arguments: tuple[Any, ...]) -> None:
        # a recording of this engine is not one of the GPU's
        Context().run(self._run, kernel, blocks, arguments)

    def _run(self, kernel: device.Kernel, blocks: int, arguments: tuple[Any, ...]) -> None:
        self.counters.append(None)
        gpu = libraries.current()
        there = [gpu.upload(value) if isinstance(value, np.ndarray) else value for value in arguments]
        gpu.launch(kernel, blocks, *there)
        for value, copy in zip(arguments, there, strict=True):
            if isinstance(value, np.ndarray) and value.size and value.flags.writeable:
                value[...] = gpu.download(copy).reshape(value.shape)


def _for_a_device(name: str, value: Any) -> bool:
    """Whether something of a test module is a test that a GPU can take, or a fixture."""
    if name.startswith("test_"):
        return "raises" not in value.__code__.co_names
    return type(value).__name__ == "FixtureFunctionDefinition"


def _modules_with_an_emulator() -> list[ModuleType]:
    here = Path(__file__)
    names = [path.stem for path in here.parent.glob("test_*.py") if path != here and "Emulator(" in path.read_text()]
    ordered = sorted(names, key=lambda name: (FIRST.index(name) if name in FIRST else len(FIRST), name))
    found = []
    for name in ordered:
        with suppress(pytest.skip.Exception):  # it says so itself, where it is collected
            found.append(import_module(name))
    return found


_modules = _modules_with_an_emulator()
for _module in _modules:
    for _name, _value in list(vars(_module).items()):
        if _for_a_device(_name, _value):
            # two modules may have tests of one name
            _place = _name.replace("test_", f"{_module.__name__}_", 1) if _name.startswith("test_") else _name
            globals()[_place] = _value


@pytest.fixture(autouse=True)
def kernels_on_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every module takes this engine for the emulator."""
    for module in _modules:
        monkeypatch.setattr(module, "Emulator", OnDevice)


def test_two_streams_at_once() -> None:
    """Two rows of launches that may overlap, each on arrays of its own."""
    from fastconv.cuda.kernels import elements

    cuda, kernel = device.target(), elements.sum_parts()
    run = cuda.jit(kernel.signature, launch_bounds=(kernel.threads, kernel.residents))(kernel.function)
    rng = np.random.default_rng(0)
    numbers = [rng.normal(size=(4, 1 << 18)).astype(np.float32) for _ in range(2)]
    streams = [cuda.stream() for _ in numbers]
    partial = [cuda.to_device(array.reshape(-1)) for array in numbers]
    out = [cuda.device_array(1 << 18, np.float32) for _ in numbers]
    cuda.synchronize()
    for _ in range(20):
        for stream, source, target in zip(streams, partial, out, strict=True):
            run[(1 << 18) // kernel.threads, kernel.threads, stream](source, target, 4)
    cuda.synchronize()
    for array, computed in zip(numbers, out, strict=True):
        assert np.array_equal(computed.copy_to_host(), ((array[0] + array[1]) + array[2]) + array[3])
