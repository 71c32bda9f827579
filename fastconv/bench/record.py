"""Results on disk, and what they add up to."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, log
from pathlib import Path
from statistics import median
from typing import Any

from fastconv.bench.timing import Pairs

NANOSECOND_DIGITS = 9
GIGA = 1e9

Row = dict[str, Any]


def write(path: Path, kind: str, machine: dict[str, Any], rows: Sequence[Row]) -> None:
    """Write one result file: the machine, then one line of JSON for each row."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(f"  {json.dumps(row)}" for row in rows)
    path.write_text(f'{{\n"kind": "{kind}",\n"machine": {json.dumps(machine, indent=1)},\n"rows": [\n{lines}\n]\n}}\n')


def read(path: Path) -> dict[str, Any]:
    """A result file as `write` wrote it."""
    data: dict[str, Any] = json.loads(path.read_text())
    return data


def seconds(value: float) -> float:
    """A time as it is written: to the nanosecond."""
    return round(value, NANOSECOND_DIGITS)


def ratio(row: Row) -> float:
    """Their time divided by ours, the median over the pairs of a row."""
    return Pairs(row["ours"], row["theirs"]).ratio


def pass_of(row: Row) -> str:
    """The pass in words, with "kept" where our weights were packed once for all calls."""
    # files of before had one way only
    return f"{row['pass']}, kept" if row.get("weights") == "kept" else str(row["pass"])


@dataclass(frozen=True)
class Summary:
    """The rows of one network, pass, batch size, algorithm of ours, library and number of threads."""

    network: str
    #: As `pass_of` says it.
    direction: str
    batch: int
    algorithm: str
    library: str
    threads: int
    #: Geometric mean of the ratios; a layer counts as often as the network has it.
    mean: float
    best: Row
    worst: Row
    layers: int
    lost: int
    #: Layers without a ratio, because the values differed.
    wrong: int
    #: The rows with a ratio.
    rows: tuple[Row, ...]

    @property
    def words(self) -> tuple[str, str, str]:
        """The best and the worst layer with their ratios, and how many layers were lost."""
        best, worst = (f"{ratio(row):.2f} ({row['layer']})" for row in (self.best, self.worst))
        wrong = f", {self.wrong} with wrong values" if self.wrong else ""
        return best, worst, f"{self.lost} of {self.layers}{wrong}"


def summarise(rows: Sequence[Row]) -> list[Summary]:
    """One `Summary` for each network, pass, batch size, algorithm, library and number of threads, as the rows come."""
    parts: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        key = (row["network"], pass_of(row), row["batch"], row["algorithm"], row["library"], row["threads"])
        parts.setdefault(key, []).append(row)
    found = []
    for key, part in parts.items():
        compared = [row for row in part if row["ours"]]
        if compared:
            weights = [row["count"] for row in compared]
            logarithms = [log(ratio(row)) for row in compared]
            mean = exp(sum(w * r for w, r in zip(weights, logarithms, strict=True)) / sum(weights))
            best, worst = max(compared, key=ratio), min(compared, key=ratio)
            lost = sum(ratio(row) < 1 for row in compared)
            wrong = len(part) - len(compared)
            found.append(Summary(*key, mean, best, worst, len(part), lost, wrong, tuple(compared)))
    return found


def roofline_share(rows: Sequence[Row], who: str, ceilings: Sequence[dict[str, Any]]) -> float | None:
    """Share of the roofline that *who* ("ours" or "theirs") reaches over all rows, or None where it was not measured.

    The time that a plain sum needs at least, at the measured peak of the multiply-add units or of copying memory,
    whichever is longer, over the time that it took.  Fewer multiplications, or data that stays in the caches, can
    take it above 1.
    """
    by_threads = {ceiling["threads"]: ceiling for ceiling in ceilings}
    least = taken = 0.0
    for row in rows:
        if row["threads"] not in by_threads:
            return None
        ceiling = by_threads[row["threads"]]
        least += row["count"] * max(row["flops"] / ceiling["gflops"], row["bytes"] / ceiling["copy_gbs"]) / GIGA
        taken += row["count"] * median(row[who])
    return least / taken
