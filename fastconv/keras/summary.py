"""The table that `Sequential.summary` prints: Keras's columns and words."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fastconv.keras.layers.base import Layer, Shape
from fastconv.keras.layers.variable import Variable

if TYPE_CHECKING:
    from fastconv.keras.network import Network

# Keras's widest table.
_WIDTH = 88


def print_summary(model: Network, print_fn: Callable[[str], object] | None = None) -> None:
    """Print the table of *model*, or hand its text to *print_fn*."""
    file = io.StringIO() if print_fn else sys.stdout
    console = Console(file=file, highlight=False, width=_WIDTH if print_fn else None)
    console.width = min(console.width, _WIDTH)
    console.print(f'[bold]Model: "{escape(model.name)}"[/bold]')
    console.print(_layer_table(model.layers))
    for title, variables in (
        ("Total params", model.weights),
        ("Trainable params", model.trainable_weights),
        ("Non-trainable params", model.non_trainable_weights),
    ):
        console.print(f"[bold] {title}:[/bold] {_amount(variables)}")
    if print_fn and isinstance(file, io.StringIO):
        print_fn(file.getvalue())


def _layer_table(layers: Sequence[Layer]) -> Table:
    table = Table(box=box.HEAVY_HEAD, show_lines=True, expand=True)
    table.add_column("Layer (type)", ratio=45, overflow="fold")
    table.add_column("Output Shape", ratio=35, overflow="fold")
    table.add_column("Param #", ratio=20, justify="right")
    for layer in layers:
        name = f"{escape(layer.name)} ([cyan]{type(layer).__name__}[/cyan])"
        shape = _shape(layer.output_shape) if layer.built else "?"
        count = f"[green]{layer.count_params():,}[/green]" if layer.built else "0 (unbuilt)"
        table.add_row(name, shape, count)
    return table


def _shape(shape: Shape) -> str:
    extents = ", ".join("None" if extent is None else f"[green]{extent}[/green]" for extent in shape)
    return f"({extents})"


def _amount(variables: Sequence[Variable]) -> str:
    numbers = sum(variable.value.size for variable in variables)
    size = float(sum(variable.value.nbytes for variable in variables))
    unit = "B"
    for larger in ("KB", "MB", "GB"):
        if size < 1024:
            break
        size, unit = size / 1024, larger
    return f"{numbers:,} ({size:.2f} {unit})"
