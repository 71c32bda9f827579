"""Changing the learning rate from epoch to epoch."""

from __future__ import annotations

import inspect
from collections.abc import Callable

from fastconv.keras.callbacks.base import Callback, Logs
from fastconv.keras.callbacks.monitor import Monitor


class LearningRateScheduler(Callback):
    """Set the learning rate before each epoch.

    Parameters
    ----------
    schedule : callable
        ``schedule(epoch, learning_rate)`` or ``schedule(epoch)`` returns the rate for an epoch; epochs count from 0.
    verbose : int
        1 prints a line an epoch.

    Raises
    ------
    TypeError
        In training, if the optimizer follows a schedule of its own.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.keras import Sequential, layers
    >>> model = Sequential([layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> slower = LearningRateScheduler(lambda epoch: 0.5**epoch)
    >>> model.fit(np.zeros((4, 3)), np.zeros(4), epochs=3, verbose=0, callbacks=[slower]).history["learning_rate"]
    [1.0, 0.5, 0.25]
    """

    def __init__(self, schedule: Callable[..., float], verbose: int = 0) -> None:
        self.schedule = schedule
        self.verbose = verbose
        self._takes_rate = len(inspect.signature(schedule).parameters) > 1

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        optimizer = self.model.optimizer
        assert optimizer is not None
        arguments = (epoch, optimizer.learning_rate) if self._takes_rate else (epoch,)
        optimizer.learning_rate = float(self.schedule(*arguments))
        if self.verbose:
            print(f"Epoch {epoch + 1}: learning rate {optimizer.learning_rate:g}")  # noqa: T201 - asked for

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        assert self.model.optimizer is not None
        logs["learning_rate"] = self.model.optimizer.learning_rate


class ReduceLROnPlateau(Callback):
    """Multiply the learning rate by *factor* when an average has not become better for some epochs.

    Parameters
    ----------
    monitor : str
        Name of the average.
    factor : float
        Below 1.
    patience : int
        Epochs without a better value after which the rate falls.
    verbose : int
        1 prints a line when it does.
    mode : "auto", "min" or "max"
        Whether smaller or larger is better; "auto" tells by the name.
    min_delta : float
        A smaller change is none.
    cooldown : int
        Epochs after a fall that do not count.
    min_lr : float
        The rate falls no further.

    Raises
    ------
    ValueError
        If *factor* is not below 1, *mode* is none of these, or there is no average of this name.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv.keras import Sequential, layers
    >>> model = Sequential([layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> falling = ReduceLROnPlateau("loss", factor=0.5, patience=1)
    >>> history = model.fit(np.zeros((4, 3)), np.zeros(4), epochs=3, verbose=0, callbacks=[falling])
    >>> history.history["learning_rate"]
    [0.01, 0.01, 0.005]
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        factor: float = 0.1,
        patience: int = 10,
        verbose: int = 0,
        mode: str = "auto",
        min_delta: float = 1e-4,
        cooldown: int = 0,
        min_lr: float = 0.0,
    ) -> None:
        if not factor < 1:
            raise ValueError(f"factor must be below 1. Received: factor={factor!r}")
        self.monitor = Monitor(monitor, mode, min_delta)
        self.factor = factor
        self.patience = patience
        self.verbose = verbose
        self.cooldown = cooldown
        self.min_lr = min_lr

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self.wait = self._cooling = 0
        self.best = self.monitor.worst

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        optimizer = self.model.optimizer
        assert optimizer is not None
        value = self.monitor.value(logs)
        logs["learning_rate"] = optimizer.learning_rate
        if self._cooling:
            self._cooling -= 1
            self.wait = 0
        if self.monitor.better(value, self.best):
            self.best = value
            self.wait = 0
        elif not self._cooling:
            self.wait += 1
            if self.wait >= self.patience and optimizer.learning_rate > self.min_lr:
                optimizer.learning_rate = max(optimizer.learning_rate * self.factor, self.min_lr)
                self._cooling, self.wait = self.cooldown, 0
                if self.verbose:
                    print(f"Epoch {epoch + 1}: learning rate {optimizer.learning_rate:g}")  # noqa: T201 - asked for
