"""Networks that `fastconv bench --train` times; `fastconv train` trains the first."""

from __future__ import annotations

from functools import partial

from fastconv.keras import Sequential, layers

#: Adam's rate at the start.
LEARNING_RATE = 1e-3


def tutorial_network(input_shape: tuple[int, ...], classes: int) -> Sequential:
    """The network of the Keras tutorial on convolutional networks; its outputs are logits."""
    return Sequential(
        [
            layers.Input(input_shape),
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Conv2D(64, 3, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Conv2D(64, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(64, activation="relu"),
            layers.Dense(classes),
        ]
    )


def book_network(input_shape: tuple[int, ...], classes: int) -> Sequential:
    """The network for Fashion-MNIST of A. Géron, "Hands-On Machine Learning", chapter 14; its outputs are logits.

    Without its two dropouts: what they drop differs from library to library, and they take no time that shows.
    """
    convolution = partial(layers.Conv2D, kernel_size=3, padding="same", activation="relu")
    return Sequential(
        [
            layers.Input(input_shape),
            convolution(64, kernel_size=7),
            layers.MaxPooling2D(2),
            convolution(128),
            convolution(128),
            layers.MaxPooling2D(2),
            convolution(256),
            convolution(256),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            layers.Dense(128, activation="relu"),
            layers.Dense(64, activation="relu"),
            layers.Dense(classes),
        ]
    )
