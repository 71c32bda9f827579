"""What the driver gets for a launch: byte by byte what Numba would give it, for every kernel of the warm-up."""

import ctypes
import struct
from collections.abc import Iterator
from threading import Thread
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from emulator import needs_target

from fastconv import warmup
from fastconv.cuda import ahead, device, launcher
from fastconv.cuda.memory import Memory

needs_target()

CUDA = device.target()
COMPILED = SimpleNamespace(library=SimpleNamespace(get_cufunc=lambda: SimpleNamespace(handle=7)))


class Launches(ahead.Compiler):
    """Keeps the first launch of each kernel."""

    def __init__(self) -> None:
        super().__init__((9, 0))
        self.found: dict[device.Kernel, tuple[Any, ...]] = {}

    def launch(self, kernel: device.Kernel, blocks: int, *arguments: Any) -> None:
        if blocks > 0:
            self.found.setdefault(kernel, arguments)


class Numba:
    """A kernel of Numba as far as it prepares arguments; those of the driver come as `ctypes` objects."""

    extensions = ()
    _prepare_args = CUDA.dispatcher._Kernel._prepare_args

    def bytes_of(self, kinds: Any, values: Any) -> list[bytes]:
        given: list[Any] = []
        for kind, value in zip(kinds, values, strict=True):
            self._prepare_args(kind, value, 0, [], given)
        return [bytes(self.number(value)) for value in given]

    def number(self, value: Any) -> Any:
        """What NVIDIA's `cuda.core` makes of a number: one of a pointer's size, a truth value one byte."""
        if isinstance(value, bool):
            return ctypes.c_bool(value)
        return ctypes.c_int64(value) if isinstance(value, int) else value


@pytest.fixture(scope="module")
def launches() -> dict[device.Kernel, tuple[Any, ...]]:
    engine = Launches()
    for call in warmup.gpu_calls(engine):
        call()
    return engine.found


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[Any, ...]]]:
    """The arguments of every `cuLaunchKernel`."""
    told: list[tuple[Any, ...]] = []

    def launch(*arguments: Any) -> tuple[Any, ...]:
        told.append(arguments)
        return (0,)

    calls = SimpleNamespace(CUkernel=str, CUfunction=lambda handle: handle, cuLaunchKernel=launch)
    monkeypatch.setattr(launcher, "calls", lambda: calls)
    layout = SimpleNamespace(strides_in_bytes=None, is_contiguous_c=True, is_contiguous_f=False)

    def on_device(value: Memory) -> Any:
        there = SimpleNamespace(size=value.size, dtype=value.dtype, ptr=value.address, shape=value.shape)
        there._layout = layout
        return SimpleNamespace(to_device=lambda *others: there)

    monkeypatch.setattr(CUDA.dispatcher, "wrap_arg", on_device)
    return told


def in_memory(value: Any) -> Any:
    """What an operation gives a device in place of an array of the emulator."""
    if not isinstance(value, np.ndarray):
        return value
    return Memory(value.__array_interface__["data"][0], value.dtype, (value.size,), value)


def read(table: int, sizes: list[int]) -> list[bytes]:
    places = (ctypes.c_void_p * len(sizes)).from_address(table)
    return [ctypes.string_at(place, size) for place, size in zip(places, sizes, strict=True)]


def test_arguments_are_numbas_byte_by_byte(
    launches: dict[device.Kernel, tuple[Any, ...]], driver: list[tuple[Any, ...]]
) -> None:
    assert len(launches) > 30
    for kernel, arguments in launches.items():
        name, kinds = kernel.function.__name__, kernel.signature.args
        given = tuple(map(in_memory, arguments))
        launch = launcher.Launcher(COMPILED, name, kernel.signature, kernel.threads)
        launch(12, 34, given)
        function, *grid, table, extra = driver.pop()
        assert (function, grid, extra) == (7, [12, 1, 1, kernel.threads, 1, 1, 0, 34], 0)
        expected = Numba().bytes_of(kinds, given)
        assert len(launch._places) == len(expected), name
        assert read(table, [len(part) for part in expected]) == expected, name


def test_kinds_of_arguments(launches: dict[device.Kernel, tuple[Any, ...]]) -> None:
    """The launches above have every kind that the launcher knows."""
    codes = {launcher.codes_of(kind) for kernel in launches for kind in kernel.signature.args}
    assert {kind for kind, _ in codes} == {launcher._ARRAY, launcher._TUPLE, launcher._NUMBER}
    assert {code[-1] for _, code in codes} == set(launcher._CODES.values())
    with pytest.raises(TypeError, match="arrays of one axis"):
        launcher.codes_of(CUDA.types.float32[:, ::1])
    with pytest.raises(KeyError):
        launcher.codes_of(CUDA.types.complex64)


def test_numbers_that_do_not_fit_are_refused(driver: list[tuple[Any, ...]]) -> None:
    types = CUDA.types
    launch = launcher.Launcher(COMPILED, "counts", types.void(types.int32, types.float32), 64)
    for wrong in ((2**31, 1.0), (1.5, 1.0), (1,), (1, 1.0, 1.0)):
        with pytest.raises((struct.error, ValueError)):
            launch(1, 0, wrong)
    assert not driver


def test_threads_do_not_mix_their_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver reads the buffer without Python's lock, slowly here."""
    types, wrong = CUDA.types, []

    def launch(*given: Any) -> tuple[Any, ...]:
        first = read(given[-2], [4] * 4)
        for _ in range(100):
            if read(given[-2], [4] * 4) != first or len(set(first)) > 1:
                wrong.append(first)
        return (0,)

    calls = SimpleNamespace(CUkernel=str, CUfunction=lambda handle: handle, cuLaunchKernel=launch)
    monkeypatch.setattr(launcher, "calls", lambda: calls)
    one = launcher.Launcher(COMPILED, "fours", types.void(*[types.int32] * 4), 64)
    threads = [Thread(target=lambda i=i: [one(1, 0, (i,) * 4) for _ in range(200)]) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
