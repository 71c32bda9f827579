"""The window tables: against the reference's windows, and every error message."""

import pytest

from fastconv.geometry import adaptive_pool2d_geometry, covering_windows, pool2d_geometry, single_pixels
from fastconv.reference import pool as reference


def axis_as_lists(table):
    return [list(range(start, stop, table.step)) for start, stop in zip(table.start, table.stop, strict=True)]


@pytest.mark.parametrize("count_include_pad", [True, False])
@pytest.mark.parametrize("ceil_mode", [True, False])
@pytest.mark.parametrize("dilation", [1, 2])
def test_tables_hold_the_windows_of_the_reference(dilation, ceil_mode, count_include_pad):
    tried = 0
    for extent in range(1, 12):
        for kernel in (1, 2, 3, 5):
            half = ((kernel - 1) * dilation + 1) // 2
            for stride in (1, 2, 3, 7):
                for padding in {(0, 0), (half, half), (0, half), (half, 0)}:
                    expected = reference.windows(
                        extent, kernel, stride, padding, dilation, ceil_mode, count_include_pad
                    )
                    if not expected or not all(window.pixels for window in expected):
                        continue
                    geometry = pool2d_geometry(
                        (2, extent, 4, 3),
                        (kernel, 1),
                        stride=(stride, 1),
                        padding=(padding, (0, 0)),
                        dilation=(dilation, 1),
                        ceil_mode=ceil_mode,
                        count_include_pad=count_include_pad,
                    )
                    assert axis_as_lists(geometry.rows) == [window.pixels for window in expected], geometry
                    assert geometry.rows.counts.tolist() == [window.divisor for window in expected], geometry
                    pixels = [len(window.pixels) for window in expected]
                    assert (geometry.rows.largest, geometry.rows.total) == (max(pixels), sum(pixels)), geometry
                    assert geometry.out_shape == (2, len(expected), 4, 3)
                    tried += 1
    assert tried > 100


def test_adaptive_tables_hold_the_windows_of_the_reference():
    for extent in range(1, 20):
        for outputs in range(1, 23):
            geometry = adaptive_pool2d_geometry((1, 3, extent, 1), (2, outputs))
            expected = reference.adaptive_windows(extent, outputs)
            assert axis_as_lists(geometry.columns) == [window.pixels for window in expected]
            assert geometry.columns.counts.tolist() == [window.divisor for window in expected]


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(3, 1, 1), (2, 3, 0), (5, 2, 2), (3, 2, "same")])
def test_covering_windows_are_the_table_read_the_other_way(kernel, stride, padding):
    table = pool2d_geometry((1, 11, 11, 1), kernel, stride=stride, padding=padding, ceil_mode=True).rows
    windows = axis_as_lists(table)
    for pixel, holders in enumerate(axis_as_lists(covering_windows(table, 11))):
        assert holders == [output for output, window in enumerate(windows) if pixel in window]


def test_same_padding_keeps_ceil_of_extent_over_stride():
    for extent in range(1, 14):
        for stride in (1, 2, 3, 4):
            for padding in ("same", "same_lower", "SAME"):
                geometry = pool2d_geometry((1, extent, 5, 1), 3, stride=stride, padding=padding)
                assert (geometry.OH, geometry.OW) == (-(-extent // stride), -(-5 // stride))


def test_same_puts_the_odd_pixel_at_the_end_and_same_lower_at_the_beginning():
    assert axis_as_lists(pool2d_geometry((1, 3, 3, 1), 2, stride=1, padding="same").rows) == [[0, 1], [1, 2], [2]]
    assert axis_as_lists(pool2d_geometry((1, 3, 3, 1), 2, stride=1, padding="same_lower").rows) == [[0], [0, 1], [1, 2]]


def test_tables_are_shared_and_read_only():
    first, second = (pool2d_geometry((2, 8, 8, 1), [2, 2]) for _ in range(2))
    assert first is second
    for table in (first.rows, adaptive_pool2d_geometry((1, 4, 4, 1), (2, 2)).columns, single_pixels(3)):
        assert not table.table.flags.writeable


def test_one_line_names_the_problem():
    text = str(pool2d_geometry((2, 8, 9, 4), 3, stride=2, padding=1))
    assert text.startswith("x=(2, 8, 9, 4) out=(2, 4, 5, 4) kernel_size=(3, 3) stride=(2, 2) padding=((1, 1), (1, 1))")
    assert pool2d_geometry((2, 8, 9, 4), 3).bytes(4) == 4 * 2 * 4 * (72 + 6)


@pytest.mark.parametrize(
    ("shape", "arguments", "error", "message"),
    [
        ((8, 8, 3), {"kernel_size": 2}, ValueError, r"x must have 4 dimensions.*x.shape=\(8, 8, 3\)"),
        ((1, 8, 8, 3), {"kernel_size": 0}, ValueError, "kernel_size must be .* >= 1. Received: kernel_size=0"),
        ((1, 8, 8, 3), {"kernel_size": (2, 2, 2)}, ValueError, r"kernel_size must be .*kernel_size=\(2, 2, 2\)"),
        ((1, 8, 8, 3), {"kernel_size": 2.5}, TypeError, "kernel_size must be an int or a pair .*kernel_size=2.5"),
        ((1, 8, 8, 3), {"kernel_size": 2, "stride": 0}, ValueError, "stride must be .* >= 1. Received: stride=0"),
        ((1, 8, 8, 3), {"kernel_size": 2, "dilation": -1}, ValueError, "dilation must be .*dilation=-1"),
        ((1, 8, 8, 3), {"kernel_size": 2, "padding": "full"}, ValueError, "padding must be \"valid\".*'full'"),
        ((1, 8, 8, 3), {"kernel_size": 2, "padding": -1}, ValueError, "padding must be .* >= 0. Received: padding=-1"),
        ((1, 8, 8, 3), {"kernel_size": 3, "padding": 2}, ValueError, r"at most half .*padding=2, kernel_size=\(3, 3\)"),
        ((1, 8, 8, 3), {"kernel_size": 3, "padding": ((1, 1), (0, 2))}, ValueError, "at most half of the dilated"),
        ((1, 2, 8, 3), {"kernel_size": 3}, ValueError, r"padded image must be at least .*x.shape=\(1, 2, 8, 3\)"),
        ((1, 0, 8, 3), {"kernel_size": 1}, ValueError, r"padded image must be at least .*x.shape=\(1, 0, 8, 3\)"),
        (
            (1, 1, 8, 3),
            {"kernel_size": 2, "dilation": 3, "padding": 2, "stride": 1},
            ValueError,
            r"every window must hold a pixel of the image. Received: x.shape=\(1, 1, 8, 3\)",
        ),
    ],
)
def test_bad_arguments_are_named(shape, arguments, error, message):
    with pytest.raises(error, match=message):
        pool2d_geometry(shape, **arguments)


def test_adaptive_pooling_needs_a_pixel():
    with pytest.raises(ValueError, match=r"x must have at least one pixel. Received: x.shape=\(1, 0, 3, 2\)"):
        adaptive_pool2d_geometry((1, 0, 3, 2), (1, 1))
