"""Where the batches of an epoch come from: arrays, or an iterator that makes them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from fastconv.keras.layers.base import positive

#: The batch of each input of a model, and the labels.
Batch = tuple[list[NDArray[Any]], NDArray[Any]]


class Batches(Protocol):
    """A source of batches: *steps* of them make an epoch."""

    @property
    def steps(self) -> int: ...
    @property
    def samples(self) -> int: ...
    @property
    def batch_size(self) -> int: ...
    def epoch(self) -> Iterator[Batch]:
        """The batches of one epoch."""
        ...


class ArrayBatches(NamedTuple):
    """Batches of arrays, in order, or in a new order for each epoch where there is an *order* to ask for."""

    inputs: list[NDArray[Any]]
    labels: NDArray[Any]
    batch_size: int
    order: Callable[[int], NDArray[np.int64]] | None = None

    @property
    def samples(self) -> int:
        return len(self.labels)

    @property
    def steps(self) -> int:
        return math.ceil(self.samples / self.batch_size)

    def epoch(self) -> Iterator[Batch]:
        order = self.order(self.samples) if self.order is not None else None
        for batch in slices(self.samples, self.batch_size):
            chosen = batch if order is None else order[batch]
            yield take(self.inputs, chosen), self.labels[chosen]


class IteratorBatches(NamedTuple):
    """Batches of an iterator of ``(x, y)``, as `preprocessing.image.ImageDataGenerator.flow` returns one."""

    iterator: Iterator[Any]
    steps: int
    batch_size: int
    parts: Callable[[Any], list[NDArray[Any]]]

    @property
    def samples(self) -> int:
        return int(getattr(self.iterator, "n", self.steps * self.batch_size))

    def epoch(self) -> Iterator[Batch]:
        for _ in range(self.steps):
            x, y = next(self.iterator)
            yield self.parts(x), np.asarray(y)


def held_back(batches: Batches, share: float) -> tuple[ArrayBatches, Batch]:
    """The batches without the last *share* of their samples, and those samples, to validate on."""
    if not isinstance(batches, ArrayBatches):
        raise ValueError("validation_split needs arrays, not an iterator; give validation_data instead")
    kept = int(batches.samples * (1 - share))  # rounded down, as Keras does
    if not 0 < kept < batches.samples:
        raise ValueError(
            f"validation_split must leave samples on both sides. "
            f"Received: validation_split={share}, {batches.samples} samples"
        )
    inputs, labels = batches.inputs, batches.labels
    rest = take(inputs, slice(kept, None)), labels[kept:]
    return batches._replace(inputs=take(inputs, slice(kept)), labels=labels[:kept]), rest


def is_iterator(x: Any) -> bool:
    """Whether batches come from *x* itself."""
    return hasattr(x, "__next__")


def starting_at(x: Any, number: int) -> Any:
    """Batches from *number* on of an iterator that can begin anywhere, as those of images can; other things as is."""
    return x.from_batch(number) if hasattr(x, "from_batch") else x


def of_iterator(
    iterator: Any, steps: int | None, name: str, parts: Callable[[Any], list[NDArray[Any]]]
) -> IteratorBatches:
    """Batches of an iterator: *steps* of them, by default as many as it says it has."""
    if steps is None and not hasattr(iterator, "__len__"):
        raise ValueError(f"{name} is needed where x is an iterator that has no length. Received: x={iterator!r}")
    count = positive(name, len(iterator) if steps is None else steps)
    return IteratorBatches(iterator, count, int(getattr(iterator, "batch_size", 1)), parts)


def check_no_steps(name: str, steps: int | None) -> None:
    """Raise ValueError where a number of batches is asked for of an array, all of whose samples are taken."""
    if steps is not None:
        raise ValueError(
            f"{name} counts the batches of an iterator; of arrays, give the samples that are to be taken. "
            f"Received: {name}={steps}"
        )


def slices(count: int, batch_size: int) -> Iterator[slice]:
    """Neighbouring samples, so many at a time."""
    for start in range(0, count, batch_size):
        yield slice(start, min(start + batch_size, count))


def take(inputs: list[NDArray[Any]], chosen: Any) -> list[NDArray[Any]]:
    """The chosen samples of each input."""
    return [array[chosen] for array in inputs]


def check_lengths(inputs: list[NDArray[Any]], labels: NDArray[Any] | None = None) -> int:
    """The number of samples, which must be the same in all inputs and in the labels."""
    named = [*(("x", array) for array in inputs), *([] if labels is None else [("y", labels)])]
    if len({len(array) for _, array in named}) > 1:
        shapes = ", ".join(f"{name}.shape={array.shape}" for name, array in named)
        raise ValueError(f"x and y must have the same number of samples. Received: {shapes}")
    return len(inputs[0])
