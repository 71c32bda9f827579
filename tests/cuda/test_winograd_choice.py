"""Which convolutions Winograd computes on a GPU: under "auto" those of the CPU, under "fastest" those where it was."""

from typing import Any

import pytest
from cases import CASES, ConvCase

from fastconv import dispatch
from fastconv.bench import problems
from fastconv.cuda import conv_winograd, conv_winograd_fused, conv_winograd_plan as plan
from fastconv.geometry import Conv2dGeometry

# (operation, images, side of x, input channels, output channels, padding): microseconds on an H200 of "direct",
# "winograd" and, but for grad_weight, "winograd_fused", kernels replayed from a CUDA graph; "direct", but for
# grad_weight, before its tiles were chosen by time, so it takes less where blocks are few
MEASURED = {
    ("forward", 32, 56, 64, 64, 1): (216.2, 169.0, 141.5),
    ("grad_x", 32, 56, 64, 64, 1): (219.6, 169.7, 142.7),
    ("grad_weight", 32, 56, 64, 64, 1): (211.2, 123.0),
    ("forward", 32, 28, 128, 128, 1): (204.3, 95.7, 127.2),
    ("grad_x", 32, 28, 128, 128, 1): (208.1, 98.6, 128.7),
    ("grad_weight", 32, 28, 128, 128, 1): (190.6, 111.1),
    ("forward", 32, 14, 256, 256, 1): (283.9, 124.3, 125.8),
    ("grad_x", 32, 14, 256, 256, 1): (288.4, 126.6, 129.0),
    ("grad_weight", 32, 14, 256, 256, 1): (200.0, 100.7),
    ("forward", 32, 7, 512, 512, 1): (407.6, 115.5, 159.5),
    ("grad_x", 32, 7, 512, 512, 1): (432.5, 124.8, 171.6),
    ("grad_weight", 32, 7, 512, 512, 1): (198.3, 90.5),
    ("forward", 32, 15, 32, 64, 0): (24.4, 16.5, 17.5),
    ("grad_x", 32, 15, 32, 64, 0): (39.2, 18.8, 18.4),
    ("forward", 1, 56, 64, 64, 1): (31.5, 17.3, 17.9),
    ("grad_x", 1, 56, 64, 64, 1): (33.9, 18.2, 18.8),
    ("grad_weight", 1, 56, 64, 64, 1): (20.0, 16.9),
    ("forward", 1, 28, 128, 128, 1): (56.0, 18.6, 29.5),
    ("grad_x", 1, 28, 128, 128, 1): (62.9, 19.6, 35.3),
    ("grad_weight", 1, 28, 128, 128, 1): (19.4, 15.5),
    ("forward", 1, 14, 256, 256, 1): (108.5, 23.7, 51.3),
    ("grad_x", 1, 14, 256, 256, 1): (115.4, 26.2, 54.2),
    ("grad_weight", 1, 14, 256, 256, 1): (15.7, 16.6),
    ("forward", 1, 7, 512, 512, 1): (212.7, 57.2, 95.0),
    ("grad_x", 1, 7, 512, 512, 1): (231.3, 67.2, 107.5),
    ("grad_weight", 1, 7, 512, 512, 1): (13.7, 31.1),
    ("forward", 1, 15, 32, 64, 0): (17.0, 11.1, 13.1),
    ("grad_x", 1, 15, 32, 64, 0): (37.7, 12.4, 18.8),
}


def geometry_of(problem: Any) -> Conv2dGeometry:
    _, images, side, inputs, outputs, padding = problem
    return ConvCase("", (images, side, side, inputs), (3, 3, inputs, outputs), padding=padding).geometry


@pytest.mark.parametrize("problem", MEASURED, ids=str)
def test_fastest_was_the_fastest(problem: Any) -> None:
    """Or at most a tenth slower."""
    operation, images, *_ = problem
    geometry, operation = geometry_of(problem), f"conv2d_{operation}"
    times = dict(zip(("direct", "winograd", "winograd_fused"), MEASURED[problem], strict=False))
    (taken,) = (name for name in times if not plan.declines(name, operation, geometry, images))
    assert times[taken] <= 1.1 * min(times.values())
    told = plan.microseconds(operation, geometry, images)
    for name, time in times.items():
        assert 0.48 * time <= told[name] <= 1.4 * time, name


def chosen(operation: str, geometry: Conv2dGeometry, on_gpu: bool) -> str:
    """What "auto" takes."""
    candidates = dispatch.conv2d_on_gpu() if on_gpu else dispatch.CONV2D
    return next(
        one.name for one in candidates if not (one.refuses(geometry, 4) or one.declines(operation, geometry, None))
    )


def test_auto_takes_winograd_where_the_cpu_does() -> None:
    """So a network has the same bits on both; the CPU's "depthwise" and "direct" have the bits of each other."""
    geometries = [case.geometry for case in CASES]
    layers = problems.layers(batch=1) + problems.layers(batch=32)
    geometries += [layer.geometry for layer in layers if isinstance(layer.geometry, Conv2dGeometry)]
    found = set()
    for geometry in geometries:
        for operation in dispatch.OPERATIONS:
            names = [chosen(operation, geometry, on_gpu) for on_gpu in (False, True)]
            assert (names[0] == "winograd") is (names[1] == "winograd"), (operation, geometry)
            found.add(names[1])
    assert found == {"depthwise", "winograd", "direct"}


def test_auto_was_faster_than_direct() -> None:
    """Wherever it takes Winograd, but for the gradient of a weight from a single image, which nobody trains with."""
    count = 0
    for problem, (direct, winograd, *_) in MEASURED.items():
        operation, images, *_ = problem
        if chosen(f"conv2d_{operation}", geometry_of(problem), True) == "winograd":
            assert winograd < direct or (operation, images) == ("grad_weight", 1), problem
            count += 1
    assert count == 28


def test_the_modules_decline_with_a_sentence() -> None:
    geometry = geometry_of(("forward", 32, 56, 64, 64, 1))
    assert conv_winograd_fused.declines("conv2d_forward", geometry, 32) is None
    assert "times as long as winograd_fused" in str(conv_winograd.declines("conv2d_forward", geometry, 32))
    assert "has bits that no CPU has" in str(conv_winograd_fused.declines("conv2d_forward", geometry, None))
    assert "no conv2d_grad_weight of its own" in str(conv_winograd_fused.declines("conv2d_grad_weight", geometry, 8))
