"""Charts as SVG text: bars of ratios around 1, a roofline, and times over batch sizes.

Axes of ratios, speeds and times are logarithmic, so that twice as fast is as far from 1 as half as fast.  Colours are
classes of the page that holds the chart (`report`), so a chart follows its light or dark scheme.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from math import ceil, floor, log10
from typing import NamedTuple

from fastconv.bench.roofline import Roofline

WIDTH = 920
# Bars: pixels of a row, of a letter of the names at the left, and of the number at the end of the longest bar.
BAR_ROW, BAR_LETTER, BAR_NUMBER = 20, 6.6, 45
BAR_THICKNESS = 12
#: The axis of ratios reaches at least so far from 1 on both sides.
LEAST_REACH = 2
# Roofline: height, and the margins around the axes.
ROOF_HEIGHT, ROOF_LEFT, ROOF_RIGHT, ROOF_TOP, ROOF_BOTTOM = 430, 62, 20, 26, 46
POINT_RADIUS = 4
# Times over batch sizes: height; the axis of batch sizes reaches a little beyond its points.
TIMES_HEIGHT, TIMES_SPARE = 330, 1.25


class Bar(NamedTuple):
    """A ratio and what it belongs to; *detail* shows where the pointer rests."""

    name: str
    ratio: float
    detail: str


class Point(NamedTuple):
    """A speed at an arithmetic intensity; *kind* is the class that colours it."""

    intensity: float
    gflops: float
    kind: str
    detail: str


class Line(NamedTuple):
    """Seconds over batch sizes; *kind* is the class that colours it."""

    name: str
    kind: str
    points: Sequence[tuple[float, float]]


class Axis:
    """A logarithmic axis: numbers from *low* to *high* lie between the pixels *start* and *stop*."""

    def __init__(self, low: float, high: float, start: float, stop: float) -> None:
        self.low, self.high = low, high
        self._start, self._stop = start, stop

    def __call__(self, value: float) -> float:
        share = log10(value / self.low) / log10(self.high / self.low)
        return round(self._start + share * (self._stop - self._start), 1)

    def ticks(self) -> list[float]:
        """1, 2 and 5 times every power of ten on the axis."""
        powers = range(floor(log10(self.low)), ceil(log10(self.high)) + 1)
        values = [digit * 10.0**power for power in powers for digit in (1, 2, 5)]
        return [value for value in values if self.low <= value <= self.high]


def ratio_bars(bars: Sequence[Bar], ratios: Sequence[float]) -> str:
    """One bar for each ratio, the smallest on top; those below 1 grow to the left, in the colour of losses.

    *ratios* are those that the axis must hold, so that several charts can share one.
    """
    names = BAR_LETTER * max(len(bar.name) for bar in bars)
    low, high = min(1 / LEAST_REACH, *ratios), max(LEAST_REACH, *ratios)
    axis = Axis(low, high, names + BAR_NUMBER, WIDTH - BAR_NUMBER)
    height = BAR_ROW * (len(bars) + 1)
    parts = []
    for tick in axis.ticks():
        kind = "one" if tick == 1 else "grid"
        parts.append(_line(axis(tick), BAR_ROW, axis(tick), height, kind))
        parts.append(_text(axis(tick), BAR_ROW - 7, f"{tick:g}", "tick middle"))
    for number, bar in enumerate(sorted(bars, key=lambda bar: bar.ratio)):
        top = BAR_ROW * (number + 1) + (BAR_ROW - BAR_THICKNESS) / 2
        left, right = sorted((axis(1), axis(bar.ratio)))
        kind, end, anchor = ("won", right + 5, "start") if bar.ratio >= 1 else ("lost", left - 5, "end")
        baseline = top + BAR_THICKNESS - 2
        parts.append(
            f"<g><title>{escape(bar.detail)}</title>"
            + _text(names - 5, baseline, bar.name, "end")
            + f'<rect class="{kind}" x="{left}" y="{top}" width="{max(right - left, 1):.1f}" height="{BAR_THICKNESS}"/>'
            + _text(end, baseline, f"{bar.ratio:.2f}", f"{kind}-text {anchor}")
            + "</g>"
        )
    return _svg(height + 4, parts)


def roofline_plot(ceilings: Roofline, points: Sequence[Point]) -> str:
    """Speeds over arithmetic intensities, under the two ceilings of this machine."""
    intensities, speeds = [point.intensity for point in points], [point.gflops for point in points]
    bottom = ROOF_HEIGHT - ROOF_BOTTOM
    ridge = ceilings.gflops / ceilings.copy_gbs
    least, most = _whole_powers([*intensities, ridge])
    x = Axis(least, most, ROOF_LEFT, WIDTH - ROOF_RIGHT)
    y = Axis(_whole_powers(speeds)[0], 2 * max(ceilings.gflops, *speeds), bottom, ROOF_TOP)
    parts = []
    for tick in x.ticks():
        parts.append(_line(x(tick), ROOF_TOP, x(tick), bottom, "grid"))
        parts.append(_text(x(tick), bottom + 16, f"{tick:g}", "tick middle"))
    for tick in y.ticks():
        parts.append(_line(ROOF_LEFT, y(tick), WIDTH - ROOF_RIGHT, y(tick), "grid"))
        parts.append(_text(ROOF_LEFT - 6, y(tick) + 4, f"{tick:g}", "tick end"))
    start = max(x.low, y.low / ceilings.copy_gbs)
    corners = [(start, start * ceilings.copy_gbs), (ridge, ceilings.gflops), (x.high, ceilings.gflops)]
    path = " ".join(f"{x(intensity)},{y(speed)}" for intensity, speed in corners)
    parts.append(f'<polyline class="roof" points="{path}"/>')
    top = (WIDTH - ROOF_RIGHT - 4, y(ceilings.gflops) - 7)
    parts.append(_text(*top, f"{ceilings.gflops:.0f} GFLOP/s of multiply-adds", "roof-text end"))
    middle = (start * ridge) ** 0.5
    slope = (x(middle) - 8, y(middle * ceilings.copy_gbs) - 6)
    parts.append(_text(*slope, f"{ceilings.copy_gbs:.0f} GB/s copied", "roof-text end"))
    for point in points:
        parts.append(
            f'<circle class="{point.kind}" cx="{x(point.intensity)}" cy="{y(point.gflops)}" r="{POINT_RADIUS}">'
            f"<title>{escape(point.detail)}</title></circle>"
        )
    parts.append(
        _text(
            (ROOF_LEFT + WIDTH - ROOF_RIGHT) / 2,
            ROOF_HEIGHT - 8,
            "FLOP per byte of input, weight and output",
            "tick middle",
        )
    )
    parts.append(_text(4, ROOF_TOP - 10, "GFLOP/s", "tick start"))
    return _svg(ROOF_HEIGHT, parts)


def times_plot(lines: Sequence[Line], crossing: tuple[float, float] | None) -> str:
    """Times over batch sizes, and the place where the lines of CPU and GPU cross."""
    batches = sorted({batch for line in lines for batch, _ in line.points})
    times = [1e3 * seconds for line in lines for _, seconds in line.points]
    bottom = TIMES_HEIGHT - ROOF_BOTTOM
    x = Axis(batches[0] / TIMES_SPARE, batches[-1] * TIMES_SPARE, ROOF_LEFT, WIDTH - ROOF_RIGHT)
    y = Axis(*_whole_powers(times), bottom, ROOF_TOP)
    parts = []
    for batch in batches:
        parts.append(_line(x(batch), ROOF_TOP, x(batch), bottom, "grid"))
        parts.append(_text(x(batch), bottom + 16, f"{batch:g}", "tick middle"))
    for tick in y.ticks():
        if f"{tick:e}".startswith("1"):  # powers of ten: times reach over many of them
            parts.append(_line(ROOF_LEFT, y(tick), WIDTH - ROOF_RIGHT, y(tick), "grid"))
            parts.append(_text(ROOF_LEFT - 6, y(tick) + 4, f"{tick:g}", "tick end"))
    for line in lines:
        path = " ".join(f"{x(batch)},{y(1e3 * seconds)}" for batch, seconds in line.points)
        parts.append(f'<polyline class="line {line.kind}" points="{path}"/>')
        for batch, seconds in line.points:
            parts.append(
                f'<circle class="{line.kind}" cx="{x(batch)}" cy="{y(1e3 * seconds)}" r="{POINT_RADIUS}">'
                f"<title>{escape(line.name)}, batch {batch:g}: {1e3 * seconds:.4g} ms</title></circle>"
            )
    if crossing:
        batch, seconds = crossing
        place = x(batch), y(1e3 * seconds)
        parts.append(f'<circle class="crossing" cx="{place[0]}" cy="{place[1]}" r="{2 * POINT_RADIUS}"/>')
        parts.append(_text(place[0], place[1] - 3 * POINT_RADIUS, f"as fast at batch {batch:.3g}", "middle"))
    parts.append(_text((ROOF_LEFT + WIDTH - ROOF_RIGHT) / 2, TIMES_HEIGHT - 8, "images at a time", "tick middle"))
    parts.append(_text(4, ROOF_TOP - 10, "ms", "tick start"))
    return _svg(TIMES_HEIGHT, parts)


def _whole_powers(values: Sequence[float]) -> tuple[float, float]:
    """The powers of ten around all values."""
    return 10.0 ** floor(log10(min(values))), 10.0 ** (floor(log10(max(values))) + 1)


def _svg(height: float, parts: Sequence[str]) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {height:g}" role="img">{"".join(parts)}</svg>'


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}"/>'


def _text(x: float, y: float, text: str, kind: str) -> str:
    return f'<text class="{kind}" x="{x:g}" y="{y:g}">{escape(text)}</text>'
