"""The GPU side: the same operations as `fastconv.cpu`, file by file, as Numba CUDA kernels.

The public functions take arrays on a GPU in place of NumPy arrays, and return arrays of the same library on the same
GPU: PyTorch's CUDA tensors, CuPy's and Numba's arrays, and `Array`, which `asarray` makes of a NumPy array.  Nothing is
copied on the way in or out, nor between host and GPU; arrays in both are a TypeError.  Numbers are float32.

    x = fastconv.cuda.asarray(images)
    out = fastconv.conv2d(x, fastconv.cuda.asarray(weight), padding="same")
    out.numpy()

Importing this package imports nothing of CUDA; see `device`.  `available` tells whether there is a GPU, and `why_not`
what is missing.
"""

from fastconv.cuda import numpy_calls as _numpy_calls  # noqa: F401 - hands itself to Array
from fastconv.cuda.array import Array as Array
from fastconv.cuda.device import available as available, why_not as why_not
from fastconv.cuda.libraries import asarray as asarray, empty_cache as empty_cache, stream as stream
