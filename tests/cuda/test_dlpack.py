"""DLPack's structure is read as it is written: NumPy writes it too."""

from typing import Any

import numpy as np
import pytest

from fastconv.cuda import dlpack

X = np.arange(24, dtype=np.float32).reshape(2, 3, 4)


@pytest.mark.parametrize(
    "array", [X, X[:, ::2], X.transpose(2, 0, 1), X[1:, 1:, 2:], X.astype(np.int64), X[:0], X[0, 0, 0:1]]
)
def test_a_capsule_says_what_the_array_says(array: Any) -> None:
    read, own = dlpack.read(array.__dlpack__()), array.__array_interface__
    assert (read["shape"], read["typestr"]) == (own["shape"], own["typestr"])
    if array.size:
        assert read["data"][0] == own["data"][0]
        assert read["strides"] in (array.strides, None)
        assert (read["strides"] is None) <= array.flags.c_contiguous


def test_only_arrays_on_a_gpu_are_taken() -> None:
    class OnGpu:
        def __init__(self, values: Any) -> None:
            self.values = values
            self.asked: list[int] = []

        def __dlpack_device__(self) -> tuple[int, int]:
            return 2, 0

        def __dlpack__(self, *, stream: int) -> Any:
            self.asked.append(stream)
            return self.values.__dlpack__()

    array = OnGpu(X)
    assert dlpack.on_gpu(array)
    assert not dlpack.on_gpu(X)
    assert not dlpack.on_gpu([1, 2])
    assert not dlpack.on_gpu(OnGpu)
    for stream, named in ((0, 1), (7, 7)):
        interface, owner = dlpack.interface(array, stream)
        assert array.asked[-1] == named
        assert interface["data"][0] == X.ctypes.data
        assert "dltensor" in repr(owner)


def test_other_numbers_are_refused() -> None:
    capsule = X.__dlpack__()
    tensor = dlpack._Tensor.from_address(dlpack._pointer_of(capsule, b"dltensor"))
    kind, tensor.code = tensor.code, 4  # bfloat16
    with pytest.raises(TypeError, match="only plain numbers can be taken"):
        dlpack.read(capsule)
    tensor.code = kind
