"""What the machine code of each kernel takes: registers of a thread, shared memory of a block, and useful instructions.

Written down here, so that `roofline` can be drawn where nothing can be compiled.  Registers and shared memory are those
that ptxas 13.5 reports for sm_90; the other architectures need about as many, and on each of them as many blocks fit on
a multiprocessor.  A test compiles all kernels and compares.

The share of multiply-adds in a main loop was counted in machine code (the ladder of `conv_direct`) for the products,
and in PTX for the kernels of single elements, which see memory and addresses more than arithmetic.
"""

from __future__ import annotations

from typing import NamedTuple

from fastconv.cuda.conv_direct_plan import TILE_IN_PARTS, TILES, Tile

LARGE, MIDDLE, SMALL = TILES


class Code(NamedTuple):
    """Registers of a thread, bytes of shared memory, and multiply-adds among the instructions of the main loop."""

    registers: int
    shared: int
    share: float


#: By tile, and by whether four channels are loaded at a time.
FORWARD: dict[tuple[Tile, bool], Code] = {
    (LARGE, True): Code(126, 16640, 0.84),
    (LARGE, False): Code(127, 16640, 0.76),
    (MIDDLE, True): Code(147, 13568, 0.82),
    (MIDDLE, False): Code(143, 13568, 0.70),
    (SMALL, True): Code(113, 6912, 0.71),
    (SMALL, False): Code(108, 6912, 0.55),
}
FORWARD_IN_PARTS: dict[tuple[Tile, bool], Code] = {
    (TILE_IN_PARTS, True): Code(147, 6912, 0.61),
    (TILE_IN_PARTS, False): Code(141, 6912, 0.49),
}
GRAD_WEIGHT: dict[tuple[Tile, bool], Code] = {
    (LARGE, True): Code(126, 16384, 0.81),
    (LARGE, False): Code(125, 16384, 0.75),
    (MIDDLE, True): Code(165, 13312, 0.75),
    (MIDDLE, False): Code(167, 13312, 0.65),
    (SMALL, True): Code(117, 7680, 0.62),
    (SMALL, False): Code(127, 7680, 0.49),
}
#: Kernels with a thread for each element.  Those without arithmetic have a share of 1, which says nothing.
SWAP_CHANNELS = Code(14, 0, 1.0)
FILL_ZEROS = Code(10, 0, 1.0)
SUM_PARTS = Code(29, 0, 1.0)
DEPTHWISE = Code(62, 0, 0.037)
DEPTHWISE_GRAD_WEIGHT = Code(36, 0, 0.029)
#: One comparison, or one addition, for each pixel of a window.
POOL_EXTREME = Code(28, 0, 0.04)
POOL_AVERAGE = Code(40, 0, 0.08)
