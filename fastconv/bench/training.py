"""Training as a problem of its own: epochs of the networks of `demo` over the images that the package ships.

Every library starts from the same weights and takes the same batches in the same order with the same Adam.  A call
trains one epoch and returns its mean loss, so the first calls, which start alike, are compared before anything is
timed; later ones go on from where the last one ended.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fastconv.bench.libraries import Contender
from fastconv.bench.problems import Array, Inputs
from fastconv.demo import LEARNING_RATE, book_network, tutorial_network
from fastconv.keras import Sequential, datasets, losses, optimizers, utils

NETWORKS = {"tutorial": tutorial_network, "book": book_network}
DEFAULT_NETWORK = "tutorial"
#: Images of an epoch: the training part of the sample; of the book's, thirty times the work, as many as keep the first
#: epoch within `Training.tolerance`: the losses of two libraries are 0.1% apart after 8 steps, and 6% after 32.
IMAGES = {"tutorial": 8500, "book": 256}
BATCHES = (32, 128)
CLASSES = 10
EPSILON = 1e-7
#: A training step costs the forward pass and two gradients.
PASSES_OF_A_STEP = 3


@dataclass(frozen=True)
class Training:
    """Training with so many images per step: like `problems.Layer` for those who time it."""

    batch: int
    images: int
    chosen: str = DEFAULT_NETWORK
    name: str = "epoch"
    count: int = 1
    operation: str = "network"
    passes: tuple[str, ...] = ("train",)

    #: The mean loss of the first epoch, relative: Adam divides by tiny gradients, so rounding grows from step to step.
    tolerance: ClassVar[float] = 1e-2
    #: An epoch is long, and there are few rows.
    seconds: ClassVar[float] = 45.0

    @property
    def network(self) -> str:
        """Title of the rows."""
        return f"{self.chosen} CNN"

    @property
    def geometry(self) -> str:
        """The problem in words."""
        return f"the {self.chosen} network, {self.images} images, {self.batch} a step"

    def work(self, direction: str) -> tuple[int, int]:
        """FLOPs of the convolutions and dense layers; bytes of the weights, moved once for each pass of each step."""
        model = network(self.chosen)
        flops = 0
        for layer in model.layers:
            for weight in layer.get_weights()[:1]:
                pixels = prod(extent or 0 for extent in layer.output_shape[1:-1]) if weight.ndim == 4 else 1
                flops += 2 * weight.size * pixels
        steps = -(-self.images // self.batch)
        weights = sum(weight.nbytes for weight in model.get_weights())
        return PASSES_OF_A_STEP * flops * self.images, PASSES_OF_A_STEP * steps * weights

    def problem(self) -> TrainProblem:
        """Images, labels and initial weights."""
        return TrainProblem(self.batch, self.images, self.chosen)


class TrainProblem(Inputs):
    """What training starts from."""

    def __init__(self, batch: int, images: int, chosen: str) -> None:
        super().__init__()
        (x, y), _ = datasets.load_sample()
        self.x: Array = x[:images, ..., np.newaxis].astype(np.float32) / np.float32(255)
        self.y: NDArray[np.int64] = y[:images].astype(np.int64)
        self.batch = batch
        self.learning_rate, self.epsilon = LEARNING_RATE, EPSILON
        #: The network that everybody makes a copy of: it learns nothing itself.
        self.network = network(chosen)


@lru_cache
def network(chosen: str) -> Sequential:
    """The network with the weights that everybody starts from."""
    utils.set_random_seed(0)
    return NETWORKS[chosen]((28, 28, 1), CLASSES)


def ours(problem: TrainProblem, threads: int, device: str = "cpu") -> Contender:
    """fastconv's `fit`; on a *device*, batch by batch from host memory."""
    model = Sequential.from_config(problem.network.get_config())
    model.set_weights(problem.network.get_weights())
    model.to(device)
    optimizer = optimizers.Adam(problem.learning_rate, epsilon=problem.epsilon)
    model.compile(optimizer, losses.SparseCategoricalCrossentropy(from_logits=True))

    def compute(copy: int) -> Any:
        history = model.fit(problem.x, problem.y, batch_size=problem.batch, verbose=0, shuffle=False)
        return history.history["loss"][0]

    return Contender(compute)
