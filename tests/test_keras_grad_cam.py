"""Grad-CAM: against differences of the class score, in networks with everything that training does otherwise."""

from __future__ import annotations

import numpy as np
import pytest

from fastconv.keras import Input, Model, Sequential, layers
from fastconv.keras.grad_cam import heat_map

IMAGE = np.random.default_rng(0).standard_normal((10, 9, 2))
F64 = {"dtype": "float64"}


def tail(maps, classes=3, last="softmax"):
    """What stands between the maps and the scores: two ways, a normalisation, a pooling, dropped numbers."""
    x = layers.BatchNormalization(name="norm", **F64)(maps)
    x = layers.Add(**F64)([x, maps])
    x = layers.MaxPooling2D(2, **F64)(x)
    x = layers.SpatialDropout2D(0.5, **F64)(x)
    x = layers.Dropout(0.5, **F64)(layers.Flatten(**F64)(x))
    return layers.Dense(classes, activation=last, name="scores", **F64)(x)


def network(last="softmax"):
    inputs = Input((10, 9, 2), **F64)
    x = layers.Conv2D(3, 3, activation="relu", name="first", **F64)(inputs)
    x = layers.Conv2D(4, 3, activation="relu", name="second", **F64)(x)
    model = Model(inputs, tail(x, last=last))
    rng = np.random.default_rng(1)
    model.set_weights([rng.uniform(0.2, 1, weight.shape) - 0.4 * (weight.ndim > 1) for weight in model.get_weights()])
    return model


def by_differences(model, name, class_index, step=1e-6):
    """The definition, each gradient a difference of two scores before the softmax."""
    (maps,) = Model(model.inputs, model.get_layer(name).output)(IMAGE[np.newaxis])
    behind = Input(maps.shape, **F64)
    x = behind
    if name == "first":
        x = layers.Conv2D(4, 3, activation="relu", **F64)(x)
    rest = Model(behind, tail(x, last=None))
    rest.set_weights(model.get_weights()[2 if name == "first" else 4 :])
    # all the places at once, each in an image of its own
    moved = np.repeat(maps[np.newaxis], maps.size, axis=0)
    shifts = step * np.eye(maps.size).reshape(moved.shape)
    scores = [rest.predict(moved + sign * shifts)[:, class_index] for sign in (1, -1)]
    gradient = ((scores[0] - scores[1]) / (2 * step)).reshape(maps.shape)
    return np.maximum((maps * gradient.mean(axis=(0, 1))).sum(axis=2), 0)


@pytest.mark.parametrize("name", ["first", "second"])
def test_the_map_is_that_of_the_definition(name):
    model = network()
    expected = [by_differences(model, name, class_index) for class_index in range(3)]
    assert np.max(expected) > 0.1
    for class_index in range(3):
        got = heat_map(model, IMAGE, class_index, name)
        assert got.dtype == np.float64
        np.testing.assert_allclose(got, expected[class_index], atol=1e-6)
    np.testing.assert_array_equal(heat_map(model, IMAGE, 0), heat_map(model, IMAGE, 0, "second"))


@pytest.mark.parametrize("last", [None, "sigmoid", "softmax"])
def test_the_score_is_what_goes_into_the_last_activation(last):
    np.testing.assert_array_equal(heat_map(network(last), IMAGE, 1), heat_map(network(None), IMAGE, 1))


def test_a_map_straight_in_front_of_a_pooling_is_that_behind_the_activation():
    """Where training takes the activation's step together with the pooling's."""
    model = Sequential(
        [
            layers.Conv2D(1, 1, activation="relu", input_shape=(2, 2, 1)),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            layers.Dense(1),
        ]
    )
    model.set_weights([np.ones((1, 1, 1, 1)), np.zeros(1), np.full((1, 1), 8.0), np.zeros(1)])
    image = np.array([[-1.0, -2.0], [-3.0, -4.0]])[:, :, np.newaxis]
    np.testing.assert_array_equal(heat_map(model, -image, 0), [[2, 4], [6, 8]])
    np.testing.assert_array_equal(heat_map(model, image, 0), np.zeros((2, 2)))


def test_channels_may_come_first():
    model, turned = (
        Sequential(
            [
                layers.Conv2D(2, 3, data_format=order, input_shape=shape),
                layers.GlobalAveragePooling2D(data_format=order),
                layers.Dense(2),
            ]
        )
        for order, shape in (("channels_last", (10, 9, 2)), ("channels_first", (2, 10, 9)))
    )
    turned.set_weights(model.get_weights())
    got = heat_map(turned, IMAGE.transpose(2, 0, 1), 1)
    np.testing.assert_allclose(got, heat_map(model, IMAGE, 1), rtol=1e-5)


def test_the_model_is_left_as_it_was():
    model = network()
    before = model.get_weights()
    state = model.generator.bit_generator.state
    heat_map(model, IMAGE, 0)
    for weight, old in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, old)
    assert model.generator.bit_generator.state == state
    assert model.trainable


def test_a_model_without_a_shape_is_built():
    model = Sequential([layers.Conv2D(2, 3), layers.Flatten(), layers.Dense(2)])
    assert heat_map(model, IMAGE, 0).shape == (8, 7)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((IMAGE, 3), r"class_index must be one of 3 classes. Received: class_index=3"),
        ((IMAGE[1:], 0), r"image must have shape \(10, 9, 2\). Received: image.shape=\(9, 9, 2\)"),
        ((IMAGE, 0, "scores"), r"layer must make feature maps of four axes. Received: scores of \(None, 3\)"),
        ((IMAGE, 0, "third"), r"name must be that of a layer of the model. Received: name='third'"),
    ],
)
def test_what_cannot_be_explained_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        heat_map(network(), *arguments)


def test_a_model_that_does_not_classify_images_is_refused():
    with pytest.raises(ValueError, match="a model has no convolution"):
        heat_map(Sequential([layers.Dense(2, input_shape=(3,))]), np.ones(3), 0)
    with pytest.raises(ValueError, match="model must have one input and one output of class scores"):
        heat_map(Sequential([layers.Conv2D(2, 3, input_shape=(10, 9, 2))]), IMAGE, 0)
