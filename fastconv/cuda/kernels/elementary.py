"""exp, tanh, sigmoid and the normal distribution, for one number inside a kernel: the CPU's functions and bits.

`fastconv.cpu.elementary` is arithmetic only, so its source serves here too: it is compiled for the device.  What takes
the place of a name there is `product`, and the float32 version of each function that has two.
"""

from __future__ import annotations

from types import FunctionType, ModuleType, SimpleNamespace
from typing import Any

from numba.core.extending import _Intrinsic

from fastconv.cpu import elementary
from fastconv.cuda.device import target
from fastconv.cuda.kernels.intrinsics import product

cuda = target()


def ported(module: ModuleType, **instead: Any) -> SimpleNamespace:
    """The functions and intrinsics of a *module* of the CPU for kernels of the GPU.

    They see each other, the module's constants, and what *instead* puts in the place of a name.  Each is compiled when
    a kernel uses it.
    """
    names = dict(vars(module))
    for name, value in vars(module).items():
        if isinstance(value, _Intrinsic):
            names[name] = cuda.extending.intrinsic(value._defn)
        elif isinstance(value, FunctionType) and value.__module__ == module.__name__:
            source = vars(module).get(f"{name}_float32", value)
            function = FunctionType(source.__code__, names, name, None, source.__closure__)
            names[name] = cuda.jit(device=True)(function)
    names.update(instead)
    return SimpleNamespace(**names)


_functions = ported(elementary, product=product)
exp, tanh, sigmoid, sigmoid_slope = (_functions.exp, _functions.tanh, _functions.sigmoid, _functions.sigmoid_slope)
normal_bell, normal_cdf, fma = _functions.normal_bell, _functions.normal_cdf, _functions.fma
