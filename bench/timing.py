"""How every number of this folder is taken: one timing loop, and pairs of it.

Two libraries are timed in turns, ours, theirs, ours, theirs ..., so that a noisy neighbour or a changing clock
frequency hits both alike.  Each pair gives one ratio, and the median of these ratios is the verdict.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from statistics import median
from time import perf_counter, sleep
from typing import Any

# A sample is as many calls as fill this time: the clock, waking the threads and an interrupt are small beside it.
SAMPLE_SECONDS = 0.005
# After a parallel region the threads of an OpenMP runtime spin for milliseconds, waiting for the next one.  Two
# libraries bring two runtimes: a sample that followed at once would share its cores with the other's idle threads.
SETTLE_SECONDS = 0.015
# A slow call gets fewer pairs than asked for, so that a whole table takes minutes: no new pair starts after this time,
# but at least so many are taken.
PAIRS_SECONDS = 0.7
LEAST_PAIRS = 3


def timed(call: Callable[[], Any], calls: int = 1) -> tuple[float, Any]:
    """Seconds of one of *calls* calls in a row, and the last result."""
    start = perf_counter()
    for _ in range(calls - 1):
        call()
    result = call()
    return (perf_counter() - start) / calls, result


def sample(call: Callable[[], Any]) -> tuple[float, int]:
    """Seconds of one call over a whole sample, and the calls that fill one."""
    calls = ceil(SAMPLE_SECONDS / timed(call)[0])
    seconds = timed(call, calls)[0]
    return seconds, ceil(SAMPLE_SECONDS / seconds)


@dataclass(frozen=True)
class Pairs:
    """Seconds of each call of ours and of theirs, pair by pair."""

    ours: list[float]
    theirs: list[float]

    @property
    def ratio(self) -> float:
        """Median over the pairs of their time divided by ours: above 1, ours is faster."""
        return median(theirs / ours for ours, theirs in zip(self.ours, self.theirs, strict=True))


def paired(ours: Callable[[], Any], theirs: Callable[[], Any], pairs: int, *, settle: bool) -> Pairs:
    """Time two calls in turns; both have run before.

    Parameters
    ----------
    ours, theirs : callable without arguments
    pairs : int
        Pairs to take, fewer where they would need more than `PAIRS_SECONDS`.
    settle : bool
        Wait before each sample until the other library's threads sleep; needed with more than one thread.
    """
    calls = [sample(call)[1] for call in (ours, theirs)]
    result = Pairs([], [])
    start = perf_counter()
    while len(result.ours) < pairs and (len(result.ours) < LEAST_PAIRS or perf_counter() - start < PAIRS_SECONDS):
        for call, count, seconds in zip((ours, theirs), calls, (result.ours, result.theirs), strict=True):
            if settle:
                sleep(SETTLE_SECONDS)
            seconds.append(timed(call, count)[0])
    return result
