"""Layers of images: which axis holds the channels, and the way to the kernels' order and back."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv.arrays import FloatArray
from fastconv.geometry import Pair, pair
from fastconv.keras.layers.base import Layer, Shape, positive

DATA_FORMATS = ("channels_last", "channels_first")


def data_format_of(value: str | None) -> str:
    """A valid data format; None is channels last."""
    if value is None:
        return "channels_last"
    if value not in DATA_FORMATS:
        raise ValueError(f"data_format must be one of {', '.join(DATA_FORMATS)}. Received: data_format={value!r}")
    return value


def padding_of(value: str) -> str:
    """``"valid"`` or ``"same"``, in any case."""
    padding = str(value).lower()
    if padding not in ("valid", "same"):
        raise ValueError(f'padding must be "valid" or "same". Received: padding={value!r}')
    return padding


def contiguous(x: FloatArray) -> FloatArray:
    """*x*, copied where its numbers do not lie in the order of its axes."""
    return np.ravel(x).reshape(x.shape)


def with_axis_moved(x: FloatArray, source: int, destination: int) -> FloatArray:
    """Contiguous *x* with one axis at another place."""
    if source % x.ndim == destination % x.ndim:
        return x
    return contiguous(np.moveaxis(x, source, destination))


def channels_last(x: FloatArray) -> FloatArray:
    """Images with the channels behind the batch axis as contiguous images with the channels at the end."""
    return with_axis_moved(x, 1, -1)


class ImageLayer(Layer):
    """A layer of images (N, H, W, C), or (N, C, H, W) with ``data_format="channels_first"``."""

    def __init__(self, data_format: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.data_format = data_format_of(data_format)

    def training_bytes(self, input_shape: Shape) -> int:
        copies = self.bytes_of(input_shape) if self._channels_first else 0
        return super().training_bytes(input_shape) + copies

    @property
    def _channels_first(self) -> bool:
        return self.data_format == "channels_first"

    def extents(self, name: str, value: Any) -> tuple[int, ...]:
        """The argument *value* as one number for each axis of an image: a number alone counts for all."""
        return pair(name, value)

    def plane(self, extents: tuple[int, ...]) -> Pair:
        """What `extents` returned, as height and width."""
        height, width = extents
        return height, width

    def enter(self, x: FloatArray) -> FloatArray:
        """*x* in the kernels' order, NHWC."""
        return channels_last(x) if self._channels_first else x

    def leave(self, out: FloatArray) -> FloatArray:
        """An NHWC array in the layer's data format."""
        return with_axis_moved(out, -1, 1) if self._channels_first else out

    def nhwc(self, input_shape: Shape) -> tuple[int, int, int, int]:
        """Extents of the input in the kernels' order; an unknown number of images counts as one."""
        if len(input_shape) != 4 or None in input_shape[1:]:
            raise ValueError(
                f"layer {self.name} takes images: a shape of four extents, known but for the first. "
                f"Received: input_shape={input_shape}"
            )
        N, *rest = (extent or 0 for extent in input_shape)
        C, H, W = rest if self._channels_first else (rest[2], *rest[:2])
        return N or 1, H, W, C

    def from_nhwc(self, input_shape: Shape, H: int, W: int, C: int) -> Shape:
        """The shape of images of these extents in the layer's data format."""
        return (input_shape[0], C, H, W) if self._channels_first else (input_shape[0], H, W, C)


class SeriesLayer(ImageLayer):
    """A layer of series (N, W, C), or (N, C, W) with ``data_format="channels_first"``: of images of height 1."""

    def extents(self, name: str, value: Any) -> tuple[int, ...]:
        (extent,) = value if isinstance(value, list | tuple) and len(value) == 1 else (value,)
        return (positive(name, extent),)

    def plane(self, extents: tuple[int, ...]) -> Pair:
        return 1, extents[0]

    def enter(self, x: FloatArray) -> FloatArray:
        return super().enter(x)[:, np.newaxis]

    def leave(self, out: FloatArray) -> FloatArray:
        return super().leave(out[:, 0])

    def nhwc(self, input_shape: Shape) -> tuple[int, int, int, int]:
        if len(input_shape) != 3 or None in input_shape[1:]:
            raise ValueError(
                f"layer {self.name} takes series: a shape of three extents, known but for the first. "
                f"Received: input_shape={input_shape}"
            )
        N, *rest = (extent or 0 for extent in input_shape)
        C, W = rest if self._channels_first else reversed(rest)
        return N or 1, 1, W, C

    def from_nhwc(self, input_shape: Shape, H: int, W: int, C: int) -> Shape:
        return (input_shape[0], C, W) if self._channels_first else (input_shape[0], W, C)
