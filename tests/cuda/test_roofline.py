"""Occupancy against NVIDIA's own calculator, times against some worked out by hand, tables against the compiler."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from cases import BY_NAME
from emulator import compiled, needs_target
from machine_code import loops, main_loop, needs_ptxas, resources as assembled

import fastconv
from fastconv.cuda import conv_depthwise, conv_direct, launches, resources, roofline
from fastconv.cuda.device import Kernel
from fastconv.cuda.roofline import Launch, bound, gpu, occupancy
from fastconv.geometry import conv2d_geometry

T4, A100, H100, H200 = roofline.GPUS

# (threads, registers, bytes of shared memory): blocks of a multiprocessor of a T4, an A100 and an H100, as
# cudaOccMaxActiveBlocksPerMultiprocessor of cuda_occupancy.h says it (toolkit 13.5)
NVIDIA = {
    (256, 127, 16640): (2, 2, 2),
    (256, 128, 16384): (2, 2, 2),
    (256, 130, 8192): (1, 1, 1),
    (128, 147, 13568): (3, 3, 3),
    (128, 165, 13312): (3, 3, 3),
    (64, 113, 6912): (8, 8, 8),
    (64, 147, 6912): (6, 6, 6),
    (256, 62, 0): (4, 4, 4),
    (256, 10, 0): (4, 8, 8),
    (256, 126, 49152): (1, 2, 2),
    (32, 255, 0): (8, 8, 8),
    (96, 40, 1024): (10, 16, 16),
    (1024, 64, 0): (1, 1, 1),
    (1024, 65, 0): (0, 0, 0),
    (160, 33, 20000): (3, 7, 9),
    (64, 16, 100): (16, 32, 32),
}


@pytest.mark.parametrize("kernel", NVIDIA, ids=str)
def test_occupancy_is_nvidias(kernel: tuple[int, int, int]) -> None:
    assert tuple(occupancy(device, *kernel).blocks for device in (T4, A100, H100)) == NVIDIA[kernel]


def test_what_limits_the_occupancy() -> None:
    assert occupancy(H100, 256, 126, 16640).limit == "registers"
    assert occupancy(T4, 256, 10, 0).limit == "warps"
    assert occupancy(T4, 64, 10, 0).limit == "warps"
    assert occupancy(A100, 32, 10, 0).limit == "blocks"
    assert occupancy(H100, 160, 33, 20000).limit == "registers"
    assert occupancy(A100, 160, 33, 20000).limit == "shared memory"
    assert occupancy(H100, 256, 126, 16640).share == 2 * 8 / 64


@pytest.mark.parametrize(("device", "teraflops"), [(T4, 8.1), (A100, 19.5), (H100, 67), (H200, 67)])
def test_peaks_are_those_of_the_data_sheets(device: roofline.Gpu, teraflops: float) -> None:
    assert device.peak / 1e12 == pytest.approx(teraflops, rel=0.01)


def test_names_of_gpus() -> None:
    assert gpu("cuda:sm_90") == gpu("h100") == gpu("cuda:H100") == H100
    with pytest.raises(ValueError, match=r'device must be one of "cuda:T4", "cuda:sm_75".* Received: \'cuda:0\''):
        gpu("cuda:0")


def test_a_time_worked_out_by_hand() -> None:
    """32 images of 56 x 56 x 64 under a 3x3 convolution: 100,352 pixels are 784 blocks of 128, with all 64 columns.

    On an H100 the fullest of 132 multiprocessors has 6 of them.  Each block has 128 * 64 * 576 multiply-adds, of which
    a multiprocessor starts 128 a cycle in 86% of the cycles.
    """
    (launch,) = launches.conv2d("forward", conv2d_geometry((32, 56, 56, 64), (3, 3, 64, 64), padding=1))
    assert (launch.blocks, launch.threads, launch.share) == (784, 128, 0.86)
    assert launch.flops == launch.executed == 2 * 784 * 128 * 64 * 576
    assert launch.bytes == 4 * (2 * 32 * 56 * 56 * 64 + 9 * 64 * 64)
    found = bound(H100, launch)
    assert found.arithmetic == pytest.approx(6 * 128 * 64 * 576 / (128 * 0.86) / 1.98e9)
    assert found.memory == pytest.approx(launch.bytes / 3350e9)
    assert found.waves == pytest.approx(784 / (3 * 132))
    assert found.fill == pytest.approx(784 / (6 * 132))
    assert (found.tiles, found.limit) == (1, "arithmetic")


def test_a_multiply_add_takes_two_cycles_of_a_scheduler_with_16_lanes() -> None:
    """So the other instructions are free on an A100, where 82% of them are multiply-adds, but not if it were 40%."""
    flops = 2 * 108 * 128 * 64 * 576
    launch = Launch("", 108, 128, 147, 13568, share=0.82, flops=flops, executed=flops, bytes=1)
    assert bound(A100, launch).issue == 1
    assert bound(A100, launch).arithmetic == pytest.approx(128 * 64 * 576 / 64 / 1.41e9)
    assert bound(A100, launch._replace(share=0.4)).issue == pytest.approx(0.8)


def test_two_warps_keep_half_of_the_schedulers_busy() -> None:
    launch = Launch("", 132, 64, 113, 6912, share=0.5, flops=1, executed=1, bytes=1)
    assert bound(H100, launch).issue == 0.25
    assert bound(H100, launch._replace(blocks=264)).issue == 0.5


def test_tiles_that_are_partly_empty() -> None:
    """One image of 5 x 5 pixels and 8 channels in a tile of 32 x 32, 9 taps of 3 channels filled up to 32."""
    (launch,) = launches.conv2d("forward", conv2d_geometry((1, 5, 5, 3), (3, 3, 3, 8), padding=1))
    assert bound(T4, launch).tiles == pytest.approx(25 * 8 * 27 / (32 * 32 * 32))


def test_pooling_and_depthwise_are_kernels_of_elements() -> None:
    (launch,) = launches.pool2d(False, 1000, 9, 4 * 10_000)
    assert (launch.blocks, launch.threads, launch.bytes) == (1, 256, 40_000)
    (launch,) = launches.conv2d("forward", conv2d_geometry((2, 8, 8, 32), (3, 3, 1, 32), groups=32, padding=1))
    # blocks of 8 x 8 pixels of all channels, 4 of each for a thread
    assert (launch.blocks, launch.threads) == (2, 8 * 8 * 32 // 16)
    (launch,) = launches.conv2d("forward", conv2d_geometry((2, 8, 8, 33), (3, 3, 1, 33), groups=33, padding=1))
    assert (launch.blocks, launch.kernel) == (-(-2 * 8 * 8 * 33 // 256), "depthwise")
    assert launches.conv2d("forward", conv2d_geometry((0, 8, 8, 4), (3, 3, 4, 4))) == []


class Recorder:
    """An engine that computes nothing and remembers what it was asked to launch."""

    def __init__(self) -> None:
        self.launches: list[tuple[int, int]] = []

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
        return np.empty(shape, dtype)

    def constant(self, values: Any) -> Any:
        return values

    def launch(self, kernel: Kernel, blocks: int, *arguments: Any) -> None:
        self.launches.append((blocks, kernel.threads))


@pytest.mark.parametrize("name", [*BY_NAME, "large"])
def test_the_launches_are_the_real_ones(name: str) -> None:
    needs_target()
    large = conv2d_geometry((64, 28, 28, 128), (3, 3, 128, 128), padding=1)
    geometry = large if name == "large" else BY_NAME[name].geometry
    module = conv_direct if launches.algorithm(geometry) == "direct" else conv_depthwise
    x, weight, out = (np.empty(s, np.float32) for s in (geometry.x_shape, geometry.weight_shape, geometry.out_shape))
    calls: dict[str, Callable[[Recorder], None]] = {
        "forward": lambda engine: module.forward(engine, geometry, x, weight, None, None, out, 0),
        "grad_x": lambda engine: module.grad_x(engine, geometry, out, weight, np.empty_like(x)),
        "grad_weight": lambda engine: module.grad_weight(engine, geometry, x, out, np.empty_like(weight)),
    }
    for operation, call in calls.items():
        engine = Recorder()
        call(engine)
        expected = [(launch.blocks, launch.threads) for launch in launches.conv2d(operation, geometry)]
        assert engine.launches == expected, operation


def _written_down(one_at_a_time: bool) -> dict[str, tuple[Kernel, resources.Code]]:
    """The kernels, with what `resources` says about them."""
    from fastconv.cuda.kernels import conv_depthwise as depthwise, conv_direct as direct, elements, pool as pool_kernels

    found = {
        "swap_channels": (direct.swap_channels(), resources.SWAP_CHANNELS),
        "fill_zeros": (elements.fill_zeros(), resources.FILL_ZEROS),
        "sum_parts": (elements.sum_parts(), resources.SUM_PARTS),
        "sum_chains": (elements.sum_chains(), resources.SUM_CHAINS),
        "extreme pool": (pool_kernels.extreme(4, 3), resources.POOL_EXTREME),
        "average pool": (pool_kernels.average(4, 3), resources.POOL_AVERAGE),
    }
    for lanes, code in resources.DEPTHWISE.items():
        found[f"depthwise {lanes}"] = depthwise.forward(lanes), code
    for form, code in resources.DEPTHWISE_WINDOWS.items():
        found[f"depthwise windows {form}"] = depthwise.window(*form), code
    for taps, code in resources.DEPTHWISE_GRAD_WEIGHT.items():
        found[f"depthwise grad_weight {taps}"] = depthwise.grad_weight(*taps), code
    products: list[tuple[str, Any, Any, tuple[bool, ...]]] = [
        ("forward", direct.forward, resources.FORWARD, ()),
        ("in parts", direct.forward, resources.FORWARD_IN_PARTS, (True,)),
        ("grad_weight", direct.grad_weight, resources.GRAD_WEIGHT, ()),
    ]
    for name, make, table, options in products:
        for (tile, vector), code in table.items():
            if vector or (one_at_a_time and not options):
                found[f"{name} {tile} {vector}"] = make(tile, vector, *options), code
    return found


# those that test_machine_code compiles as well
@pytest.mark.parametrize(("architecture", "one_at_a_time"), [("sm_75", False), ("sm_80", True), ("sm_90", False)])
def test_what_is_written_down_is_what_ptxas_makes(architecture: str, one_at_a_time: bool) -> None:
    """About as many blocks fit on a multiprocessor of every architecture; for sm_90 the numbers themselves agree."""
    needs_target()
    needs_ptxas()
    device = gpu(architecture)
    for name, (kernel, code) in _written_down(one_at_a_time).items():
        ptx = compiled(kernel, architecture)
        found = assembled(ptx, architecture)
        real = occupancy(device, kernel.threads, found.registers, found.shared)
        told = occupancy(device, kernel.threads, code.registers, code.shared)
        assert abs(told.blocks - real.blocks) <= real.blocks // 3, name
        assert code.shared == found.shared, name
        if architecture == "sm_90":
            assert code.registers == pytest.approx(found.registers, abs=3), name
        if code.shared:
            loop = main_loop(ptx)
            # PTX has instructions that only move numbers about, which machine code has not
            share = sum("fma.rn" in line for line in loop) / len(loop)
            assert share - 0.01 <= code.share <= share + 0.07, name


def test_shares_of_the_kernels_of_elements() -> None:
    """Multiply-adds, or loads of a pool, among the instructions of the innermost loop."""
    needs_target()
    kernels = _written_down(one_at_a_time=False)
    for name, (kernel, code) in kernels.items():
        if not name.startswith("depthwise") and not name.endswith("pool"):
            continue
        useful = "fma.rn" if name.startswith("depthwise") else "ld.global"
        innermost = min(loops(compiled(kernel, "sm_90")), key=len)
        share = sum(useful in line for line in innermost) / len(innermost)
        assert code.share == pytest.approx(share, rel=0.1), name


def test_explain_needs_no_gpu_and_no_cuda(run_python: Callable[..., str]) -> None:
    source = """
import sys
import fastconv
print(fastconv.explain((32, 56, 56, 64), (3, 3, 64, 64), padding=1, device="cuda:sm_90"))
print([name for name in sys.modules if name.startswith(("numba.cuda", "numba_cuda", "cuda"))])
"""
    text = run_python(source)
    assert "winograd        chosen: 4x4 outputs" in text
    assert "on H100 (sm_90): 132 multiprocessors at 1.98 GHz, 66.9 TFLOP/s" in text
    assert ', algorithm="direct"\n' in text
    assert "direct, tiles of 128 x 64: 784 blocks of 128 threads, 130 registers" in text
    assert "3 a multiprocessor (occupancy 19%, by registers), 1.98 waves" in text
    assert re.search(r"grad_weight +at least [\d.]+ us", text)
    assert text.endswith("nothing was run.\n[]")


def test_explain_of_depthwise_and_of_nothing() -> None:
    text = fastconv.explain((8, 14, 14, 64), (3, 3, 1, 64), groups=64, padding=1, device="cuda:T4")
    assert "depthwise       chosen: four channels of neighbouring pixels in each thread" in text
    assert "nothing to do" in fastconv.explain((0, 14, 14, 4), (3, 3, 4, 4), device="cuda:T4")
