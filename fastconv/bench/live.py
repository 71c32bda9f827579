"""What a run shows on the terminal: the latest rows under way, then all of them, and what they add up to."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from functools import partial
from statistics import median
from typing import NamedTuple

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn
from rich.table import Table

from fastconv.bench import record
from fastconv.bench.libraries import Library
from fastconv.bench.measure import measure
from fastconv.bench.problems import Task
from fastconv.bench.record import Row

# Ratio below which a row is marked: a loss by a factor of two.
LOUD_LOSS = 0.5
LIVE_ROWS = 15


class Job(NamedTuple):
    """One pass of one task against one library, with every number of threads."""

    task: Task
    direction: str
    name: str
    library: Library


def jobs(tasks: Sequence[Task], passes: Sequence[str], libraries: dict[str, Library]) -> list[Job]:
    """All that these libraries have: of each task the chosen passes, but training whatever the passes."""
    return [
        Job(task, direction, name, library)
        for task in tasks
        for direction in task.passes
        if direction in (*passes, "train")
        for name, library in libraries.items()
        if (task.operation, direction) in library.variants
    ]


def run(
    todo: Sequence[Job], threads: Sequence[int], pairs: int, algorithm: str, console: Console
) -> tuple[list[Row], list[str]]:
    """Measure all rows, with a live table of the latest and a progress bar; also a line for what was refused.

    Ctrl-C ends the run and keeps its rows.
    """
    rows: list[Row] = []
    refusals: list[str] = []
    latest: deque[Row] = deque(maxlen=LIVE_ROWS)
    bar = Progress(*Progress.get_default_columns(), MofNCompleteColumn(), TimeElapsedColumn())
    progress = bar.add_task("", total=len(todo))
    task, problem = None, None
    with Live(bar, console=console, transient=True, auto_refresh=False) as live:  # no refresh while a row is timed
        try:
            for job in todo:
                if job.task is not task:
                    task, problem = job.task, job.task.problem()
                    bar.update(progress, description=escape(f"{task.network} {task.name}"))
                note = partial(_refused, refusals, job)
                for row in measure(
                    task, problem, job.direction, job.name, job.library, threads, pairs, algorithm, note
                ):
                    rows.append(row)
                    latest.append(row)
                    live.update(Group(results_table(latest, "Latest rows"), bar), refresh=True)
                bar.advance(progress)
        except KeyboardInterrupt:  # an hour's rows are not thrown away
            refusals.append(f"Stopped by Ctrl-C after {len(rows)} rows.")
    return rows, refusals


def _refused(refusals: list[str], job: Job, reason: str) -> None:
    line = f"Skipped {job.task.network} {job.task.name} {job.direction} against {job.name}: {reason}"
    if line not in refusals:
        refusals.append(line)


def cells(row: Row) -> list[str]:
    """A row as the table shows it; a loss by a factor of two and wrong values are loud."""
    place = escape(f"{row['network']} {row['layer']}")
    against = f"{row['library']} {row['variant']}"
    start = [place, str(row["batch"]), record.pass_of(row), str(row["threads"]), against]
    start += [f"{row['error']:.0e}", f"{1e3 * row['first_ours']:.0f} ms"]
    if not row["ours"]:
        return [*start, "", "", "", "", "0", "[bold white on red]VALUES DIFFER[/]"]
    ratio, ours = record.ratio(row), min(row["ours"])
    if ratio < LOUD_LOSS:
        verdict = f"[bold red]{ratio:.2f} LOST BY {1 / ratio:.1f}[/]"
    else:
        verdict = f"[{'green' if ratio >= 1 else 'yellow'}]{ratio:.2f}[/]"
    speeds = [f"{row['flops'] / ours / 1e9:.1f}", f"{row['bytes'] / ours / 1e9:.1f}"]
    times = [_milliseconds(row["ours"]), _milliseconds(row["theirs"])]
    return [*start, *times, *speeds, str(len(row["ours"])), verdict]


def _milliseconds(values: Sequence[float]) -> str:
    return f"{1e3 * min(values):.3f} / {1e3 * median(values):.3f}"


def results_table(rows: Iterable[Row], title: str) -> Table:
    """The rows with their times: min / median in ms."""
    header = ["layer", "batch", "pass", "threads", "against", "error", "first call", "ours, ms", "theirs, ms"]
    table = Table(
        *(*header, "GFLOP/s", "GB/s", "pairs", "speed-up"),
        title=title,
        caption="min / median; speed-up: median of their time / ours; kept: our weights were packed before",
        box=SIMPLE_HEAD,
    )
    for row in rows:
        table.add_row(*cells(row))
    return table


def summary_table(rows: Sequence[Row]) -> Table:
    """Geometric means, with the worst layer of each by name."""
    header = ["network", "batch", "pass", "threads", "against", "mean speed-up", "worst layer", "lost"]
    table = Table(*header, title="Summary", box=SIMPLE_HEAD)
    for part in record.summarise(rows):
        mean = f"[{'green' if part.mean >= 1 else 'bold red'}]{part.mean:.2f}[/]"
        worst = f"{part.worst['layer']} {record.ratio(part.worst):.2f}"
        lost = f"{part.lost} of {part.layers}" + (f", {part.wrong} WRONG" if part.wrong else "")
        start = [part.network, str(part.batch), part.direction, str(part.threads), part.library]
        table.add_row(*start, mean, worst, lost)
    return table


def training_table(rows: Sequence[Row]) -> Table:
    """Images per second of the training rows."""
    table = Table("training", "threads", "images/s", "against", "images/s", "speed-up", box=SIMPLE_HEAD)
    for row in rows:
        if row["pass"] == "train" and row["ours"]:
            ours, theirs = (f"{row['images'] / median(row[who]):,.0f}" for who in ("ours", "theirs"))
            place = f"{row['network']}, batch {row['batch']}"
            against = f"{row['library']} {row['variant']}"
            table.add_row(place, str(row["threads"]), ours, against, theirs, f"{record.ratio(row):.2f}")
    return table
