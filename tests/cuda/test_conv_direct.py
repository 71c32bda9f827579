"""The direct convolution on the GPU: its PTX, executed, against the reference and against the bits of the CPU."""

from typing import Any

import numpy as np
import pytest
from cases import BY_NAME, ConvCase, exact_arrays, normal_arrays
from emulator import Emulator, needs_target

from fastconv.cpu import conv_direct as cpu
from fastconv.cpu.activation import ACTIVATIONS
from fastconv.cpu.chains import chain_count, split_count, starts_of_chains
from fastconv.cpu.shape import as_product, forward_shape
from fastconv.cuda import conv_direct
from fastconv.cuda.conv_direct_plan import (
    NARROW,
    OUTSIDE,
    TILES,
    WEIGHT_TILES,
    choose_tile,
    nanoseconds,
    table_of_taps,
    tiles_of_forward,
)
from fastconv.cuda.ptx import Fault, OutOfBounds
from fastconv.geometry import Conv2dGeometry, conv2d_geometry
from fastconv.reference import conv as reference

needs_target()

RELU, LINEAR = ACTIVATIONS["relu"], ACTIVATIONS["linear"]

# Each with what it is here for.
CASES = (
    "plain",  # four channels at a time
    "channel tail",  # one at a time
    "no padding",  # grad_x in parts
    "one pixel",
    "one channel in and out",
    "1x1 strided over one column",
    "grouped",
    "grouped, strided tail",
    "two channels a group",
    "dilated strided",
    "dilation shares a factor with stride",
    "asymmetric padding",
    "first layer, colour",  # grad_x in parts, for a narrow tile
    "padding larger than kernel",
    "stride larger than kernel",
    "one more than a block of depth",
    "grad_weight over splits and chains",
)
LARGE_TILES = [tile for tile in TILES if tile != TILES[-1]]


def same_bits(left: Any, right: Any) -> bool:
    return bool(np.array_equal(left.view(np.int32), right.view(np.int32)))


def unwritten(shape: tuple[int, ...]) -> Any:
    return np.full(shape, np.nan, np.float32)


def three_passes(engine: Emulator, geometry: Conv2dGeometry, data: Any) -> tuple[Any, Any, Any]:
    """The results of forward with everything fused, grad_x and grad_weight."""
    out, grad_x, grad_weight = (
        unwritten(shape) for shape in (geometry.out_shape, geometry.x_shape, geometry.weight_shape)
    )
    conv_direct.forward(engine, geometry, data.x, data.weight, data.bias, data.residual, out, RELU)
    conv_direct.grad_x(engine, geometry, data.grad_out, data.weight, grad_x)
    conv_direct.grad_weight(engine, geometry, data.x, data.grad_out, grad_weight)
    return out, grad_x, grad_weight


def three_passes_on_cpu(geometry: Conv2dGeometry, data: Any) -> tuple[Any, Any, Any]:
    out, grad_x, grad_weight = (
        unwritten(shape) for shape in (geometry.out_shape, geometry.x_shape, geometry.weight_shape)
    )
    cpu.forward(geometry, data.x, data.weight, data.bias, data.residual, out, RELU)
    cpu.grad_x(geometry, data.grad_out, data.weight, grad_x)
    cpu.grad_weight(geometry, data.x, data.grad_out, grad_weight)
    return out, grad_x, grad_weight


@pytest.mark.parametrize("name", CASES)
def test_same_bits_as_the_cpu(name: str) -> None:
    geometry = BY_NAME[name].geometry
    data = normal_arrays(geometry)
    computed, expected = three_passes(Emulator(), geometry, data), three_passes_on_cpu(geometry, data)
    for operation, left, right in zip(("forward", "grad_x", "grad_weight"), computed, expected, strict=True):
        assert same_bits(left, right), operation


def test_splits_and_chains_are_several() -> None:
    shape = as_product(forward_shape(BY_NAME["grad_weight over splits and chains"].geometry))
    assert (split_count(shape), chain_count(shape)) == (16, 40)
    assert (starts_of_chains(shape) % shape.OW == 0).all()


@pytest.mark.parametrize("channels", [1, 64, 512])
@pytest.mark.parametrize("images", [32, 1024])
def test_the_sums_of_chains_take_little_memory(images: int, channels: int) -> None:
    """At most 32 MiB and the sums of a split, however many pixels there are."""
    geometry = conv2d_geometry((images, 112, 112, channels), (3, 3, channels, channels), padding="same")
    shape, weights = as_product(forward_shape(geometry)), 9 * channels**2
    splits, chains = split_count(shape), chain_count(shape)
    assert 4 * chains * weights <= 2**25 + 4 * max(splits, 1) * weights


@pytest.mark.parametrize("tile", LARGE_TILES, ids=str)
@pytest.mark.parametrize("name", ["plain", "grouped, strided tail"])
def test_tiles_do_not_change_bits(name: str, tile: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conv_direct, "choose_tile", lambda *_: tile)
    geometry = BY_NAME[name].geometry
    data = normal_arrays(geometry)
    computed, expected = three_passes(Emulator(), geometry, data), three_passes_on_cpu(geometry, data)
    for operation, left, right in zip(("forward", "grad_x", "grad_weight"), computed, expected, strict=True):
        assert same_bits(left, right), operation


# sm_100 has another code generator than the rest
@pytest.mark.parametrize("name", ["no padding", "grouped", "dilated strided", "asymmetric padding"])
def test_equals_the_reference(name: str) -> None:
    geometry = BY_NAME[name].geometry
    data = exact_arrays(geometry)
    out, grad_x, grad_weight = three_passes(Emulator("sm_100"), geometry, data)
    expected = reference.conv2d(geometry, data.x, data.weight) + data.bias + data.residual
    assert np.array_equal(out, np.maximum(expected, 0))
    assert np.array_equal(grad_x, reference.conv2d_grad_x(geometry, data.grad_out, data.weight))
    assert np.array_equal(grad_weight, reference.conv2d_grad_weight(geometry, data.x, data.grad_out))


# four channels at a time, one at a time, and one of x but four columns
CHANNELS = [(tile, *channels) for tile in (*TILES, NARROW, WEIGHT_TILES[-1]) for channels in ((16, 128), (15, 127))]
CHANNELS += [(tile, 15, 128) for tile in (TILES[1], TILES[-1])]


@pytest.mark.parametrize(("tile", "channels", "columns"), CHANNELS)
def test_memory_is_used_well(tile: Any, channels: int, columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """No bank of shared memory is asked twice; of global memory, 32 bytes at a time, hardly any is moved in vain."""
    monkeypatch.setattr(conv_direct, "choose_tile", lambda *_: tile)
    geometry = ConvCase("", (1, 8, 16, channels), (1, 1, channels, columns), padding=0).geometry
    data, engine = normal_arrays(geometry), Emulator(traffic=True)
    out, grad_weight = unwritten(geometry.out_shape), unwritten(geometry.weight_shape)
    conv_direct.forward(engine, geometry, data.x, data.weight, None, None, out, LINEAR)
    if tile != NARROW and (channels, columns) != (15, 128):
        conv_direct.grad_weight(engine, geometry, data.x, data.grad_out, grad_weight)
    for counters in engine.counters:
        assert counters.shared_ideal > 0
        assert counters.bank_conflicts == 0, counters.conflicts
        if channels % 4 == 0 and tile != NARROW:
            assert counters.sector_efficiency >= 0.9


def test_without_bias_residual_and_activation() -> None:
    geometry = BY_NAME["asymmetric padding"].geometry
    data, out = normal_arrays(geometry), unwritten(geometry.out_shape)
    expected = np.empty_like(out)
    conv_direct.forward(Emulator(), geometry, data.x, data.weight, None, None, out, LINEAR)
    cpu.forward(geometry, data.x, data.weight, None, None, expected, LINEAR)
    assert same_bits(out, expected)


@pytest.mark.parametrize("activation", [name for name in ACTIVATIONS if name])
def test_every_activation_has_the_cpus_bits(activation: str) -> None:
    geometry, code = BY_NAME["asymmetric padding"].geometry, ACTIVATIONS[activation]
    data, out = normal_arrays(geometry), unwritten(geometry.out_shape)
    bias = data.bias * np.float32(5)  # so that relu6 has something to cut off
    expected = np.empty_like(out)
    conv_direct.forward(Emulator(), geometry, data.x, data.weight, bias, data.residual, out, code)
    cpu.forward(geometry, data.x, data.weight, bias, data.residual, expected, code)
    assert same_bits(out, expected)


def test_misaligned_arrays_are_loaded_one_by_one() -> None:
    geometry = BY_NAME["plain"].geometry
    data, out = normal_arrays(geometry), unwritten(geometry.out_shape)
    shifted = np.empty(data.x.size + 1, np.float32)[1:].reshape(data.x.shape)
    shifted[...] = data.x
    expected = np.empty_like(out)
    conv_direct.forward(Emulator(), geometry, shifted, data.weight, None, None, out, LINEAR)
    cpu.forward(geometry, data.x, data.weight, None, None, expected, LINEAR)
    assert same_bits(out, expected)


def test_a_missing_barrier_is_caught() -> None:
    geometry = BY_NAME["plain"].geometry
    data, out = normal_arrays(geometry), unwritten(geometry.out_shape)
    engine = Emulator(change=lambda ptx: ptx.replace("bar.sync", "// bar.sync"))
    with pytest.raises(Fault):
        conv_direct.forward(engine, geometry, data.x, data.weight, None, None, out, LINEAR)


@pytest.mark.parametrize("short", ["x", "weight", "bias", "residual", "out"])
def test_an_array_too_short_is_caught(short: str) -> None:
    """The kernels read and write to the very ends of their arrays, and the interpreter sees where those are."""
    geometry = BY_NAME["plain"].geometry
    data = normal_arrays(geometry)
    arrays = {"x": data.x, "weight": data.weight, "bias": data.bias, "residual": data.residual}
    arrays["out"] = unwritten(geometry.out_shape)
    arrays[short] = arrays[short].reshape(-1)[:-4].copy()
    with pytest.raises(OutOfBounds):
        conv_direct.forward(Emulator(), geometry, *arrays.values(), RELU)


def test_empty_batch() -> None:
    geometry = ConvCase("", (0, 5, 7, 4), (3, 3, 4, 8), padding=1).geometry
    data = normal_arrays(geometry)
    out, grad_x, grad_weight = three_passes(Emulator(), geometry, data)
    assert out.size == grad_x.size == 0
    assert np.array_equal(grad_weight, np.zeros(geometry.weight_shape))


def test_not_finite_minus_zero_and_denormal_numbers() -> None:
    """Padding takes part as zeros, filled-up turns do not; denormals are zero: all as on the CPU."""
    geometry = BY_NAME["asymmetric padding"].geometry
    data = normal_arrays(geometry)
    data.x[0, 0, 0, :4] = np.inf, -np.inf, np.nan, -0.0
    data.x[0, 3:, 3:] = 0.0
    data.x[1] = 1e-25
    data.weight[0, 0, :, 0] = np.inf
    data.weight[..., 1] = -1e-25
    data.weight[..., 2] = -0.0
    out, expected = unwritten(geometry.out_shape), unwritten(geometry.out_shape)
    conv_direct.forward(Emulator(), geometry, data.x, data.weight, None, None, out, LINEAR)
    cpu.forward(geometry, data.x, data.weight, None, None, expected, LINEAR)
    assert np.isnan(expected).any()
    assert (np.signbit(expected) & (expected == 0)).any()
    assert np.array_equal(np.isnan(out), np.isnan(expected))
    numbers = ~np.isnan(expected)
    assert same_bits(out[numbers], expected[numbers])


@pytest.mark.parametrize("run", [1, 4])
@pytest.mark.parametrize("depth", [8, 32])
def test_table_of_taps_ends_with_whole_neutral_turns(run: int, depth: int) -> None:
    shape = conv_direct.forward_shape(BY_NAME["grouped"].geometry)
    table = table_of_taps(shape, run, depth)
    depths = shape.KH * shape.KW * (shape.IC // shape.G)
    assert len(table) * run % depth == 0
    assert len(table) * run >= depths + 2 * depth
    assert (table[depths // run :, 1:3] == OUTSIDE).all()
    assert (table[: depths // run, 1:3] >= 0).all()


def test_choice_of_tiles() -> None:
    """As large as there is work for 132 multiprocessors, no wider than the columns, and as deep as the chain."""
    large, middle, deep, square, small, least = TILES
    assert choose_tile(32 * 56 * 56, 256, 1, 64) == large
    assert choose_tile(32 * 56 * 56, 64, 1, 64) == middle
    assert choose_tile(32 * 14 * 14, 512, 1, 1024) == deep
    assert choose_tile(32 * 56 * 56, 32, 1, 288) == choose_tile(32 * 56 * 56, 16, 1, 288) == small
    assert choose_tile(32 * 14 * 14, 256, 1, 1024) == square
    assert choose_tile(7 * 7, 512, 1, 4608) == least
    assert tiles_of_forward(4, False) == tiles_of_forward(4, True) == (NARROW,)
    assert choose_tile(576, 64, 3, 33451, WEIGHT_TILES) == WEIGHT_TILES[-1]


# (rows, columns, groups or groups x splits, numbers of a chain): microseconds of kernels on an H200, and their tile
MEASURED = {
    (100352, 256, 1, 64): (108.9, 0),
    (100352, 64, 1, 64): (34.8, 1),
    (100352, 64, 1, 256): (101.2, 1),
    (25088, 512, 1, 256): (173.1, 0),
    (25088, 128, 1, 512): (97.8, 1),
    (6272, 512, 1, 1024): (178.1, 2),
    (6272, 256, 1, 1024): (107.2, 3),
    (6272, 256, 1, 2304): (229.1, 3),
    (1568, 2048, 1, 512): (108.6, 0),
    (1568, 512, 1, 2048): (157.9, 2),
}
MEASURED_OF_WEIGHT = {
    (64, 256, 4, 25088): (440.3, 5),
    (256, 512, 1, 25088): (441.3, 5),
    (512, 1024, 1, 6272): (243.3, 3),
    (4608, 512, 1, 1568): (225.2, 1),
    (512, 2048, 1, 1568): (88.7, 2),
    (1024, 256, 1, 6272): (188.6, 5),
}


@pytest.mark.parametrize(("measured", "tiles"), [(MEASURED, TILES), (MEASURED_OF_WEIGHT, WEIGHT_TILES)])
def test_times_are_as_measured(measured: Any, tiles: Any) -> None:
    """But for what a launch takes; and the tile that is chosen is said to take no longer."""
    launch = 3
    for problem, (time, i) in measured.items():
        told = launch + nanoseconds(tiles[i], *problem) / 1000
        assert 0.9 * time <= told <= 1.1 * time, problem
        assert launch + nanoseconds(choose_tile(*problem, tiles), *problem) / 1000 <= told


def test_too_large_a_problem_is_refused() -> None:
    geometry = ConvCase("", (2**20, 64, 64, 1), (1, 1, 1, 1), stride=1, padding=1).geometry
    with pytest.raises(ValueError, match=r"GPU kernels take fewer than .* output pixels"):
        conv_direct.check_size(conv_direct.forward_shape(geometry))
