"""What is timed: the layers of well-known networks, layers from the command line, and inputs for them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from math import prod
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from fastconv.bench.timing import PAIRS_SECONDS
from fastconv.geometry import Conv2dGeometry, IntOrPair, Padding, Pair, Sides, conv2d_geometry, pool2d_geometry, sides

NETWORKS = Path(__file__).with_name("networks.json")
# Every call takes the next of three copies of its inputs.  Two libraries that take turns then meet memory that was last
# touched three calls ago, whoever touched it.
COPIES = 3
POOLINGS = ("max", "average", "global_average")
PASSES = ("forward", "grad_x", "grad_weight", "all")
SHAPE_HELP = "HxWxIC,KHxKWxOC[,stride=2][,padding=same][,dilation=2][,groups=4] or HxWxC,max,KHxKW[,stride=2]"

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Pooling:
    """One pooling of ``x`` (N, IH, IW, C): *kind* is one of `POOLINGS`; a global one has a window as large as x."""

    kind: str
    x_shape: tuple[int, int, int, int]
    out_shape: tuple[int, int, int, int]
    kernel_size: Pair
    stride: Pair
    padding: Sides

    @property
    def flops(self) -> int:
        """One comparison or addition for each pixel of each window."""
        return prod(self.out_shape) * prod(self.kernel_size)

    def bytes(self, itemsize: int) -> int:
        """Input and output, each moved once."""
        return itemsize * (prod(self.x_shape) + prod(self.out_shape))

    def __str__(self) -> str:
        place = f"kernel_size={self.kernel_size} stride={self.stride} padding={self.padding}"
        return f"{self.kind} pooling x={self.x_shape} out={self.out_shape} {place}"


@dataclass(frozen=True)
class Layer:
    """One layer of a network, which has *count* of them."""

    network: str
    name: str
    count: int
    geometry: Conv2dGeometry | Pooling

    #: Largest difference between two libraries that rounding explains, relative to the largest value: a Winograd
    #: transform loses 2e-5, a sum over the 400,000 pixels of a large batch as much again.  One wrong tap shows as 1e-2.
    tolerance: ClassVar[float] = 1e-4
    #: What the pairs of a row may take.
    seconds: ClassVar[float] = PAIRS_SECONDS

    @property
    def batch(self) -> int:
        """Images at a time."""
        return self.geometry.x_shape[0]

    @property
    def images(self) -> int:
        """Images of a call."""
        return self.batch

    @property
    def operation(self) -> str:
        """What the libraries call it: see `libraries.Library`."""
        return "conv2d" if isinstance(self.geometry, Conv2dGeometry) else f"{self.geometry.kind}_pool2d"

    @property
    def passes(self) -> tuple[str, ...]:
        """Those of `PASSES` that exist: a pooling has no weight."""
        return PASSES if self.operation == "conv2d" else ("forward", "grad_x", "all")

    def work(self, direction: str) -> tuple[int, int]:
        """FLOPs and float32 bytes of a pass; each pass costs what forward does, and "all" is their sum."""
        passes = len(self.passes) - 1 if direction == "all" else 1
        return passes * self.geometry.flops, passes * self.geometry.bytes(np.dtype(np.float32).itemsize)

    def problem(self) -> ConvProblem | PoolProblem:
        """Inputs for it."""
        return ConvProblem(self.geometry) if isinstance(self.geometry, Conv2dGeometry) else PoolProblem(self.geometry)


def pooling(
    kind: str, x_shape: tuple[int, int, int, int], kernel_size: IntOrPair, stride: IntOrPair, padding: Padding = 0
) -> Pooling:
    """The `Pooling` of these arguments.

    Raises
    ------
    ValueError
        If they do not fit together.
    """
    if kind not in POOLINGS:
        raise ValueError(f"pooling must be one of {', '.join(POOLINGS)}. Received: {kind!r}")
    if kind == "global_average":
        kernel_size, stride, padding = x_shape[1:3], 1, 0
    g = pool2d_geometry(x_shape, kernel_size, stride=stride, padding=padding)
    window, step = (value if isinstance(value, tuple) else (value, value) for value in (kernel_size, stride))
    borders = sides(padding, x_shape[1:3], window, step, (1, 1))
    return Pooling(kind, g.x_shape, g.out_shape, window, step, borders)


def networks() -> dict[str, list[dict[str, Any]]]:
    """`networks.json`: the layers of each network as plain data."""
    table: dict[str, list[dict[str, Any]]] = json.loads(NETWORKS.read_text())
    return table


def layer(network: str, row: dict[str, Any], batch: int) -> Layer:
    """The layer that a row of `networks` describes."""
    x_shape = (batch, row["IH"], row["IW"], row["IC"])
    geometry: Conv2dGeometry | Pooling
    if "pool" in row:
        place = [tuple(row.get(name, (1, 1))) for name in ("stride", "padding")]
        geometry = pooling(row["pool"], x_shape, (row.get("KH", 1), row.get("KW", 1)), *place)
    else:
        geometry = conv2d_geometry(
            x_shape,
            (row["KH"], row["KW"], row["IC"] // row["groups"], row["OC"]),
            stride=row["stride"],
            padding=row["padding"],
            dilation=row["dilation"],
            groups=row["groups"],
        )
    return Layer(network, row["name"], row["count"], geometry)


def layers(chosen: Sequence[str] | None = None, name: str | None = None, batch: int = 8) -> list[Layer]:
    """The layers of some networks, by default of all, or those of them called *name*.

    Raises
    ------
    ValueError
        If a network or the layer is not in `networks`.
    """
    table = networks()
    for network in chosen or []:
        if network not in table:
            raise ValueError(f"network must be one of {', '.join(table)}. Received: {network!r}")
    rows = [(network, row) for network in chosen or table for row in table[network] if name in (None, row["name"])]
    if not rows:
        names = ", ".join(row["name"] for network in chosen or table for row in table[network])
        raise ValueError(f"layer must be one of {names}. Received: {name!r}")
    return [layer(network, row, batch) for network, row in rows]


def layer_of_text(text: str, batch: int) -> Layer:
    """The layer that ``--shape`` describes in the words of `SHAPE_HELP`.

    Raises
    ------
    ValueError
        If the text cannot be read or its numbers do not fit together.

    Examples
    --------
    >>> layer_of_text("28x28x64,3x3x128,padding=same", 8).geometry.out_shape
    (8, 28, 28, 128)
    >>> layer_of_text("28x28x64,max,2x2", 1).geometry.out_shape
    (1, 14, 14, 64)
    """
    image, *words = text.split(",")
    try:
        IH, IW, IC = _extents(image)
        if words[0] in POOLINGS:
            kind, *words = words
            window = _extents(words.pop(0)) if kind != "global_average" else (IH, IW)
            options = {"stride": window, **_options(words, ("stride", "padding"))}
            return Layer("shape", text, 1, pooling(kind, (batch, IH, IW, IC), window, **options))
        KH, KW, OC = _extents(words.pop(0))
        options = _options(words, ("stride", "padding", "dilation", "groups"))
        weight_shape = (KH, KW, IC // options.get("groups", 1), OC)
        return Layer("shape", text, 1, conv2d_geometry((batch, IH, IW, IC), weight_shape, **options))
    except (ValueError, IndexError) as error:
        raise ValueError(f"shape must be like {SHAPE_HELP}. Received: {text!r} ({error})") from None


def _extents(text: str) -> tuple[int, ...]:
    return tuple(int(extent) for extent in text.split("x"))


def _options(words: Sequence[str], known: Sequence[str]) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for word in words:
        name, _, value = word.partition("=")
        if name not in known:
            raise ValueError(f"{name!r} is none of {', '.join(known)}")
        if value[:1].isdigit():
            numbers = _extents(value)
            options[name] = numbers[0] if len(numbers) == 1 else numbers
        else:
            options[name] = value
    return options


class Task(Protocol):
    """What can be timed: a `Layer`, or `training.Training`."""

    @property
    def network(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def count(self) -> int: ...
    @property
    def batch(self) -> int: ...
    @property
    def images(self) -> int: ...
    @property
    def geometry(self) -> Any: ...
    @property
    def operation(self) -> str: ...
    @property
    def passes(self) -> tuple[str, ...]: ...
    @property
    def tolerance(self) -> float: ...
    @property
    def seconds(self) -> float: ...
    def work(self, direction: str) -> tuple[int, int]: ...
    def problem(self) -> Inputs: ...


def described(task: Task, direction: str) -> dict[str, Any]:
    """What every row of results says of its problem."""
    flops, moved = task.work(direction)
    return {
        "network": task.network,
        "layer": task.name,
        "count": task.count,
        "batch": task.batch,
        "problem": str(task.geometry),
        "flops": flops,
        "bytes": moved,
    }


class Inputs:
    """Random inputs, `COPIES` of each: what every contender is prepared from."""

    def __init__(self) -> None:
        self._turns = cycle(range(COPIES))

    def turn(self) -> int:
        """The copy that the next call takes, whichever contender makes it."""
        return next(self._turns)


def _copies(rng: np.random.Generator, shape: tuple[int, ...]) -> list[Array]:
    array = rng.standard_normal(shape, np.float32)
    return [array, *(array.copy() for _ in range(COPIES - 1))]


class ConvProblem(Inputs):
    """Inputs of a convolution and of its gradients."""

    def __init__(self, geometry: Conv2dGeometry) -> None:
        super().__init__()
        rng = np.random.default_rng(0)
        self.geometry = geometry
        self.x = _copies(rng, geometry.x_shape)
        self.weight = _copies(rng, geometry.weight_shape)
        self.grad_out = _copies(rng, geometry.out_shape)


class PoolProblem(Inputs):
    """Inputs of a pooling and of its gradient."""

    def __init__(self, geometry: Pooling) -> None:
        super().__init__()
        rng = np.random.default_rng(0)
        self.geometry = geometry
        self.x = _copies(rng, geometry.x_shape)
        self.grad_out = _copies(rng, geometry.out_shape)
