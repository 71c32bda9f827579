"""What works element by element or row by row, on device arrays: the bits of the same call on NumPy arrays."""

from typing import Any

import numpy as np
import pytest
from emulator import needs_target
from test_public import BIAS, GRAD, KERNELS, SERIES, WEIGHT, X, check, numbers

needs_target()
pytest.importorskip("fastconv.cuda.reduction")

LOGITS, LABELS = numbers(3, 5), np.array([1, 0, 4])
ONE_HOT = np.eye(5, dtype=np.float32)[LABELS]
GAMMA, VARIANCE = numbers(4), np.abs(numbers(4))

CALLS: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    ("conv2d_grad_bias", (GRAD,), {}),
    ("dense_backward", (numbers(3, 5), numbers(3, 7), numbers(7, 5)), {}),
    ("activation", (LOGITS, "silu"), {}),
    ("activation_backward", (LOGITS, LOGITS, "gelu"), {}),
    ("softmax", (LOGITS,), {}),
    ("softmax_backward", (LOGITS, ONE_HOT), {}),
    ("dropout", (LOGITS, 0.5), {"seed": 3}),
    ("batch_norm", (X, GAMMA, GAMMA, GAMMA, VARIANCE), {}),
    ("batch_norm_training", (X, GAMMA, GAMMA), {}),
    ("batch_norm_backward", (X, X, GAMMA, GAMMA, VARIANCE), {}),
    ("softmax_cross_entropy", (LOGITS, LABELS), {}),
    ("softmax_cross_entropy", (LOGITS, ONE_HOT), {}),
    ("softmax_cross_entropy_backward", (1 / 3, LOGITS, LABELS), {}),
    ("softmax_cross_entropy_backward", (numbers(3), LOGITS, ONE_HOT), {}),
]


@pytest.mark.parametrize(("name", "arguments", "options"), CALLS, ids=[call[0] for call in CALLS])
def test_elements_and_rows(name: str, arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
    check(name, arguments, options)


def test_backward_in_one_call() -> None:
    check("conv2d_backward", (GRAD, X, WEIGHT), {"padding": 1}, algorithm="direct")
    check("conv1d_backward", (numbers(2, 7, 8), SERIES, KERNELS), {}, algorithm="direct")
    transposed = numbers(2, 11, 15, 5), X, numbers(3, 3, 5, 4)
    check("conv_transpose2d_backward", transposed, {"stride": 2}, algorithm="direct")


def test_activation_after_a_transposed_convolution() -> None:
    arguments = X, numbers(3, 3, 8, 4), BIAS
    check("conv_transpose2d", arguments, {"activation": "sigmoid"}, algorithm="direct")
