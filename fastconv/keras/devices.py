"""Where the arrays of a model lie: in host memory, or on a device, which an `Engine` of `fastconv.cuda` stands for."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastconv.arrays import FloatArray
from fastconv.cuda.array import Array, asarray
from fastconv.cuda.device import Engine, current


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


def sample(values: Any) -> NDArray[Any]:
    """Samples as they travel to a device: pixels of a byte as bytes, all else as float32."""
    array = np.asarray(values)
    return np.ascontiguousarray(array, np.uint8 if array.dtype == np.uint8 else np.float32)


def entered(values: Any, engine: Engine) -> Any:
    """A batch of samples of any kind as float32 numbers on a device."""
    there = values if type(values) is Array else asarray(sample(values), engine)
    return there.astype(np.float32, copy=False)


def copied_ahead(values: NDArray[Any], engine: Engine) -> Callable[[], Array]:
    """Start a copy to a device; calling the result gives the array, and it must be called."""
    arrive = engine.upload_ahead(values)
    return lambda: Array(engine, arrive(), values.shape)
