"""What `fastconv.explain` says of the kernels that compute a convolution on a GPU, and how fast they are at most."""

from __future__ import annotations

from fastconv.cuda import launches
from fastconv.cuda.roofline import Bound, Gpu, Launch, bound, gpu, seconds
from fastconv.geometry import Conv2dGeometry

PASSES = ("forward", "grad_x", "grad_weight")
# A launch is a line or two; what is below this share of its pass is not worth them.
_WORTH_TELLING = 0.01


def rooflines(geometry: Conv2dGeometry, device: str) -> list[str]:
    """Lines about each pass on one of `roofline.GPUS`; nothing of CUDA is needed.

    Raises
    ------
    ValueError
        If *device* is not one of them.
    """
    model = gpu(device)
    lines = [f'  on {model}, algorithm="{launches.algorithm(geometry)}"']
    for name in PASSES:
        lines += _of_pass(model, name, geometry)
    return [*lines, "  The least possible times by data sheet: predictions, nothing was run."]


def _of_pass(model: Gpu, name: str, geometry: Conv2dGeometry) -> list[str]:
    steps = launches.conv2d(name, geometry)
    total = seconds(model, steps)
    if not total:
        return [f"  {name:15} nothing to do"]
    rate = geometry.flops / total / 1e12
    lines = [f"  {name:15} at least {in_words(total)}, {rate:.3g} TFLOP/s of the plain sum"]
    for launch in steps:
        found = bound(model, launch)
        if found.seconds >= _WORTH_TELLING * total:
            lines += [f"    {line}" for line in _of_launch(model, launch, found)]
    return lines


def _of_launch(model: Gpu, launch: Launch, found: Bound) -> list[str]:
    fit = found.occupancy
    memory = f"{launch.bytes / 1e6:.3g} MB take {in_words(found.memory)}"
    lines = [
        f"{launch.kernel}: {launch.blocks} blocks of {launch.threads} threads, {launch.registers} registers, "
        f"{launch.shared} bytes shared; {fit.blocks} a multiprocessor (occupancy {fit.share:.0%}, by {fit.limit}), "
        f"{found.waves:.2f} waves"
    ]
    if not launch.executed:
        return [*lines, f"  memory: {memory}"]
    return [
        *lines,
        f"  arithmetic: {launch.flops / 1e6:.4g} MFLOP take {in_words(found.arithmetic)} at "
        f"{found.issue * model.peak / 1e12:.3g} TFLOP/s (multiply-adds in {found.issue:.0%} of the cycles), "
        f"tiles {found.tiles:.0%} full, multiprocessors {found.fill:.0%} busy",
        f"  memory: {memory}; limited by {found.limit}",
    ]


def in_words(time: float) -> str:
    """Seconds as milliseconds or microseconds."""
    return f"{1e3 * time:.3g} ms" if time >= 1e-3 else f"{1e6 * time:.3g} us"
