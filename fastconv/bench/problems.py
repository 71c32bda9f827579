"""What is timed: the convolution layers of well-known networks, and inputs for them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fastconv.geometry import Conv2dGeometry, conv2d_geometry

NETWORKS = Path(__file__).with_name("networks.json")
# Every call takes the next of three copies of its inputs.  Two libraries that take turns then meet memory that was last
# touched three calls ago, whoever touched it.
COPIES = 3

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Layer:
    """One convolution of a network, which has *count* of them."""

    network: str
    name: str
    count: int
    geometry: Conv2dGeometry


def layers(networks: list[str] | None = None, name: str | None = None, batch: int = 8) -> list[Layer]:
    """The layers of `networks.json`, or of some networks, or those called *name*.

    Raises
    ------
    ValueError
        If a network or the layer is not in the file.
    """
    table = json.loads(NETWORKS.read_text())
    for network in networks or []:
        if network not in table:
            raise ValueError(f"network must be one of {', '.join(table)}. Received: {network!r}")
    found = []
    for network in networks or table:
        for row in table[network]:
            if name in (None, row["name"]):
                geometry = conv2d_geometry(
                    (batch, row["IH"], row["IW"], row["IC"]),
                    (row["KH"], row["KW"], row["IC"] // row["groups"], row["OC"]),
                    stride=row["stride"],
                    padding=row["padding"],
                    dilation=row["dilation"],
                    groups=row["groups"],
                )
                found.append(Layer(network, row["name"], row["count"], geometry))
    if not found:
        raise ValueError(f"layer must be a name in {NETWORKS.name}. Received: {name!r}")
    return found


class Problem:
    """A geometry with random inputs, `COPIES` of each: what every contender is prepared from."""

    def __init__(self, geometry: Conv2dGeometry) -> None:
        rng = np.random.default_rng(0)

        def copies(shape: tuple[int, ...]) -> list[Array]:
            array = rng.standard_normal(shape, np.float32)
            return [array, *(array.copy() for _ in range(COPIES - 1))]

        self.geometry = geometry
        self.x = copies(geometry.x_shape)
        self.weight = copies(geometry.weight_shape)
        self.grad_out = copies(geometry.out_shape)
        self._turns = cycle(range(COPIES))

    def turn(self) -> int:
        """The copy that the next call takes, whichever contender makes it."""
        return next(self._turns)
