"""Batch normalisation on the GPU: its PTX, executed, against the bits of the CPU."""

from typing import Any

import numpy as np
import pytest
from bits import all_kinds, normal_numbers, same_numbers
from emulator import Emulator, needs_target

from fastconv import functional
from fastconv.cpu import normalization as cpu
from fastconv.cuda import normalization
from fastconv.cuda.ptx import OutOfBounds

needs_target()

ARCHITECTURE = pytest.mark.parametrize("architecture", ["sm_80", "sm_100"])


@ARCHITECTURE
def test_passes_have_the_cpus_bits(architecture: str) -> None:
    engine, C = Emulator(architecture), 4
    x, grad_out = all_kinds(64).reshape(-1, C), all_kinds(64, seed=1).reshape(-1, C)
    vectors = [normal_numbers(C, seed=seed) for seed in range(4)]
    assert same_numbers(normalization.normalize(engine, x, *vectors[:3]), cpu.normalize(x, *vectors[:3]))
    computed = normalization.normalize_backward(engine, grad_out, x, *vectors)
    assert same_numbers(computed, cpu.normalize_backward(grad_out, x, *vectors))


@ARCHITECTURE
@pytest.mark.parametrize("shape", [(40, 3), (9, 70), (1, 5), (0, 4)])
def test_training_step_has_the_cpus_bits(shape: tuple[int, int], architecture: str) -> None:
    engine, C, epsilon = Emulator(architecture), shape[1], 1e-3
    x, grad_out = normal_numbers(*shape) + np.float32(2), normal_numbers(*shape, seed=1)
    gamma, beta = normal_numbers(C, seed=2), normal_numbers(C, seed=3)
    expected: Any = functional.batch_norm_training(x, gamma, beta, epsilon=epsilon)
    computed = normalization.batch_norm_training(engine, x, gamma, beta, epsilon)
    assert all(map(same_numbers, computed, expected))

    _, mean, variance = expected
    expected = functional.batch_norm_backward(grad_out, x, gamma, mean, variance, epsilon=epsilon)
    computed = normalization.batch_norm_backward(engine, grad_out, x, gamma, mean, variance, epsilon)
    assert all(map(same_numbers, computed, expected))

    expected = functional.batch_norm(x, gamma, beta, mean, variance, epsilon=epsilon)
    assert same_numbers(normalization.batch_norm(engine, x, gamma, beta, mean, variance, epsilon), expected)


@pytest.mark.parametrize("short", range(5))
def test_an_array_too_short_is_caught(short: int) -> None:
    arrays: list[Any] = [normal_numbers(60, 8), normal_numbers(60, 8), *(normal_numbers(8) for _ in range(4))]
    at = short if short < 2 else short + 1  # the mean says how many channels there are
    arrays[at] = arrays[at].reshape(-1)[:-1].copy() if at != 1 else arrays[1]
    if at == 1:
        arrays[1] = np.concatenate([arrays[1], arrays[1]])  # and x how many numbers
    with pytest.raises(OutOfBounds):
        normalization.normalize_backward(Emulator(), *arrays)
