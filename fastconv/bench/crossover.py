"""Rows of `fastconv compare`, what they add up to, and from which batch size on a GPU pays."""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, log
from statistics import median
from typing import Any, NamedTuple

from fastconv.bench.record import Row

#: What a network's layers are called together.
WHOLE = "all layers"


class Point(NamedTuple):
    """Seconds at one batch size: of the CPU, of the GPU's kernels, of a call of them from Python, and of the copies."""

    batch: int
    cpu: float
    kernel: float
    call: float
    transfer: float

    @property
    def gpu(self) -> float:
        """What the GPU takes for data that is on the host: the call, x on its way there and the result back."""
        return self.call + self.transfer


def on_gpu(at: Point, predicted: bool) -> tuple[float, ...]:
    """The seconds that tables show of a GPU: predicted, a call takes no more than its kernels."""
    return (at.kernel, at.transfer) if predicted else (at.kernel, at.call, at.transfer)


class Curve(NamedTuple):
    """One layer, or a whole network, over the batch sizes."""

    network: str
    layer: str
    points: tuple[Point, ...]

    def break_even(self, with_transfer: bool = True) -> int | None:
        """The smallest batch size from which on the GPU is not slower at any, or None."""
        found = None
        for point in reversed(self.points):
            if (point.gpu if with_transfer else point.kernel) > point.cpu:
                break
            found = point.batch
        return found

    def crossing(self) -> tuple[float, float] | None:
        """Batch size and seconds where the lines of CPU and GPU cross last, straight between logarithms, or None."""
        pairs = list(zip(self.points, self.points[1:], strict=False))
        for before, after in reversed(pairs):
            lead, trail = log(before.cpu / before.gpu), log(after.cpu / after.gpu)
            if lead < 0 <= trail:
                share = lead / (lead - trail)
                batch = log(before.batch) + share * log(after.batch / before.batch)
                return exp(batch), exp(log(before.cpu) + share * log(after.cpu / before.cpu))
        return None


def point(row: Row) -> Point:
    """A row as a point of its curve."""
    return _sum([{**row, "count": 1}])


def curves(rows: Sequence[Row]) -> list[Curve]:
    """A curve for each layer, and one for each network of several: the sum of its layers, as often as it has them.

    Between the layers of a network nothing is copied: x of the first goes to the GPU, the result of the last comes
    back.
    """
    found: list[Curve] = []
    for network in dict.fromkeys(row["network"] for row in rows):
        mine = [row for row in rows if row["network"] == network]
        names = list(dict.fromkeys(row["layer"] for row in mine))
        if len(names) > 1:
            batches = dict.fromkeys(row["batch"] for row in mine)
            groups = [[row for row in mine if row["batch"] == batch] for batch in sorted(batches)]
            found.append(Curve(network, WHOLE, tuple(_sum(group) for group in groups if len(group) == len(names))))
        for name in names:
            layer = sorted((row for row in mine if row["layer"] == name), key=lambda row: row["batch"])
            found.append(Curve(network, name, tuple(point(row) for row in layer)))
    return [curve for curve in found if curve.points]


def _sum(rows: Sequence[Row]) -> Point:
    cpu, kernel, call = (sum(row["count"] * median(row[who]) for row in rows) for who in ("cpu", "kernel", "call"))
    return Point(rows[0]["batch"], cpu, kernel, call, median(rows[0]["upload"]) + median(rows[-1]["download"]))


def wrong(row: Row) -> bool:
    """Whether the GPU's values were compared and differ by more than rounding explains."""
    agreement: dict[str, Any] | None = row["agreement"]
    return agreement is not None and not agreement["error"] <= row["tolerance"]


def agreement(row: Row) -> str:
    """In words: the same bits, how large the difference is, or that nothing was compared."""
    found: dict[str, Any] | None = row["agreement"]
    if found is None:
        return "not compared"
    where = " (emulated)" if found["emulated"] else ""
    if found["same_bits"]:
        return f"same bits{where}"
    return f"{'VALUES DIFFER, ' if wrong(row) else ''}error {found['error']:.0e}{where}"


def batch_of(curve: Curve, with_transfer: bool) -> str:
    """The break-even batch size in words."""
    found = curve.break_even(with_transfer)
    if found is None:
        return f"above {curve.points[-1].batch}"
    return f"{found}" if found > curve.points[0].batch or found == 1 else f"{found} or less"
