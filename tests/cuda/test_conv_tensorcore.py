"""The convolution on tensor cores: its PTX, executed, against the reference."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from cases import ConvCase, exact_arrays, normal_arrays
from emulator import Emulator, needs_target

from fastconv.cpu.activation import ACTIVATIONS
from fastconv.cuda import conv_tensorcore
from fastconv.cuda.conv_tensorcore_plan import (
    PRECISIONS,
    TILES,
    TILES_BY_REGISTERS,
    WEIGHT_TILES,
    choose_tile,
    choose_weight_tile,
)
from fastconv.cuda.ptx import AsyncHazard, Fault, OutOfBounds, Race
from fastconv.geometry import Conv2dGeometry
from fastconv.reference import conv as reference

needs_target()

RELU, LINEAR = ACTIVATIONS["relu"], ACTIVATIONS["linear"]

CASES = {
    case.name: case
    for case in (
        ConvCase("plain", (2, 7, 9, 16), (3, 3, 16, 24), padding=1),
        ConvCase("one chunk in a turn", (1, 5, 7, 8), (1, 1, 8, 8)),
        ConvCase("1x1 of many turns", (2, 3, 5, 72), (1, 1, 72, 40)),
        ConvCase(
            "grouped, dilated, strided, asymmetric",
            *((2, 9, 11, 24), (3, 2, 8, 48)),
            stride=(2, 1),
            padding=((1, 0), (2, 1)),
            dilation=(1, 2),
            groups=3,
        ),
        ConvCase("stride larger than kernel", (1, 9, 7, 16), (1, 2, 16, 8), stride=(3, 2)),
        ConvCase("grad_weight in three splits", (2, 29, 31, 8), (1, 1, 8, 8)),
        ConvCase("padding larger than kernel", (1, 3, 5, 8), (2, 2, 8, 16), stride=3, padding=((5, 4), (3, 7))),
    )
}
PLAIN = CASES["plain"].geometry


def unwritten(shape: tuple[int, ...]) -> Any:
    return np.full(shape, np.nan, np.float32)


def forward(
    engine: Emulator,
    geometry: Conv2dGeometry,
    x: Any,
    weight: Any,
    precision: str,
    bias: Any = None,
    residual: Any = None,
    activation: int = LINEAR,
) -> Any:
    out = unwritten(geometry.out_shape)
    conv_tensorcore.forward(engine, geometry, x, weight, bias, residual, out, activation, precision=precision)
    return out


def grad_x(engine: Emulator, geometry: Conv2dGeometry, grad_out: Any, weight: Any, precision: str) -> Any:
    out = unwritten(geometry.x_shape)
    conv_tensorcore.grad_x(engine, geometry, grad_out, weight, out, precision)
    return out


def grad_weight(engine: Emulator, geometry: Conv2dGeometry, x: Any, grad_out: Any, precision: str) -> Any:
    out = unwritten(geometry.weight_shape)
    conv_tensorcore.grad_weight(engine, geometry, x, grad_out, out, precision)
    return out


def check_whole_numbers(architecture: str, precision: str, name: str) -> None:
    """Whole numbers are exact in every precision, and so are their sums."""
    geometry, engine = CASES[name].geometry, Emulator(architecture)
    data = exact_arrays(geometry)
    out = forward(engine, geometry, data.x, data.weight, precision, data.bias, data.residual, RELU)
    expected = reference.conv2d(geometry, data.x, data.weight) + data.bias + data.residual
    assert np.array_equal(out, np.maximum(expected, 0))
    gradient = grad_x(engine, geometry, data.grad_out, data.weight, precision)
    assert np.array_equal(gradient, reference.conv2d_grad_x(geometry, data.grad_out, data.weight))
    gradient = grad_weight(engine, geometry, data.x, data.grad_out, precision)
    assert np.array_equal(gradient, reference.conv2d_grad_weight(geometry, data.x, data.grad_out))


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", CASES)
def test_whole_numbers_are_exact(name: str, precision: str) -> None:
    check_whole_numbers("sm_80", precision, name)


# sm_75 has no asynchronous copies and half of each product; sm_100 has another code generator than the rest
@pytest.mark.parametrize(
    ("architecture", "precision", "name"),
    [
        ("sm_75", "fp16", "plain"),
        ("sm_75", "fp16", "grouped, dilated, strided, asymmetric"),
        ("sm_75", "fp16", "one chunk in a turn"),
        ("sm_100", "tf32", "grouped, dilated, strided, asymmetric"),
    ],
)
def test_other_architectures(architecture: str, precision: str, name: str) -> None:
    check_whole_numbers(architecture, precision, name)


@pytest.fixture
def use_tile(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], None]:
    def use(tile: Any) -> None:
        monkeypatch.setattr(conv_tensorcore, "choose_tile", lambda *_: tile)
        monkeypatch.setattr(conv_tensorcore, "choose_weight_tile", lambda *_: tile)

    return use


@pytest.mark.parametrize(
    ("architecture", "tiles"), [("sm_80", TILES), ("sm_75", TILES_BY_REGISTERS)], ids=["sm_80", "sm_75"]
)
def test_tiles_do_not_change_bits(architecture: str, tiles: Any, use_tile: Callable[[Any], None]) -> None:
    geometry, engine = ConvCase("", (3, 7, 9, 24), (3, 3, 8, 24), padding=1, groups=3).geometry, Emulator(architecture)
    data, results = normal_arrays(geometry), []
    for tile in tiles:
        use_tile(tile)
        results.append(forward(engine, geometry, data.x, data.weight, "fp16", data.bias, data.residual, RELU))
    for result in results[1:]:
        assert np.array_equal(result.view(np.int32), results[0].view(np.int32))


@pytest.mark.parametrize("precision", ["tf32", "fp16"])
def test_tiles_do_not_change_bits_of_grad_weight(precision: str, use_tile: Callable[[Any], None]) -> None:
    geometry, results = ConvCase("", (3, 7, 9, 24), (3, 3, 8, 24), padding=1, groups=3).geometry, []
    data = normal_arrays(geometry)
    for tile in WEIGHT_TILES:
        use_tile(tile)
        results.append(grad_weight(Emulator(), geometry, data.x, data.grad_out, precision))
    assert np.array_equal(results[0].view(np.int32), results[1].view(np.int32))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_an_image_has_the_same_bits_in_any_batch(precision: str) -> None:
    batch = ConvCase("", (3, 7, 9, 16), (3, 3, 16, 24), padding=1).geometry
    one = ConvCase("", (1, 7, 9, 16), (3, 3, 16, 24), padding=1).geometry
    data = normal_arrays(batch)
    together = forward(Emulator(), batch, data.x, data.weight, precision)
    alone = forward(Emulator(), one, data.x[1:2].copy(), data.weight, precision)
    assert np.array_equal(together[1:2].view(np.int32), alone.view(np.int32))


def error_in_bounds(precision: str, depths: int, error: Any, magnitude: Any) -> Any:
    """The error of each element as a share of its documented bound."""
    u = PRECISIONS[precision].roundoff
    return error / ((2 * u + u * u + depths * 2.0**-22) * magnitude)


def test_accuracy() -> None:
    """Each precision keeps its bound, and needs it: bf16 is outside that of the others."""
    geometry = ConvCase("", (1, 7, 9, 64), (3, 3, 64, 24), padding=1).geometry
    data, depths, engine = normal_arrays(geometry), 3 * 3 * 64, Emulator()
    x, weight, grad_out = (array.astype(np.float64) for array in (data.x, data.weight, data.grad_out))
    exact, magnitude = (reference.conv2d(geometry, *pair) for pair in ((x, weight), (abs(x), abs(weight))))
    exact_x, magnitude_x = (
        reference.conv2d_grad_x(geometry, *pair) for pair in ((grad_out, weight), (abs(grad_out), abs(weight)))
    )
    exact_weight, magnitude_weight = (
        reference.conv2d_grad_weight(geometry, *pair) for pair in ((x, grad_out), (abs(x), abs(grad_out)))
    )
    largest = {}
    for precision in PRECISIONS:
        errors = abs(forward(engine, geometry, data.x, data.weight, precision) - exact)
        largest[precision] = errors.max()
        assert error_in_bounds(precision, depths, errors, magnitude).max() < 1
        errors = abs(grad_x(engine, geometry, data.grad_out, data.weight, precision) - exact_x)
        assert error_in_bounds(precision, 3 * 3 * 24, errors, magnitude_x).max() < 1
        errors = abs(grad_weight(engine, geometry, data.x, data.grad_out, precision) - exact_weight)
        assert error_in_bounds(precision, 7 * 9, errors, magnitude_weight).max() < 1
    assert largest["bf16"] > 5 * largest["fp16"]
    assert largest["bf16"] > 5 * largest["tf32"]


def rounded(values: Any, precision: str) -> Any:
    """The same numbers in a precision: tf32 rounds ties away from zero, the others to even."""
    if precision == "fp16":
        with np.errstate(over="ignore"):
            return values.astype(np.float16).astype(np.float32)
    bits = values.view(np.uint32)
    kept = np.uint32(13 if precision == "tf32" else 16)
    half = np.uint32(1) << (kept - np.uint32(1))
    if precision == "bf16":
        half = half - np.uint32(1) + ((bits >> kept) & np.uint32(1))
    return np.where(np.isfinite(values), (((bits + half) >> kept) << kept).view(np.float32), values)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_factors_are_rounded_to_nearest(precision: str) -> None:
    """Each pixel has one number, and the weight is the identity, or the other way round."""
    numbers = np.random.default_rng(0).normal(size=40).astype(np.float32)
    ties = np.float32(1) + np.float32(2) ** np.arange(-12, -6, dtype=np.float32)
    special = np.array([np.inf, -np.inf, np.nan, 1e-6, 65519, 65520, 0, 3.4e38], np.float32)
    nan_with_all_bits = np.array([0x7FFFFFFF], np.uint32).view(np.float32)
    values = np.concatenate([numbers, ties, -ties, special, nan_with_all_bits, np.zeros(3, np.float32)])
    assert values.size == 64
    places = np.arange(64), np.arange(64) % 8
    spread, identity = np.zeros((64, 8), np.float32), np.eye(8, dtype=np.float32)
    spread[places] = values
    geometry = ConvCase("", (1, 8, 8, 8), (1, 1, 8, 8)).geometry
    out = forward(Emulator(), geometry, spread.reshape(1, 8, 8, 8), identity.reshape(1, 1, 8, 8), precision)
    expected = rounded(values, precision)
    np.testing.assert_array_equal(out.reshape(64, 8)[places], expected)

    geometry = ConvCase("", (1, 1, 8, 8), (1, 1, 8, 64)).geometry
    out = forward(Emulator(), geometry, identity.reshape(1, 1, 8, 8), spread.T.reshape(1, 1, 8, 64).copy(), precision)
    np.testing.assert_array_equal(out.reshape(8, 64).T[places], expected)


@pytest.mark.parametrize(("architecture", "precision"), [("sm_80", "fp16"), ("sm_80", "tf32"), ("sm_75", "fp16")])
def test_memory_is_used_well(architecture: str, precision: str, use_tile: Callable[[Any], None]) -> None:
    """No bank of shared memory is asked twice; 9 of 10 bytes that are moved from and to global memory are used.

    Sectors are compared with the bytes that are needed, because threads that read the same number of a table count
    its bytes many times.
    """
    channels = 64
    geometry = ConvCase("", (1, 8, 16, channels), (1, 1, channels, channels)).geometry
    data, itemsize = normal_arrays(geometry), 16 / PRECISIONS[precision].channels
    tiles = TILES if architecture == "sm_80" else TILES_BY_REGISTERS
    # bytes of tf32 lie like those of fp16, but for grad_weight
    for tile in tiles[-1:] if precision == "tf32" else tiles:
        use_tile(tile)
        for run in ("forward", "grad_x"):
            engine = Emulator(architecture, traffic=True)
            if run == "forward":
                forward(engine, geometry, data.x, data.weight, precision)
            else:
                grad_x(engine, geometry, data.grad_out, data.weight, precision)
            *converted, packed, product = engine.counters
            assert len(converted) == (precision != "tf32")
            assert product.shared_ideal > 0
            assert product.bank_conflicts == 0, product.conflicts
            pixels, columns = 8 * 16, -(-channels // tile.columns) * tile.columns
            reads = -(-columns // tile.columns) * pixels + -(-pixels // tile.rows) * columns
            needed = reads * channels * itemsize + pixels * channels * 4
            assert 32 * product.global_sectors <= needed / 0.9
            for counters in converted:
                assert counters.sector_efficiency >= 0.99
            # each warp of the kernel that packs reads the table of taps too
            quads = channels * columns // 4
            needed = channels * channels * 4 + channels * columns * itemsize + 32 * quads / 32
            assert 32 * packed.global_sectors <= needed / 0.9
    for tile in WEIGHT_TILES if architecture == "sm_80" else WEIGHT_TILES[1:]:
        use_tile(tile)
        engine = Emulator(architecture, traffic=True)
        grad_weight(engine, geometry, data.x, data.grad_out, precision)
        product = engine.counters[-1]
        assert product.bank_conflicts == 0, product.conflicts
        needed = 2 * pixels * channels * itemsize + channels * channels * 4
        assert 32 * product.global_sectors <= needed / 0.9


def fault_in(pattern: str, replacement: str) -> tuple[Callable[[str], str], list[int]]:
    """A change of PTX for an engine, and how often each kernel was changed."""
    counts: list[int] = []

    def change(ptx: str) -> str:
        ptx, count = re.subn(pattern, replacement, ptx)
        counts.append(count)
        return ptx

    return change, counts


@pytest.mark.parametrize(
    ("architecture", "pattern", "replacement", "caught"),
    [
        ("sm_80", r"bar\.sync", "// bar.sync", Race),
        ("sm_80", r"cp\.async\.wait_group\s+2;", "cp.async.wait_group 3;", AsyncHazard),
        ("sm_80", r"cp\.async\.wait_group\s+2;", "", AsyncHazard),
        ("sm_80", r"cp\.async\.commit_group;", "", AsyncHazard),
        # the stages go round too early: copies go to the one that is read
        ("sm_80", r"(setp\.lt\.s32\s+%p\d+, %r\d+), 3;((\s+add.*)?\s+selp)", r"\1, 2;\2", (AsyncHazard, Race)),
        ("sm_75", r"bar\.sync", "// bar.sync", Race),
        ("sm_75", r"(setp\.lt\.s32\s+%p\d+, %r\d+), 1;(\s+selp)", r"\1, 0;\2", Race),
    ],
    ids=["barrier", "weaker wait", "no wait", "no groups", "wrong stage", "barrier of sm_75", "wrong stage of sm_75"],
)
def test_faults_are_caught(architecture: str, pattern: str, replacement: str, caught: type[Fault]) -> None:
    data = normal_arrays(PLAIN)
    for operation, *factors in ((forward, data.x, data.weight), (grad_weight, data.x, data.grad_out)):
        change, counts = fault_in(pattern, replacement)
        with pytest.raises(caught):
            operation(Emulator(architecture, change=change), PLAIN, *factors, "fp16")
        assert counts[-1] > 0


@pytest.mark.parametrize("precision", ["tf32", "fp16"])
@pytest.mark.parametrize("short", ["x", "weight", "bias", "residual", "out"])
def test_an_array_too_short_is_caught(short: str, precision: str) -> None:
    """The kernels read and write to the very ends of their arrays, and the interpreter sees where those are."""
    data = normal_arrays(PLAIN)
    arrays = {"x": data.x, "weight": data.weight, "bias": data.bias, "residual": data.residual}
    arrays["out"] = unwritten(PLAIN.out_shape)
    arrays[short] = arrays[short].reshape(-1)[:-8].copy()
    with pytest.raises(OutOfBounds):
        conv_tensorcore.forward(Emulator(), PLAIN, *arrays.values(), RELU, precision=precision)


@pytest.mark.parametrize("short", [0, 1, 2])
def test_an_array_of_grad_weight_too_short_is_caught(short: int) -> None:
    data = normal_arrays(PLAIN)
    arrays = [data.x, data.grad_out, unwritten(PLAIN.weight_shape)]
    arrays[short] = arrays[short].reshape(-1)[:-8].copy()
    with pytest.raises(OutOfBounds):
        conv_tensorcore.grad_weight(Emulator(), PLAIN, *arrays, "tf32")


class ShortEmulator(Emulator):
    """Its arrays for what kernels prepare are one chunk short."""

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
        return super().empty((max(shape[0] - 4, 0),), dtype)


def test_prepared_arrays_too_short_are_caught() -> None:
    data = normal_arrays(PLAIN)
    for precision in ("tf32", "fp16"):
        with pytest.raises(OutOfBounds):
            forward(ShortEmulator(), PLAIN, data.x, data.weight, precision)
    with pytest.raises(OutOfBounds):
        grad_weight(ShortEmulator(), PLAIN, data.x, data.grad_out, "fp16")


def test_empty_batch() -> None:
    geometry = ConvCase("", (0, 5, 7, 8), (1, 1, 8, 8)).geometry
    data, engine = normal_arrays(geometry), Emulator()
    assert forward(engine, geometry, data.x, data.weight, "tf32").size == 0
    assert grad_x(engine, geometry, data.grad_out, data.weight, "tf32").size == 0
    assert not engine.counters
    assert not grad_weight(engine, geometry, data.x, data.grad_out, "tf32").any()


def test_what_is_refused() -> None:
    refuses = conv_tensorcore.refuses
    for precision in PRECISIONS:
        assert refuses(PLAIN, precision, (9, 0)) is None
    assert refuses(PLAIN, "fp16", (7, 5)) is None
    assert refuses(PLAIN, "fp32", (9, 0)) == "needs a precision of tf32, bf16, fp16, here 'fp32'"
    assert refuses(PLAIN, "bf16", (7, 5)) == "needs compute capability 8.0 or newer for bf16, here 7.5"
    assert "7.5 or newer for fp16" in str(refuses(PLAIN, "fp16", (7, 0)))
    for shapes in (((1, 5, 5, 12), (3, 3, 12, 16)), ((1, 5, 5, 16), (3, 3, 16, 12))):
        assert "multiples of 8 input and output channels" in str(
            refuses(ConvCase("", *shapes).geometry, "tf32", (8, 0))
        )
    large = ConvCase("", (2**20, 256, 256, 8), (1, 1, 8, 8)).geometry
    assert str(refuses(large, "tf32", (8, 0))).endswith(f"twice those in the weight, here {2**37}")
    many_groups = ConvCase("", (1, 1, 1, 2**26), (1, 1, 8, 2**26), groups=2**23).geometry
    assert str(refuses(many_groups, "fp16", (8, 0))).endswith(f"here {2**33}")
    with pytest.raises(ValueError, match=r"tensor core kernels cannot compute .*: it needs a precision"):
        forward(Emulator(), PLAIN, None, None, "fp32")


def test_arguments() -> None:
    data = normal_arrays(PLAIN)
    shifted = np.empty(data.x.size + 1, np.float32)[1:].reshape(data.x.shape)
    with pytest.raises(ValueError, match="begin at a multiple of 16 bytes"):
        forward(Emulator(), PLAIN, shifted, data.weight, "tf32")
    with pytest.raises(TypeError, match="float32"):
        forward(Emulator(), PLAIN, data.x.astype(np.float16), data.weight, "tf32")


def test_choice_of_tiles() -> None:
    assert choose_tile(TILES, 8 * 56 * 56, 256, 1) == TILES[0]
    assert choose_tile(TILES, 32 * 14 * 14, 256, 1) == TILES[0]
    assert choose_tile(TILES, 32 * 56 * 56, 64, 1) == choose_tile(TILES, 32 * 7 * 7, 512, 1) == TILES[1]
    assert choose_tile(TILES, 8 * 56 * 56, 16, 1) == choose_tile(TILES, 14 * 14, 256, 1) == TILES[2]
    assert choose_tile(TILES_BY_REGISTERS, 7 * 7, 512, 1) == TILES_BY_REGISTERS[1]
    assert choose_weight_tile(WEIGHT_TILES, 9 * 64, 128) == WEIGHT_TILES[0]
    assert choose_weight_tile(WEIGHT_TILES, 9 * 64, 64) == WEIGHT_TILES[1]
