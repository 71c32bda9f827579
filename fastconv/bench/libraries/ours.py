"""fastconv itself: the public functions on arrays, and forward also with weights that are packed once and kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastconv.bench.libraries import Contender, Prepare, with_all
from fastconv.bench.problems import ConvProblem, PoolProblem
from fastconv.functional.average_pool import (
    avg_pool2d,
    avg_pool2d_backward,
    global_avg_pool2d,
    global_avg_pool2d_backward,
)
from fastconv.functional.conv import conv2d, conv2d_grad_weight, conv2d_grad_x
from fastconv.functional.pool import max_pool2d, max_pool2d_backward

#: How a weight is given: as an array, which every call packs, or as a `PackedWeight`.
ARRAY, KEPT = "array", "kept"


def preparations(operation: str, direction: str, algorithm: str) -> dict[str, Prepare]:
    """How we compute a pass, by how the weight is given."""
    found = {ARRAY: preparation(operation, direction, algorithm)}
    if (operation, direction) == ("conv2d", "forward"):
        found[KEPT] = _conv_forward_kept(algorithm)
    return found


def preparation(operation: str, direction: str, algorithm: str) -> Prepare:
    """How we compute a pass of arrays."""
    if operation == "network":
        from fastconv.bench import training  # which needs what is here

        return training.ours
    return variants(algorithm)[operation, direction]


def variants(algorithm: str) -> Mapping[tuple[str, str], Prepare]:
    """By operation and pass, with *algorithm* for the convolutions."""
    passes: dict[tuple[str, str], Mapping[str, Prepare]] = {
        ("conv2d", "forward"): {algorithm: _conv_forward(algorithm)},
        ("conv2d", "grad_x"): {algorithm: _conv_grad_x(algorithm)},
        ("conv2d", "grad_weight"): {algorithm: _conv_grad_weight(algorithm)},
        ("average_pool2d", "forward"): {algorithm: _average_forward},
        ("average_pool2d", "grad_x"): {algorithm: _average_grad_x},
        ("global_average_pool2d", "forward"): {algorithm: _global_forward},
        ("global_average_pool2d", "grad_x"): {algorithm: _global_grad_x},
    }
    found = {key: part[algorithm] for key, part in with_all(passes).items()}
    maximum: dict[tuple[str, str], Prepare] = {
        ("max_pool2d", "forward"): _max_forward,
        ("max_pool2d", "grad_x"): _max_grad_x,
        ("max_pool2d", "all"): _max_all,
    }
    return {**found, **maximum}


def _options(problem: ConvProblem, algorithm: str) -> dict[str, Any]:
    g = problem.geometry
    return {
        "stride": g.stride,
        "padding": g.padding,
        "dilation": g.dilation,
        "groups": g.G,
        "algorithm": algorithm,
    }


def _conv_forward(algorithm: str) -> Prepare:
    def prepare(p: ConvProblem, threads: int) -> Contender:
        options = _options(p, algorithm)
        return Contender(lambda copy: conv2d(p.x[copy], p.weight[copy], **options))

    return prepare


def _conv_forward_kept(algorithm: str) -> Prepare:
    def prepare(p: ConvProblem, threads: int) -> Contender:
        from fastconv.packed_weight import PackedWeight  # `bench/against.py` runs this file with older revisions

        options, kept = _options(p, algorithm), [PackedWeight(weight) for weight in p.weight]

        def compute(copy: int) -> Any:
            return conv2d(p.x[copy], kept[copy], **options)

        for copy in range(len(kept)):
            compute(copy)  # packs
        return Contender(compute)

    return prepare


def _conv_grad_x(algorithm: str) -> Prepare:
    def prepare(p: ConvProblem, threads: int) -> Contender:
        options, shape = _options(p, algorithm), p.geometry.x_shape
        return Contender(lambda copy: conv2d_grad_x(p.grad_out[copy], p.weight[copy], shape, **options))

    return prepare


def _conv_grad_weight(algorithm: str) -> Prepare:
    def prepare(p: ConvProblem, threads: int) -> Contender:
        options, shape = _options(p, algorithm), p.geometry.weight_shape
        return Contender(lambda copy: conv2d_grad_weight(p.grad_out[copy], p.x[copy], shape, **options))

    return prepare


def _place(problem: PoolProblem) -> dict[str, Any]:
    g = problem.geometry
    return {"kernel_size": g.kernel_size, "stride": g.stride, "padding": g.padding}


def _max_forward(p: PoolProblem, threads: int) -> Contender:
    place = _place(p)
    return Contender(lambda copy: max_pool2d(p.x[copy], **place))


def _max_grad_x(p: PoolProblem, threads: int) -> Contender:
    _, indices = max_pool2d(p.x[0], return_indices=True, **_place(p))
    shape = p.geometry.x_shape
    return Contender(lambda copy: max_pool2d_backward(p.grad_out[copy], indices, shape))


def _max_all(p: PoolProblem, threads: int) -> Contender:
    place, shape = _place(p), p.geometry.x_shape

    def compute(copy: int) -> Any:
        out, indices = max_pool2d(p.x[copy], return_indices=True, **place)
        return out, max_pool2d_backward(p.grad_out[copy], indices, shape)

    return Contender(compute, tuple)


def _average_forward(p: PoolProblem, threads: int) -> Contender:
    place = _place(p)
    return Contender(lambda copy: avg_pool2d(p.x[copy], **place))


def _average_grad_x(p: PoolProblem, threads: int) -> Contender:
    place, shape = _place(p), p.geometry.x_shape
    return Contender(lambda copy: avg_pool2d_backward(p.grad_out[copy], shape, **place))


def _global_forward(p: PoolProblem, threads: int) -> Contender:
    return Contender(lambda copy: global_avg_pool2d(p.x[copy], keepdims=True))


def _global_grad_x(p: PoolProblem, threads: int) -> Contender:
    shape = p.geometry.x_shape
    return Contender(lambda copy: global_avg_pool2d_backward(p.grad_out[copy], shape))
