"""The GPU side: the same operations as `fastconv.cpu`, file by file, as Numba CUDA kernels.

Importing this package imports nothing of CUDA; see `device`.
"""

from fastconv.cuda.array import Array as Array, asarray as asarray
from fastconv.cuda.device import available as available, why_not as why_not
from fastconv.cuda.libraries import empty_cache as empty_cache, stream as stream
