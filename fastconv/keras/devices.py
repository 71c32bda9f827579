"""Where the arrays of a model lie: in host memory, or on a device, which an `Engine` of `fastconv.cuda` stands for."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastconv.arrays import FloatArray
from fastconv.cuda.array import Array
from fastconv.cuda.device import Engine
from fastconv.cuda.libraries import asarray, current


def engine_of(device: Any) -> Engine | None:
    """The engine of ``"cuda"`` or ``"cuda:1"``, None for ``"cpu"``; an engine stands for itself.

    RuntimeError, with what is missing, where there is no GPU.
    """
    found = re.fullmatch(r"cpu|cuda(?::(\d+))?", device) if isinstance(device, str) else None
    if found:
        return None if device == "cpu" else current(int(found[1] or 0))
    if hasattr(device, "launch"):
        engine: Engine = device
        return engine
    raise ValueError(f'device must be "cpu", "cuda", "cuda:1" and so on, or an engine. Received: device={device!r}')


def placed(array: Any, engine: Engine | None) -> Any:
    """*array* in the memory of *engine*, or in host memory; itself where it lies there."""
    here = array.engine if type(array) is Array else None
    if here is engine:
        return array
    host: FloatArray = array if here is None else array.numpy()
    return host if engine is None else asarray(host, engine)


def sample(values: Any) -> Any:
    """Samples as they travel to a device: pixels of a byte as bytes, all else as float32; those that are there stay."""
    if type(values) is Array:
        return values
    array = np.asarray(values)
    return np.ascontiguousarray(array, np.uint8 if array.dtype == np.uint8 else np.float32)


def entered(values: Any, engine: Engine) -> Any:
    """A batch of samples of any kind as float32 numbers on a device."""
    ready = sample(values)
    there = ready if type(ready) is Array else asarray(ready, engine)
    return there.astype(np.float32, copy=False)


def copied_ahead(batches: Iterator[list[NDArray[Any]]], engine: Engine) -> Iterator[list[Any]]:
    """Batches of arrays on a device: each is copied there while the one before it is in work.

    Arrays that lie there already stay where they are.
    """

    def started(values: Any) -> Callable[[], Any]:
        return (lambda: values.memory) if type(values) is Array else engine.upload_ahead(values)

    def arrived(batch: list[tuple[Callable[[], Any], tuple[int, ...]]]) -> list[Any]:
        return [Array(engine, arrive(), shape) for arrive, shape in batch]

    under_way = []
    try:
        for batch in batches:
            under_way.append([(started(values), values.shape) for values in batch])
            if len(under_way) > 1:
                yield arrived(under_way.pop(0))
        while under_way:
            yield arrived(under_way.pop(0))
    finally:  # a copy that nobody waits for could end in memory that has been given to another array
        for rest in under_way:
            arrived(rest)
