"""Write the tables of the README from the results in bench/results, or check that they are up to date.

    python bench/tables.py            # write
    python bench/tables.py --check    # exit with status 1 where the README differs

``<!-- table: torch -->`` in the README begins the table of ``bench/results/torch.json``; ``<!-- end table -->`` ends
it.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console

from fastconv.bench import machine, record
from fastconv.bench.record import Row

# From here on a number needs no digits behind the point.
WHOLE = 100

README = Path(__file__).parent.parent / "README.md"
RESULTS = Path(__file__).with_name("results")
MARKED = re.compile(r"(<!-- table: (?P<name>[\w-]+) -->\n).*?(<!-- end table -->)", re.DOTALL)


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; all columns but the first two are numbers and stand right."""
    rule = ["---" if column < 2 else "--:" for column in range(len(header))]
    return "".join(f"| {' | '.join(row)} |\n" for row in (header, rule, *rows))


def machine_line(description: dict[str, Any]) -> str:
    """What the numbers below belong to."""
    settings = machine.settings(description)
    return f"{machine.line(description)}." + (f" **With {settings}.**" if settings else "") + "\n\n"


def compare_table(rows: Sequence[Row]) -> str:
    """Geometric means for each network and pass; below, every layer where fastconv loses, the worst first."""
    body = []
    for part in record.summarise(rows):
        best, worst = (f"{record.ratio(row):.2f} ({row['layer']})" for row in (part.best, part.worst))
        counts = f"{part.lost} of {part.layers}" + (f", {part.wrong} with wrong values" if part.wrong else "")
        start = [part.network, f"{part.direction} against {part.library}", str(part.batch), str(part.threads)]
        body.append([*start, f"{part.mean:.2f}", best, worst, counts])
    header = ["network", "pass", "batch", "threads", "mean speed-up", "best layer", "worst layer", "layers lost"]
    lost = sorted((row for row in rows if row["ours"] and record.ratio(row) < 1), key=record.ratio)
    text = markdown(header, body)
    if lost:
        losses = [[f"{row['network']} {row['layer']}", *_loss(row)] for row in lost]
        table = markdown(["layer", "pass", "batch", "threads", "ms", "theirs, ms", "speed-up"], losses)
        text += f"\n<details><summary>The {len(lost)} rows where fastconv is slower</summary>\n\n{table}\n</details>\n"
    return text


def _loss(row: Row) -> list[str]:
    against = f"{row['pass']} against {row['library']} {row['variant']}"
    times = [_milliseconds(row["ours"]), _milliseconds(row["theirs"])]
    return [against, str(row["batch"]), str(row["threads"]), *times, f"{record.ratio(row):.2f}"]


def _milliseconds(seconds: Sequence[float]) -> str:
    """The median, with three digits or all in front of the point."""
    milliseconds = 1e3 * median(seconds)
    return f"{milliseconds:,.0f}" if milliseconds >= WHOLE else f"{milliseconds:.3g}"


def startup_table(rows: Sequence[Row]) -> str:
    """Medians of imports, first calls and small calls."""
    body = [
        [row["name"], row["rival"], _milliseconds(row["ours"]), _milliseconds(row["theirs"]) if row["theirs"] else ""]
        for row in rows
    ]
    return markdown(["what", "against", "fastconv, ms", "theirs, ms"], body)


TABLES: dict[str, Callable[[Sequence[Row]], str]] = {"compare": compare_table, "startup": startup_table}


def updated(text: str, results: Path) -> str:
    """The README's text with every marked table made anew.

    Raises
    ------
    ValueError
        If the text has no marked table, or one without a result file.
    """
    if not MARKED.search(text):
        raise ValueError('the README must have a table between "<!-- table: NAME -->" and "<!-- end table -->"')

    def table(match: re.Match[str]) -> str:
        path = results / f"{match['name']}.json"
        if not path.exists():
            raise ValueError(f"table: {match['name']} needs a result file {path.name} in {results.name}")
        data = record.read(path)
        return f"{match[1]}{machine_line(data['machine'])}{TABLES[data['kind']](data['rows'])}{match[3]}"

    return MARKED.sub(table, text)


def main(argv: Sequence[str] | None = None, readme: Path = README, results: Path = RESULTS) -> int:
    """Write or check the tables; the result is the exit status."""
    parser = argparse.ArgumentParser(description="Write the tables of the README from bench/results.")
    parser.add_argument("--check", action="store_true", help="change nothing; exit with 1 if a table is out of date")
    arguments = parser.parse_args(argv)
    console = Console(stderr=True)
    before = readme.read_text()
    try:
        after = updated(before, results)
    except ValueError as error:
        console.print(f"[red]{error}[/]")
        return 1
    if arguments.check and after != before:
        console.print(f"[red]{readme.name} is out of date: run python bench/tables.py[/]")
        return 1
    if not arguments.check:
        readme.write_text(after)
    return 0


if __name__ == "__main__":
    sys.exit(main())
