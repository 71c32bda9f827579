"""Find vertical edges in a photograph: ``python examples/edge_filter.py [OUT.png [PHOTO]]``.

Written with the functions of ``tf.nn``, as tutorials are; only the import line is another one.
The filter has -1, 0, 1 in each of its three rows: it is large where a pixel's right side is brighter than its left.  A
3 x 3 max-pooling with stride 3 keeps the strongest edge of each block.  The exit status is 1 where the result differs
from the same sums written with NumPy slices.
"""

import sys

import numpy as np
from matplotlib.cbook import get_sample_data
from PIL import Image
from rich import print

import fastconv as tf
from fastconv import plots

out = sys.argv[1] if len(sys.argv) > 1 else "edges.png"
photo = sys.argv[2] if len(sys.argv) > 2 else get_sample_data("grace_hopper.jpg", asfileobj=False)
VERTICAL_EDGES = np.array([[-1, 0, 1]] * 3, np.float32)


def edges_and_maxima(image):
    """The filter over each channel of an image (H, W, C), and the largest response of each 3 x 3 block."""
    filters = np.repeat(VERTICAL_EDGES[:, :, None, None], image.shape[2], axis=2)
    edges = tf.nn.depthwise_conv2d(image[None], filters, strides=[1, 1, 1, 1], padding="VALID")
    maxima = tf.nn.max_pool(edges, ksize=[1, 3, 3, 1], strides=[1, 3, 3, 1], padding="VALID")
    return edges[0], maxima[0]


def edges_and_maxima_in_numpy(image):
    """The same with slices."""
    difference = image[:, 2:] - image[:, :-2]
    edges = difference[:-2] + difference[1:-1] + difference[2:]
    height, width = edges.shape[0] // 3, edges.shape[1] // 3
    blocks = edges[: 3 * height, : 3 * width].reshape(height, 3, width, 3, -1)
    return edges, blocks.max(axis=(1, 3))


def as_picture(edges):
    """Responses from their smallest to their largest as 0 to 1."""
    return (edges - edges.min()) / np.ptp(edges)


colour = np.asarray(Image.open(photo).convert("RGB"), np.float32)
# Whole numbers, so that float32 sums are exact and the check below may ask for equality.
grey = colour.mean(axis=2, keepdims=True).round()

panels, titles = [], []
for name, image in (("colour", colour), ("grey", grey)):
    edges, maxima = edges_and_maxima(image)
    expected_edges, expected_maxima = edges_and_maxima_in_numpy(image)
    if not (np.array_equal(edges, expected_edges) and np.array_equal(maxima, expected_maxima)):
        sys.exit(f"the edges of the {name} image differ from NumPy's")
    panels += [image / 255, as_picture(edges), as_picture(maxima)]
    titles += [
        f"{name} {image.shape[:2]}",
        f"vertical edges {edges.shape[:2]}",
        f"3 x 3 max-pooling {maxima.shape[:2]}",
    ]

plots.image_grid(panels, titles, columns=3).savefig(out)
print(f"edges agree with NumPy; pictures are in {out}")
