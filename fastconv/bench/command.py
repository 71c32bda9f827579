"""The arguments of `fastconv bench`, and what happens in which order."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numba
from rich.console import Console
from rich.markup import escape

from fastconv.bench import libraries, problems, training
from fastconv.bench.libraries import Library
from fastconv.bench.problems import Task

#: What runs without any choice: a large network and two small ones.
DEFAULT_NETWORKS = ("resnet_50_v1_5", "keras_mnist", "keras_cifar10")
EVERY_NETWORK = "all"
DEFAULT_BATCH = 8
DEFAULT_PAIRS = 15
# A file has no width of its own; the widest row fits in this.
PIPE_WIDTH = 190
EXAMPLES = """examples:
  fastconv bench                                            a first look, a few minutes
  fastconv bench --net all --pass forward,grad_x,grad_weight --json all.json --html all.html
  fastconv bench --shape 56x56x64,3x3x64,padding=same --against torch,onnxruntime --batch 1,8
  fastconv bench --net pool --against torch --threads 1
  fastconv bench --train --against torch                    training instead of layers
  fastconv bench --train tutorial book --batch 32           the network of a tutorial and that of a book
  fastconv bench --tune                                     write a profile of this machine
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command line."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EXAMPLES
    how = add_task_arguments(parser)
    how.add_argument("--tune", action="store_true", help="only measure which algorithm to take when on this machine")
    how.add_argument(
        "--against",
        type=_some_of(libraries.NAMES),
        default=list(libraries.NAMES),
        metavar="A,B",
        help=f"some of {','.join(libraries.NAMES)}; default: all that are installed",
    )
    out = parser.add_argument_group("what to write")
    out.add_argument("--json", type=Path, metavar="FILE", help="the times of every pair")
    out.add_argument("--html", type=Path, metavar="FILE", help="a page with tables, roofline and bars")


def add_task_arguments(parser: argparse.ArgumentParser) -> Any:
    """Describe the arguments that choose what to time and how; the result is the group of the latter."""
    names = ", ".join(problems.networks())
    what = parser.add_argument_group("what to time")
    what.add_argument(
        "--net",
        nargs="+",
        metavar="NAME",
        help=f"networks: {EVERY_NETWORK}, or some of {names}; default: {' '.join(DEFAULT_NETWORKS)}",
    )
    what.add_argument("--layer", metavar="NAME", help="only the layer of this name")
    what.add_argument("--shape", nargs="+", metavar="SHAPE", help=f"layers of your own: {problems.SHAPE_HELP}")
    what.add_argument(
        "--train",
        nargs="*",
        choices=training.NETWORKS,
        metavar="NAME",
        help=f"training epochs: some of {', '.join(training.NETWORKS)}; default: the network of fastconv train",
    )
    how = parser.add_argument_group("how")
    how.add_argument(
        "--pass",
        dest="passes",
        type=_some_of(problems.PASSES),
        default=["forward"],
        metavar="A,B",
        help=f"some of {','.join(problems.PASSES)}; all: the others in one call; default: forward",
    )
    how.add_argument("--threads", type=numbers, metavar="N,M", help="default: 1 and, where there are two cores, 2")
    how.add_argument("--batch", type=numbers, metavar="N,M", help="images at a time; default: 8, for training 32,128")
    how.add_argument("--algorithm", default="auto", metavar="NAME", help="of our convolutions; default: %(default)s")
    how.add_argument(
        "--pairs",
        type=positive,
        default=DEFAULT_PAIRS,
        metavar="N",
        help="pairs of times for a row, fewer where it is slow; default: %(default)s",
    )
    return how


def run(arguments: argparse.Namespace, console: Console) -> int:
    """Run the comparison; the result is the exit status: 1 where values differ.

    Raises
    ------
    ImportError
        If a package that the bench itself needs is not installed.
    ValueError
        If an argument names nothing that there is.
    """
    try:
        from fastconv.bench import live, machine, record, report, roofline
    except ModuleNotFoundError as error:
        raise ImportError(f'fastconv bench needs {error.name}: pip install "fastconv[bench]"') from None

    if arguments.tune:
        from fastconv.bench.tune import tune

        tune(console)
        return 0
    thread_counts = arguments.threads or [1, 2][: numba.config.NUMBA_NUM_THREADS]
    machine.check_threads(thread_counts)
    tasks = chosen_tasks(arguments)
    if not sys.stdout.isatty():
        console = Console(width=PIPE_WIDTH, highlight=False)
    installed, missing = load(arguments.against)
    if line := machine.warning(list(installed.values())):
        console.print(f"[yellow]{line}[/]")
    if missing:
        console.print(f"[yellow]Not installed, skipped: {escape(', '.join(missing))}.[/]", soft_wrap=True)
    todo = live.jobs(tasks, arguments.passes, installed)
    if not todo:
        raise ValueError(f"none of {', '.join(arguments.against)} can compute what was asked for")
    for name in installed:
        if all(job.name != name for job in todo):
            console.print(f"[yellow]{name} computes none of these passes: skipped.[/]")
    ceilings = [roofline.roofline(count) for count in thread_counts]
    for ceiling in ceilings:
        console.print(
            f"{ceiling.threads} thread{'s' * (ceiling.threads > 1)}: {ceiling.gflops:.0f} GFLOP/s of multiply-adds, "
            f"{ceiling.copy_gbs:.0f} GB/s copied"
        )
    rows, refusals = live.run(todo, thread_counts, arguments.pairs, arguments.algorithm, console)
    if not rows:
        raise ValueError(refusals[0])
    for refusal in refusals:
        console.print(f"[yellow]{escape(refusal)}[/]", soft_wrap=True)
    console.print(live.results_table(rows, "Rows"), live.summary_table(rows))
    if arguments.train is not None:
        console.print(live.training_table(rows))
    description = {
        **machine.describe(list(installed.values())),
        "roofline": [ceiling.as_dict() for ceiling in ceilings],
    }
    if arguments.json:
        record.write(arguments.json, "compare", description, rows)
    if arguments.html:
        arguments.html.parent.mkdir(parents=True, exist_ok=True)
        arguments.html.write_text(report.page(description, rows), encoding="utf-8")
        console.print(f"The report is {escape(str(arguments.html))}", soft_wrap=True)
    return int(any(not row["ours"] for row in rows))


def chosen_tasks(arguments: argparse.Namespace) -> list[Task]:
    """What the arguments name, batch size by batch size."""
    networks = arguments.net
    if networks == [EVERY_NETWORK] or (arguments.layer and not networks):
        networks = list(problems.networks())
    elif not networks and not arguments.shape and arguments.train is None:
        networks = list(DEFAULT_NETWORKS)
    tasks: list[Task] = []
    for batch in arguments.batch or [DEFAULT_BATCH]:
        if networks:
            tasks += problems.layers(networks, arguments.layer, batch)
        tasks += [problems.layer_of_text(shape, batch) for shape in arguments.shape or ()]
    if arguments.train is not None:
        for chosen in arguments.train or [training.DEFAULT_NETWORK]:
            images = training.IMAGES[chosen]
            tasks += [training.Training(batch, images, chosen) for batch in arguments.batch or training.BATCHES]
    return tasks


def load(names: Sequence[str]) -> tuple[dict[str, Library], list[str]]:
    """The libraries that are installed, and a few words for each that is not."""
    installed, missing = {}, []
    for name in names:
        try:
            installed[name] = libraries.load(name)
        except ImportError as error:
            part = error.name.partition(".")[0] if error.name else str(error)
            missing.append(name if part == name else f"{name} ({part})")
    return installed, missing


def _some_of(known: Sequence[str]) -> Callable[[str], list[str]]:
    def names(text: str) -> list[str]:
        for name in text.split(","):
            if name not in known:
                raise argparse.ArgumentTypeError(f"must be some of {','.join(known)}, not {name!r}")
        return text.split(",")

    return names


def positive(text: str) -> int:
    """The number that a text says, which must be at least 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {number}")
    return number


def numbers(text: str) -> list[int]:
    """The numbers of a list with commas."""
    return [positive(number) for number in text.split(",")]
