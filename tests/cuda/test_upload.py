"""Copies beside kernels: what waits for what, seen by a driver that only writes down what it is told."""

from types import SimpleNamespace
from typing import Any

import numpy as np

from fastconv.cuda.upload import Copier


class Event:
    def __init__(self, told: list[Any]) -> None:
        self.told, self.done = told, False

    def record(self, stream: Any) -> None:
        self.told.append(("record", self, stream))
        self.done = False

    def wait(self, stream: Any) -> None:
        self.told.append(("wait", self, stream))

    def query(self) -> bool:
        return self.done


class Driver:
    """In place of Numba's CUDA target."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.buffers: list[Any] = []
        self.copies = SimpleNamespace(handle=7)

    def stream(self) -> Any:
        return self.copies

    def event(self, timing: bool) -> Event:
        return Event(self.told)

    def pinned_array(self, size: int, dtype: Any) -> Any:
        self.buffers.append(np.zeros(size, dtype))
        return self.buffers[-1]


class Memory:
    def __init__(self, told: list[Any]) -> None:
        self.told = told

    def copy_to_device(self, values: Any, stream: int) -> None:
        self.told.append(("copy", values.tolist(), stream))


def test_a_copy_begins_behind_the_kernels_so_far_and_ends_in_an_event() -> None:
    driver = Driver()
    done = Copier(driver).copy(np.array([[1, 2], [3, 4]], np.float32), Memory(driver.told), "kernels")
    launched = driver.told[0][1]
    assert driver.told == [
        ("record", launched, "kernels"),
        ("wait", launched, driver.copies),
        ("copy", [1, 2, 3, 4], 7),
        ("record", done, driver.copies),
    ]


def test_a_buffer_serves_again_once_its_copy_is_done() -> None:
    driver = Driver()
    copier, memory = Copier(driver), Memory(driver.told)
    first = copier.copy(np.zeros(100, np.uint8), memory, "kernels")
    copier.copy(np.ones(100, np.uint8), memory, "kernels")
    assert len(driver.buffers) == 2, "the first copy may still read its buffer"
    first.done = True
    copier.copy(np.full(100, 2, np.uint8), memory, "kernels")
    assert len(driver.buffers) == 2
    assert driver.buffers[0][0] == 2
    copier.copy(np.zeros(10_000, np.uint8), memory, "kernels")
    assert len(driver.buffers) == 3
