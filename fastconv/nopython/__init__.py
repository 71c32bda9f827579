"""The public operations inside functions that Numba compiles: ``@njit def f(x, w): return fastconv.conv2d(x, w)``.

Imported for what it registers.  A call computes on the calling thread, so that a `prange` around it may use all of
them, and has the bits of the call from Python.
"""

from fastconv.nopython import conv, pool

__all__ = ["conv", "pool"]
