"""Where a direct convolution reads its patches from."""

import pytest

from fastconv.cpu import direct_plan
from fastconv.cpu.patches import IN_PLACE, PATCHES
from fastconv.cpu.shape import as_product, forward_shape
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
