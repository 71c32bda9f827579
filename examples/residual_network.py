"""Train a small ResNet on the shipped Fashion-MNIST images: ``python examples/residual_network.py [EPOCHS [TARGET]]``.

Each block adds what its two convolutions found to what went into them, so the layers form a graph and not a row.
The exit status is 1 where the test accuracy stays below TARGET.
"""

import sys

from rich import print

from fastconv import keras
from fastconv.keras import layers

epochs = int(sys.argv[1]) if len(sys.argv) > 1 else 10
target = float(sys.argv[2]) if len(sys.argv) > 2 else 0.86


def convolution(x, filters, kernel_size, strides=1):
    """A convolution whose result has mean 0 and variance 1 in each channel."""
    x = layers.Conv2D(filters, kernel_size, strides=strides, padding="same", use_bias=False)(x)
    return layers.BatchNormalization(momentum=0.9)(x)  # running averages that follow a short training


def block(x, filters, strides):
    """Two convolutions, and a way around them: the input itself, or a 1x1 convolution where the shape changes."""
    shortcut = x if strides == 1 else convolution(x, filters, 1, strides)
    x = layers.ReLU()(convolution(x, filters, 3, strides))
    x = convolution(x, filters, 3)
    return layers.ReLU()(layers.add([x, shortcut]))


keras.utils.set_random_seed(0)
(x_train, y_train), (x_test, y_test) = keras.datasets.load_sample()
x_train, x_test = x_train[..., None] / 255, x_test[..., None] / 255

inputs = keras.Input((28, 28, 1))
x = layers.ReLU()(convolution(inputs, 16, 3))
for filters, strides in ((16, 1), (32, 2), (64, 2)):
    x = block(x, filters, strides)
x = layers.GlobalAveragePooling2D()(x)
model = keras.Model(inputs, layers.Dense(10, activation="softmax")(x))

model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
model.summary(batch_size=32)
model.fit(x_train, y_train, epochs=epochs)
loss, accuracy = model.evaluate(x_test, y_test, verbose=0)

print(f"test accuracy {accuracy:.4f}, wanted at least {target}")
sys.exit(accuracy < target)
