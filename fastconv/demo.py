"""The network that `fastconv train` trains and `fastconv bench --train` times."""

from __future__ import annotations

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
