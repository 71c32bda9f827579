"""What is left of an image after a convolution and each kind of pooling: ``python examples/pooling.py [OUT.png]``.

Ten filters that nobody has trained, then the largest, the average and the smallest pixel of each block; pixels that
fill no block are left out.  The exit status is 1 where a result differs from the same written with NumPy.
"""

import sys

import numpy as np
from rich import print

import fastconv as tf
from fastconv import plots
from fastconv.keras import datasets, layers

out = sys.argv[1] if len(sys.argv) > 1 else "pooling.png"

tf.random.set_seed(1)
(images, labels), _ = datasets.load_sample()
images = images[1:2, ..., np.newaxis] / np.float32(255)

convolution = layers.Conv2D(10, kernel_size=(3, 3), activation="relu", padding="same", strides=1)
maps = convolution(images)
panels, titles = [images[0], maps[0, :, :, 0]], ["the image", "the first of ten maps"]
for layer, in_numpy in (
    (layers.MaxPooling2D(2), np.max),
    (layers.AveragePooling2D(2), np.mean),
    (layers.MinPooling2D(2), np.min),
    (layers.MaxPool2D(pool_size=(2, 3)), np.max),
    (layers.AvgPool2D((4, 1)), np.mean),
):
    pooled = layer(maps)
    (height, width), (rows, columns) = layer.pool_size, pooled.shape[1:3]
    blocks = maps[:, : rows * height, : columns * width].reshape(1, rows, height, columns, width, 10)
    if not np.allclose(pooled, in_numpy(blocks, axis=(2, 4)), rtol=1e-6, atol=1e-7):
        sys.exit(f"{type(layer).__name__} differs from NumPy's {in_numpy.__name__}")
    panels.append(pooled[0, :, :, 0])
    titles.append(f"{type(layer).__name__} {height} x {width}: {rows} x {columns}")

for layer, in_numpy in ((layers.GlobalAvgPool2D(), np.mean), (layers.GlobalMaxPool2D(), np.max)):
    if not np.allclose(layer(maps), in_numpy(maps, axis=(1, 2)), rtol=1e-6):
        sys.exit(f"{type(layer).__name__} differs from NumPy's {in_numpy.__name__}")

plots.image_grid(panels, titles, columns=4).savefig(out)
print(f"every pooling agrees with NumPy; pictures are in {out}")
