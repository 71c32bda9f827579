"""`fastconv bench --tune`: where Winograd begins to beat the direct sum on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from fastconv.bench import machine
from fastconv.bench.timing import paired, sampler
from fastconv.functional.conv import conv2d
from fastconv.geometry import Conv2dGeometry, conv2d_geometry
from fastconv.profile import Profile, write
from fastconv.winograd_choice import fill_of_tiles, tiles_of_image

# The layers of each question differ in the number that it is about, and are on the good side of the others.
CHANNELS = (4, 8, 12, 16, 24, 32, 48)
SIDES = (5, 6, 10, 7, 11, 12)
WORK_CHANNELS = (16, 32, 64, 128, 256)
PAIRS = 15


def _layer(batch: int, side: int, channels: int) -> Conv2dGeometry:
    return conv2d_geometry((batch, side, side, channels), (3, 3, channels, channels), padding=1)


#: What is asked -> pairs of the number that it is about and a layer, in rising order of the number.
QUESTIONS: dict[str, list[tuple[float, Conv2dGeometry]]] = {
    "channels": [(channels, _layer(8, 28, channels)) for channels in CHANNELS],
    "fill": sorted(((fill_of_tiles(side, side), _layer(8, side, 64)) for side in SIDES), key=lambda pair: pair[0]),
    "work": [(tiles_of_image(8, 8) * channels, _layer(1, 8, channels)) for channels in WORK_CHANNELS],
}


def speed_up(geometry: Conv2dGeometry) -> float:
    """Time of the direct sum over the time of Winograd, forward, the median of pairs."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal(geometry.x_shape, np.float32)
    weight = rng.standard_normal(geometry.weight_shape, np.float32)
    winograd, direct = (
        partial(conv2d, x, weight, padding=geometry.padding, algorithm=name) for name in ("winograd", "direct")
    )
    for call in (winograd, direct):
        call()  # compiles
    return paired(sampler(winograd), sampler(direct), PAIRS).ratio


def first_that_pays(measured: Sequence[tuple[float, float]]) -> float:
    """The number from which on every speed-up is above 1, in pairs (number, speed-up) of rising number.

    The number behind the last where none pays: Winograd is then taken beyond what was measured only.
    """
    threshold = np.nextafter(measured[-1][0], np.inf)
    for number, ratio in reversed(measured):
        if ratio <= 1:
            break
        threshold = number
    return float(threshold)


def tune(console: Console) -> Profile:
    """Ask all questions with one thread, print the answers, and write the profile."""
    table = Table("layer", "about", "number", "speed-up over direct", box=SIMPLE_HEAD)
    found = {}
    with machine.threads(1):
        for name, layers in QUESTIONS.items():
            measured = [(number, speed_up(geometry)) for number, geometry in layers]
            found[name] = first_that_pays(measured)
            for (number, ratio), (_, geometry) in zip(measured, layers, strict=True):
                table.add_row(str(geometry.x_shape), name, f"{number:.3g}", f"{ratio:.2f}")
    profile = Profile(int(np.ceil(found["channels"])), found["fill"], int(np.ceil(found["work"])))
    console.print(table)
    console.print(
        f"Winograd pays from {profile.channels} channels, {profile.fill:.0%} full tiles and {profile.work} tiles x "
        f"channels on. Written to {write(profile)}; delete the file to go back to the built-in rule.",
        soft_wrap=True,
    )
    return profile
