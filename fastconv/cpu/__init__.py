"""Kernels for the CPU, one file per algorithm.

Kernels are called ``<operation>_<direction>_<algorithm>``, as in ``conv2d_grad_weight_direct``, with ``_serial`` and
``_parallel`` for the two drivers around the same tasks.  The tasks (``_jit.tasks``, or ``_jit.flushing_tasks`` for sums
of products, which denormal numbers would slow down) are machine code of their own that both drivers call.  Arrays are
contiguous and channels last; extents are upper case, indices lower case.

From the bottom up: `codegen` (LLVM types and code), `simd` (vectors), `tiles` (register tiles), `product` (blocks of a
matrix product), then the algorithms.
"""
