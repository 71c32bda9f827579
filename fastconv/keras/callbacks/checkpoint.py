"""Saving the model while it trains."""

from __future__ import annotations

import os

from fastconv.keras.callbacks.base import Callback, Logs
from fastconv.keras.callbacks.monitor import Monitor
from fastconv.keras.saving import path_of


class ModelCheckpoint(Callback):
    """Save the model after each epoch, or after those that are better than all before.

    Each file is a whole model with the state of the optimizer, so that training can go on from it
    (`fastconv.keras.models.load_model`), unless weights alone are asked for; it appears complete or not at all.

    Parameters
    ----------
    filepath : path
        Ends in ``.safetensors``.  ``{epoch}`` and names of averages are filled in, as in
        ``"model-{epoch:02d}-{val_loss:.3f}.safetensors"``; epochs count from 1 here, as in Keras.
    monitor : str
        Name of the average that decides what is better.
    verbose : int
        1 prints a line for every file.
    save_best_only : bool
        Whether to save only when the average has become better.
    save_weights_only : bool
        Whether the file holds the weights alone, for `load_weights`.
    mode : "auto", "min" or "max"
        Whether smaller or larger is better; "auto" tells by the name.
    initial_value_threshold : float, optional
        Only what is better than this is saved.

    Raises
    ------
    ValueError
        If *filepath* does not end so, *mode* is none of these, or there is no average of this name.

    Examples
    --------
    >>> ModelCheckpoint("best-{epoch}.safetensors", monitor="val_accuracy", save_best_only=True).best
    -inf
    """

    def __init__(
        self,
        filepath: str | os.PathLike[str],
        monitor: str = "val_loss",
        verbose: int = 0,
        save_best_only: bool = False,
        save_weights_only: bool = False,
        mode: str = "auto",
        initial_value_threshold: float | None = None,
    ) -> None:
        self.filepath = str(path_of(filepath))
        self.monitor = Monitor(monitor, mode)
        self.verbose = verbose
        self.save_best_only = save_best_only
        self.save_weights_only = save_weights_only
        self.best = self.monitor.worst if initial_value_threshold is None else initial_value_threshold

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        if self.save_best_only:
            value = self.monitor.value(logs)
            if not self.monitor.better(value, self.best):
                return
            self.best = value
        path = self.filepath.format(epoch=epoch + 1, **logs)
        save = self.model.save_weights if self.save_weights_only else self.model.save
        save(path)
        if self.verbose:
            print(f"Epoch {epoch + 1}: saved {path}")  # noqa: T201 - asked for
