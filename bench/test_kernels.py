"""A few layers, every pass, every library: the values against the reference, then the time.

pytest bench --benchmark-only       # times, grouped by layer and pass
pytest bench --benchmark-disable    # values only
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fastconv.bench import libraries, machine
from fastconv.bench.libraries import OURS, Prepare, ours
from fastconv.bench.problems import POOLINGS, ConvProblem, Pooling, PoolProblem, pooling
from fastconv.geometry import Conv2dGeometry, conv2d_geometry
from fastconv.reference import conv as reference, pool as pool_reference

CASES: dict[str, Conv2dGeometry | Pooling] = {
    "first layer": conv2d_geometry((8, 28, 28, 1), (3, 3, 1, 32)),
    "3x3": conv2d_geometry((4, 14, 11, 32), (3, 3, 32, 48), padding=1),
    "1x1 stride 2": conv2d_geometry((4, 14, 11, 32), (1, 1, 32, 48), stride=2),
    "5x3 stride 2": conv2d_geometry((3, 17, 13, 6), (5, 3, 6, 10), stride=(2, 1), padding=(2, 1)),
    "dilated": conv2d_geometry((2, 17, 13, 6), (3, 2, 6, 10), dilation=(2, 3), padding=1),
    "3 groups": conv2d_geometry((2, 11, 13, 6), (3, 3, 2, 9), groups=3, padding=1),
    "depthwise": conv2d_geometry((4, 14, 14, 64), (3, 3, 1, 64), groups=64, padding=1),
    "depthwise, 2 outputs a channel": conv2d_geometry((2, 9, 11, 5), (3, 3, 1, 10), groups=5, stride=2),
    "max 2x2": pooling("max", (2, 14, 10, 24), 2, 2),
    "max 3x3 stride 2": pooling("max", (2, 13, 11, 20), 3, 2, 1),
    "average 2x3": pooling("average", (2, 14, 12, 24), (2, 3), (2, 3)),
    "average 3x3 stride 1": pooling("average", (2, 9, 8, 20), 3, 1, 1),
    "global average": pooling("global_average", (3, 7, 5, 40), 1, 1),
}
# Of the largest value: sums of up to 7000 terms in float32, in any order; a Fourier transform loses as much.
TOLERANCE = 1e-5


def loaded() -> dict[str, Any]:
    """The variants of every installed library, ours first."""
    found: dict[str, Any] = {
        OURS: {key: {"auto": prepare} for key, prepare in ours.variants("auto").items()},
    }
    for name in libraries.NAMES:
        try:
            found[name] = libraries.load(name).variants
        except ImportError:
            continue
    return found


LIBRARIES = loaded()
PARTS = [
    pytest.param(case, direction, prepare, id=f"{case}, {direction}, {name} {variant}")
    for case, geometry in CASES.items()
    for name, variants in LIBRARIES.items()
    for (operation, direction), by_variant in variants.items()
    if direction != "all"
    and operation == ("conv2d" if isinstance(geometry, Conv2dGeometry) else f"{geometry.kind}_pool2d")
    for variant, prepare in by_variant.items()
]


def expected(problem: Any, direction: str) -> NDArray[Any]:
    """The result in float64, by the reference."""
    g, grad_out, x = problem.geometry, _wide(problem.grad_out[0]), _wide(problem.x[0])
    if isinstance(g, Conv2dGeometry):
        weight = _wide(problem.weight[0])
        if direction == "forward":
            return reference.conv2d(g, x, weight)
        if direction == "grad_x":
            return reference.conv2d_grad_x(g, grad_out, weight)
        return reference.conv2d_grad_weight(g, x, grad_out)
    rows, columns = (
        pool_reference.windows(*place) for place in zip(g.x_shape[1:3], g.kernel_size, g.stride, g.padding, strict=True)
    )
    if g.kind == "max":
        values, indices = pool_reference.max_pool2d(x, rows, columns)
        return values if direction == "forward" else pool_reference.max_pool2d_backward(grad_out, indices, g.x_shape)
    if direction == "forward":
        return pool_reference.avg_pool2d(x, rows, columns)
    return pool_reference.avg_pool2d_backward(grad_out, g.x_shape, rows, columns)


def _wide(array: NDArray[np.float32]) -> NDArray[np.float64]:
    return array.astype(np.float64)


@pytest.mark.parametrize(("case", "direction", "prepare"), PARTS)
def test_pass(benchmark: Any, case: str, direction: str, prepare: Prepare) -> None:
    geometry = CASES[case]
    problem = ConvProblem(geometry) if isinstance(geometry, Conv2dGeometry) else PoolProblem(geometry)
    try:
        contender = prepare(problem, 1)
    except ValueError as error:
        pytest.skip(str(error))
    wanted = expected(problem, direction)
    benchmark.group = f"{case} {direction}"
    benchmark.extra_info["flops"] = geometry.flops
    for copy in (0, 1):  # the second finds the workspace used
        result = contender.as_ours(contender.compute(copy))
        np.testing.assert_allclose(result, wanted, rtol=0, atol=TOLERANCE * np.abs(wanted).max())
    benchmark(lambda: contender.compute(problem.turn()))


@pytest.mark.parametrize("name", [name for name in LIBRARIES if name != OURS])
def test_all_passes_in_one_call_are_the_passes(name: str) -> None:
    geometry = conv2d_geometry((2, 9, 7, 6), (3, 3, 6, 10), padding=1, stride=2)
    problem = ConvProblem(geometry)
    if ("conv2d", "all") not in LIBRARIES[name]:
        pytest.skip(f"{name} has no gradients")
    for variant, prepare in LIBRARIES[name]["conv2d", "all"].items():
        both = prepare(problem, 1)
        results = both.as_ours(both.compute(0))
        assert len(results) == 3
        for result, direction in zip(results, ("forward", "grad_x", "grad_weight"), strict=True):
            part = LIBRARIES[name]["conv2d", direction][variant](problem, 1)
            one = part.as_ours(part.compute(0))
            np.testing.assert_allclose(result, one, rtol=0, atol=TOLERANCE * np.abs(one).max())


@pytest.mark.parametrize("kind", POOLINGS)
def test_our_pooling_and_its_gradient_in_one_call_are_both(kind: str) -> None:
    problem = PoolProblem(pooling(kind, (2, 8, 6, 5), 2, 2))
    both = ours.variants("auto")[f"{kind}_pool2d", "all"](problem, 1)
    results = both.as_ours(both.compute(0))
    for result, direction in zip(results, ("forward", "grad_x"), strict=True):
        wanted = expected(problem, direction)
        np.testing.assert_allclose(result, wanted, rtol=0, atol=TOLERANCE * np.abs(wanted).max())


@pytest.mark.parametrize("name", [name for name in LIBRARIES if name != OURS])
def test_a_library_can_be_confined_to_one_thread(name: str) -> None:
    with machine.threads(1, [libraries.load(name)]):
        pass


def test_torch_takes_part() -> None:
    if "torch" not in LIBRARIES:
        pytest.skip("PyTorch is not installed: it is in no table")
    assert {direction for _, direction in LIBRARIES["torch"]} >= {"forward", "grad_x", "grad_weight", "all", "train"}
