"""How near the direct algorithm comes to the peak of the multiply-add units of one core.

Each layer is timed in turns with loops of as many multiply-adds (`fastconv.bench.roofline`), so that a changing clock
frequency hits both alike: on registers alone, and with the factors in the L1 cache, which is the inner loop of the
direct algorithm without all that surrounds it.  Layers are those with dense kernels of `LEAST_CHANNELS` channels or
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
from fastconv.bench.roofline import multiply_adds, products
from fastconv.bench.timing import paired, sampler

NETWORKS = ("resnet_50_v1_5", "vgg_19", "mobilenet")
PASSES = ("forward", "grad_x", "grad_weight")
LEAST_CHANNELS = 64
ALGORITHM = "direct"
PAIRS = 15
#: What a layer is timed beside.
CEILINGS = {"registers": multiply_adds, "L1 cache": products}


def dense_layers(networks: Sequence[str]) -> list[Layer]:
    """Layers of *networks* with many channels, those of one shape once."""
    found = {}
    for layer in layers(networks):
        g = layer.geometry
        if layer.operation == "conv2d" and g.G == 1 and min(g.IC, g.OC) >= LEAST_CHANNELS:
            found.setdefault(g, layer)
    return list(found.values())


def peak_rows(layer: Layer, pairs: int) -> Iterator[dict[str, Any]]:
    """A row for each pass of a layer and each ceiling: seconds of a call, and of as many multiply-adds there."""
    problem = layer.problem()
    for direction in PASSES:
        flops, _ = layer.work(direction)
        ways = ours.preparations(layer.operation, direction, ALGORITHM)
        contender = ways.get(ours.KEPT, ways[ours.ARRAY])(problem, 1)
        contender.compute(0)  # compiles
        for ceiling, loop in CEILINGS.items():
            run, flops_of_step = loop()
            run(1)
            call, peak = sampler(rotating(contender, problem)), sampler(partial(run, max(flops // flops_of_step, 1)))
            times = paired(call, peak, pairs)
            yield {
                "network": layer.network,
                "layer": layer.name,
                "problem": str(layer.geometry),
                "flops": flops,
                "pass": direction,
                "ceiling": ceiling,
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
    header = "layer", "pass", "GFLOP/s", "beside multiply-adds from", "share"
    table = Table(*header, title="Direct algorithm, one core", box=SIMPLE_HEAD)
    for row in rows:
        speed = row["flops"] / median(row["ours"]) / record.GIGA
        name, share = f"{row['network']} {row['layer']}", f"{record.ratio(row):.0%}"
        table.add_row(name, row["pass"], f"{speed:.0f}", row["ceiling"], share)
    console.print(table)
    if arguments.json:
        record.write(arguments.json, "peak", machine.describe(), rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
