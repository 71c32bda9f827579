"""Devices and the libraries that share them, with a driver and a Numba that only writes down what it is asked for."""

import ctypes
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fastconv.cuda import Array, asarray, device, driver, empty_cache, launcher, libraries, stream
from fastconv.cuda.device import Kernel

FLOATS = {"shape": (4,), "typestr": "<f4", "version": 3}


class Context:
    """A device, and its primary context."""

    def __init__(self, ordinal: int) -> None:
        self.handle, self.allocated = 0x100 + ordinal, 0

    def __enter__(self) -> None: ...

    def __exit__(self, *error: object) -> None: ...

    def get_primary_context(self) -> "Context":
        return self

    def get_memory_info(self) -> Any:
        return SimpleNamespace(total=2**20)

    def memalloc(self, nbytes: int) -> Any:
        self.allocated += 1
        return SimpleNamespace(device_pointer=0x1000 * self.allocated)


class Numba:
    """What is used of Numba's CUDA target; `log` holds launches and waits."""

    def __init__(self) -> None:
        self.gpus = [Context(0), Context(1)]
        self.log: list[Any] = []

    def external_stream(self, handle: int) -> Any:
        return SimpleNamespace(handle=handle)

    def event(self, timing: bool) -> Any:
        return SimpleNamespace(
            record=lambda stream: self.log.append(("record", stream.handle)),
            wait=lambda stream: self.log.append(("wait", stream.handle)),
        )

    def from_cuda_array_interface(self, description: dict[str, Any], owner: Any, sync: bool) -> Any:
        assert not sync
        return "numba", description["data"][0], description["shape"], owner

    def to_device(self, values: Any) -> Any:
        description = {"data": (0x5000, False)}
        return SimpleNamespace(__cuda_array_interface__=description)

    def synchronize(self) -> None:
        self.log.append("synchronize")

    def get_current_device(self) -> Any:
        return SimpleNamespace(id=0, compute_capability=(9, 0))


class Calls:
    """The driver: copies are made, launches are written down, and so is every change of context."""

    CUkernel = str  # no handle here is one

    def __init__(self, log: list[Any]) -> None:
        self.log = log
        self.contexts: list[int] = []
        self.memory: dict[int, Any] = {}
        self.names: dict[int, str] = {}
        self.error: Any = 0

    def CUfunction(self, handle: int) -> int:  # noqa: N802 - the driver's name
        return handle

    def cuCtxGetCurrent(self) -> tuple[Any, ...]:  # noqa: N802
        return 0, self.contexts[-1] if self.contexts else 0

    def cuCtxSetCurrent(self, context: int) -> tuple[Any, ...]:  # noqa: N802
        self.log.append(("keep", context))
        self.contexts[-1:] = [context]
        return (0,)

    def cuCtxPushCurrent(self, context: int) -> tuple[Any, ...]:  # noqa: N802
        self.log.append(("push", context))
        self.contexts.append(context)
        return (0,)

    def cuCtxPopCurrent(self) -> tuple[Any, ...]:  # noqa: N802
        self.log.append("pop")
        return 0, self.contexts.pop()

    def cuMemcpyHtoDAsync(self, address: int, host: int, nbytes: int, stream: int) -> tuple[Any, ...]:  # noqa: N802
        self.memory[address] = ctypes.string_at(host, nbytes)
        return (0,)

    def cuMemcpyDtoHAsync(self, host: int, address: int, nbytes: int, stream: int) -> tuple[Any, ...]:  # noqa: N802
        ctypes.memmove(host, self.memory[address], nbytes)
        return (0,)

    def cuStreamSynchronize(self, stream: int) -> tuple[Any, ...]:  # noqa: N802
        self.log.append(("synchronize", stream))
        return (0,)

    def cuLaunchKernel(self, function: int, *numbers: int) -> tuple[Any, ...]:  # noqa: N802
        blocks, threads, stream = numbers[0], numbers[3], numbers[7]
        self.log.append((self.names[function], blocks, threads, stream))
        return (self.error,)


@pytest.fixture
def numba(monkeypatch: pytest.MonkeyPatch) -> Iterator[Numba]:
    fake = Numba()
    calls = Calls(fake.log)
    # a thread that has used device 0 before
    calls.contexts.append(fake.gpus[0].handle)

    def cached(kernel: Kernel, capability: Any) -> Any:
        handle = len(calls.names) + 1
        calls.names[handle] = kernel.function.__name__
        return SimpleNamespace(library=SimpleNamespace(get_cufunc=lambda: SimpleNamespace(handle=handle)))

    for module in (device, libraries):
        monkeypatch.setattr(module, "target", lambda: fake)
    for module in (driver, launcher):
        monkeypatch.setattr(module, "calls", lambda: calls)
    fake.calls = calls  # type: ignore[attr-defined]
    monkeypatch.setattr(device, "why_not", lambda: None)
    monkeypatch.setattr(device, "cached", cached)
    monkeypatch.setattr(libraries, "_pools", {})
    for cache in (libraries.engine, device._launcher):
        cache.cache_clear()
    yield fake
    for cache in (libraries.engine, device._launcher):
        cache.cache_clear()


def kernel() -> Kernel:
    def nothing() -> None: ...

    return Kernel(nothing, SimpleNamespace(args=()), 128, 1)


class Tensor:
    """PyTorch's tensor: its stream is the current one, so its interface names none."""

    def __init__(self, address: int, ordinal: int = 0, stream: int | None = None) -> None:
        self.__cuda_array_interface__ = {**FLOATS, "data": (address, False), "stream": stream}
        self.ordinal = ordinal

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, self.ordinal

    def get_device(self) -> int:
        return self.ordinal


class PlainTensor:
    """A tensor as most are: it has no interface here, for nobody is to ask for it."""

    dtype, layout, requires_grad, is_cuda = "float32", "strided", False, True

    def __init__(self, nbytes: int = 16, shape: tuple[int, ...] = (4,)) -> None:
        self.nbytes, self.shape = nbytes, shape

    def get_device(self) -> int:
        return 0

    def data_ptr(self) -> int:
        return 0x9000

    def stride(self) -> tuple[int, ...]:
        return (1,)

    def numel(self) -> int:
        return self.nbytes


@pytest.fixture
def torch(monkeypatch: pytest.MonkeyPatch) -> Any:
    class FakeTorch(SimpleNamespace):
        current, made, taken, Tensor = 5, 0, None, PlainTensor

        def empty(self, shape: Any, dtype: Any, device: str) -> Any:
            self.made += 1
            return SimpleNamespace(data_ptr=lambda: 0x9000, shape=shape, dtype=dtype, device=device)

        def as_tensor(self, source: Any, device: str) -> Any:
            self.taken = source.__cuda_array_interface__
            return "tensor", source.array, device

    fake = FakeTorch(uint8="uint8", float32="float32", strided="strided")
    fake.cuda = SimpleNamespace(current_stream=lambda ordinal: SimpleNamespace(cuda_stream=fake.current))
    monkeypatch.setitem(sys.modules, "torch", fake)
    for tensor in (Tensor, PlainTensor):
        monkeypatch.setattr(tensor, "__module__", "torch")
    return fake


def test_own_arrays_use_memory_again(numba: Numba) -> None:
    for _ in range(3):
        array = asarray(np.ones(300, np.float32))
        assert array.memory.address == 0x1000
        np.testing.assert_array_equal(array.numpy(), np.ones(300))
        del array
    assert numba.gpus[0].allocated == 1
    empty_cache()
    asarray(np.ones(300, np.float32), device=0)
    assert numba.gpus[0].allocated == 2
    assert asarray(np.ones(4, np.float32), device=1).engine.ordinal == 1
    assert numba.gpus[1].allocated == 1


def test_launches_go_to_the_stream_that_was_chosen(numba: Numba) -> None:
    engine = libraries.current()
    engine.launch(kernel(), 3)
    with stream(7):
        engine.launch(kernel(), 3)
        with stream(SimpleNamespace(ptr=8)):
            engine.launch(kernel(), 3)
        engine.launch(kernel(), 0)
    engine.launch(kernel(), 3)
    assert numba.log == [("nothing", 3, 128, handle) for handle in (0, 7, 8, 0)]


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


def test_memory_of_one_stream_is_not_given_to_another(numba: Numba) -> None:
    with stream(7):
        asarray(np.ones(4, np.float32))
    asarray(np.ones(4, np.float32))
    assert numba.gpus[0].allocated == 2


def test_pytorch_gets_its_own_memory_on_its_own_stream(numba: Numba, torch: Any) -> None:
    engine = libraries.engine_of(Tensor(0x4000))
    assert engine.stream == 5
    engine.launch(kernel(), 1)
    assert numba.log == [("nothing", 1, 128, 5)]
    result = Array(engine, engine.empty((4,), np.float32), (2, 2))
    assert (result.memory.address, torch.made, numba.gpus[0].allocated) == (0x9000, 1, 0)
    assert engine.give(result) == ("tensor", result, "cuda:0")
    assert torch.taken["stream"] is None
    assert torch.taken["shape"] == (2, 2)
    assert engine.give(Array(engine, engine.empty((0,), np.float32), (0, 3))).shape == (0, 3)


def test_plain_tensors_are_not_asked_for_an_interface(numba: Numba, torch: Any) -> None:
    from fastconv.cuda import exchange

    tensor = PlainTensor()
    assert exchange.is_foreign(tensor)
    entered = exchange.enter("x", tensor)
    assert entered[2:] == ((4,), (1,))
    assert (entered.memory.address, entered.memory.dtype, entered.memory.owner) == (0x9000, np.float32, tensor)
    assert entered.engine is libraries.engine_of(Tensor(0x4000))
    assert numba.log == []
    tensor.is_cuda = False
    assert not exchange.is_foreign(tensor)
    tensor.requires_grad = True
    assert libraries.PyTorch().look(tensor) is None


def test_results_are_the_tensors_that_were_made_for_them(numba: Numba, torch: Any) -> None:
    engine = libraries.engine_of(PlainTensor())
    made = PlainTensor()
    made.dtype = "uint8"
    made.view = lambda dtype: SimpleNamespace(view=lambda shape: (made, dtype, shape))  # type: ignore[method-assign]
    array = Array(engine, device.Memory(0x9000, np.dtype(np.float32), (4,), made), (2, 2))
    assert engine.give(array) == (made, "float32", (2, 2))
    part = Array(engine, array.memory[1:], (3,))
    assert engine.give(part) == ("tensor", part, "cuda:0")


def test_the_stream_of_the_interface_is_waited_for(numba: Numba, torch: Any) -> None:
    from fastconv.cuda import exchange

    for named, waits in ((None, []), (5, []), (6, [("record", 6), ("wait", 5)]), (1, [("record", 0), ("wait", 5)])):
        numba.log.clear()
        entered = exchange.enter("x", Tensor(0x4000, stream=named))
        assert entered.memory.address == 0x4000
        assert numba.log == waits


def test_arrays_of_two_libraries_meet_on_one_device(numba: Numba, torch: Any) -> None:
    from fastconv.cuda import exchange

    x = exchange.contiguous(exchange.enter("x", Tensor(0x4000)))
    weight = exchange.enter("weight", asarray(np.ones(4, np.float32)))
    numba.log.clear()
    assert exchange.join("weight", weight, "x", x).engine is x.engine
    assert numba.log == [("record", 0), ("wait", 5)]
    elsewhere = exchange.enter("weight", asarray(np.ones(4, np.float32), device=1))
    with pytest.raises(TypeError, match=r"weight and x must be on one device\. Received: device=1 and device=0"):
        exchange.join("weight", elsewhere, "x", x)


def test_cupy(numba: Numba, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = SimpleNamespace(data=SimpleNamespace(ptr=0x7000))
    cuda = SimpleNamespace(get_current_stream=lambda ordinal: SimpleNamespace(ptr=3), Device=lambda ordinal: Context(0))
    fake = SimpleNamespace(cuda=cuda, empty=lambda *_: memory, asarray=lambda source: ("cupy", source.array))
    monkeypatch.setitem(sys.modules, "cupy", fake)
    engine = libraries.engine(libraries.CuPy(), 1)
    result = Array(engine, engine.empty((4,), np.float32), (4,))
    assert (engine.stream, result.memory.address, result.memory.owner) == (3, 0x7000, memory)
    assert engine.give(result) == ("cupy", result)
    assert engine.give(Array(engine, engine.empty((0,), np.float32), (0,))) is memory


def test_numba_and_other_libraries(numba: Numba, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tensor, "__module__", "numba.cuda.cudadrv")
    engine = libraries.engine_of(Tensor(0x4000, ordinal=1))
    memory = engine.empty((6,), np.float32)
    assert engine.ordinal == 1
    assert engine.give(Array(engine, memory, (2, 3))) == ("numba", memory.address, (2, 3), memory)
    monkeypatch.setattr(Tensor, "__module__", "jaxlib")
    other = libraries.engine_of(Tensor(0x4000))
    array = Array(other, other.empty((6,), np.float32), (2, 3))
    assert other.give(array) is array
    assert array.__cuda_array_interface__["stream"] == 1


def test_constants_are_uploaded_once(numba: Numba) -> None:
    engine = libraries.current()
    first = engine.constant(np.arange(3))
    assert engine.constant(np.arange(3)) is first
    assert numba.log == ["synchronize"]


def test_a_constant_is_known_again_by_itself_as_long_as_it_lives(numba: Numba, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = libraries.current()
    changing, fixed = np.arange(3), np.arange(4)
    fixed.flags.writeable = False
    assert engine.constant(changing) is not engine.constant(fixed)
    known = engine.constant(fixed)
    changing[0] = 5
    assert engine.constant(changing) is not engine.constant(np.arange(3))
    monkeypatch.setattr(engine, "_constants", None)
    assert engine.constant(fixed) is known
    assert len(engine._known) == 1
    del fixed
    assert not engine._known


def test_the_context_is_changed_only_where_it_must_be(numba: Numba) -> None:
    engine, other = libraries.current(0), libraries.current(1)
    nothing, calls = kernel(), numba.calls  # type: ignore[attr-defined]
    launched = ("nothing", 1, 128, 0)
    engine.launch(nothing, 1)
    assert numba.log == [launched]
    other.launch(nothing, 1)
    assert numba.log[1:] == [("push", 0x101), launched, "pop"]
    assert calls.contexts == [0x100]
    numba.log.clear()
    calls.contexts.clear()  # as in a new thread
    other.launch(nothing, 1)
    assert calls.contexts == []
    engine.launch(nothing, 1)
    engine.launch(nothing, 1)
    assert numba.log[3:] == [("keep", 0x100), launched, launched]


def test_an_error_of_the_driver_is_raised(numba: Numba) -> None:
    numba.calls.error = SimpleNamespace(name="CUDA_ERROR_ILLEGAL_ADDRESS")  # type: ignore[attr-defined]
    with pytest.raises(driver.DriverError, match="nothing: the CUDA driver reports CUDA_ERROR_ILLEGAL_ADDRESS"):
        libraries.current().launch(kernel(), 1)


def test_arrays_of_the_host_are_refused(numba: Numba) -> None:
    array = SimpleNamespace(layout="C", ndim=1)
    takes_one = Kernel(kernel().function, SimpleNamespace(args=(array,)), 128, 1)
    with pytest.raises(TypeError, match="a NumPy array of shape"):
        libraries.current().launch(takes_one, 1, np.ones(3))
    assert not numba.log
