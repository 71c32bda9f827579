"""Ending training early."""

from __future__ import annotations

import math
from collections.abc import Mapping

from fastconv.arrays import FloatArray
from fastconv.keras.callbacks.base import Callback, Logs
from fastconv.keras.callbacks.monitor import Monitor


class EarlyStopping(Callback):
    """End training when an average has not become better for some epochs.

    Parameters
    ----------
    monitor : str
        Name of the average.
    min_delta : float
        A smaller change is none.
    patience : int
        Epochs without a better value after which training ends.
    verbose : int
        1 prints a line when it ends training.
    mode : "auto", "min" or "max"
        Whether smaller or larger is better; "auto" tells by the name.
    baseline : float, optional
        A value that has to be reached: what is worse counts as none.
    restore_best_weights : bool
        Whether to put the weights of the best epoch back at the end.
    start_from_epoch : int
        Epochs before this one are not looked at.

    Raises
    ------
    ValueError
        If *mode* is none of these, or, after the first epoch, there is no average of this name.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.keras import Sequential, layers
    >>> model = Sequential([layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> x, y = np.zeros((4, 3)), np.zeros(4)
    >>> history = model.fit(x, y, epochs=9, verbose=0, callbacks=[EarlyStopping("loss", patience=2)])
    >>> history.epoch
    [0, 1, 2]
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        min_delta: float = 0,
        patience: int = 0,
        verbose: int = 0,
        mode: str = "auto",
        baseline: float | None = None,
        restore_best_weights: bool = False,
        start_from_epoch: int = 0,
    ) -> None:
        self.monitor = Monitor(monitor, mode, min_delta)
        self.patience = patience
        self.verbose = verbose
        self.baseline = baseline
        self.restore_best_weights = restore_best_weights
        self.start_from_epoch = start_from_epoch

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self.wait = 0
        self.stopped_epoch = 0
        self.best = self.monitor.worst
        self.best_epoch = 0
        self.best_weights: list[FloatArray] | None = None

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        value = self.monitor.value(logs)
        if epoch < self.start_from_epoch:
            return
        if self.restore_best_weights and self.best_weights is None:
            self.best_weights = self.model.get_weights()
        self.wait += 1
        if self.monitor.better(value, self.best):
            self.best, self.best_epoch = value, epoch
            if self.restore_best_weights:
                self.best_weights = self.model.get_weights()
            if self.baseline is None or self.monitor.better(value, self.baseline):
                self.wait = 0
        elif self.wait >= self.patience and epoch > 0:
            self.stopped_epoch = epoch
            self.model.stop_training = True

    def on_train_end(self, logs: Logs | None = None) -> None:
        if self.verbose and self.stopped_epoch:
            print(f"Epoch {self.stopped_epoch + 1}: early stopping")  # noqa: T201 - asked for
        if self.best_weights is not None:
            self.model.set_weights(self.best_weights)


class TerminateOnNaN(Callback):
    """End training after the batch that made the loss NaN or infinite; on a GPU each batch is waited for.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.keras import Sequential, layers
    >>> model = Sequential([layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> history = model.fit(np.full((4, 3), np.nan), np.zeros(4), epochs=9, verbose=0, callbacks=[TerminateOnNaN()])
    >>> history.epoch
    [0]
    """

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float]) -> None:
        if not math.isfinite(logs["loss"]):
            self.model.stop_training = True
