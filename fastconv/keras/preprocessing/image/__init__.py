"""Images from files, and random variations of them while a model trains."""

from fastconv.keras.preprocessing.image.files import array_to_img, img_to_array, load_img
from fastconv.keras.preprocessing.image.generator import ImageDataGenerator
from fastconv.keras.preprocessing.image.iterators import ArrayIterator, BatchIterator, DirectoryIterator
from fastconv.keras.preprocessing.image.transform import affine_matrix, apply_affine_transform

__all__ = [
    "ArrayIterator",
    "BatchIterator",
    "DirectoryIterator",
    "ImageDataGenerator",
    "affine_matrix",
    "apply_affine_transform",
    "array_to_img",
    "img_to_array",
    "load_img",
]
