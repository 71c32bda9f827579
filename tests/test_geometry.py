"""The geometry of a convolution: sizes, "same" padding, counts, its line of text, and every error."""

import numpy as np
import pytest
from cases import CASES

from fastconv.geometry import conv2d_geometry, conv_transpose2d_geometry, sides

X, WEIGHT = (2, 11, 7, 6), (3, 2, 6, 5)

# TensorFlow's rule: extent, kernel, stride, dilation -> zeros before and after.
SAME = [
    (5, 3, 1, 1, (1, 1)),
    (5, 2, 1, 1, (0, 1)),
    (5, 4, 1, 1, (1, 2)),
    (5, 1, 1, 1, (0, 0)),
    (5, 3, 2, 1, (1, 1)),
    (6, 3, 2, 1, (0, 1)),
    (224, 7, 2, 1, (2, 3)),
    (13, 6, 5, 1, (1, 2)),
    (7, 2, 3, 1, (0, 1)),
    (6, 2, 3, 1, (0, 0)),
    (9, 3, 1, 2, (2, 2)),
    (9, 2, 1, 3, (1, 2)),
    (10, 3, 2, 2, (1, 2)),
    (2, 7, 1, 1, (3, 3)),
    (3, 2, 5, 1, (0, 0)),
]


@pytest.mark.parametrize(("extent", "kernel", "stride", "dilation", "expected"), SAME)
def test_same_padding_follows_tensorflow(extent, kernel, stride, dilation, expected):
    arguments = ((extent, 5), (kernel, 1), (stride, 1), (dilation, 1))
    assert sides("same", *arguments) == (expected, (0, 0))
    assert sides("SAME", *arguments) == (expected, (0, 0))
    assert sides("same_lower", *arguments) == (expected[::-1], (0, 0))
    g = conv2d_geometry(
        (1, extent, 5, 1), (kernel, 1, 1, 1), stride=(stride, 1), padding="same", dilation=(dilation, 1)
    )
    assert g.OH == -(-extent // stride)


@pytest.mark.parametrize(
    ("padding", "expected"),
    [
        (2, ((2, 2), (2, 2))),
        (np.int64(2), ((2, 2), (2, 2))),
        ((1, 3), ((1, 1), (3, 3))),
        ([1, 3], ((1, 1), (3, 3))),
        (np.array([1, 3]), ((1, 1), (3, 3))),
        (((1, 2), (3, 4)), ((1, 2), (3, 4))),
        ([[1, 2], [3, 4]], ((1, 2), (3, 4))),
        (np.array([[1, 2], [3, 4]]), ((1, 2), (3, 4))),
        ("valid", ((0, 0), (0, 0))),
    ],
)
def test_every_way_to_write_a_padding(padding, expected):
    assert conv2d_geometry(X, WEIGHT, padding=padding).padding == expected


@pytest.mark.parametrize("pair", [(2, 3), [2, 3], np.array([2, 3]), (np.int32(2), np.int32(3))])
def test_every_way_to_write_a_pair(pair):
    g = conv2d_geometry(X, WEIGHT, stride=pair, dilation=pair)
    assert (g.stride, g.dilation) == ((2, 3), (2, 3))
    assert g.out_shape == (2, 4, 2, 5)


def test_numbers_of_any_integer_type_give_the_same_geometry():
    number = np.int64(2)
    g = conv2d_geometry(list(X), [3, 2, 3, 4], stride=number, padding=number, dilation=number, groups=number)
    assert g == conv2d_geometry(X, (3, 2, 3, 4), stride=2, padding=2, dilation=2, groups=2)
    assert type(g.G) is int


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_output_has_one_pixel_for_each_place_of_the_kernel(case):
    g = case.geometry
    for extent, kernel, stride, dilation, (before, after), outputs in zip(
        (g.IH, g.IW), (g.KH, g.KW), g.stride, g.dilation, g.padding, (g.OH, g.OW), strict=True
    ):
        starts = range(-before, extent + after, stride)
        fits = [start for start in starts if start + (kernel - 1) * dilation < extent + after]
        assert outputs == len(fits), str(g)


@pytest.mark.parametrize(
    ("options", "size"),
    [
        ({}, (13, 8)),
        ({"stride": 2}, (23, 14)),
        ({"stride": 2, "padding": 1}, (21, 12)),
        ({"stride": 2, "padding": 1, "output_padding": 1}, (22, 13)),
        ({"stride": (3, 2), "output_padding": (2, 1)}, (35, 15)),
        ({"dilation": (2, 3)}, (15, 10)),
        ({"padding": ((1, 0), (0, 2))}, (12, 6)),
        ({"stride": 3, "padding": "same"}, (33, 21)),
        ({"stride": 3, "padding": "valid"}, (33, 20)),
    ],
)
def test_size_of_a_transposed_convolution(options, size):
    g = conv_transpose2d_geometry(X, (3, 2, 5, 6), **options)
    assert g.x_shape == (2, *size, 5)
    assert g.out_shape == X


def test_one_line_names_the_problem():
    g = conv2d_geometry(X, (3, 2, 3, 10), stride=(2, 1), padding="same", dilation=2, groups=2)
    assert str(g) == (
        "x=(2, 11, 7, 6) weight=(3, 2, 3, 10) out=(2, 6, 7, 10) "
        "stride=(2, 1) padding=((2, 2), (1, 1)) dilation=(2, 2) groups=2"
    )


def test_work_and_traffic_are_counted():
    g = conv2d_geometry(X, (3, 2, 3, 10), groups=2)
    assert g.out_shape == (2, 9, 6, 10)
    assert g.flops == 2 * (2 * 9 * 6 * 10) * (3 * 2 * 3)
    assert g.bytes(4) == 4 * (2 * 11 * 7 * 6 + 3 * 2 * 3 * 10 + 2 * 9 * 6 * 10)


def test_depthwise_means_one_input_channel_in_each_group():
    assert conv2d_geometry(X, (3, 2, 1, 12), groups=6).is_depthwise
    assert not conv2d_geometry(X, (3, 2, 2, 12), groups=3).is_depthwise
    assert not conv2d_geometry((2, 11, 7, 1), (3, 2, 1, 12)).is_depthwise


@pytest.mark.parametrize(
    ("x_shape", "weight_shape", "options", "error", "message"),
    [
        ((11, 7, 6), WEIGHT, {}, ValueError, r"x must have 4 dimensions, or 3 .*Received: x.shape=\(11, 7, 6\)"),
        (X, (3, 2, 6), {}, ValueError, r"weight must have 4 dimensions .*none of them 0. .*weight.shape=\(3, 2, 6\)"),
        (X, (3, 0, 6, 5), {}, ValueError, r"weight must have 4 dimensions .*none of them 0. .*\(3, 0, 6, 5\)"),
        (
            X,
            (3, 2, 4, 5),
            {},
            ValueError,
            r"x must have weight.shape\[2\] \* groups = 4 channels. .*\(3, 2, 4, 5\), gr",
        ),
        (X, (3, 2, 3, 5), {"groups": 2}, ValueError, r"groups must be a positive int that divides weight.shape\[3\]"),
        (
            X,
            WEIGHT,
            {"groups": 0},
            ValueError,
            r"groups must be a positive int .*groups=0, weight.shape=\(3, 2, 6, 5\)",
        ),
        (X, WEIGHT, {"groups": 1.0}, TypeError, r"groups must be an int. Received: groups=1.0"),
        (X, WEIGHT, {"stride": 0}, ValueError, "stride must be an int or a pair of ints, each >= 1. .*stride=0"),
        (X, WEIGHT, {"stride": (1, 2, 3)}, ValueError, r"stride must be .*Received: stride=\(1, 2, 3\)"),
        (X, WEIGHT, {"stride": 1.5}, TypeError, "stride must be an int or a pair of ints. Received: stride=1.5"),
        (X, WEIGHT, {"stride": "2"}, TypeError, "stride must be an int or a pair of ints. Received: stride='2'"),
        (X, WEIGHT, {"dilation": (1, 0)}, ValueError, r"dilation must be .* >= 1. Received: dilation=\(1, 0\)"),
        (X, WEIGHT, {"padding": -1}, ValueError, "padding must be .* >= 0. Received: padding=-1"),
        (X, WEIGHT, {"padding": ((1, 2), (3, -4))}, ValueError, r"padding\[1\] must be .*padding\[1\]=\(3, -4\)"),
        (X, WEIGHT, {"padding": (1, 2, 3)}, ValueError, r"padding must be .*padding=\(1, 2, 3\)"),
        (X, WEIGHT, {"padding": "full"}, ValueError, 'padding must be "valid", "same", .*padding=\'full\''),
        (X, WEIGHT, {"padding": None}, TypeError, "padding must be .*Received: padding=None"),
        (
            *(X, WEIGHT, {"dilation": 6}, ValueError),
            r"the padded image must be at least as large as the dilated kernel. Received: x.shape=\(2, 11, 7, 6\), "
            r"weight.shape=\(3, 2, 6, 5\), padding=\(\(0, 0\), \(0, 0\)\), dilation=\(6, 6\)",
        ),
    ],
)
def test_what_is_not_a_convolution_is_refused(x_shape, weight_shape, options, error, message):
    with pytest.raises(error, match=message):
        conv2d_geometry(x_shape, weight_shape, **options)


@pytest.mark.parametrize(
    ("weight_shape", "options", "message"),
    [
        (
            (3, 2, 5, 4),
            {},
            r"x must have weight.shape\[3\] = 4 channels. Received: x.shape=.*weight.shape=\(3, 2, 5, 4\)",
        ),
        ((3, 2, 5, 6), {"groups": 4}, r"groups must be a positive int that divides weight.shape\[3\]. .*groups=4"),
        (
            (3, 2, 5, 6),
            {"output_padding": 1},
            r"output_padding must be smaller than stride or dilation. .*stride=\(1, 1",
        ),
        ((3, 2, 5, 6), {"output_padding": -1}, "output_padding must be .* >= 0. Received: output_padding=-1"),
        ((3, 2, 5, 6), {"output_padding": 1, "stride": 2, "padding": "same"}, "output_padding must be 0 with padding="),
        (
            (3, 2, 5, 6),
            {"padding": 7},
            r"padding must leave at least one output pixel. .*padding=\(\(7, 7\), \(7, 7\)\)",
        ),
    ],
)
def test_what_is_not_a_transposed_convolution_is_refused(weight_shape, options, message):
    with pytest.raises(ValueError, match=message):
        conv_transpose2d_geometry(X, weight_shape, **options)
