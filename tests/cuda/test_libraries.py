"""Devices and the libraries that share them, with a driver that only writes down what it is asked for."""

import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fastconv.cuda import Array, asarray, device, empty_cache, libraries, stream
from fastconv.cuda.device import Kernel

FLOATS = {"shape": (4,), "typestr": "<f4", "version": 3}


class Memory:
    """A flat array at an address, as Numba has it."""

    def __init__(self, description: dict[str, Any], owner: Any) -> None:
        self.shape = description["shape"]
        self.dtype = np.dtype(description["typestr"])
        self.size = int(np.prod(self.shape))
        self.address, self.owner = description["data"][0], owner

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {"shape": self.shape, "typestr": self.dtype.str, "data": (self.address, False), "version": 3}

    def reshape(self, *shape: Any) -> Any:
        return "numba", self, *shape

    def copy_to_device(self, values: Any, stream: Any) -> None:
        self.uploaded = values, stream

    def copy_to_host(self, stream: Any) -> Any:
        return self.uploaded[0]


class Context:
    """The primary context of a device."""

    def __init__(self, ordinal: int) -> None:
        self.ordinal, self.allocated = ordinal, 0

    def __enter__(self) -> None: ...

    def __exit__(self, *error: object) -> None: ...

    def get_primary_context(self) -> "Context":
        return self

    def get_memory_info(self) -> Any:
        return SimpleNamespace(total=2**20)

    def memalloc(self, nbytes: int) -> Any:
        self.allocated += 1
        return SimpleNamespace(device_pointer=0x1000 * self.allocated)


class Launcher:
    """A compiled kernel."""

    def __init__(self, name: str, log: list[Any]) -> None:
        self.name, self.log = name, log

    def __getitem__(self, configuration: Any) -> Any:
        blocks, threads, stream = configuration
        return lambda *arguments: self.log.append((self.name, blocks, threads, stream.handle))


class Driver:
    """What is used of Numba's CUDA target; `log` holds launches and waits."""

    def __init__(self) -> None:
        self.gpus = [Context(0), Context(1)]
        self.log: list[Any] = []

    def external_stream(self, handle: int) -> Any:
        return SimpleNamespace(handle=handle, synchronize=lambda: self.log.append(("synchronize", handle)))

    def event(self, timing: bool) -> Any:
        return SimpleNamespace(
            record=lambda stream: self.log.append(("record", stream.handle)),
            wait=lambda stream: self.log.append(("wait", stream.handle)),
        )

    def from_cuda_array_interface(self, description: dict[str, Any], owner: Any, sync: bool) -> Memory:
        assert not sync
        return Memory(description, owner)

    def device_array(self, shape: tuple[int, ...], dtype: Any) -> Memory:
        return Memory({"shape": shape, "typestr": dtype.str, "data": (0, False)}, None)

    def get_current_device(self) -> Any:
        return SimpleNamespace(id=0, compute_capability=(9, 0))


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Driver]:
    fake = Driver()
    for module in (device, libraries):
        monkeypatch.setattr(module, "target", lambda: fake)
    monkeypatch.setattr(device, "why_not", lambda: None)
    monkeypatch.setattr(device, "cached", lambda kernel, capability: Launcher(kernel.function.__name__, fake.log))
    monkeypatch.setattr(libraries, "_pools", {})
    for cached in (libraries.engine, device._compiled, device._launcher):
        cached.cache_clear()
    yield fake
    for cached in (libraries.engine, device._compiled, device._launcher):
        cached.cache_clear()


def kernel() -> Kernel:
    def nothing() -> None: ...

    return Kernel(nothing, None, 128, 1)


class Tensor:
    """PyTorch's tensor: its stream is the current one, so its interface names none."""

    def __init__(self, address: int, ordinal: int = 0, stream: int | None = None) -> None:
        self.__cuda_array_interface__ = {**FLOATS, "data": (address, False), "stream": stream}
        self.ordinal = ordinal

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, self.ordinal


@pytest.fixture
def torch(monkeypatch: pytest.MonkeyPatch) -> Any:
    class FakeTorch(SimpleNamespace):
        current, made, taken = 5, 0, None

        def empty(self, shape: Any, dtype: Any, device: str) -> Any:
            self.made += 1
            return SimpleNamespace(data_ptr=lambda: 0x9000, shape=shape, dtype=dtype, device=device)

        def as_tensor(self, source: Any, device: str) -> Any:
            self.taken = source.__cuda_array_interface__
            return "tensor", source.array, device

    fake = FakeTorch(uint8="uint8", float32="float32")
    fake.cuda = SimpleNamespace(current_stream=lambda ordinal: SimpleNamespace(cuda_stream=fake.current))
    monkeypatch.setitem(sys.modules, "torch", fake)
    monkeypatch.setattr(Tensor, "__module__", "torch")
    return fake


def test_own_arrays_use_memory_again(driver: Driver) -> None:
    for _ in range(3):
        array = asarray(np.ones(300, np.float32))
        assert array.memory.address == 0x1000
        np.testing.assert_array_equal(array.numpy(), np.ones(300))
        del array
    assert driver.gpus[0].allocated == 1
    empty_cache()
    asarray(np.ones(300, np.float32), device=0)
    assert driver.gpus[0].allocated == 2
    assert asarray(np.ones(4, np.float32), device=1).engine.ordinal == 1
    assert driver.gpus[1].allocated == 1


def test_launches_go_to_the_stream_that_was_chosen(driver: Driver) -> None:
    engine = libraries.current()
    engine.launch(kernel(), 3)
    with stream(7):
        engine.launch(kernel(), 3)
        with stream(SimpleNamespace(ptr=8)):
            engine.launch(kernel(), 3)
        engine.launch(kernel(), 0)
    engine.launch(kernel(), 3)
    assert driver.log == [("nothing", 3, 128, handle) for handle in (0, 7, 8, 0)]


@pytest.mark.parametrize(
    "chosen",
    [
        9,
        SimpleNamespace(ptr=9),
        SimpleNamespace(cuda_stream=9),
        SimpleNamespace(handle=9),
        SimpleNamespace(__cuda_stream__=lambda: (0, 9)),
        SimpleNamespace(__cuda_stream__=(0, 9)),
    ],
)
def test_streams_of_all_libraries(chosen: Any) -> None:
    assert libraries.handle_of(chosen) == 9


def test_no_stream() -> None:
    with pytest.raises(TypeError, match="stream must be a CUDA stream or its handle"), stream("fast"):
        pass


def test_memory_of_one_stream_is_not_given_to_another(driver: Driver) -> None:
    with stream(7):
        asarray(np.ones(4, np.float32))
    asarray(np.ones(4, np.float32))
    assert driver.gpus[0].allocated == 2


def test_pytorch_gets_its_own_memory_on_its_own_stream(driver: Driver, torch: Any) -> None:
    engine = libraries.engine_of(Tensor(0x4000))
    assert engine.stream == 5
    engine.launch(kernel(), 1)
    assert driver.log == [("nothing", 1, 128, 5)]
    result = Array(engine, engine.empty((4,), np.float32), (2, 2))
    assert (result.memory.address, torch.made, driver.gpus[0].allocated) == (0x9000, 1, 0)
    assert engine.give(result) == ("tensor", result, "cuda:0")
    assert torch.taken["stream"] is None
    assert torch.taken["shape"] == (2, 2)
    assert engine.give(Array(engine, engine.empty((0,), np.float32), (0, 3))).shape == (0, 3)


def test_the_stream_of_the_interface_is_waited_for(driver: Driver, torch: Any) -> None:
    from fastconv.cuda import exchange

    for named, waits in ((None, []), (5, []), (6, [("record", 6), ("wait", 5)]), (1, [("record", 0), ("wait", 5)])):
        driver.log.clear()
        entered = exchange.enter("x", Tensor(0x4000, stream=named))
        assert entered.memory.address == 0x4000
        assert driver.log == waits


def test_arrays_of_two_libraries_meet_on_one_device(driver: Driver, torch: Any) -> None:
    from fastconv.cuda import exchange

    x = exchange.contiguous(exchange.enter("x", Tensor(0x4000)))
    weight = exchange.enter("weight", asarray(np.ones(4, np.float32)))
    driver.log.clear()
    assert exchange.join("weight", weight, "x", x).engine is x.engine
    assert driver.log == [("record", 0), ("wait", 5)]
    elsewhere = exchange.enter("weight", asarray(np.ones(4, np.float32), device=1))
    with pytest.raises(TypeError, match=r"weight and x must be on one device\. Received: device=1 and device=0"):
        exchange.join("weight", elsewhere, "x", x)


def test_cupy(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = SimpleNamespace(data=SimpleNamespace(ptr=0x7000))
    cuda = SimpleNamespace(get_current_stream=lambda ordinal: SimpleNamespace(ptr=3), Device=lambda ordinal: Context(0))
    fake = SimpleNamespace(cuda=cuda, empty=lambda *_: memory, asarray=lambda source: ("cupy", source.array))
    monkeypatch.setitem(sys.modules, "cupy", fake)
    engine = libraries.engine(libraries.CuPy(), 1)
    result = Array(engine, engine.empty((4,), np.float32), (4,))
    assert (engine.stream, result.memory.address, result.memory.owner) == (3, 0x7000, memory)
    assert engine.give(result) == ("cupy", result)
    assert engine.give(Array(engine, engine.empty((0,), np.float32), (0,))) is memory


def test_numba_and_other_libraries(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tensor, "__module__", "numba.cuda.cudadrv")
    engine = libraries.engine_of(Tensor(0x4000, ordinal=1))
    memory = engine.empty((6,), np.float32)
    assert engine.ordinal == 1
    assert engine.give(Array(engine, memory, (2, 3))) == ("numba", memory, (2, 3))
    monkeypatch.setattr(Tensor, "__module__", "jaxlib")
    other = libraries.engine_of(Tensor(0x4000))
    array = Array(other, other.empty((6,), np.float32), (2, 3))
    assert other.give(array) is array
    assert array.__cuda_array_interface__["stream"] == 1


def test_constants_are_uploaded_once(driver: Driver) -> None:
    driver.to_device = lambda values: values.copy()  # type: ignore[attr-defined]
    driver.synchronize = lambda: driver.log.append("synchronize")  # type: ignore[attr-defined]
    engine = libraries.current()
    first = engine.constant(np.arange(3))
    assert engine.constant(np.arange(3)) is first
    assert driver.log == ["synchronize"]
