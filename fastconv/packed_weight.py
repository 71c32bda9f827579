"""A weight that stays the same, and what kernels have made of it.

Kernels do not read a weight as it lies: the direct sum reads panels of a few output channels, Winograd's algorithm the
transform of each 3x3 kernel.  With an array, every call makes its own; with few images that takes as long as the
convolution.  A `PackedWeight` promises that the weight will not change, so the first call's is kept for the next.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fastconv.arrays import FloatArray, float_array, host_only, weight_in
from fastconv.cpu.shape import Forms


class PackedWeight:
    """A weight for many calls: what a kernel makes of it is made once and kept.

    Every operation that takes a weight takes a `PackedWeight` in its place, of the same shape and in the same layout,
    and computes the same bits.

    Parameters
    ----------
    weight : ndarray, float32 or float64
        As `conv2d`, `conv1d`, `conv_transpose2d`, `conv2d_grad_x` or `dense` wants it.
    copy : bool, default True
        Take a copy, so that nothing that happens to *weight* later can be seen.  With False the caller promises that it
        will not change.

    Raises
    ------
    TypeError
        If *weight* is neither float32 nor float64.

    Notes
    -----
    Nothing is made here: the first call of each kind packs, in the course of its work.  Beside the weight itself, what
    is kept takes as much memory as the weight for "direct" and for `dense`, four times as much for "winograd" (36
    numbers for a piece of 3x3 taps), and once more for a layout other than channels last; "depthwise" reads the weight
    as it is.  A weight used forward and by `conv2d_grad_x` is kept for both.

    It pays where there are more weights than pixels: with one image, the layers of ResNet-50 from 14 x 14 on are 1.1 to
    1.6 times as fast, those of 56 x 56 as fast as before.

    Several threads may use one.  Pickles hold the weight alone.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import conv2d
    >>> weight = np.ones((3, 3, 1, 2), np.float32)
    >>> kept = PackedWeight(weight)
    >>> kept
    PackedWeight(shape=(3, 3, 1, 2), dtype=float32)
    >>> weight[:] = 0  # is not seen
    >>> conv2d(np.ones((1, 3, 3, 1), np.float32), kept)
    array([[[[9., 9.]]]], dtype=float32)
    """

    def __init__(self, weight: ArrayLike, *, copy: bool = True) -> None:
        array = float_array("weight", weight)
        host_only("PackedWeight", array)
        self._array = (array.copy() if copy else array).view()
        self._array.flags.writeable = False
        self._entered: dict[str, tuple[FloatArray, Forms]] = {}

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the weight."""
        return self._array.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """dtype of the weight."""
        return self._array.dtype

    def enter(self, name: str, layout: str, like: FloatArray, first: str) -> tuple[FloatArray, Forms]:
        """The weight as `arrays.weight_in` gives it, and what has been made of that."""
        entered = self._entered.get(layout)
        if entered is None:
            # two threads may both come here: they make the same, and the first one's is kept
            entered = self._entered.setdefault(layout, (weight_in(name, self._array, layout, like, first), {}))
        array, forms = entered
        return float_array(name, array, like, first), forms

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> FloatArray:
        return np.array(self._array, dtype=dtype, copy=copy)

    def __repr__(self) -> str:
        return f"PackedWeight(shape={self.shape}, dtype={self.dtype})"

    def __reduce__(self) -> tuple[type[PackedWeight], tuple[FloatArray]]:
        return PackedWeight, (self._array,)


def enter_weight(
    name: str, value: ArrayLike, layout: str, like: FloatArray, first: str = "x"
) -> tuple[FloatArray, Forms | None]:
    """A weight at the door, as `arrays.weight_in`, and what has been made of it where it is a `PackedWeight`."""
    if isinstance(value, PackedWeight):
        return value.enter(name, layout, like, first)
    return weight_in(name, value, layout, like, first), None
