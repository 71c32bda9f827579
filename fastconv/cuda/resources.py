"""What the machine code of each kernel takes: registers of a thread, shared memory of a block, and useful instructions.

Written down here, so that `roofline` can be drawn where nothing can be compiled.  Registers and shared memory are those
that ptxas 13.5 reports for sm_90; the other architectures need about as many, and on each of them as many blocks fit on
a multiprocessor.  A test compiles all kernels and compares.

The share of multiply-adds in a main loop was counted in machine code (the ladder of `conv_direct`) for the products,
and in PTX for the kernels of single elements, which see memory and addresses more than arithmetic.
"""

from __future__ import annotations

from typing import NamedTuple

from fastconv.cuda.conv_direct_plan import NARROW, TILE_IN_PARTS, TILES, WEIGHT_TILES, Tile

LARGE, MIDDLE, DEEP, SQUARE, SMALL, LEAST = TILES
LARGE_OF_WEIGHT, MIDDLE_OF_WEIGHT, DEEP_OF_WEIGHT, SQUARE_OF_WEIGHT, SMALL_OF_WEIGHT, LEAST_OF_WEIGHT = WEIGHT_TILES


class Code(NamedTuple):
    """Registers of a thread, bytes of shared memory, and multiply-adds among the instructions of the main loop."""

    registers: int
    shared: int
    share: float


#: By tile, and by whether four channels are loaded at a time; where only columns are, as in a first layer, it is
#: something in between.
FORWARD: dict[tuple[Tile, bool], Code] = {
    (LARGE, True): Code(122, 16640, 0.88),
    (LARGE, False): Code(125, 16640, 0.84),
    (MIDDLE, True): Code(130, 13568, 0.86),
    (MIDDLE, False): Code(128, 13568, 0.79),
    (DEEP, True): Code(165, 27136, 0.88),
    (DEEP, False): Code(214, 27136, 0.80),
    (SQUARE, True): Code(111, 18944, 0.83),
    (SQUARE, False): Code(128, 18944, 0.76),
    (SMALL, True): Code(125, 13824, 0.79),
    (SMALL, False): Code(167, 13824, 0.69),
    (LEAST, True): Code(89, 19456, 0.68),
    (LEAST, False): Code(127, 19456, 0.59),
    (NARROW, True): Code(127, 9216, 0.45),
    (NARROW, False): Code(167, 9216, 0.29),
}
FORWARD_IN_PARTS: dict[tuple[Tile, bool], Code] = {
    (TILE_IN_PARTS, True): Code(161, 13824, 0.73),
    (TILE_IN_PARTS, False): Code(209, 13824, 0.63),
    (NARROW, True): Code(127, 9216, 0.42),
    (NARROW, False): Code(168, 9216, 0.28),
}
GRAD_WEIGHT: dict[tuple[Tile, bool], Code] = {
    (LARGE_OF_WEIGHT, True): Code(128, 16384, 0.86),
    (LARGE_OF_WEIGHT, False): Code(128, 16384, 0.79),
    (MIDDLE_OF_WEIGHT, True): Code(163, 13312, 0.85),
    (MIDDLE_OF_WEIGHT, False): Code(167, 14336, 0.75),
    (DEEP_OF_WEIGHT, True): Code(168, 26624, 0.86),
    (DEEP_OF_WEIGHT, False): Code(231, 27648, 0.76),
    (SQUARE_OF_WEIGHT, True): Code(125, 18432, 0.81),
    (SQUARE_OF_WEIGHT, False): Code(163, 19456, 0.71),
    (SMALL_OF_WEIGHT, True): Code(137, 15360, 0.78),
    (SMALL_OF_WEIGHT, False): Code(167, 13824, 0.62),
    (LEAST_OF_WEIGHT, True): Code(125, 40960, 0.68),
    (LEAST_OF_WEIGHT, False): Code(165, 37888, 0.54),
}
#: Kernels with a thread for each element.  Those without arithmetic have a share of 1, which says nothing.
SWAP_CHANNELS = Code(14, 0, 1.0)
FILL_ZEROS = Code(10, 0, 1.0)
SUM_PARTS = Code(29, 0, 1.0)
SUM_CHAINS = Code(48, 0, 1.0)
#: By channels of a load; by extent of the kernel and distance of windows.
DEPTHWISE = {4: Code(55, 0, 0.286), 1: Code(40, 0, 0.093)}
DEPTHWISE_WINDOWS = {
    (3, 1): Code(76, 0, 0.293),
    (3, 2): Code(87, 0, 0.267),
    (5, 1): Code(89, 0, 0.317),
    (5, 2): Code(96, 0, 0.301),
}
#: By taps that share columns, distance of windows and channels of a load.
DEPTHWISE_GRAD_WEIGHT = {
    (3, 1, 4): Code(114, 0, 0.238),
    (3, 2, 4): Code(101, 0, 0.214),
    (5, 1, 4): Code(128, 0, 0.284),
    (5, 2, 4): Code(120, 0, 0.256),
    (1, 1, 4): Code(102, 0, 0.151),
    (1, 1, 1): Code(56, 0, 0.050),
}
#: Loads of four channels among the instructions, for windows of three columns.
POOL_EXTREME = Code(40, 0, 0.027)
POOL_AVERAGE = Code(54, 0, 0.054)
