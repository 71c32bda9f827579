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
        if type(numbers) is not Array:
            self._in_host_memory += float(numbers.sum(dtype=np.float64)) * times
            return
        counts = numbers.dtype == np.int32
        if self._on_device is None:
            self._on_device = asarray(np.zeros(1, np.int64 if counts else np.float64), numbers.engine)
        scores = room(numbers).scores
        add = scores.add_count if counts else scores.add_sum
        add(numbers if times == 1 else numbers * times, self._on_device, 0)

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
