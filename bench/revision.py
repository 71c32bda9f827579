"""One revision of fastconv in a process of its own, which times what `against` asks for.

    python bench/revision.py PACKAGE [arguments of against, whose two references are ignored]

``fastconv`` is the one on ``PYTHONPATH``; only ``fastconv.bench`` comes from PACKAGE, so that both revisions do the
same work by the same clock.  Requests and answers are pickles on standard input and output: ("prepare", number of the
task, pass, threads) computes once and answers with the values, ("sample", calls) with the seconds of one call.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import pickle
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def adopt(package: Path) -> None:
    """Take ``fastconv.bench`` from *package*."""
    folder = package / "bench"
    places = [str(folder)]
    spec = importlib.util.spec_from_file_location(
        "fastconv.bench", folder / "__init__.py", submodule_search_locations=places
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["fastconv.bench"] = module
    spec.loader.exec_module(module)


class Worker:
    """Answers requests one by one."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        from fastconv.bench.command import chosen_tasks

        self._algorithm = arguments.algorithm
        self._tasks = chosen_tasks(arguments)
        self._number = -1
        self._problem: Any = None
        self._sample: Callable[[int], float] | None = None

    def prepare(self, number: int, direction: str, threads: int) -> Any:
        """Compute a pass of a task once, and be ready to time it; the result is what it computed."""
        import numba

        from fastconv.bench.libraries import ours, rotating
        from fastconv.bench.timing import sampler

        task = self._tasks[number]
        if number != self._number:
            self._number, self._problem = number, task.problem()
        numba.set_num_threads(threads)
        contender = ours.preparation(task.operation, direction, self._algorithm)(self._problem, threads)
        values = contender.as_ours(contender.compute(0))
        self._sample = sampler(rotating(contender, self._problem))
        return values

    def sample(self, calls: int) -> float:
        """Seconds of one of *calls* calls; our threads sleep again before the other revision gets its turn."""
        from fastconv.bench.timing import settle

        assert self._sample is not None
        seconds = self._sample(calls)
        settle()
        return seconds


def main() -> None:
    """Answer until the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for `against`, which closes the pipe
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever else is printed must not end among the answers
    adopt(Path(sys.argv[1]))
    from fastconv.bench.command import add_task_arguments

    parser = argparse.ArgumentParser()
    add_task_arguments(parser)
    worker = Worker(parser.parse_known_args(sys.argv[2:])[0])
    while True:
        try:
            name, *arguments = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        try:
            answer = getattr(worker, name)(*arguments), None
        except Exception as error:
            answer = None, f"{type(error).__name__}: {error}"
        pickle.dump(answer, answers)
        answers.flush()


if __name__ == "__main__":
    main()
