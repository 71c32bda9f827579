"""`to_categorical`, the random seed, and images from files, under Keras's names."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastconv.keras.preprocessing.image.files import array_to_img, img_to_array, load_img

__all__ = ["array_to_img", "img_to_array", "load_img", "named", "new_generator", "set_random_seed", "to_categorical"]

_seeds = np.random.SeedSequence()


def set_random_seed(seed: int) -> None:
    """Make everything random that follows (initial weights, shuffling, dropout) the same in every run.

    Parameters
    ----------
    seed : int
        Any int >= 0.  Each model created afterwards draws from a generator of its own, in the order of creation.

    Raises
    ------
    ValueError
        If *seed* is negative.

    Examples
    --------
    >>> from fastconv.keras import initializers
    >>> set_random_seed(1)
    >>> first = initializers.GlorotUniform()((2, 2))
    >>> set_random_seed(1)
    >>> bool((initializers.GlorotUniform()((2, 2)) == first).all())
    True
    """
    global _seeds
    _seeds = np.random.SeedSequence(seed)


def new_generator() -> np.random.Generator:
    """The next independent generator of the seed set last, or of a fresh seed where none was set."""
    return np.random.default_rng(_seeds.spawn(1)[0])


def to_categorical(x: ArrayLike, num_classes: int | None = None) -> NDArray[np.float64]:
    """Class numbers as rows with a 1 in the column of the class.

    Parameters
    ----------
    x : array_like of ints, shape (...,) or (..., 1)
        Class numbers from 0 to num_classes - 1.
    num_classes : int, optional
        Number of columns; the largest class number plus one if left out.

    Returns
    -------
    ndarray of shape (..., num_classes), float64
        The one-hot rows.

    Raises
    ------
    ValueError
        Where a class number is negative or not below *num_classes*.

    Examples
    --------
    >>> to_categorical([0, 2], num_classes=3)
    array([[1., 0., 0.],
           [0., 0., 1.]])
    """
    labels = np.asarray(x).astype(np.int64)
    if labels.ndim > 1 and labels.shape[-1] == 1:
        labels = labels[..., 0]
    classes = num_classes if num_classes is not None else int(labels.max(initial=-1)) + 1
    if labels.size and (labels.min() < 0 or labels.max() >= classes):
        raise ValueError(
            f"x must hold class numbers from 0 to num_classes - 1. "
            f"Received: smallest={labels.min()}, largest={labels.max()}, num_classes={classes}"
        )
    return np.eye(classes)[labels]


def named(kind: str, value: Any, registry: dict[str, Any], base: type) -> Any:
    """The object that *value* stands for: itself, a name in *registry*, or a ``{"class_name", "config"}`` of one."""
    if isinstance(value, base):
        return value
    if isinstance(value, dict) and value.get("class_name") in registry:
        return registry[value["class_name"]].from_config(value["config"])
    if isinstance(value, str) and value in registry:
        return registry[value]()
    raise ValueError(f"{kind} must be one of {', '.join(registry)}, or an object. Received: {kind}={value!r}")
