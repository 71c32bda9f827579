"""A few layers, every pass, every library: the values against the reference, then the time.

pytest bench --benchmark-only       # times, grouped by layer and pass
pytest bench --benchmark-disable    # values only
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from competitors import COMPETITORS, LIBRARIES, OURS, PASSES, torch
from numpy.typing import NDArray
from problems import Problem

from fastconv.geometry import conv2d_geometry
from fastconv.reference import conv as reference

CASES = {
    "first layer": conv2d_geometry((8, 28, 28, 1), (3, 3, 1, 32)),
    "3x3": conv2d_geometry((4, 14, 11, 32), (3, 3, 32, 48), padding=1),
    "1x1 stride 2": conv2d_geometry((4, 14, 11, 32), (1, 1, 32, 48), stride=2),
    "5x3 stride 2": conv2d_geometry((3, 17, 13, 6), (5, 3, 6, 10), stride=(2, 1), padding=(2, 1)),
    "dilated": conv2d_geometry((2, 17, 13, 6), (3, 2, 6, 10), dilation=(2, 3), padding=1),
    "3 groups": conv2d_geometry((2, 11, 13, 6), (3, 3, 2, 9), groups=3, padding=1),
    "depthwise": conv2d_geometry((4, 14, 14, 64), (3, 3, 1, 64), groups=64, padding=1),
    "depthwise, 2 outputs a channel": conv2d_geometry((2, 9, 11, 5), (3, 3, 1, 10), groups=5, stride=2),
}
REFERENCES: dict[str, Any] = {
    "forward": lambda p: reference.conv2d(p.geometry, _wide(p.x[0]), _wide(p.weight[0])),
    "grad_x": lambda p: reference.conv2d_grad_x(p.geometry, _wide(p.grad_out[0]), _wide(p.weight[0])),
    "grad_weight": lambda p: reference.conv2d_grad_weight(p.geometry, _wide(p.x[0]), _wide(p.grad_out[0])),
}
VARIANTS = [
    pytest.param(library, variant, id=f"{library} {variant}")
    for library in (OURS, *LIBRARIES)
    for variant in COMPETITORS[PASSES[0]][library]
]
# Of the largest value: sums of up to 7000 terms in float32, in any order.
TOLERANCE = 1e-5


def _wide(array: NDArray[np.float32]) -> NDArray[np.float64]:
    return array.astype(np.float64)


@pytest.mark.parametrize(("library", "variant"), VARIANTS)
@pytest.mark.parametrize("direction", PASSES)
@pytest.mark.parametrize("case", CASES)
def test_pass(benchmark: Any, case: str, direction: str, library: str, variant: str) -> None:
    problem = Problem(CASES[case])
    contender = COMPETITORS[direction][library][variant](problem)
    expected = REFERENCES[direction](problem)
    benchmark.group = f"{case} {direction}"
    benchmark.extra_info["flops"] = problem.geometry.flops
    for copy in (0, 1):  # the second finds the workspace used
        result = contender.as_ours(contender.compute(copy))
        np.testing.assert_allclose(result, expected, rtol=0, atol=TOLERANCE * np.abs(expected).max())
    benchmark(lambda: contender.compute(problem.turn()))


def test_torch_takes_part() -> None:
    if torch is None:
        pytest.skip("PyTorch is not installed: it is in no table")
    assert all(COMPETITORS[direction]["torch"] for direction in PASSES)
