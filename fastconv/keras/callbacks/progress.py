"""The line of an epoch under way."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Column

from fastconv.keras.callbacks.base import Callback, Logs

_BAR_WIDTH = 10
#: Numbers that are drawn have to be fetched from a GPU.
_SECONDS_BETWEEN_LOOKS = 0.1


class ProgressBar(Callback):
    """One line per epoch: steps, images per second, loss and metrics; drawn live on a terminal.

    Parameters
    ----------
    console : rich.console.Console, optional
        Where to draw; standard output by default.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(file=sys.stdout)
        self._progress: Progress | None = None

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=_BAR_WIDTH),
            MofNCompleteColumn(),
            # on a narrow terminal the numbers take a second line and lose nothing
            TextColumn("{task.fields[numbers]}", table_column=Column(ratio=1, no_wrap=False)),
            console=self._console,
            expand=True,
        )
        epochs = self.params["epochs"]
        title = f"Epoch {epoch + 1:{len(str(epochs))}}/{epochs}"
        self._task = self._progress.add_task(title, total=self.params["steps"], numbers="")
        self._speed = 0.0
        self._started = self._next_look = time.perf_counter()
        self._progress.start()

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float]) -> None:
        images = min((batch + 1) * self.params["batch_size"], self.params["samples"])
        now = time.perf_counter()
        self._speed = images / (now - self._started)
        if now >= self._next_look:
            self._next_look = now + _SECONDS_BETWEEN_LOOKS
            self._show(batch + 1, logs)

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        self._show(None, logs)
        self.on_train_end()

    def on_train_end(self, logs: Logs | None = None) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def _show(self, steps: int | None, logs: Mapping[str, float]) -> None:
        if self._progress is not None:
            numbers = [f"{self._speed:,.0f} images/s", *(f"{name} {value:.4f}" for name, value in logs.items())]
            self._progress.update(self._task, completed=steps, numbers="  ".join(numbers))
