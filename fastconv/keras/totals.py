"""Sums over the batches of an epoch, which stay where the numbers are until somebody looks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import Any

import numpy as np

from fastconv.cuda.array import Array
from fastconv.cuda.libraries import asarray
from fastconv.rooms import room


class Total:
    """A sum in float64 to which arrays are added; those of a device add up there, ones and zeros as integers."""

    def __init__(self) -> None:
        self._in_host_memory = 0.0
        self._on_device: Array | None = None

    def add(self, numbers: Any, times: float = 1.0) -> None:
        """Add *times* the sum of an array."""
        here = room(numbers).total
        if type(numbers) is not Array:
            self._in_host_memory += here.of(numbers) * times
            return
        counts = numbers.dtype == np.int32
        if self._on_device is None:
            self._on_device = asarray(np.zeros(1, np.int64 if counts else np.float64), numbers.engine)
        if counts:
            here.add_count(numbers, self._on_device, 0)
        else:
            here.add_sum(numbers, self._on_device, 0, times)

    def value(self) -> float:
        """The sum so far; what has been launched on a device is waited for."""
        if self._on_device is None:
            return self._in_host_memory
        return self._in_host_memory + float(self._on_device.numpy()[0])


class LateLogs(Mapping[str, float]):
    """Averages that are fetched from a device at the first look, and stay as they were then."""

    def __init__(self, fetch: Callable[[], Mapping[str, float]]) -> None:
        self._fetch = fetch

    @cached_property
    def _numbers(self) -> Mapping[str, float]:
        return self._fetch()

    def __getitem__(self, name: str) -> float:
        return self._numbers[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._numbers)

    def __len__(self) -> int:
        return len(self._numbers)
