"""The installed package in ten seconds: one convolution each way, one pooling, one trained network."""

import numpy as np

import fastconv as fc
from fastconv.keras import datasets, layers, models


def test_convolution_forward_and_backward() -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(-4, 5, (2, 9, 7, 3)).astype(np.float32)
    weight = rng.integers(-4, 5, (3, 3, 3, 5)).astype(np.float32)
    out = fc.conv2d(x, weight, stride=2, padding="same")
    grad_out = rng.integers(-4, 5, out.shape).astype(np.float32)
    grad_x, grad_weight, grad_bias = fc.conv2d_backward(grad_out, x, weight, stride=2, padding="same")
    assert out.shape == (2, 5, 4, 5)
    # <conv(x, w), g> = <x, grad_x> = <w, grad_weight>, exactly on integers
    assert np.sum(out * grad_out) == np.sum(x * grad_x) == np.sum(weight * grad_weight)
    assert np.array_equal(grad_bias, grad_out.sum((0, 1, 2)))


def test_pooling_finds_the_maximum() -> None:
    x = np.arange(16, dtype=np.float32).reshape(4, 4, 1)
    out, where = fc.max_pool2d(x, 2, return_indices=True)
    assert np.array_equal(out.ravel(), [5, 7, 13, 15])
    assert np.array_equal(where.ravel(), [5, 7, 13, 15])


def test_network_learns_from_the_shipped_images() -> None:
    (x, y), _ = datasets.load_sample()
    x = x[:512, ..., np.newaxis].astype(np.float32) / 255
    model = models.Sequential(
        [
            layers.Conv2D(8, 3, activation="relu", input_shape=(28, 28, 1)),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile("adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    history = model.fit(x, y[:512], epochs=3, batch_size=32, verbose=0)
    assert history.history["loss"][-1] < 0.7 * history.history["loss"][0]
