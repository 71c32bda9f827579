"""The averages of every epoch: in memory, and in a file."""

from __future__ import annotations

import csv
import os
from pathlib import Path

from fastconv.keras.callbacks.base import Callback, Logs


class History(Callback):
    """The averages of every epoch: ``history.history["loss"]`` is a list with one number per epoch.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.keras import Sequential, layers
    >>> model = Sequential([layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> history = model.fit(np.zeros((4, 3)), np.zeros(4), epochs=2, verbose=0)
    >>> history.epoch, history.history
    ([0, 1], {'loss': [0.0, 0.0]})
    """

    def __init__(self) -> None:
        self.epoch: list[int] = []
        self.history: dict[str, list[float]] = {}

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        self.epoch.append(epoch)
        for name, value in logs.items():
            self.history.setdefault(name, []).append(value)


class CSVLogger(Callback):
    """Write the averages of each epoch to a CSV file, a line an epoch; the file is complete after every epoch.

    Parameters
    ----------
    filename : path
        The file; columns are ``epoch`` and the names of the averages in alphabetical order.
    separator : str
        Between the columns.
    append : bool
        Whether to go on with a file that is there instead of replacing it.

    Raises
    ------
    OSError
        In training, if the file cannot be written.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.keras import Sequential, layers
    >>> model = Sequential([layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> _ = model.fit(np.zeros((4, 3)), np.zeros(4), epochs=2, verbose=0, callbacks=[CSVLogger("log.csv")])
    >>> Path("log.csv").read_text().splitlines()
    ['epoch,loss', '0,0.0', '1,0.0']
    """

    def __init__(self, filename: str | os.PathLike[str], separator: str = ",", append: bool = False) -> None:
        self.filename = Path(filename)
        self.separator = separator
        self.append = append

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self._started = self.append and self.filename.exists() and self.filename.stat().st_size > 0

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        names = sorted(logs)
        with self.filename.open("a" if self._started else "w", newline="") as file:
            writer = csv.writer(file, delimiter=self.separator)
            if not self._started:
                writer.writerow(["epoch", *names])
            writer.writerow([epoch, *(logs[name] for name in names)])
        self._started = True
