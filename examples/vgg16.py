"""Build VGG-16 and let it learn a few images by heart: ``python examples/vgg16.py [STEPS [TARGET]]``.

Thirteen 3x3 convolutions, twice as many filters after each pooling, as K. Simonyan and A. Zisserman drew it, with
their weight decay and dropout; the images are 32 x 32 here, and the dense layers smaller.  The exit status is 1 where
the share of the images that it knows by then stays below TARGET.
"""

import sys

import numpy as np
from rich import print

import fastconv as tf
from fastconv.keras import Input, Model, datasets, layers, regularizers

steps = int(sys.argv[1]) if len(sys.argv) > 1 else 40
target = float(sys.argv[2]) if len(sys.argv) > 2 else 0.75
IMAGES = 16
BLOCKS = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))

tf.random.set_seed(0)
decay = regularizers.L2(5e-4)
inputs = x = Input(shape=(32, 32, 1))
for block, (convolutions, filters) in enumerate(BLOCKS, start=1):
    for number in range(1, convolutions + 1):
        x = layers.Conv2D(
            filters,
            (3, 3),
            activation="relu",
            padding="same",
            kernel_initializer="he_normal",
            kernel_regularizer=decay,
            name=f"block{block}_conv{number}",
        )(x)
    x = layers.MaxPooling2D((2, 2), strides=(2, 2), name=f"block{block}_pool")(x)
x = layers.Flatten(name="flatten")(x)
for number in (1, 2):
    x = layers.Dense(512, activation="relu", kernel_initializer="he_normal", name=f"fc{number}")(x)
    x = layers.Dropout(0.5)(x)
model = Model(inputs=inputs, outputs=layers.Dense(10, activation="softmax", name="predictions")(x), name="vgg16")
model.compile(
    optimizer=tf.keras.optimizers.Adam(learning_rate=1e-4),
    loss="sparse_categorical_crossentropy",
    metrics=["accuracy"],
)
model.summary(batch_size=IMAGES)

(images, labels), _ = datasets.load_sample()
x, y = np.pad(images[:IMAGES, ..., np.newaxis] / 255.0, ((0, 0), (2, 2), (2, 2), (0, 0))), labels[:IMAGES]
for _ in range(steps):
    model.train_on_batch(x, y)
loss, accuracy = model.evaluate(x, y, verbose=0)

print(f"knows {accuracy:.1%} of {IMAGES} images after {steps} steps, wanted at least {target:.0%}")
sys.exit(accuracy < target)
