"""Batches made ahead, in a background thread, while a model trains on the last one."""

from __future__ import annotations

import copy
import os
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastconv.keras.preprocessing.image.files import COLOR_MODES, img_to_array, load_img, one_of

if TYPE_CHECKING:
    from fastconv.keras.preprocessing.image.generator import ImageDataGenerator

#: Batches that are under way or wait for training.
AHEAD = 4
SUBSETS = ("training", "validation")
CLASS_MODES = ("categorical", "binary", "sparse", "input", None)
SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")


class BatchIterator:
    """Epoch after epoch of batches, without end.

    Subclasses say how many samples there are, `n`, and make the batch of given ones, `make`.

    Parameters
    ----------
    n : int
        Samples of an epoch.
    batch_size : int
        Samples of a batch; the last one of an epoch may be smaller.
    shuffle : bool
        Whether each epoch has an order of its own.
    seed : int, optional
        Makes the orders the same in every run.

    Raises
    ------
    ValueError
        If *batch_size* is below 1.

    Examples
    --------
    >>> class Numbers(BatchIterator):
    ...     def make(self, samples, epoch):
    ...         return samples + 10 * epoch
    >>> batches = Numbers(3, batch_size=2, shuffle=False, seed=0)
    >>> [next(batches).tolist() for _ in range(4)]
    [[0, 1], [2], [10, 11], [12]]
    """

    def __init__(self, n: int, batch_size: int, shuffle: bool, seed: int | None) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1. Received: batch_size={batch_size!r}")
        self.n = n
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed: int = np.random.SeedSequence(seed).entropy  # type: ignore[assignment]
        self.reset()

    def __len__(self) -> int:
        """Batches of an epoch."""
        return ceil(self.n / self.batch_size)

    def reset(self) -> None:
        """Begin again with the first epoch."""
        self._next = 0
        self._waiting: deque[Future[Any]] = deque()

    def from_batch(self, number: int) -> Self:
        """The same batches from *number* on, counted through all epochs; this iterator stays where it is."""
        twin = copy.copy(self)
        twin.reset()
        twin._next = number
        return twin

    def __iter__(self) -> BatchIterator:
        return self

    def __next__(self) -> Any:
        """The next batch; `AHEAD` more are begun in a background thread, which ends when nobody uses the iterator."""
        if not self.n:
            raise StopIteration
        if not hasattr(self, "_thread"):
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="fastconv-batches")
        while len(self._waiting) <= AHEAD:
            self._waiting.append(self._thread.submit(self._batch, self._next))
            self._next += 1
        return self._waiting.popleft().result()

    def __getitem__(self, index: int) -> Any:
        """Batch *index* of the first epoch, made now."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"index must be below the {len(self)} batches of an epoch. Received: index={index}")
        return self._batch(index % len(self))

    def order(self, epoch: int) -> NDArray[np.int64]:
        """The samples of an epoch in their order."""
        if not self.shuffle:
            return np.arange(self.n)
        return np.random.default_rng([self.seed, epoch]).permutation(self.n)

    def _batch(self, number: int) -> Any:
        epoch, index = divmod(number, len(self))
        return self.make(self.order(epoch)[index * self.batch_size : (index + 1) * self.batch_size], epoch)

    def make(self, samples: NDArray[np.int64], epoch: int) -> Any:
        """The batch of these samples."""
        raise NotImplementedError


class ImageIterator(BatchIterator):
    """Batches of images that a generator varies."""

    def __init__(self, generator: ImageDataGenerator, n: int, batch_size: int, shuffle: bool, seed: int | None) -> None:
        self.generator = generator
        super().__init__(n, batch_size, shuffle, seed)

    def image(self, sample: int) -> NDArray[np.float32]:
        """A sample as it was read."""
        raise NotImplementedError

    def labels(self, samples: NDArray[np.int64], images: NDArray[np.float32]) -> NDArray[Any] | None:
        """The labels of some samples, or None where there are none."""
        raise NotImplementedError

    def make(self, samples: NDArray[np.int64], epoch: int) -> Any:
        vary, standardize = self.generator.random_transform, self.generator.standardize
        images = np.stack(
            [standardize(vary(self.image(sample), [self.seed, epoch, sample])) for sample in samples.tolist()]
        )
        labels = self.labels(samples, images)
        return images if labels is None else (images, labels)


class ArrayIterator(ImageIterator):
    """Batches of an array: see `ImageDataGenerator.flow`."""

    def __init__(
        self,
        generator: ImageDataGenerator,
        x: ArrayLike,
        y: ArrayLike | None,
        batch_size: int,
        shuffle: bool,
        seed: int | None,
        subset: str | None,
    ) -> None:
        images, labels = np.asarray(x), None if y is None else np.asarray(y)
        if images.ndim != 4:
            raise ValueError(f"x must have four axes. Received: x.shape={images.shape}")
        if labels is not None and len(labels) != len(images):
            raise ValueError(
                f"y must have a label for each image. Received: {len(images)} images, {len(labels)} labels"
            )
        part = subset_of(len(images), generator.validation_split, subset)
        self.x, self.y = images[part], None if labels is None else labels[part]
        super().__init__(generator, len(self.x), batch_size, shuffle, seed)

    def image(self, sample: int) -> NDArray[np.float32]:
        return np.asarray(self.x[sample], np.float32)

    def labels(self, samples: NDArray[np.int64], images: NDArray[np.float32]) -> NDArray[Any] | None:
        return None if self.y is None else self.y[samples]


class DirectoryIterator(ImageIterator):
    """Batches of image files: see `ImageDataGenerator.flow_from_directory`.

    Attributes
    ----------
    samples, num_classes : int
        How many images and classes there are.
    class_indices : dict of str to int
        The number of each class by its folder.
    image_shape : (height, width, channels)
        Of every image, channels last.
    filenames, filepaths : list
        The image files, within the directory and whole.
    classes : ndarray of int
        The class of each.
    """

    def __init__(
        self,
        generator: ImageDataGenerator,
        directory: str | os.PathLike[str],
        target_size: tuple[int, int],
        color_mode: str,
        classes: Sequence[str] | None,
        class_mode: str | None,
        batch_size: int,
        shuffle: bool,
        seed: int | None,
        subset: str | None,
        interpolation: str,
    ) -> None:
        if class_mode not in CLASS_MODES:
            raise ValueError(f"class_mode must be one of {CLASS_MODES}. Received: class_mode={class_mode!r}")
        root = Path(directory)
        names = list(classes or sorted(path.name for path in root.iterdir() if path.is_dir()))
        if class_mode == "binary" and len(names) != 2:
            raise ValueError(f'class_mode="binary" needs two classes. Received: {len(names)} in {root}')
        self.target_size = target_size
        self.color_mode = one_of("color_mode", color_mode, COLOR_MODES)
        self.image_shape = (*target_size, COLOR_MODES[color_mode][1])
        self.class_mode = class_mode
        self.interpolation = interpolation
        self.class_indices = {name: number for number, name in enumerate(names)}
        self.filepaths: list[Path] = []
        numbers: list[int] = []
        for name, number in self.class_indices.items():
            files = sorted(path for path in (root / name).rglob("*") if path.suffix.lower() in SUFFIXES)
            chosen = files[subset_of(len(files), generator.validation_split, subset)]
            self.filepaths += chosen
            numbers += [number] * len(chosen)
        self.filenames = [str(path.relative_to(root)) for path in self.filepaths]
        self.samples, self.num_classes = len(self.filepaths), len(names)
        self.classes = np.array(numbers, np.int64)
        if not self.filepaths:
            raise ValueError(f"directory must have image files in one folder for each class. Received: {root}")
        super().__init__(generator, self.samples, batch_size, shuffle, seed)

    def image(self, sample: int) -> NDArray[np.float32]:
        picture = load_img(self.filepaths[sample], self.color_mode, self.target_size, self.interpolation)
        return img_to_array(picture, self.generator.data_format)

    def labels(self, samples: NDArray[np.int64], images: NDArray[np.float32]) -> NDArray[Any] | None:
        if self.class_mode is None:
            return None
        if self.class_mode == "input":
            return images.copy()
        numbers = self.classes[samples]
        if self.class_mode == "sparse":
            return numbers
        if self.class_mode == "binary":
            return numbers.astype(np.float32)
        return np.eye(len(self.class_indices), dtype=np.float32)[numbers]


def subset_of(count: int, validation_split: float, subset: str | None) -> slice:
    """Which of *count* samples belong to a subset: the first share *validation_split* is for validation."""
    if subset is None:
        return slice(None)
    if subset not in SUBSETS:
        raise ValueError(f"subset must be one of {', '.join(SUBSETS)} or None. Received: subset={subset!r}")
    if not validation_split:
        raise ValueError(f"subset needs a generator with a validation_split. Received: subset={subset!r}")
    kept = int(count * validation_split)
    return slice(kept) if subset == "validation" else slice(kept, None)
