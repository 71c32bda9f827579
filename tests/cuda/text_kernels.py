"""PTX kernels out of a few lines of text, for tests that need no compiler."""

from __future__ import annotations

from pathlib import Path

SAMPLES = Path(__file__).parent / "ptx"

_ARRAY_PARAMETERS = 7  # of a one-dimensional array; the data pointer is the fifth
_DATA = 4


def kernel(body: str, arrays: int = 1, declarations: str = "") -> str:
    """A kernel of one-dimensional arrays, whose pointers it finds in %a0, %a1 ...; %t is the thread's number.

    Predicates %p0 ..., 32-bit registers %r0 ... (%f0 ... for floats), 64-bit %d0 ..., 16-bit %h0 ....
    """
    names = [f"k_param_{index}" for index in range(arrays * _ARRAY_PARAMETERS)]
    pointers = "\n".join(f"ld.param.u64 %a{i}, [{names[i * _ARRAY_PARAMETERS + _DATA]}];" for i in range(arrays))
    return f"""
.version 8.0
.target sm_90
.address_size 64
.visible .entry k({", ".join(f".param .u64 {name}" for name in names)})
{{
.reg .pred %p<16>; .reg .b32 %r<64>; .reg .f32 %f<64>; .reg .b64 %d<64>; .reg .b16 %h<16>;
.reg .b64 %a<8>; .reg .b32 %t; .reg .b64 %i4;
{declarations}
{pointers}
mov.u32 %t, %tid.x;
mul.wide.u32 %i4, %t, 4;
{body}
ret;
}}
"""


def store_result(register: str, array: int = 0) -> str:
    """``array[thread] = register``, for 32-bit elements."""
    return f"add.u64 %d63, %a{array}, %i4; st.global.b32 [%d63], {register};"


def load_operand(register: str, array: int) -> str:
    """``register = array[thread]``."""
    return f"add.u64 %d63, %a{array}, %i4; ld.global.b32 {register}, [%d63];"
