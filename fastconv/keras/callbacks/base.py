"""What `fit` calls while it runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Logs = dict[str, float]


class Callback:
    """Base of objects that `fit` calls; override what you need, and set ``self.model.stop_training`` to end training.

    `params` holds ``epochs``, ``steps``, ``batch_size`` and ``samples`` of the run.
    """

    #: The `Model` that is trained.
    model: Any
    params: dict[str, int]

    def on_train_begin(self) -> None:
        """Called once before the first epoch."""

    def on_train_end(self) -> None:
        """Called once after the last epoch, also where training ended early or by an exception."""

    def on_epoch_begin(self, epoch: int) -> None:
        """Called before the first batch of an epoch; epochs count from 0."""

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Called after validation with the epoch's averages."""

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float]) -> None:
        """Called after each update with the averages of the epoch so far.

        Of a model on a GPU they are fetched when somebody looks, which waits for the batch: better not every time.
        """
