"""Optimizer steps on the GPU, in place, with the bits of `fastconv.cpu.update`: one pass over memory each.

As there, every operation is rounded by itself and denormals are zero, so that fading averages end.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv.cpu.update import adam_step
from fastconv.cuda.device import Engine, flat


def sgd_update(
    engine: Engine,
    parameter: Any,
    gradient: Any,
    velocity: Any,
    *,
    learning_rate: float,
    momentum: float = 0.0,
    nesterov: bool = False,
) -> None:
    """One step of Keras's SGD; *velocity* is None without momentum."""
    from fastconv.cuda.kernels import update as kernels

    arrays = parameter, gradient, velocity
    _run(engine, kernels.sgd(nesterov), arrays, (learning_rate, momentum))


def adam_update(
    engine: Engine,
    parameter: Any,
    gradient: Any,
    mean: Any,
    square: Any,
    *,
    iteration: int,
    learning_rate: float,
    beta_1: float = 0.9,
    beta_2: float = 0.999,
    epsilon: float = 1e-7,
) -> None:
    """Step number *iteration* (from 1) of Keras's Adam."""
    from fastconv.cuda.kernels import update as kernels

    step = adam_step(iteration, learning_rate, beta_1, beta_2)
    _run(engine, kernels.adam(), (parameter, gradient, mean, square), (step, 1 - beta_1, 1 - beta_2, epsilon))


def rmsprop_update(
    engine: Engine,
    parameter: Any,
    gradient: Any,
    square: Any,
    mean: Any,
    velocity: Any,
    *,
    learning_rate: float,
    rho: float = 0.9,
    momentum: float = 0.0,
    epsilon: float = 1e-7,
) -> None:
    """One step of Keras's RMSprop; *mean* and *velocity* may be None."""
    from fastconv.cuda.kernels import update as kernels

    arrays = parameter, gradient, square, mean, velocity
    _run(engine, kernels.rmsprop(), arrays, (learning_rate, rho, 1 - rho, momentum, epsilon))


def _run(engine: Engine, kernel: Any, arrays: tuple[Any, ...], numbers: tuple[float, ...]) -> None:
    from fastconv.cuda.kernels import elements

    nothing = engine.empty((0,), np.float32)
    arguments = [nothing if array is None else flat(array) for array in arrays]
    elements.launch(engine, kernel, arguments[0].size, *arguments, *(np.float32(number) for number in numbers))
