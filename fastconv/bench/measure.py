"""A row of the comparison: values compared first, the first call apart, then times taken in pairs.

The first call may compile.  Ours and theirs are then timed in turns (`timing.paired`), both with the same number of
threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from fastconv.bench import machine, record
from fastconv.bench.libraries import Contender, Library, Prepare, ours, rotating
from fastconv.bench.problems import Task, described
from fastconv.bench.record import Row
from fastconv.bench.timing import Pairs, paired, sampler, settle, timed, usual

# A variant whose weights are packed ahead: a rival only where ours are.
PACKED = "packed"
# A variant slower than the fastest by this factor is not tried again with another number of threads.
HOPELESS = 2


def difference(ours: Any, theirs: Any) -> float:
    """Largest difference of two results, relative to the largest value; infinite where a NaN or a shape differs.

    Of results of several arrays, the largest of each pair.
    """
    if isinstance(ours, tuple):
        return max(difference(*both) for both in zip(ours, theirs, strict=True))
    if ours.shape != theirs.shape:
        return float("inf")
    error = float(np.abs(ours - theirs).max() / np.abs(theirs).max())
    return error if np.isfinite(error) else float("inf")


def measure(
    task: Task,
    problem: Any,
    direction: str,
    name: str,
    library: Library,
    thread_counts: Sequence[int],
    pairs: int,
    algorithm: str = "auto",
    note: Callable[[str], None] = lambda text: None,
) -> Iterator[Row]:
    """Rows for each number of threads: check the values of all variants of *library*, then time ours and the fastest.

    One for each of `ours.preparations`.  A row whose values differ has no times.  There is no row where a library, or
    our *algorithm*, refuses the problem; *note* gets the sentence.
    """
    ways = ours.preparations(task.operation, direction, algorithm)
    variants = library.variants.get((task.operation, direction), {})
    for threads in thread_counts:
        with machine.threads(threads, [library]):
            contenders = _prepared(variants, problem, threads, note)
            if not contenders:
                return
            our_firsts, our_values, our_samples = {}, {}, {}
            for weights, prepare in ways.items():
                try:
                    mine = prepare(problem, threads)
                    our_firsts[weights], result = timed(partial(mine.compute, 0))
                except ValueError as refusal:  # an algorithm that does not take every problem
                    note(str(refusal))
                    return
                our_values[weights] = mine.as_ours(result)
                our_samples[weights] = sampler(rotating(mine, problem))
            firsts, times, samples = {}, {}, {}
            errors = dict.fromkeys(ways, 0.0)
            for variant, theirs in contenders.items():
                firsts[variant], result = timed(partial(theirs.compute, 0))
                values = theirs.as_ours(result)
                for weights in ways:
                    errors[weights] = max(errors[weights], difference(our_values[weights], values))
                settle()
                samples[variant] = sampler(rotating(theirs, problem))
                times[variant] = usual(samples[variant], firsts[variant])
            fastest, found = {}, {weights: Pairs([], []) for weights in ways}
            promising: set[str] = set()
            for weights, our_sample in our_samples.items():
                rivals = [name for name in times if weights == ours.KEPT or name != PACKED]
                rival = fastest[weights] = min(rivals, key=times.__getitem__)
                promising.update(name for name in rivals if times[name] <= HOPELESS * times[rival])
                if errors[weights] <= task.tolerance:
                    found[weights] = paired(our_sample, samples[rival], pairs, task.seconds)
        variants = {name: variants[name] for name in times if name in promising}
        for weights in ways:
            yield {
                **described(task, direction),
                "images": task.images,
                "pass": direction,
                "weights": weights,
                "threads": threads,
                "algorithm": algorithm,
                "library": name,
                "variant": fastest[weights],
                "error": errors[weights],
                "first_ours": record.seconds(our_firsts[weights]),
                "first_theirs": record.seconds(firsts[fastest[weights]]),
                "ours": [record.seconds(time) for time in found[weights].ours],
                "theirs": [record.seconds(time) for time in found[weights].theirs],
            }


def _prepared(
    variants: Mapping[str, Prepare], problem: Any, threads: int, note: Callable[[str], None]
) -> dict[str, Contender]:
    contenders = {}
    for variant, prepare in variants.items():
        try:
            contenders[variant] = prepare(problem, threads)
        except ValueError as error:
            note(str(error))
    return contenders
