"""Train a small network on the shipped Fashion-MNIST images: ``python examples/train_cnn.py [EPOCHS [TARGET]]``.

The exit status is 1 where the test accuracy stays below TARGET.
"""

import sys

from rich import print

from fastconv import keras
from fastconv.keras import layers

epochs = int(sys.argv[1]) if len(sys.argv) > 1 else 10
target = float(sys.argv[2]) if len(sys.argv) > 2 else 0.86

keras.utils.set_random_seed(0)
(x_train, y_train), (x_test, y_test) = keras.datasets.load_sample()
x_train, x_test = x_train[..., None] / 255, x_test[..., None] / 255

model = keras.Sequential(
    [
        layers.Input((28, 28, 1)),
        layers.Conv2D(32, 3, activation="relu"),
        layers.MaxPooling2D(2),
        layers.Conv2D(64, 3, activation="relu"),
        layers.MaxPooling2D(2),
        layers.Conv2D(64, 3, activation="relu"),
        layers.Flatten(),
        layers.Dense(64, activation="relu"),
        layers.Dense(10, activation="softmax"),
    ]
)
model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
model.summary()
model.fit(x_train, y_train, epochs=epochs)
loss, accuracy = model.evaluate(x_test, y_test, verbose=0)

print(f"test accuracy {accuracy:.4f}, wanted at least {target}")
sys.exit(accuracy < target)
