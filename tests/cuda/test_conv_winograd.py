"""Winograd convolution on the GPU: its PTX, executed, against the bits of the CPU and whole numbers."""

from typing import Any

import numpy as np
import pytest
from cases import BY_NAME, ConvCase, exact_arrays, normal_arrays
from emulator import Emulator, needs_target

from fastconv.cpu import conv_winograd as cpu
from fastconv.cpu.activation import ACTIVATIONS
from fastconv.cpu.shape import forward_shape
from fastconv.cpu.winograd import TRANSFORMS, error_bound
from fastconv.cuda import conv_winograd, conv_winograd_fused, conv_winograd_plan as plan, conv_winograd_scatter
from fastconv.cuda.ptx import Fault, OutOfBounds
from fastconv.geometry import Conv2dGeometry
from fastconv.reference import conv as reference

needs_target()

RELU, LINEAR = ACTIVATIONS["relu"], ACTIVATIONS["linear"]

CASES = [
    BY_NAME["plain"],  # four channels at a time
    BY_NAME["channel tail"],  # one at a time
    BY_NAME["one channel in and out"],
    BY_NAME["winograd, padding larger than kernel"],
    BY_NAME["winograd, one tile cut"],
    BY_NAME["winograd, grad_x backwards"],
    BY_NAME["same lower, even kernel"],  # one piece of two taps
    BY_NAME["winograd, short pieces"],
    BY_NAME["winograd, dilated pieces"],
    BY_NAME["winograd, strided"],
]
# more than a block of tiles and of output channels, with a rest of each, and of a turn of input channels
FUSED = ConvCase("over one block", (2, 9, 13, 11), (3, 3, 11, 37), padding=((1, 0), (2, 1)))


def same_bits(left: Any, right: Any) -> bool:
    return bool(np.array_equal(left.view(np.int32), right.view(np.int32)))


def unwritten(shape: tuple[int, ...]) -> Any:
    return np.full(shape, np.nan, np.float32)


def three_passes(geometry: Conv2dGeometry, data: Any, engine: Emulator | None) -> tuple[Any, Any, Any]:
    """The results of forward with everything fused, grad_x and grad_weight; on the CPU without an engine."""
    module, first = (conv_winograd, (engine, geometry)) if engine else (cpu, (geometry,))
    out, grad_x, grad_weight = (
        unwritten(shape) for shape in (geometry.out_shape, geometry.x_shape, geometry.weight_shape)
    )
    module.forward(*first, data.x, data.weight, data.bias, data.residual, out, RELU)
    module.grad_x(*first, data.grad_out, data.weight, grad_x)
    module.grad_weight(*first, data.x, data.grad_out, grad_weight)
    return out, grad_x, grad_weight


def assert_same_bits(computed: tuple[Any, ...], expected: tuple[Any, ...]) -> None:
    for operation, left, right in zip(("forward", "grad_x", "grad_weight"), computed, expected, strict=True):
        assert same_bits(left, right), operation


@pytest.mark.parametrize("case", CASES, ids=str)
def test_same_bits_as_the_cpu(case: ConvCase) -> None:
    data = normal_arrays(case.geometry)
    assert_same_bits(three_passes(case.geometry, data, Emulator()), three_passes(case.geometry, data, None))


def test_same_bits_from_the_other_code_generator() -> None:
    geometry = BY_NAME["winograd, one tile cut"].geometry
    data, out, expected = normal_arrays(geometry), unwritten(geometry.out_shape), unwritten(geometry.out_shape)
    conv_winograd.forward(Emulator("sm_100"), geometry, data.x, data.weight, data.bias, data.residual, out, RELU)
    cpu.forward(geometry, data.x, data.weight, data.bias, data.residual, expected, RELU)
    assert same_bits(out, expected)


def test_chunks_of_tiles_do_not_change_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "_BYTES_OF_CHUNK", 0)
    monkeypatch.setattr(plan, "_FEWEST_TILES", 3)
    monkeypatch.setattr(plan, "_TILES_OF_BLOCK", 1)
    geometry = BY_NAME["plain"].geometry
    assert plan.tiles_of_chunk(forward_shape(geometry)) == 3
    data, engine = normal_arrays(geometry), Emulator()
    out, expected = unwritten(geometry.out_shape), unwritten(geometry.out_shape)
    conv_winograd.forward(engine, geometry, data.x, data.weight, None, None, out, LINEAR)
    assert len(engine.counters) == 1 + 3 * 8  # the weight; three kernels for each chunk of the 24 tiles
    cpu.forward(geometry, data.x, data.weight, None, None, expected, LINEAR)
    assert same_bits(out, expected)


def test_chunks_of_images_do_not_change_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "_BYTES_OF_CHUNK", 0)
    monkeypatch.setattr(plan, "_FEWEST_TILES", 11)
    geometry = ConvCase("", (3, 9, 8, 5), (3, 3, 5, 6)).geometry
    assert plan.images_of_chunk(geometry) == 2  # of four tiles each
    data, engine = normal_arrays(geometry), Emulator()
    grad_x, expected = unwritten(geometry.x_shape), unwritten(geometry.x_shape)
    conv_winograd.grad_x(engine, geometry, data.grad_out, data.weight, grad_x)
    assert len(engine.counters) == 1 + 2 * 4  # the weight; four kernels for each chunk
    cpu.grad_x(geometry, data.grad_out, data.weight, expected)
    assert same_bits(grad_x, expected)


@pytest.mark.parametrize("short", ["grad_out", "weight", "out"])
def test_an_array_of_grad_x_too_short_is_caught(short: str) -> None:
    geometry = ConvCase("", (2, 9, 8, 5), (3, 3, 5, 6)).geometry
    data = normal_arrays(geometry)
    arrays = {"grad_out": data.grad_out, "weight": data.weight, "out": unwritten(geometry.x_shape)}
    arrays[short] = arrays[short].reshape(-1)[:-1].copy()
    with pytest.raises(OutOfBounds):
        conv_winograd.grad_x(Emulator(), geometry, *arrays.values())


def test_splits_of_grad_weight_have_the_bits_of_the_cpu() -> None:
    geometry = ConvCase("", (2, 41, 45, 3), (3, 3, 3, 4), padding=1).geometry
    assert cpu.conv_winograd_weight.split_count(geometry) > 1
    data = normal_arrays(geometry)
    computed, expected = unwritten(geometry.weight_shape), unwritten(geometry.weight_shape)
    conv_winograd.grad_weight(Emulator(), geometry, data.x, data.grad_out, computed)
    cpu.grad_weight(geometry, data.x, data.grad_out, expected)
    assert same_bits(computed, expected)


def test_not_finite_minus_zero_and_denormal_numbers() -> None:
    geometry = BY_NAME["winograd, one tile cut"].geometry
    data = normal_arrays(geometry)
    data.x[0, 0, 0, :2] = np.inf, np.nan
    data.x[0, 1] = -0.0
    data.x[0, 2] = 1e-25
    data.weight[..., 1] = -1e-25
    data.weight[..., 2] = -0.0
    computed, expected = three_passes(geometry, data, Emulator()), three_passes(geometry, data, None)
    for left, right in zip(computed, expected, strict=True):
        assert np.array_equal(np.isnan(left), np.isnan(right))
        numbers = ~np.isnan(right)
        assert same_bits(left[numbers], right[numbers])


@pytest.mark.parametrize("architecture", ["sm_80", "sm_100"])
@pytest.mark.parametrize("case", [BY_NAME["plain"], BY_NAME["one channel in and out"], FUSED], ids=str)
def test_fused_equals_the_reference(case: ConvCase, architecture: str) -> None:
    """F(2x2) only adds, subtracts and halves: whole numbers stay exact."""
    geometry = case.geometry
    data, engine = exact_arrays(geometry), Emulator(architecture)
    out, grad_x = unwritten(geometry.out_shape), unwritten(geometry.x_shape)
    conv_winograd_fused.forward(engine, geometry, data.x, data.weight, data.bias, data.residual, out, RELU)
    conv_winograd_fused.grad_x(engine, geometry, data.grad_out, data.weight, grad_x)
    expected = reference.conv2d(geometry, data.x, data.weight) + data.bias + data.residual
    assert np.array_equal(out, np.maximum(expected, 0))
    assert np.array_equal(grad_x, reference.conv2d_grad_x(geometry, data.grad_out, data.weight))


def test_fused_is_within_the_bound_and_does_not_look_at_the_batch() -> None:
    geometry = FUSED.geometry
    data, out = normal_arrays(geometry), unwritten(geometry.out_shape)
    conv_winograd_fused.forward(Emulator(), geometry, data.x, data.weight, None, None, out, LINEAR)
    exact = reference.conv2d(geometry, *(array.astype(np.float64) for array in (data.x, data.weight)))
    size = np.abs(data.x).max(axis=(0, 1, 2)) @ np.abs(data.weight).max(axis=(0, 1))
    error = abs(out - exact)
    assert np.all(error <= error_bound(geometry.IC, size, plan.FUSED_OUTPUTS))
    assert error.max() <= 1e-6 * abs(exact).max()
    second = unwritten((1, *geometry.out_shape[1:]))
    alone = ConvCase("", (1, *FUSED.x_shape[1:]), FUSED.weight_shape, padding=FUSED.padding).geometry
    conv_winograd_fused.forward(Emulator(), alone, data.x[1:].copy(), data.weight, None, None, second, LINEAR)
    assert same_bits(second, out[1:])


def test_the_small_transforms_lose_less() -> None:
    assert TRANSFORMS[2].amplification < TRANSFORMS[4].amplification / 10


@pytest.mark.parametrize("module", [conv_winograd, conv_winograd_fused])
def test_memory_is_used_well(module: Any) -> None:
    """No bank of shared memory is asked twice; of global memory, 32 bytes at a time, hardly any is moved in vain."""
    geometry = BY_NAME["plain"].geometry
    data, engine, out = normal_arrays(geometry), Emulator(traffic=True), unwritten(geometry.out_shape)
    module.forward(engine, geometry, data.x, data.weight, data.bias, data.residual, out, RELU)
    for counters in engine.counters:
        assert counters.bank_conflicts == 0, counters.conflicts
        assert counters.sector_efficiency >= 0.9


@pytest.mark.parametrize("barrier", range(6))
def test_a_missing_barrier_is_caught(barrier: int) -> None:
    """Two of a turn, one behind the loop; between writing and reading half of the sums, and between the halves."""
    geometry = FUSED.geometry
    data, out = normal_arrays(geometry), unwritten(geometry.out_shape)

    def without_one(ptx: str) -> str:
        parts = ptx.split("bar.sync")
        if len(parts) == 1:
            return ptx  # the transform of the weight
        assert len(parts) == 1 + 6
        return "bar.sync".join(parts[: barrier + 1]) + "// bar.sync" + "bar.sync".join(parts[barrier + 1 :])

    with pytest.raises(Fault):
        conv_winograd_fused.forward(
            Emulator(change=without_one), geometry, data.x, data.weight, None, None, out, LINEAR
        )


@pytest.mark.parametrize("short", ["x", "weight", "bias", "residual", "out"])
@pytest.mark.parametrize("module", [conv_winograd, conv_winograd_fused])
def test_an_array_too_short_is_caught(module: Any, short: str) -> None:
    geometry = BY_NAME["plain"].geometry
    data = normal_arrays(geometry)
    arrays = {"x": data.x, "weight": data.weight, "bias": data.bias, "residual": data.residual}
    arrays["out"] = unwritten(geometry.out_shape)
    arrays[short] = arrays[short].reshape(-1)[:-1].copy()
    with pytest.raises(OutOfBounds):
        module.forward(Emulator(), geometry, *arrays.values(), RELU)


def test_workspace_too_short_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Points, sums and transformed weights are used to their ends."""
    geometry = BY_NAME["plain"].geometry
    data, out = normal_arrays(geometry), unwritten(geometry.out_shape)
    sizes: list[int] = []
    whole = Emulator.empty

    def one_less(engine: Emulator, shape: tuple[int, ...], dtype: Any) -> Any:
        sizes.append(shape[0])
        return whole(engine, (shape[0] - (len(sizes) == target),), dtype)

    monkeypatch.setattr(Emulator, "empty", one_less)
    for module, arrays in ((conv_winograd, (1, 3, 4)), (conv_winograd_fused, (1,))):
        for target in arrays:
            sizes.clear()
            with pytest.raises(OutOfBounds):
                module.forward(Emulator(), geometry, data.x, data.weight, None, None, out, LINEAR)
            assert len(sizes) >= target
    small = ConvCase("", (2, 9, 8, 5), (3, 3, 5, 6)).geometry
    data = normal_arrays(small)
    for target in (1, 2, 3):
        sizes.clear()
        with pytest.raises(OutOfBounds):
            conv_winograd.grad_x(Emulator(), small, data.grad_out, data.weight, unwritten(small.x_shape))
        assert len(sizes) >= target


def test_empty_batch() -> None:
    geometry = ConvCase("", (0, 5, 7, 4), (3, 3, 4, 8), padding=1).geometry
    data = normal_arrays(geometry)
    grad_weight = unwritten(geometry.weight_shape)
    for module in (conv_winograd, conv_winograd_fused):
        out, grad_x = unwritten(geometry.out_shape), unwritten(geometry.x_shape)
        module.forward(Emulator(), geometry, data.x, data.weight, data.bias, None, out, RELU)
        module.grad_x(Emulator(), geometry, data.grad_out, data.weight, grad_x)
    conv_winograd.grad_weight(Emulator(), geometry, data.x, data.grad_out, grad_weight)
    assert np.array_equal(grad_weight, np.zeros(geometry.weight_shape))


def test_workspace_is_what_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    geometry = ConvCase("", (2, 41, 45, 3), (3, 3, 3, 4), padding=1).geometry
    data, asked = normal_arrays(geometry), []
    whole = Emulator.empty

    def counted(engine: Emulator, shape: tuple[int, ...], dtype: Any) -> Any:
        asked.append(4 * shape[0])
        return whole(engine, shape, dtype)

    monkeypatch.setattr(Emulator, "empty", counted)
    conv_winograd.grad_weight(Emulator(), geometry, data.x, data.grad_out, unwritten(geometry.weight_shape))
    assert sum(asked) == conv_winograd.workspace(geometry, 4)
    asked.clear()
    small = ConvCase("", (1, 5, 5, 3), (3, 3, 3, 40)).geometry
    few = normal_arrays(small)
    conv_winograd.grad_x(Emulator(), small, few.grad_out, few.weight, unwritten(small.x_shape))
    assert sum(asked) == 4 * conv_winograd_scatter.workspace(small) <= conv_winograd.workspace(small, 4)
    asked.clear()
    conv_winograd_fused.grad_x(Emulator(), geometry, data.grad_out, data.weight, unwritten(geometry.x_shape))
    assert sum(asked) == conv_winograd_fused.workspace(geometry, 4)


@pytest.mark.parametrize("module", [conv_winograd, conv_winograd_fused])
def test_other_problems_are_refused(module: Any) -> None:
    geometry = BY_NAME["grouped, strided tail"].geometry
    assert "groups" in module.refuses(geometry)
    with pytest.raises(ValueError, match="groups"):
        module.forward(Emulator(), geometry, None, None, None, None, None, LINEAR)
    large = ConvCase("", (2**12, 64, 64, 2048), (3, 3, 2048, 8), padding=1).geometry
    assert "needs fewer than" in module.refuses(large)
