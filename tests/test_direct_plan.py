"""Where a direct convolution reads its patches from, and how its work is cut."""

import pytest

from fastconv import threads
from fastconv.cpu import conv_direct_weight, direct_plan
from fastconv.cpu.patches import IN_PLACE, PATCHES, STRIP
from fastconv.cpu.shape import as_product, forward_shape, splits_of
from fastconv.geometry import conv2d_geometry


@pytest.mark.parametrize(
    ("rows", "side", "channels", "stride", "itemsize", "source"),
    [
        (14, 14, 1024, 1, 4, PATCHES),
        (14, 14, 3072, 1, 4, PATCHES),
        (14, 14, 512, 2, 4, PATCHES),
        (14, 14, 512, 1, 8, PATCHES),
        (14, 14, 512, 1, 4, IN_PLACE),
        (14, 14, 1040, 1, 4, IN_PLACE),
        (14, 1, 1024, 1, 4, IN_PLACE),
        (6, 14, 1024, 1, 4, IN_PLACE),
    ],
)
def test_a_tile_is_gathered_where_its_pixels_share_few_sets_of_the_l1(
    monkeypatch, rows, side, channels, stride, itemsize, source
):
    """A set holds 8 lines: 14 pixels need two sets, 6 or those of 2 images of one pixel only one."""
    monkeypatch.setattr(direct_plan, "TILE_ROWS", rows)
    geometry = conv2d_geometry((2, side, side, channels), (1, 1, channels, 64), stride=stride)
    assert direct_plan._source(as_product(forward_shape(geometry)), itemsize)[0] == source


@pytest.mark.parametrize(
    ("channels", "groups", "stride", "padding", "source"),
    [
        (256, 1, 2, 1, PATCHES),
        (256, 1, 1, 0, PATCHES),
        (256, 8, 2, 1, STRIP),
        (64, 1, 2, 1, STRIP),
        (64, 1, 1, 0, IN_PLACE),
    ],
)
def test_pixels_far_apart_are_gathered_for_grad_weight(channels, groups, stride, padding, source):
    """A strip holds the channels of one group, so that its pixels are near."""
    geometry = conv2d_geometry(
        (2, 28, 28, channels), (3, 3, channels // groups, 64), stride=stride, padding=padding, groups=groups
    )
    assert conv_direct_weight._plan(forward_shape(geometry), 4, 1).source == source


@pytest.mark.parametrize("workers", [1, 2, 3, 4, 7, 16])
@pytest.mark.parametrize("outputs", [8, 80, 200])
def test_blocks_of_grad_weight_are_cut_until_shares_are_even(outputs, workers):
    shape = forward_shape(conv2d_geometry((1, 14, 14, 100), (3, 3, 100, outputs), padding=1))
    plan = conv_direct_weight._plan(shape, 4, workers)
    even = plan.tasks % workers == 0 or plan.tasks >= threads.EVEN_TASKS * workers
    assert even or max(plan.depth, plan.columns) <= conv_direct_weight._LEAST_BLOCK


@pytest.mark.parametrize(
    ("wanted", "most", "splits"), [(1, 9, 1), (3, 9, 4), (5, 9, 8), (8, 9, 8), (9, 9, 8), (4, 3, 2), (4, 0, 1)]
)
def test_splits_are_powers_of_two(wanted, most, splits):
    assert splits_of(wanted, most) == splits
