"""Each plot returns a figure with the right artists, and leaves matplotlib's global state alone."""

from __future__ import annotations

import io

import numpy as np
import pytest

from fastconv import plots
from fastconv.keras import Input, Model, Sequential, layers
from fastconv.keras.grad_cam import heat_map

pytest.importorskip("matplotlib", reason="matplotlib is not installed")


def drawn(figure):
    """The figure, after it could be written."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=30)
    assert buffer.getvalue().startswith(b"\x89PNG")
    return figure


def test_training_curves_have_a_panel_per_quantity_and_a_line_per_series():
    history = {"loss": [1.0, 0.5], "accuracy": [0.5, 0.75], "val_loss": [1.1, 0.6]}
    loss, accuracy = drawn(plots.training_curves(history)).axes
    assert [line.get_ydata().tolist() for line in loss.lines] == [[1.0, 0.5], [1.1, 0.6]]
    assert [line.get_xdata().tolist() for line in accuracy.lines] == [[1, 2]]
    assert loss.get_title(loc="left") == "Loss"
    assert [text.get_text() for text in loss.get_legend().get_texts()] == ["training", "validation"]
    with pytest.raises(ValueError, match="history must hold at least one quantity"):
        plots.training_curves({})


def test_confusion_matrix_is_coloured_by_share_and_labelled_with_counts():
    matrix = np.array([[3, 1, 0], [0, 8, 0], [0, 0, 0]])
    figure = drawn(plots.confusion_matrix(matrix, ["a", "b", "c"]))
    (axes,) = figure.axes
    np.testing.assert_allclose(axes.images[0].get_array(), [[0.75, 0.25, 0], [0, 1, 0], [0, 0, 0]])
    assert sorted(text.get_text() for text in axes.texts) == ["1", "3", "8"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b", "c"]
    assert figure.get_suptitle() == "11 of 12 right (91.7%)"
    with pytest.raises(ValueError, match=r"matrix.shape=\(3, 3\), 2 class names"):
        plots.confusion_matrix(matrix, ["a", "b"])


def test_the_title_of_a_small_matrix_is_not_cut():
    counts = [[53600, 4800], [4200, 52400]]
    figure = drawn(plots.confusion_matrix(counts, ["no", "a rather long name"]))
    (title,) = figure.texts
    extent = title.get_window_extent()
    assert 0 <= extent.x0 < extent.x1 <= figure.bbox.x1


def pictures(figure):
    return [axes.images[0].get_array() for axes in figure.axes if axes.images]


def test_feature_maps_show_the_strongest_channels_of_every_layer_that_makes_images():
    image = np.random.default_rng(0).uniform(0, 1, (8, 7, 1)).astype(np.float32)
    inputs = Input((8, 7, 1))
    x = layers.Conv2D(12, 3, name="conv")(inputs)
    shortcut = layers.MaxPooling2D(2, name="pool")(x)
    x = layers.Conv2D(12, 1, name="mix")(shortcut)
    model = Model(inputs, layers.Flatten()(layers.Add(name="sum")([x, shortcut])))
    bias = np.zeros(12)
    bias[7] = 100
    model.get_layer("conv").bias.assign(bias)
    figure = drawn(plots.feature_maps(model, image, channels=4))
    first, *maps = pictures(figure)
    np.testing.assert_array_equal(first, image[:, :, 0])
    assert [each.shape for each in maps] == [(6, 5)] * 4 + [(3, 2)] * 12
    expected = Model(inputs, model.get_layer("conv").output).predict(image[np.newaxis])[0, :, :, 7]
    assert any(np.array_equal(each, expected) for each in maps)
    titles = [row.get_suptitle() for row in figure.subfigs[1].subfigs]
    assert [title.partition(":")[0] for title in titles] == ["conv", "pool", "mix", "sum"]


def test_one_layer_is_enough_for_feature_maps_and_the_model_need_not_be_built():
    figure = drawn(plots.feature_maps(Sequential([layers.Conv2D(2, 3)]), np.ones((6, 5, 1))))
    assert [each.shape for each in pictures(figure)][1:] == [(4, 3)] * 2
    with pytest.raises(ValueError, match=r"model must have a layer that puts out images"):
        plots.feature_maps(Sequential([layers.Flatten(input_shape=(4, 4, 1))]), np.ones((4, 4, 1)))


def test_grad_cam_lies_over_the_whole_image_of_the_predicted_class():
    model = Sequential(
        [layers.Conv2D(3, 3, input_shape=(9, 7, 1)), layers.Flatten(), layers.Dense(4, bias_initializer="ones")]
    )
    model.layers[-1].bias.assign([0, 0, 100, 0])
    image = np.random.default_rng(0).uniform(0, 1, (9, 7, 1))
    left, right = drawn(plots.grad_cam(model, image)).axes
    assert (left.get_title(loc="left"), right.get_title(loc="left")) == ("input", "class 2")
    shown, heat = right.images
    assert shown.get_extent() == heat.get_extent()
    np.testing.assert_array_equal(heat.get_array(), heat_map(model, image, 2))


def test_image_grid_takes_grey_and_coloured_images():
    images = [np.zeros((4, 5)), np.zeros((4, 5, 1)), np.zeros((4, 5, 3))]
    figure = drawn(plots.image_grid(images, ["a", "b", "c"], columns=2))
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["a", "b", "c", ""]
    assert [axes.images[0].get_array().shape for axes in figure.axes if axes.images] == [(4, 5), (4, 5), (4, 5, 3)]
    for some, titles in ([], []), (images, ["a", "b"]):
        with pytest.raises(ValueError, match=f"Received: {len(some)} images, {len(titles)} titles"):
            plots.image_grid(some, titles)


def test_no_backend_is_chosen_and_no_window_opened():
    import matplotlib

    before = matplotlib.rcParams._get("backend")
    drawn(plots.image_grid([np.zeros((2, 2))], ["a"]))
    assert matplotlib.rcParams._get("backend") == before


def test_filters_are_signed_in_one_scale_or_in_colour():
    kernel = np.zeros((3, 3, 2, 5))
    kernel[..., 0] = 2
    kernel[0, 0, 0, 1] = -4
    panels = drawn(plots.filters(kernel, columns=3)).axes
    assert [len(axes.images) for axes in panels] == [1, 1, 1, 1, 1, 0]
    np.testing.assert_array_equal(panels[0].images[0].get_array(), np.full((3, 3), 2))
    assert panels[1].images[0].get_array()[0, 0] == -2  # the mean over the input channels
    assert [axes.images[0].get_clim() for axes in panels[:5]] == [(-4, 4)] * 5
    colours = drawn(plots.filters(np.full((3, 3, 3, 1), -1.0))).axes[0].images[0].get_array()
    np.testing.assert_array_equal(colours, np.zeros((3, 3, 3)))
    with pytest.raises(ValueError, match=r"kernel must have shape .* Received: kernel.shape=\(3, 3\)"):
        plots.filters(np.zeros((3, 3)))
