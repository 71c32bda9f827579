"""What `fit` calls while it runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Logs = dict[str, float]


class Callback:
    """Base of objects that `fit` calls; override what you need, and set ``self.model.stop_training`` to end training.

    `params` holds ``epochs``, ``steps``, ``batch_size`` and ``samples`` of the run.  `on_batch_begin` and
    `on_batch_end` are Keras's older names of `on_train_batch_begin` and `on_train_batch_end`, and are called by them.

    Examples
    --------
    >>> class Print(Callback):
    ...     def on_epoch_end(self, epoch, logs=None):
    ...         print(epoch, sorted(logs))
    >>> import numpy as np
    >>> from fastconv.keras import Sequential, layers
    >>> model = Sequential([layers.Dense(1)])
    >>> model.compile("sgd", "mse", metrics=["mae"])
    >>> _ = model.fit(np.zeros((4, 3)), np.zeros(4), epochs=2, verbose=0, callbacks=[Print()])
    0 ['loss', 'mae']
    1 ['loss', 'mae']
    """

    #: The `Model` that is trained.
    model: Any
    params: dict[str, int]

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Called once before the first epoch."""

    def on_train_end(self, logs: Logs | None = None) -> None:
        """Called once after the last epoch, also where training ended early or by an exception."""

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """Called before the first batch of an epoch; epochs count from 0."""

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Called after validation with the epoch's averages."""

    def on_train_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        """Called before each update."""
        self.on_batch_begin(batch, logs)

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float]) -> None:
        """Called after each update with the averages of the epoch so far.

        Of a model on a GPU they are fetched when somebody looks, which waits for the batch: better not every time.
        """
        self.on_batch_end(batch, logs)

    def on_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        """As `on_train_batch_begin`."""

    def on_batch_end(self, batch: int, logs: Mapping[str, float]) -> None:
        """As `on_train_batch_end`."""

    def on_test_begin(self, logs: Logs | None = None) -> None:
        """Called before the validation that follows an epoch."""

    def on_test_end(self, logs: Logs) -> None:
        """Called after it with its averages, whose names begin with ``val_``."""
