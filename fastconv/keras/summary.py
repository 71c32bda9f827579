"""The table that `Model.summary` prints, with Keras's columns, widths and words, and the one that notebooks show."""

from __future__ import annotations

import io
import shutil
import sys
from collections.abc import Callable, Sequence
from html import escape as escape_html
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fastconv.keras.layers.base import Layer, Shape
from fastconv.keras.layers.variable import Variable

if TYPE_CHECKING:
    from fastconv.keras.network import Network

# Keras's widths: of the whole table, the terminal permitting, and where in it each column ends.
_CHAIN_WIDTH, _CHAIN_ENDS = 88, (0.45, 0.80, 1.0)
_GRAPH_WIDTH, _GRAPH_ENDS = 108, (0.3, 0.56, 0.74, 1.0)
_TRAINABLE_WIDTH, _TRAINABLE_START = 12, 0.90
_TERMINAL_MARGIN = 4
# Keras's colours.
_NUMBER, _NONE, _CLASS = "color(34)", "color(45)", "color(33)"


def print_summary(
    model: Network,
    line_length: int | None = None,
    print_fn: Callable[[str], object] | None = None,
    show_trainable: bool = False,
    batch_size: int | None = None,
) -> None:
    """Print the table of *model*, or hand its text to *print_fn*."""
    chain = not model.built or model.is_chain
    ends: tuple[float, ...]
    width, ends = (_CHAIN_WIDTH, _CHAIN_ENDS) if chain else (_GRAPH_WIDTH, _GRAPH_ENDS)
    if show_trainable:
        width, ends = width + _TRAINABLE_WIDTH, (*(_TRAINABLE_START * end for end in ends), 1.0)
    width = line_length or min(width, shutil.get_terminal_size().columns - _TERMINAL_MARGIN)

    headings = ["Layer (type)", "Output Shape", "Param #"]
    headings += [] if chain else ["Connected to"]
    headings += ["Trainable"] if show_trainable else []
    table = Table(box=box.HEAVY_HEAD, show_lines=True, width=width)
    stops = [int(end * width) for end in (0, *ends)]
    for heading, start, stop in zip(headings, stops[:-1], stops[1:], strict=True):
        align = {"Param #": "right", "Trainable": "center"}.get(heading, "left")
        table.add_column(heading, justify=align, width=stop - start)  # type: ignore[arg-type]
    for layer in model.layers:
        cells = [f"{escape(layer.name)} ([{_CLASS}]{type(layer).__name__}[/])", *_shape_and_count(layer)]
        cells += [] if chain else [_sources(layer, model)]
        cells += [_trainable(layer)] if show_trainable else []
        table.add_row(*cells)

    file = io.StringIO() if print_fn else sys.stdout
    console = Console(file=file, highlight=False)
    console.width = max(console.width, width)
    console.print(f'[bold]Model: "{escape(model.name)}"[/bold]')
    console.print(table)
    for title, count, size in _totals(model):
        console.print(f"[bold] {title} params: [/bold][{_NUMBER}]{count:,}[/] ({_size(size)})")
    if batch_size is not None:
        memory = _memory(model, batch_size) if model.built else "?"
        console.print(f"[bold] Memory of a training step: [/bold]{memory}")
    if print_fn and isinstance(file, io.StringIO):
        print_fn(file.getvalue())


def html_summary(model: Network) -> str:
    """The layers, their output shapes and numbers of parameters as an HTML table without a style of its own."""

    def row(*cells: str, tag: str = "td") -> str:
        return f"<tr>{''.join(f'<{tag}>{escape_html(cell)}</{tag}>' for cell in cells)}</tr>"

    rows = []
    for layer in model.layers:
        shape, count = (str(layer.output_shape), f"{layer.count_params():,}") if layer.built else ("?", "0 (unbuilt)")
        rows.append(row(f"{layer.name} ({type(layer).__name__})", shape, count))
    totals = "; ".join(f"{title} params: {count:,} ({_size(size)})" for title, count, size in _totals(model))
    return "\n".join(
        [
            "<table>",
            f"<caption>Model: {escape_html(model.name)}</caption>",
            f"<thead>{row('Layer (type)', 'Output Shape', 'Param #', tag='th')}</thead>",
            "<tbody>",
            *rows,
            "</tbody>",
            f'<tfoot><tr><td colspan="3">{totals}</td></tr></tfoot>',
            "</table>",
        ]
    )


def _shape_and_count(layer: Layer) -> tuple[str, str]:
    if not layer.built:
        return "?", f"[{_NUMBER}]0[/] (unbuilt)"
    return _shape(layer.output_shape), f"[{_NUMBER}]{layer.count_params():,}[/]"


def _shape(shape: Shape) -> str:
    return f"({', '.join(f'[{_NONE if extent is None else _NUMBER}]{extent}[/]' for extent in shape)})"


def _sources(layer: Layer, model: Network) -> str:
    """Where a layer's input comes from, as Keras writes it: place and output of a layer, both 0 here."""
    return escape(", ".join(f"{source.name}[0][0]" for source in model.sources_of(layer))) or "-"


def _trainable(layer: Layer) -> str:
    if not layer.weights:
        return "[bold]-[/bold]"
    return f"[bold][{_NUMBER}]Y[/][/]" if layer.trainable else "[bold][color(9)]N[/][/]"


def _totals(model: Network) -> list[tuple[str, int, int]]:
    """Title, numbers and bytes of each line below the table."""

    def amount(variables: Sequence[Variable]) -> tuple[int, int]:
        return sum(variable.value.size for variable in variables), sum(variable.value.nbytes for variable in variables)

    learning, fixed, kept = amount(model.trainable_weights), amount(model.non_trainable_weights), model.optimizer_size
    total = sum(part[0] for part in (learning, fixed, kept)), sum(part[1] for part in (learning, fixed, kept))
    lines = [("Total", *total), ("Trainable", *learning), ("Non-trainable", *fixed)]
    return [*lines, ("Optimizer", *kept)] if kept[0] else lines


def _size(number_of_bytes: float) -> str:
    unit = "B"
    for larger in ("KB", "MB", "GB"):
        if number_of_bytes < 1024:
            break
        number_of_bytes, unit = number_of_bytes / 1024, larger
    return f"{number_of_bytes:.2f} {unit}"


def _memory(model: Network, batch_size: int) -> str:
    parts = model.training_memory(batch_size)
    words = ", ".join(f"{name} {_size(part)}" for name, part in parts.items())
    return f"{_size(sum(parts.values()))} at batch size {batch_size} ({words})"
