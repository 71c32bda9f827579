"""How every number of the bench is taken: one timing loop, and pairs of it.

Two libraries are timed in turns, ours, theirs, ours, theirs ..., so that a noisy neighbour or a changing clock
frequency hits both alike.  Each pair gives one ratio, and the median of these ratios is the verdict.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil
from statistics import median
from time import perf_counter, process_time, sleep
from typing import Any

# A sample is as many calls as fill this time: the clock, waking the threads and an interrupt are small beside it.
SAMPLE_SECONDS = 0.005
# A slow call gets fewer pairs than asked for, so that a whole table takes minutes: no new pair starts after this time,
# but at least so many are taken.
PAIRS_SECONDS = 1.0
LEAST_PAIRS = 5
# See `settle`: one look, the share of it that counts as busy, and the looks after which we go on all the same.
LOOK_SECONDS = 0.001
BUSY_SHARE = 0.25
MOST_LOOKS = 100

#: Takes a number of calls and returns the seconds of one of them.
Sampler = Callable[[int], float]


def timed(call: Callable[[], Any], calls: int = 1) -> tuple[float, Any]:
    """Seconds of one of *calls* calls in a row, and the last result."""
    start = perf_counter()
    for _ in range(calls - 1):
        call()
    result = call()
    return (perf_counter() - start) / calls, result


def sampler(call: Callable[[], Any]) -> Sampler:
    """The seconds of *call*, which runs in this process."""
    return lambda calls: timed(call, calls)[0]


def usual(sample: Sampler, before: float) -> float:
    """Seconds of one call over a whole sample, or *before*, the time of its first call, where that fills one."""
    if before >= SAMPLE_SECONDS:
        return before
    return sample(calls_in_sample(sample))


def calls_in_sample(sample: Sampler) -> int:
    """Calls that fill a sample; counted in one, because a single short call after a pause takes up to twice as long."""
    seconds = sample(1)
    if seconds < SAMPLE_SECONDS:
        seconds = sample(ceil(SAMPLE_SECONDS / seconds))
    return ceil(SAMPLE_SECONDS / seconds)


def settle() -> None:
    """Wait until the threads of the last call sleep.

    After a parallel region the threads of OpenMP spin for about 5 ms, those of OpenBLAS for 50 ms, waiting for the next
    one.  Each library brings its own threads: a sample that followed at once would share its cores with them.
    """
    for _ in range(MOST_LOOKS):
        before = process_time()
        sleep(LOOK_SECONDS)
        if process_time() - before < BUSY_SHARE * LOOK_SECONDS:
            return


@dataclass(frozen=True)
class Pairs:
    """Seconds of each call of ours and of theirs, pair by pair."""

    ours: list[float]
    theirs: list[float]

    @property
    def ratios(self) -> list[float]:
        """Their time divided by ours, pair by pair: above 1, ours is faster."""
        return [theirs / ours for ours, theirs in zip(self.ours, self.theirs, strict=True)]

    @property
    def ratio(self) -> float:
        """The verdict: the median over the pairs."""
        return median(self.ratios)


def paired(ours: Sampler, theirs: Sampler, pairs: int, most_seconds: float = PAIRS_SECONDS) -> Pairs:
    """Time two calls, which have run before, in turns.

    Parameters
    ----------
    ours, theirs : Sampler
    pairs : int
        Pairs to take, fewer where they would need more than *most_seconds*.
    most_seconds : float
        No pair starts later than this, but at least `LEAST_PAIRS` are taken.
    """
    calls = calls_in_sample(ours), calls_in_sample(theirs)
    result = Pairs([], [])
    start = perf_counter()
    while len(result.ours) < pairs and (len(result.ours) < LEAST_PAIRS or perf_counter() - start < most_seconds):
        for sample, count, seconds in zip((ours, theirs), calls, (result.ours, result.theirs), strict=True):
            settle()
            seconds.append(sample(count))
    return result
