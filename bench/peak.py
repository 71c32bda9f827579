"""How near the direct algorithm comes to the peak of the multiply-add units of one core.

Each layer is timed in turns with a loop of as many multiply-adds on registers alone (`fastconv.bench.roofline`), so
that a changing clock frequency hits both alike.  Layers are those with dense kernels of `LEAST_CHANNELS` channels or
more in and out; the weight of the forward pass is packed before.

    python bench/peak.py --json bench/results/peak.json
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import track
from rich.table import Table

from fastconv.bench import machine, record
from fastconv.bench.libraries import ours, rotating
from fastconv.bench.problems import Layer, layers
from fastconv.bench.roofline import multiply_adds
from fastconv.bench.timing import calls_in_sample, paired, sampler

NETWORKS = ("resnet_50_v1_5", "vgg_19", "mobilenet")
PASSES = ("forward", "grad_x", "grad_weight")
LEAST_CHANNELS = 64
ALGORITHM = "direct"
PAIRS = 15


def dense_layers(networks: Sequence[str]) -> list[Layer]:
    """Layers of *networks* with many channels, those of one shape once."""
    found = {}
    for layer in layers(networks):
        g = layer.geometry
        if layer.operation == "conv2d" and g.G == 1 and min(g.IC, g.OC) >= LEAST_CHANNELS:
            found.setdefault(g, layer)
    return list(found.values())


def peak_rows(layer: Layer, pairs: int) -> Iterator[dict[str, Any]]:
    """One row for each pass of a layer: seconds of a call, and of as many multiply-adds on registers."""
    run, flops_of_step = multiply_adds()
    problem = layer.problem()
    for direction in PASSES:
        flops, _ = layer.work(direction)
        ways = ours.preparations(layer.operation, direction, ALGORITHM)
        contender = ways.get(ours.KEPT, ways[ours.ARRAY])(problem, 1)
        contender.compute(0)  # compiles
        run(1)
        call, peak = sampler(rotating(contender, problem)), sampler(partial(run, flops // flops_of_step))
        times = paired(call, peak, (calls_in_sample(call(1)), calls_in_sample(peak(1))), pairs)
        yield {
            "network": layer.network,
            "layer": layer.name,
            "problem": str(layer.geometry),
            "flops": flops,
            "pass": direction,
            "ours": [record.seconds(time) for time in times.ours],
            "theirs": [record.seconds(time) for time in times.theirs],
        }


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print all rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--net", nargs="+", default=NETWORKS, metavar="NAME", help=f"default: {' '.join(NETWORKS)}")
    parser.add_argument("--pairs", type=int, default=PAIRS, metavar="N", help="default: %(default)s")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all times")
    arguments = parser.parse_args(argv)
    console = Console()
    if line := machine.warning():
        console.print(f"[yellow]{line}[/]")
    rows = []
    with machine.threads(1):
        for layer in track(dense_layers(arguments.net), "Layers", console=console, transient=True):
            rows += peak_rows(layer, arguments.pairs)
    table = Table("layer", "pass", "GFLOP/s", "of the peak", title="Direct algorithm, one core", box=SIMPLE_HEAD)
    for row in rows:
        speed = row["flops"] / median(row["ours"]) / record.GIGA
        table.add_row(f"{row['network']} {row['layer']}", row["pass"], f"{speed:.0f}", f"{record.ratio(row):.0%}")
    console.print(table)
    if arguments.json:
        record.write(arguments.json, "peak", machine.describe(), rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
