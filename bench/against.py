"""Compare two revisions of fastconv by paired ratios.

    python bench/against.py main HEAD --net keras_mnist --pass forward,grad_x,grad_weight
    python bench/against.py HEAD~3 HEAD --shape 56x56x64,3x3x64,padding=same --threads 1,2

Each revision is checked out into a temporary work tree and runs in a process of its own (`revision`).  Values are
compared first; then the two are timed strictly in turns, by the same loop as everything else here.  A difference counts
where the 95% interval of the median ratio lies outside the noise band.
"""

from __future__ import annotations

import argparse
import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from math import comb, exp, log
from pathlib import Path
from statistics import median
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table

import fastconv.bench
from fastconv.bench.command import PIPE_WIDTH, add_task_arguments, chosen_tasks
from fastconv.bench.measure import difference
from fastconv.bench.timing import paired, settle

REPOSITORY = Path(__file__).parent.parent
# One revision against itself, in two processes: memory lies elsewhere, and medians differ by so much.
NOISE = 0.05
# Of the interval of the median.
CONFIDENCE = 0.95
# A revision that does not end when its pipe is closed is killed after so many seconds.
LAST_SECONDS = 10


class Revision:
    """A running `revision` process."""

    def __init__(self, tree: Path, arguments: Sequence[str]) -> None:
        package = Path(fastconv.bench.__file__).parent.parent
        command = [sys.executable, str(Path(__file__).with_name("revision.py")), str(package), *arguments]
        # Kernels compile once per run: the cache goes with the work tree.
        settings = {"PYTHONPATH": str(tree), "NUMBA_CACHE_DIR": str(tree / ".kernels")}
        self.process = subprocess.Popen(
            command, env={**os.environ, **settings}, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def ask(self, *request: Any) -> Any:
        """Send a request and wait for the answer.

        Raises
        ------
        ValueError
            If the revision cannot do it.
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            pickle.dump(request, self.process.stdin)
            self.process.stdin.flush()
            answer, error = pickle.load(self.process.stdout)
        except (EOFError, BrokenPipeError):
            raise ValueError(f"the process of a revision ended with status {self.process.wait()}") from None
        if error:
            raise ValueError(error)
        return answer

    def sample(self, calls: int) -> float:
        """Seconds of one call: a `timing.Sampler`."""
        seconds: float = self.ask("sample", calls)
        return seconds

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        try:
            self.process.wait(LAST_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()


@contextmanager
def revisions(repository: Path, references: Sequence[str], arguments: Sequence[str]) -> Iterator[list[Revision]]:
    """A process for each reference, in work trees that are gone afterwards, whatever happens.

    Raises
    ------
    ValueError
        If git does not know a reference.
    """
    running: list[Revision] = []
    with tempfile.TemporaryDirectory(prefix="fastconv-against-") as folder:
        trees = [Path(folder) / str(number) for number in range(len(references))]
        try:
            for tree, reference in zip(trees, references, strict=True):
                _git(repository, "worktree", "add", "--detach", str(tree), reference)
                running.append(Revision(tree, arguments))
            yield running
        finally:
            for revision in running:
                revision.close()
            for tree in trees:
                if tree.exists():
                    _git(repository, "worktree", "remove", "--force", "--force", str(tree))


def _git(repository: Path, *arguments: str) -> None:
    # A process group of its own: Ctrl-C must not interrupt git halfway through.
    done = subprocess.run(
        ["git", *arguments], cwd=repository, check=False, capture_output=True, text=True, start_new_session=True
    )
    if done.returncode:
        raise ValueError(f"git {arguments[0]} {arguments[1]}: {done.stderr.strip()}")


def interval(ratios: Sequence[float]) -> tuple[float, float]:
    """Where the median lies with `CONFIDENCE`, whatever the distribution; all the ratios where they are too few.

    The number of ratios below the true median is that of heads in as many tosses of a coin.
    """
    ordered, outside, tail = sorted(ratios), 0, 0.0
    while outside < len(ordered) // 2:
        tail += comb(len(ordered), outside) / 2 ** len(ordered)
        if tail > (1 - CONFIDENCE) / 2:
            break
        outside += 1
    outside = max(outside - 1, 0)
    return ordered[outside], ordered[len(ordered) - 1 - outside]


def verdict(low: float, high: float) -> str:
    """What an interval says about the second revision."""
    if low > 1 + NOISE:
        return "[green]faster[/]"
    if high < 1 / (1 + NOISE):
        return "[bold red]slower[/]"
    return "noise"


def compare(arguments: argparse.Namespace, both: Sequence[Revision], console: Console) -> bool:
    """Print a row for each task, pass and number of threads; False where values differ."""
    before, after = both
    thread_counts = arguments.threads or [1]
    jobs = [
        (number, task, direction, threads)
        for number, task in enumerate(chosen_tasks(arguments))
        for direction in task.passes
        if direction in (*arguments.passes, "train")
        for threads in thread_counts
    ]
    names = [escape(name) for name in (arguments.before, arguments.after)]
    table = Table(
        *("layer", "batch", "pass", "threads", f"{names[0]}, ms", f"{names[1]}, ms", "ratio", "95% of medians", ""),
        title=f"{names[0]} / {names[1]}",
        caption=f"above 1 the second is faster; noise: the interval meets {1 / (1 + NOISE):.2f} to {1 + NOISE:.2f}",
        box=SIMPLE_HEAD,
    )
    logarithms, same = [], True
    for number, task, direction, threads in track(jobs, "Revisions", console=console, transient=True):
        start = [escape(f"{task.network} {task.name}"), str(task.batch), direction, str(threads)]
        values = [revision.ask("prepare", number, direction, threads) for revision in both]
        settle()
        error = difference(values[1], values[0])
        if error > task.tolerance:
            table.add_row(*start, "", "", "", f"error {error:.0e}", "[bold white on red]VALUES DIFFER[/]")
            same = False
            continue
        times = paired(after.sample, before.sample, arguments.pairs, task.seconds)
        low, high = interval(times.ratios)
        logarithms.append(log(times.ratio))
        milliseconds = [f"{1e3 * median(part):.3f}" for part in (times.theirs, times.ours)]
        table.add_row(*start, *milliseconds, f"{times.ratio:.3f}", f"{low:.3f} to {high:.3f}", verdict(low, high))
    console.print(table)
    if logarithms:
        console.print(f"Geometric mean of {len(logarithms)} ratios: {exp(sum(logarithms) / len(logarithms)):.3f}")
    return same


def main(argv: Sequence[str] | None = None, repository: Path = REPOSITORY) -> int:
    """Run the comparison; the result is the exit status: 1 where values differ, 2 for what cannot be compared."""
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(description="Compare two revisions of fastconv by paired ratios.")
    parser.add_argument("before", metavar="REF1", help="a commit, branch or tag")
    parser.add_argument("after", metavar="REF2", help="another one")
    add_task_arguments(parser)
    arguments = parser.parse_args(argv)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else PIPE_WIDTH)
    try:
        chosen_tasks(arguments)
        with revisions(repository, (arguments.before, arguments.after), argv) as both:
            return 0 if compare(arguments, both, console) else 1
    except ValueError as error:
        Console(stderr=True, highlight=False).print(f"[red]{escape(str(error))}[/]", soft_wrap=True)
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
