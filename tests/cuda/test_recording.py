"""Recordings: batches that are replayed have the CPU's bits, and what is launched again is what was launched."""

import gc
from contextlib import nullcontext
from math import prod
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from emulator import Emulator, needs_target

from fastconv import dropout
from fastconv.cuda import asarray, driver, launcher, recording
from fastconv.cuda.device import Device
from fastconv.cuda.memory import Memory, Pool, Reserve
from fastconv.keras import Model, Sequential, callbacks, layers
from fastconv.keras.recorded import Recorded
from fastconv.keras.utils import set_random_seed
from fastconv.rooms import room

needs_target()

RANDOM = np.random.default_rng(0)
ROWS = RANDOM.standard_normal((11, 6)).astype(np.float32)
LABELS = RANDOM.integers(0, 3, 11)


class Own(layers.Layer):
    """A layer of a caller's, who counts."""

    calls = 0

    def forward(self, x: Any, training: bool = False) -> Any:
        self.calls += 1
        return x

    def backward(self, grad_out: Any, need_grad_x: bool = True) -> Any:
        return grad_out


class Counted(layers.Dense):
    """A dense layer that counts; only the place where it is written tells it from the package's."""

    calls = 0

    def forward(self, x: Any, training: bool = False) -> Any:
        self.calls += 1
        return super().forward(x, training)


Counted.__module__ = layers.Dense.__module__


def network(device: Any, *others: layers.Layer) -> Model:
    """A network that draws numbers, keeps statistics, and counts how often Python goes through it."""
    set_random_seed(3)
    first = Counted(4, activation="relu", kernel_regularizer="l2")
    rest = layers.BatchNormalization(), layers.Dropout(0.3), layers.Dense(3, activation="softmax")
    model = Sequential([layers.Input((6,)), first, *others, *rest], device=device)
    model.compile("adam", "sparse_categorical_crossentropy", ["accuracy"])
    return model


def assert_same(here: Model, there: Model) -> None:
    for variable, other in zip(here.weights, there.weights, strict=True):
        assert np.array_equal(variable.numpy(), other.numpy()), variable.name


def test_python_goes_through_an_epoch_twice() -> None:
    """Five batches of two, of which the third, fourth and fifth are replayed, and a last one of one."""
    here, there = network("cpu"), network(Emulator())
    expected, found = (model.fit(ROWS, LABELS, batch_size=2, epochs=2, verbose=0).history for model in (here, there))
    assert found == expected
    assert_same(here, there)
    assert (here.layers[0].calls, there.layers[0].calls) == (12, 6)
    assert np.array_equal(there.predict(ROWS, batch_size=2), here.predict(ROWS, batch_size=2))
    assert there.layers[0].calls == 9
    scores = [model.evaluate(ROWS, LABELS, batch_size=2, verbose=0) for model in (here, there)]
    assert scores[0] == pytest.approx(scores[1])
    assert there.layers[0].calls == 12


class Meddler(callbacks.Callback):
    """Changes, in the middle of an epoch, where weights lie and what learns."""

    def on_train_batch_end(self, batch: int, logs: Any) -> None:
        if batch == 2:
            self.model.set_weights([weight * 0.5 for weight in self.model.get_weights()])
        if batch == 3:
            self.model.layers[0].trainable = self.model.layers[1].trainable = False
        if batch == 4:
            self.model.optimizer.learning_rate = 0.5


def test_what_a_callback_changes_counts_at_once() -> None:
    here, there = network("cpu"), network(Emulator())
    for model in (here, there):
        model.fit(ROWS, LABELS, batch_size=1, verbose=0, callbacks=Meddler(), shuffle=False)
    assert_same(here, there)


def test_layers_of_the_caller_are_gone_through_for_each_batch() -> None:
    own = Own()
    here, there = network("cpu", Own()), network(Emulator(), own)
    for model in (here, there):
        model.fit(ROWS, LABELS, batch_size=2, verbose=0)
    assert_same(here, there)
    assert own.calls == 6


def test_what_comes_from_the_host_is_not_replayed() -> None:
    """The function adds a number that it gets from the host: it is called each time."""
    engine, numbers = Emulator(), iter(range(10))

    def add_next(x: Any) -> list[Any]:
        return [x + asarray(np.full(3, next(numbers), np.float32), engine)]

    recorded = Recorded(engine, add_next, list)
    x = asarray(np.zeros(3, np.float32), engine)
    assert [float(recorded(x)[0].numpy()[0]) for _ in range(4)] == [0, 1, 2, 3]


def test_other_engines_and_other_shapes() -> None:
    """What runs elsewhere meanwhile is not lost, and other shapes do not disturb a recording."""
    engine, calls = Emulator(), []

    def twice(x: Any) -> list[Any]:
        calls.append(x.shape)
        return [x + x]

    recorded = Recorded(engine, twice, list)
    for count in (3, 3, 2, 3, 2, 3):
        x = np.arange(count, dtype=np.float32)
        assert np.array_equal(recorded(asarray(x, engine))[0].numpy(), 2 * x)
    assert calls == [(3,), (3,), (2,), (2,)]
    some = engine.recording()
    with some.on():
        twice(asarray(np.ones(3, np.float32), Emulator()))
    assert not some.complete


def test_a_seed_in_memory_is_the_same_seed() -> None:
    engine = Emulator()
    x = asarray(ROWS, engine)
    seed = room(x).number(lambda: 2**63 + 5)
    assert np.array_equal(dropout(x, 0.5, seed=seed).numpy(), dropout(ROWS, 0.5, seed=2**63 + 5))
    for wrong in (asarray(np.zeros(2, np.uint64), engine), asarray(np.zeros(1, np.uint64), Emulator())):
        with pytest.raises(TypeError, match="seed must be an int, or an array of one uint64 on the device of x"):
            dropout(x, 0.5, seed=wrong)
    with pytest.raises(TypeError, match="seed must be an int"):
        dropout(ROWS, 0.5, seed=seed)


# ---- memory that is used again --------------------------------------------------------------------------------------


class Numbers(np.ndarray):
    """Memory of `Pooled`."""

    def copy_to_device(self, values: Any, stream: int) -> None:
        self[...] = values


class Leased:
    """What NumPy makes an array of that keeps a lease."""

    def __init__(self, lease: Any, nbytes: int) -> None:
        self.lease = lease
        data = lease.address, False
        self.__array_interface__ = {"shape": (nbytes,), "typestr": "|u1", "data": data, "version": 3}


class Again(recording.Graph):
    """A graph without a driver: numbers first, then kernels, which do not hold the memory that they were told."""

    def __init__(self, engine: Any) -> None:
        recording.Recording.__init__(self, engine)
        self._reserves, self.kernels = {}, []

    def add_kernel(self, engine: Any, kernel: Any, arguments: Any) -> None:
        told = [engine.unleased(value) if isinstance(value, np.ndarray) else value for value in arguments]
        self.kernels.append((*kernel, told))

    def replay(self) -> None:
        for step in self._steps:
            step()
        for kernel in self.kernels:
            self.engine.run(*kernel)

    def __del__(self) -> None:
        pass


class Pooled(Emulator):
    """An emulator whose memory is used again as that of a `Device` is, where arrays of the emulator have their own."""

    context, stream = staticmethod(nullcontext), 0
    number = Device.number

    def __init__(self) -> None:
        super().__init__()
        self._arena, self._used = np.zeros(1 << 20, np.uint8), 0
        self._pool = Pool(self._allocate, self._arena.size)

    def _allocate(self, nbytes: int) -> Any:
        address = self._arena.ctypes.data + self._used
        self._used += nbytes
        return SimpleNamespace(address=address)

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
        nbytes = prod(shape) * np.dtype(dtype).itemsize
        if not nbytes:
            return np.empty(shape, dtype)
        gc.collect(0)  # an array whose address NumPy has told is part of a circle
        lease = recording.taken_from(self._pool, 0).take(nbytes, 0)
        return np.asarray(Leased(lease, nbytes)).view(dtype).reshape(shape).view(Numbers)

    def unleased(self, values: Any) -> Any:
        at = values.ctypes.data - self._arena.ctypes.data
        if not 0 <= at < self._arena.size:
            return values
        return self._arena[at : at + values.nbytes].view(values.dtype).reshape(values.shape)

    def upload(self, values: Any) -> Any:
        recording.interrupt()
        memory = self.empty((values.size,), values.dtype)
        memory[...] = values.reshape(-1)
        return memory

    def launch(self, kernel: Any, blocks: int, *arguments: Any) -> None:
        if blocks > 0:
            self.run(kernel, blocks, arguments)
            if isinstance(now := recording.current(self), Again):
                now.add_kernel(self, (kernel, blocks), arguments)

    def recording(self) -> Again:
        return Again(self)


def test_memory_that_is_used_again_is_nobody_elses() -> None:
    here, there = network("cpu"), network(Pooled())
    expected, found = (model.fit(ROWS, LABELS, batch_size=2, epochs=2, verbose=0).history for model in (here, there))
    assert found == expected
    assert_same(here, there)
    assert there.layers[0].calls == 6


def test_a_seed_has_memory_of_its_own() -> None:
    """It is written before the first kernel of a replay, so none of them may write to where it lies."""
    engine, seeds = Pooled(), iter(range(4))

    def drop(x: Any) -> list[Any]:
        tripled = x * 2 + x  # whose first product is let go
        return [dropout(tripled, 0.5, seed=room(x).number(lambda: next(seeds)))]

    recorded, x = Recorded(engine, drop, list), asarray(ROWS[0], engine)
    for seed in range(4):
        assert np.array_equal(recorded(x)[0].numpy(), dropout(ROWS[0] * 2 + ROWS[0], 0.5, seed=seed))


# ---- the driver, pretended ------------------------------------------------------------------------------------------


class Driver:
    """A graph is a list of kernels; memory has ever new addresses."""

    CUkernel, CUfunction = str, staticmethod(int)
    CUDA_KERNEL_NODE_PARAMS = SimpleNamespace

    def __init__(self) -> None:
        self.graph: list[tuple[int, list[int]]] = []
        self.log: list[str] = []
        self.addresses = iter(range(4096, 1 << 20, 4096))

    def cuKernelGetFunction(self, kernel: str) -> tuple[int, str]:  # noqa: N802 - NVIDIA's names, here and below
        return 0, kernel

    def cuGraphCreate(self, flags: int) -> tuple[int, str]:  # noqa: N802
        return 0, "graph"

    def cuGraphAddKernelNode(self, graph: str, behind: list[int], count: int, told: Any) -> tuple[int, int]:  # noqa: N802
        assert (graph, count) == ("graph", len(behind))
        assert told.func == 7, "a function, not a kernel of any context"
        assert (told.gridDimY, told.gridDimZ, told.blockDimX, told.blockDimY, told.blockDimZ) == (1, 1, 64, 1, 1)
        self.graph.append((told.gridDimX, behind))
        return 0, len(self.graph)

    def cuGraphInstantiate(self, graph: str, flags: int) -> tuple[int, str]:  # noqa: N802
        self.log.append("instantiate")
        return 0, "executable"

    def cuGraphLaunch(self, executable: str, stream: int) -> tuple[int]:  # noqa: N802
        self.log.append(f"launch {executable} on {stream}")
        return (0,)

    def cuGraphExecDestroy(self, executable: str) -> tuple[int]:  # noqa: N802
        self.log.append("destroy executable")
        return (0,)

    def cuGraphDestroy(self, graph: str) -> tuple[int]:  # noqa: N802
        self.log.append("destroy graph")
        return (0,)

    def allocate(self, nbytes: int) -> Any:
        return SimpleNamespace(address=next(self.addresses))


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> Driver:
    calls = Driver()
    for module in (driver, launcher, recording):
        monkeypatch.setattr(module, "calls", lambda: calls)
    return calls


def kernel() -> launcher.Launcher:
    from fastconv.cuda.kernels.elements import NUMBERS, cuda

    compiled = SimpleNamespace(library=SimpleNamespace(get_cufunc=lambda: SimpleNamespace(handle="7")))
    return launcher.Launcher(compiled, "kernel", cuda.types.void(NUMBERS), 64)


def test_a_graph_of_the_driver(pretended: Driver) -> None:
    """Kernels one behind the other, numbers before them; memory that nobody else gets until it is over."""
    pool = Pool(pretended.allocate, 1 << 20)

    def array(blocks: Pool) -> Memory:
        lease = blocks.take(1024, 0)
        return Memory(lease.address, np.dtype(np.float32), (256,), lease)

    graph = recording.Graph(SimpleNamespace(context=nullcontext, stream=5))
    weight, one = array(pool), kernel()
    with graph.on():
        reserve = recording.taken_from(pool, 0)
        assert isinstance(reserve, Reserve)
        assert recording.taken_from(pool, 0) is reserve
        first = array(reserve)
        mine = first.address
        graph.add_kernel(one, 3, (weight,))
        graph.add_kernel(one, 4, (first,))
        del first
        assert array(reserve).address == mine, "what is free serves again"
    assert recording.taken_from(pool, 0) is pool
    assert pretended.graph == [(3, []), (4, [1])]
    pool.empty()
    reserve.empty()
    assert mine not in {array(pool).address for _ in range(3)}, "the kernels write there"
    graph.add(lambda: pretended.log.append("number"))
    graph.replay()
    graph.replay()
    launch = ["number", "launch executable on 5"]
    assert pretended.log == [launch[0], "instantiate", launch[1], *launch]
    address = weight.address
    del weight
    assert array(pool).address != address, "a weight that the kernels read is kept"
    del graph, reserve
    assert pretended.log[-2:] == ["destroy executable", "destroy graph"]
    kept = [array(pool) for _ in range(6)]
    assert {mine, address} <= {memory.address for memory in kept}
