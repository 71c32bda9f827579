"""PyTorch, eager, on tensors that already have the layout that it computes in: channels_last or NCHW.

Its convolution brings a weight into the order of oneDNN's kernels in every call.  `torch.compile` does so ahead where
it freezes a model; that is the variant "packed" of the forward pass, timed against our kept weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from fastconv.bench.libraries import Contender, Library, Prepare
from fastconv.bench.problems import Array, ConvProblem, PoolProblem
from fastconv.bench.training import TrainProblem
from fastconv.geometry import Sides
from fastconv.keras import Sequential, layers

IMAGE_AXES, WEIGHT_AXES = (0, 3, 1, 2), (3, 2, 0, 1)
IMAGE_AXES_BACK, WEIGHT_AXES_BACK = (0, 2, 3, 1), (2, 3, 1, 0)


def _tensors(arrays: list[Array], axes: tuple[int, ...], layout: Any) -> list[Any]:
    return [torch.from_numpy(array.transpose(axes)).contiguous(memory_format=layout) for array in arrays]


def _image(tensor: Any) -> Any:
    return tensor.numpy().transpose(IMAGE_AXES_BACK)


def _weight(tensor: Any) -> Any:
    return tensor.numpy().transpose(WEIGHT_AXES_BACK)


def _both_sides(padding: Sides) -> tuple[int, int]:
    (top, bottom), (left, right) = padding
    if (top, left) != (bottom, right):
        raise ValueError("its padding is the same on opposite sides")
    return top, left


# ---- convolution ---------------------------------------------------------------------------------------------------


def _convolution(direction: str, layout: Any) -> Prepare:
    def prepare(problem: ConvProblem, threads: int) -> Contender:
        g = problem.geometry
        x, grad_out = (_tensors(arrays, IMAGE_AXES, layout) for arrays in (problem.x, problem.grad_out))
        weight = _tensors(problem.weight, WEIGHT_AXES, layout)
        place = (g.stride, _both_sides(g.padding), g.dilation)

        def forward(copy: int) -> Any:
            return torch.nn.functional.conv2d(x[copy], weight[copy], None, *place, g.G)

        def backward(copy: int, *wanted: bool) -> Any:
            return torch.ops.aten.convolution_backward(
                grad_out[copy], x[copy], weight[copy], None, *place, False, (0, 0), g.G, [*wanted, False]
            )

        if direction == "forward":
            return Contender(forward, _image)
        if direction == "grad_x":
            return Contender(lambda copy: backward(copy, True, False)[0], _image)
        if direction == "grad_weight":
            return Contender(lambda copy: backward(copy, False, True)[1], _weight)
        return Contender(
            lambda copy: (forward(copy), *backward(copy, True, True)[:2]),
            lambda results: (_image(results[0]), _image(results[1]), _weight(results[2])),
        )

    return prepare


def _packed_forward(problem: ConvProblem, threads: int) -> Contender:
    g = problem.geometry
    if not torch.backends.mkldnn.is_available():
        raise ValueError("it has no oneDNN here, which packs weights")
    x = _tensors(problem.x, IMAGE_AXES, torch.channels_last)
    weights = [tensor.to_mkldnn() for tensor in _tensors(problem.weight, WEIGHT_AXES, torch.contiguous_format)]
    place = (_both_sides(g.padding), g.stride, g.dilation, g.G)
    pack, convolve = torch._C._nn.mkldnn_reorder_conv2d_weight, torch.ops.mkldnn._convolution_pointwise
    packed = [pack(weight, *place, x[0].shape) for weight in weights]
    return Contender(lambda copy: convolve(x[copy], packed[copy], None, *place, "none", [], ""), _image)


# ---- pooling -------------------------------------------------------------------------------------------------------


def _pooling(kind: str, direction: str, layout: Any) -> Prepare:
    def prepare(problem: PoolProblem, threads: int) -> Contender:
        g, aten = problem.geometry, torch.ops.aten
        x, grad_out = (_tensors(arrays, IMAGE_AXES, layout) for arrays in (problem.x, problem.grad_out))
        place = (g.kernel_size, g.stride, _both_sides(g.padding))
        winners = aten.max_pool2d_with_indices(x[0], *place)[1] if kind == "max" else None

        def forward(copy: int) -> Any:
            if kind == "max":
                return torch.nn.functional.max_pool2d(x[copy], *place)
            if kind == "average":
                return torch.nn.functional.avg_pool2d(x[copy], *place)
            return torch.nn.functional.adaptive_avg_pool2d(x[copy], 1)

        def backward(copy: int, indices: Any = winners) -> Any:
            if kind == "max":
                return aten.max_pool2d_with_indices_backward(grad_out[copy], x[copy], *place, (1, 1), False, indices)
            if kind == "average":
                return aten.avg_pool2d_backward(grad_out[copy], x[copy], *place, False, True, None)
            return aten._adaptive_avg_pool2d_backward(grad_out[copy], x[copy])

        def both(copy: int) -> Any:
            if kind == "max":
                out, indices = aten.max_pool2d_with_indices(x[copy], *place)
                return out, backward(copy, indices)
            return forward(copy), backward(copy)

        if direction == "all":
            return Contender(both, lambda results: tuple(_image(result) for result in results))
        return Contender(forward if direction == "forward" else backward, _image)

    return prepare


# ---- training ------------------------------------------------------------------------------------------------------


def training(layout: Any, device: str = "cpu") -> Prepare:
    """Training as everybody writes it; all images and labels lie on the *device* before."""

    def prepare(problem: TrainProblem, threads: int) -> Contender:
        model = _network(problem.network).to(device, memory_format=layout)
        optimizer = torch.optim.Adam(model.parameters(), problem.learning_rate, eps=problem.epsilon)
        x = _tensors([problem.x], IMAGE_AXES, layout)[0].to(device)
        y = torch.from_numpy(problem.y).to(device)

        def compute(copy: int) -> Any:
            total = torch.zeros((), device=device)
            for images, labels in zip(x.split(problem.batch), y.split(problem.batch), strict=True):
                optimizer.zero_grad()
                loss = torch.nn.functional.cross_entropy(model(images), labels)
                loss.backward()
                optimizer.step()
                total += loss.detach() * len(labels)
            return total.item() / len(y)

        return Contender(compute)

    return prepare


def _network(like: Sequential) -> Any:
    """The same network with the same weights."""
    nn = torch.nn
    steps: list[Any] = []
    image: tuple[int, ...] = ()  # what the last layer of images puts out
    for layer in like.layers:
        weights = layer.get_weights()
        if isinstance(layer, layers.Conv2D):
            step = nn.Conv2d(*weights[0].shape[2:], layer.kernel_size, padding=layer.padding)
        elif isinstance(layer, layers.Dense):
            step = nn.Linear(*weights[0].shape)
        else:
            step = nn.MaxPool2d(layer.pool_size) if isinstance(layer, layers.MaxPooling2D) else nn.Flatten()
        if weights:
            kernel, bias = weights
            if steps and isinstance(steps[-1], nn.Flatten):  # it takes the channels first: a convolution in effect
                kernel = kernel.reshape(*image, -1)
            kernel = kernel.transpose(WEIGHT_AXES) if kernel.ndim == 4 else kernel.T
            for parameter, array in ((step.weight, kernel), (step.bias, bias)):
                parameter.data.copy_(torch.from_numpy(np.ascontiguousarray(array)).reshape(parameter.shape))
        steps.append(step)
        if getattr(layer, "activation", None) == "relu":
            steps.append(nn.ReLU())
        if not isinstance(layer, layers.Flatten | layers.Dense):
            image = tuple(extent or 0 for extent in layer.output_shape[1:])
    return nn.Sequential(*steps)


# ---- the library ---------------------------------------------------------------------------------------------------

LAYOUTS = {"channels_last": torch.channels_last, "NCHW": torch.contiguous_format}


def _both(prepare: Callable[..., Prepare], *arguments: str) -> dict[str, Prepare]:
    return {name: prepare(*arguments, layout) for name, layout in LAYOUTS.items()}


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


LIBRARY = Library(
    ("torch",),
    {
        **{("conv2d", direction): _both(_convolution, direction) for direction in ("grad_x", "grad_weight", "all")},
        ("conv2d", "forward"): {**_both(_convolution, "forward"), "packed": _packed_forward},
        **{
            (f"{kind}_pool2d", direction): _both(_pooling, kind, direction)
            for kind in ("max", "average", "global_average")
            for direction in ("forward", "grad_x", "all")
        },
        ("network", "train"): _both(training),
    },
    _threads,
)
