"""The code of the Winograd kernels: no register goes to memory, and the fused one multiplies most of the time."""

from typing import Any

import pytest
from emulator import ARCHITECTURES, needs_target
from machine_code import blocks_of_multiprocessor, main_loop, needs_ptxas, resources
from test_machine_code import check, count

from fastconv.cuda.conv_direct_plan import DEPTH
from fastconv.cuda.conv_winograd_plan import FUSED_OUTPUTS

needs_target()
needs_ptxas()

from fastconv.cuda.kernels import (  # noqa: E402 - needs the target
    conv_winograd as kernels,
    conv_winograd_fused as fused,
    conv_winograd_scatter as scatter,
)

TRANSFORMS = {
    "input": (kernels.input_to_points, (True,)),
    "input, pieces": (kernels.input_to_points, (False,)),
    "grad_out": (kernels.grad_out_to_points, (True,)),
    "grad_out, dilated": (kernels.grad_out_to_points, (False,)),
    "weight": (kernels.taps_to_points, (4,)),
    "weight, fused": (kernels.taps_to_points, (FUSED_OUTPUTS,)),
    "output": (kernels.points_to_output, (True,)),
    "output, dilated": (kernels.points_to_output, (False,)),
    "grad_weight": (kernels.points_to_taps, ()),
    "grad_x, backwards": (scatter.points_to_pixels, ()),
}


@pytest.mark.parametrize("architecture", ["sm_80", "sm_100"])
@pytest.mark.parametrize("name", TRANSFORMS)
def test_transforms(name: str, architecture: str) -> None:
    make, arguments = TRANSFORMS[name]
    kernel: Any = make(*arguments)
    used = resources(check(kernel, architecture), architecture)
    assert used.shared == 0
    assert blocks_of_multiprocessor(used, kernel.threads) >= kernel.residents == 3


@pytest.mark.parametrize("architecture", ["sm_80", "sm_100"])
def test_sums_of_tiles(architecture: str) -> None:
    used = resources(check(scatter.add_tiles(), architecture), architecture)
    assert used.shared == 0
    assert blocks_of_multiprocessor(used, scatter.add_tiles().threads) >= scatter.add_tiles().residents == 4


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_fused(architecture: str) -> None:
    """Every product of a turn once, factors four at a time, two barriers; then three for the exchange of sums."""
    ptx = check(fused.forward(), architecture)
    everything = ptx.splitlines()
    products, of_input = DEPTH * fused.SUMS, 32
    assert products + of_input <= count(main_loop(ptx), "fma.rn.ftz.f32") <= products + of_input + 1
    assert count(everything, "ld.shared.v4") == DEPTH * 4
    assert count(everything, "bar.sync") + count(everything, "barrier.sync") == 6
    loop = main_loop(ptx)
    assert count(loop, "ld.global.v4") == count(loop, "st.shared.v4") == fused.LOADS
    assert count(loop, "ld.global.") == fused.LOADS + fused.POINTS
    assert products / len(loop) >= 0.62
