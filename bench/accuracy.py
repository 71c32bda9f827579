"""What Winograd costs in accuracy: errors against float64, and trainings with and without it.

python bench/accuracy.py                # errors, a few seconds
python bench/accuracy.py --train 5      # and the training of `fastconv train` from five seeds, some minutes
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from fastconv import dispatch
from fastconv.cli import DEFAULT_BATCH_SIZE, DEFAULT_EPOCHS, cosine_schedule, load_images
from fastconv.demo import LEARNING_RATE, tutorial_network
from fastconv.functional.conv import conv2d
from fastconv.geometry import Conv2dGeometry, conv2d_geometry
from fastconv.keras import callbacks, losses, optimizers, utils
from fastconv.reference import conv as reference

ALGORITHMS = ("direct", "winograd")
LAYERS = tuple(
    conv2d_geometry((1, side, side, channels), (3, 3, channels, channels), padding=1)
    for side, channels in ((56, 64), (28, 128), (14, 256), (7, 512))
)

Array = NDArray[Any]


def random(g: Conv2dGeometry, rng: np.random.Generator) -> tuple[Array, Array]:
    """Normally distributed numbers."""
    return rng.normal(size=g.x_shape), rng.normal(size=g.weight_shape)


def scaled_pixels(g: Conv2dGeometry, rng: np.random.Generator) -> tuple[Array, Array]:
    """Every 35th pixel a million times as large as the others."""
    x, weight = random(g, rng)
    x[:, 1::5, 2::7] *= 1e6
    return x, weight


def scaled_channels(g: Conv2dGeometry, rng: np.random.Generator) -> tuple[Array, Array]:
    """Channels from 1e-6 to 1e6."""
    x, weight = random(g, rng)
    return x * np.logspace(-6, 6, g.IC), weight


def alternating(g: Conv2dGeometry, rng: np.random.Generator) -> tuple[Array, Array]:
    """Neighbours of opposite sign: the transforms add what the kernel cancels."""
    sign = (-1.0) ** (np.arange(g.IH)[:, None] + np.arange(g.IW))[..., None]
    return np.ones(g.x_shape) * sign, np.ones(g.weight_shape)


DATA: tuple[Callable[..., tuple[Array, Array]], ...] = (random, scaled_pixels, scaled_channels, alternating)


def errors(g: Conv2dGeometry, x: Array, weight: Array) -> list[float]:
    """Largest error of each algorithm over the largest sum of absolute products."""
    x32, weight32 = x.astype(np.float32), weight.astype(np.float32)
    wide = x32.astype(np.float64), weight32.astype(np.float64)
    exact = reference.conv2d(g, *wide)
    scale = reference.conv2d(g, *map(np.abs, wide)).max()
    results = (conv2d(x32, weight32, padding=g.padding, algorithm=name) for name in ALGORITHMS)
    return [float(np.abs(result - exact).max() / scale) for result in results]


def error_table() -> Table:
    """The errors of all layers and kinds of data."""
    table = Table("layer", "data", *ALGORITHMS, title="Error / largest sum of absolute products", box=SIMPLE_HEAD)
    for g in LAYERS:
        for make in DATA:
            found = errors(g, *make(g, np.random.default_rng(0)))
            table.add_row(str(g.x_shape), make.__name__, *(f"{error:.1e}" for error in found))
    return table


@contextmanager
def without_winograd() -> Iterator[None]:
    """Inside, "auto" never takes Winograd."""
    implementations = dispatch.CONV2D
    dispatch.CONV2D = tuple(one for one in implementations if one.name != "winograd")
    dispatch.choose.cache_clear()
    try:
        yield
    finally:
        dispatch.CONV2D = implementations
        dispatch.choose.cache_clear()


def trained_accuracy(seed: int) -> float:
    """Test accuracy of what ``fastconv train --seed`` trains."""
    data = load_images("sample")
    utils.set_random_seed(seed)
    model = tutorial_network(data.x_train.shape[1:], len(data.class_names))
    model.compile(optimizers.Adam(LEARNING_RATE), losses.SparseCategoricalCrossentropy(from_logits=True))
    schedule = callbacks.LearningRateScheduler(cosine_schedule(DEFAULT_EPOCHS))
    model.fit(data.x_train, data.y_train, DEFAULT_BATCH_SIZE, DEFAULT_EPOCHS, verbose=0, callbacks=[schedule])
    return float(np.mean(model.predict(data.x_test).argmax(axis=1) == data.y_test))


def main(argv: Sequence[str] | None = None) -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=int, default=0, metavar="SEEDS", help="train from so many seeds too")
    seeds = parser.parse_args(argv).train
    console = Console()
    console.print(error_table())
    if seeds:
        table = Table("seed", *ALGORITHMS, title="Test accuracy on the sample", box=SIMPLE_HEAD)
        found = []
        for seed in range(seeds):
            with without_winograd():
                direct = trained_accuracy(seed)
            found.append((direct, trained_accuracy(seed)))
            table.add_row(str(seed), *(f"{accuracy:.2%}" for accuracy in found[-1]))
        table.add_row("mean", *(f"{accuracy:.2%}" for accuracy in np.mean(found, axis=0)))
        console.print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
