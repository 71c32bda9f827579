"""The network of a well-known book, on all of Fashion-MNIST: ``python examples/book_model.py [EPOCHS [TARGET]]``.

A few large filters first, then twice as many small ones after each pooling, as the images become smaller: A. Géron,
"Hands-On Machine Learning", chapter 14.  The 60,000 images are downloaded where this machine does not have them.  The
exit status is 1 where the test accuracy stays below TARGET.
"""

import sys
from functools import partial

import numpy as np
from rich import print

import fastconv as tf
from fastconv.keras import datasets, layers, models

epochs = int(sys.argv[1]) if len(sys.argv) > 1 else 5
target = float(sys.argv[2]) if len(sys.argv) > 2 else 0.9

tf.random.set_seed(0)
(x_train, y_train), (x_test, y_test) = datasets.fashion_mnist.load_data()
x_train = np.expand_dims(x_train, axis=-1).astype(np.float32) / 255
x_test = np.expand_dims(x_test, axis=-1).astype(np.float32) / 255

DefaultConv2D = partial(layers.Conv2D, kernel_size=3, activation="relu", padding="SAME")

model = models.Sequential(
    [
        DefaultConv2D(filters=64, kernel_size=7, input_shape=[28, 28, 1]),
        layers.MaxPooling2D(pool_size=2),
        DefaultConv2D(filters=128),
        DefaultConv2D(filters=128),
        layers.MaxPooling2D(pool_size=2),
        DefaultConv2D(filters=256),
        DefaultConv2D(filters=256),
        layers.MaxPooling2D(pool_size=2),
        layers.Flatten(),
        layers.Dense(units=128, activation="relu"),
        layers.Dropout(0.5),
        layers.Dense(units=64, activation="relu"),
        layers.Dropout(0.5),
        layers.Dense(units=10, activation="softmax"),
    ]
)
model.compile(loss="sparse_categorical_crossentropy", optimizer="adam", metrics=["accuracy"])
model.summary()
model.fit(x_train, y_train, epochs=epochs, batch_size=32, validation_data=(x_test, y_test))
loss, accuracy = model.evaluate(x_test, y_test, verbose=0)

print(f"test accuracy {accuracy:.4f}, wanted at least {target}")
sys.exit(accuracy < target)
