"""The choice of an algorithm: what it depends on, how it is explained, what is refused."""

import re

import numpy as np
import pytest
from cases import BY_NAME, CASES

from fastconv import dispatch, threads, winograd_choice
from fastconv.cpu import conv_winograd, winograd_plan
from fastconv.functional.conv import conv2d
from fastconv.geometry import conv2d_geometry


@pytest.fixture
def fresh_choices():
    """Choices are remembered; this test wants to see them made."""
    dispatch.choose.cache_clear()
    yield
    dispatch.choose.cache_clear()


WINOGRAD = (
    "plain",
    "channel tail",
    "over one block of depth and columns",
    "patches too large for a strip",
    "winograd, many tiles",
    "winograd, many channels",
    "winograd, grad_x backwards",
    "winograd, pieces",
    "winograd, dilated",
    "winograd, strided",
    "winograd, dilated pieces",
)


def test_auto_is_depthwise_for_groups_of_one_winograd_where_it_pays_and_direct_elsewhere():
    chosen = {case.name: dispatch.choose("conv2d_forward", case.geometry, 4, "auto").__module__ for case in CASES}
    for name, module in chosen.items():
        expected = "depthwise" if name.startswith("depthwise") else "winograd" if name in WINOGRAD else "direct"
        assert module == f"fastconv.cpu.conv_{expected}", name


def test_float64_is_never_transformed():
    for name in WINOGRAD:
        g = BY_NAME[name].geometry
        for algorithm in ("auto", "fastest"):
            assert dispatch.choose("conv2d_forward", g, 8, algorithm).__module__ == "fastconv.cpu.conv_direct"
        with pytest.raises(ValueError, match='algorithm="winograd" computes float32 only: float64 is asked for '):
            dispatch.choose("conv2d_forward", g, 8, "winograd")


def test_fastest_may_look_at_the_batch():
    one, many = (conv2d_geometry((n, 4, 4, 32), (3, 3, 32, 32), padding=1) for n in (1, 64))
    assert dispatch.choose("conv2d_forward", one, 4, "fastest").__module__ == "fastconv.cpu.conv_direct"
    assert dispatch.choose("conv2d_forward", many, 4, "fastest").__module__ == "fastconv.cpu.conv_winograd"
    assert dispatch.choose("conv2d_forward", many, 4, "auto").__module__ == "fastconv.cpu.conv_direct"
    # one tile does not pay for transforming so large a weight
    wide = conv2d_geometry((1, 4, 4, 512), (3, 3, 512, 512), padding=1)
    assert dispatch.choose("conv2d_forward", wide, 4, "fastest").__module__ == "fastconv.cpu.conv_direct"
    assert dispatch.choose("conv2d_forward", wide, 4, "auto").__module__ == "fastconv.cpu.conv_winograd"


def test_winograd_is_declined_where_a_thread_would_need_more_than_8_mb():
    most = winograd_choice.MOST_DEPTHS
    largest, larger = (
        conv2d_geometry((1, 32, 32, channels), (3, 3, channels, 64), padding=1) for channels in (most, most + 1)
    )
    assert winograd_choice.declines("conv2d_forward", largest, None) is None
    assert conv_winograd.workspace(largest, 4) <= 8e6
    assert "needs more than 8 MB" in str(winograd_choice.declines("conv2d_forward", larger, None))


def test_auto_counts_on_more_images_for_gradients():
    one_tile = conv2d_geometry((1, 4, 4, 32), (3, 3, 32, 32), padding=1)
    chosen = [dispatch.choose(operation, one_tile, 4, "auto").__module__ for operation in dispatch.OPERATIONS]
    assert chosen == ["fastconv.cpu.conv_direct", "fastconv.cpu.conv_winograd", "fastconv.cpu.conv_winograd_weight"]


def test_winograd_counts_the_products_that_tiles_and_pieces_ask_for():
    declines = winograd_choice.declines
    small = conv2d_geometry((8, 2, 2, 64), (3, 3, 64, 64), padding=1)
    reason = "pays where pixels fill 55% of their tiles, here 2x2 fill 36%"
    assert declines("conv2d_forward", small, None) == reason
    assert declines("conv2d_grad_weight", small, None) is None
    # 3x3 pixels of grad_out are 81 products of the direct sum, the 5x5 of grad_x 100 here; read backwards they are 25
    large, valid = (conv2d_geometry((8, 5, 5, C), (3, 3, C, C)) for C in (256, 64))
    assert [winograd_plan.reads_backwards(g) for g in (large, valid)] == [False, True]
    assert "3x3 fill 20%" in str(declines("conv2d_grad_x", large, None))
    assert declines("conv2d_grad_x", valid, None) is declines("conv2d_forward", valid, None) is None
    # 14 = 4 + 4 + 3 + 3 outputs are seen at 22 points
    assert winograd_choice.fill_of_tiles(14, 14) == pytest.approx(14 * 14 * 36 / (16 * 22 * 22))
    # a piece of two taps and one of one see 7 = 4 + 3 outputs at 10 points each
    strided = conv2d_geometry((8, 14, 14, 64), (3, 3, 64, 64), stride=2, padding=1)
    assert "here 1.10 times" in str(declines("conv2d_forward", strided, None))


@pytest.mark.parametrize("operation", dispatch.OPERATIONS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_choice_looks_neither_at_the_batch_nor_at_the_threads(case, operation, monkeypatch, fresh_choices):
    alone = dispatch.choose(
        operation, conv2d_geometry((1, *case.x_shape[1:]), case.weight_shape, **case.options), 4, "auto"
    )
    monkeypatch.setattr(threads, "worker_count", lambda work: 64)
    many = dispatch.choose(
        operation, conv2d_geometry((97, *case.x_shape[1:]), case.weight_shape, **case.options), 4, "auto"
    )
    assert many is alone


def test_an_algorithm_that_refuses_says_why():
    x, weight = np.zeros((1, 5, 7, 6), np.float32), np.zeros((3, 3, 2, 6), np.float32)
    message = (
        r'algorithm="depthwise" needs one input channel in each group, here 2 \(groups=3\). '
        r"Received: x=\(1, 5, 7, 6\) weight=\(3, 3, 2, 6\) "
    )
    with pytest.raises(ValueError, match=message):
        conv2d(x, weight, groups=3, algorithm="depthwise")


def test_an_unknown_algorithm_is_refused():
    x, weight = np.zeros((1, 5, 7, 6), np.float32), np.zeros((3, 3, 6, 6), np.float32)
    with pytest.raises(ValueError, match=r'algorithm must be one of "auto", .*"direct".*Received: algorithm='):
        conv2d(x, weight, algorithm="fft")


def test_explain_names_the_choice_the_refusals_and_the_cost():
    case = BY_NAME["depthwise"]
    lines = dispatch.explain(case.x_shape, case.weight_shape, **case.options).splitlines()
    assert lines[0] == str(case.geometry)
    assert [line.split()[:2] for line in lines[1:5]] == [
        ["depthwise", "chosen:"],
        ["winograd", "refuses:"],
        ["direct", "not"],
        ["reference", "not"],
    ]
    case = BY_NAME["over one block of depth"]
    lines = dispatch.explain(case.x_shape, case.weight_shape, **case.options).splitlines()
    assert lines[1] == "  depthwise  refuses: needs one input channel in each group, here 43 (groups=1)"
    assert lines[2] == "  winograd   declines: 4 tiles of 13 channels do not pay for transforming the weight"
    assert lines[3].startswith("  direct     chosen: ")
    assert lines[4].startswith("  reference  not needed: ")
    cost = "\n".join(lines[5:])
    assert f"arithmetic {case.geometry.flops / 1e6:.1f} MFLOP" in cost
    assert re.search(r"workspace +\d\.\d MB per thread", cost)
    assert re.search(f"error +about {2.0**-23 * (9 * 43) ** 0.5:.0e} of", cost)


def test_explain_knows_that_float64_is_twice_as_wide():
    case = BY_NAME["plain"]
    narrow, wide = (
        dispatch.explain(case.x_shape, case.weight_shape, dtype=dtype, **case.options)
        for dtype in (np.float32, "float64")
    )
    per_byte = [int(re.search(r"(\d+) FLOP per byte", text)[1]) for text in (narrow, wide)]
    assert per_byte == [round(case.geometry.flops / case.geometry.bytes(size)) for size in (4, 8)]


def test_verbose_prints_each_new_choice_once(monkeypatch, capsys, fresh_choices):
    case = BY_NAME["one pixel"]
    x, weight = np.zeros(case.x_shape, np.float32), np.zeros(case.weight_shape, np.float32)
    conv2d(x, weight, algorithm="reference")
    assert capsys.readouterr() == ("", "")
    monkeypatch.setenv("FASTCONV_VERBOSE", "dispatch")
    dispatch.choose.cache_clear()
    for _ in range(2):
        conv2d(x, weight, algorithm="reference")
    assert capsys.readouterr() == ("", f"fastconv: conv2d_forward {case.geometry} -> reference\n")
