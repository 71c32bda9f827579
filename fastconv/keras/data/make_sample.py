"""Draw the shipped sample from the full Fashion-MNIST: ``python make_sample.py``.

850 training images of each class come from the 60,000 training images and 150 test images of each class from the 10,000
test images, so nothing of the test set is ever trained on.
"""

from __future__ import annotations

import zipfile

import numpy as np

from fastconv.keras.datasets import SAMPLE, Images, Split, fashion_mnist

SEED = 2017
TRAIN_PER_CLASS = 850
TEST_PER_CLASS = 150


def draw(images: Images, labels: Images, per_class: int, rng: np.random.Generator) -> Split:
    """*per_class* images of every class, in a random order."""
    chosen = [rng.choice(np.flatnonzero(labels == label), per_class, replace=False) for label in np.unique(labels)]
    order = rng.permutation(np.concatenate(chosen))
    return images[order], labels[order]


def main() -> None:
    """Write the sample beside this file."""
    rng = np.random.default_rng(SEED)
    (x, y), (x_test, y_test) = fashion_mnist.load_data()
    x_train, y_train = draw(x, y, TRAIN_PER_CLASS, rng)
    x_test, y_test = draw(x_test, y_test, TEST_PER_CLASS, rng)
    arrays = {"x_train": x_train, "y_train": y_train, "x_test": x_test, "y_test": y_test}
    # LZMA instead of NumPy's deflate saves 15% of the file; np.load reads both.
    with zipfile.ZipFile(SAMPLE, "w") as archive:
        for name, array in arrays.items():
            member = zipfile.ZipInfo(f"{name}.npy")  # without a date: the same sample is the same file
            member.compress_type = zipfile.ZIP_LZMA
            with archive.open(member, "w") as stream:
                np.lib.format.write_array(stream, array)


if __name__ == "__main__":
    main()
