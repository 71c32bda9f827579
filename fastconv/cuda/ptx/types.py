"""PTX fundamental types and the NumPy types that hold them (PTX ISA, Fundamental Types)."""

from __future__ import annotations

from typing import Any

import numpy as np

DType = np.dtype[Any]

WARP_SIZE = 32

# dtypes by their width in bits
UNSIGNED: dict[int, DType] = {bits: np.dtype(f"u{bits // 8}") for bits in (8, 16, 32, 64)}
SIGNED: dict[int, DType] = {bits: np.dtype(f"i{bits // 8}") for bits in (8, 16, 32, 64)}
FLOAT: dict[int, DType] = {bits: np.dtype(f"f{bits // 8}") for bits in (16, 32, 64)}

# What a register or an operand of this PTX type looks like.  NumPy has no bfloat16, tf32 or packed pair: they are kept
# as bits, and the instructions that know them unpack them.
DTYPE: dict[str, DType] = {
    **{f"b{width}": dtype for width, dtype in UNSIGNED.items()},
    **{f"u{width}": dtype for width, dtype in UNSIGNED.items()},
    **{f"s{width}": dtype for width, dtype in SIGNED.items()},
    **{f"f{width}": dtype for width, dtype in FLOAT.items()},
    "bf16": UNSIGNED[16],
    "f16x2": UNSIGNED[32],
    "bf16x2": UNSIGNED[32],
    "f32x2": UNSIGNED[64],
    "tf32": UNSIGNED[32],
    "pred": np.dtype(np.bool_),
}


def bits_of(type_name: str) -> int:
    """Width of a PTX type in bits (1 for a predicate)."""
    return 1 if type_name == "pred" else DTYPE[type_name].itemsize * 8


def storage(type_name: str) -> DType:
    """The dtype of a register declared with this type: plain bits of its width."""
    return DTYPE["pred"] if type_name == "pred" else UNSIGNED[bits_of(type_name)]


def round_up(value: int, multiple: int) -> int:
    """*value* rounded up to a multiple."""
    return -(-value // multiple) * multiple
