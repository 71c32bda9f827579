"""What runs on the GPU: for each file of `fastconv.cuda` with operations, one of the same name with their kernels.

Importing a file of this package imports Numba's CUDA target, so operations import them as they are called.
"""
