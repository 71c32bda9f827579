"""Objects that `fit` calls while it runs, under Keras's names."""

from fastconv.keras.callbacks.base import Callback, Logs
from fastconv.keras.callbacks.checkpoint import ModelCheckpoint
from fastconv.keras.callbacks.learning_rate import LearningRateScheduler, ReduceLROnPlateau
from fastconv.keras.callbacks.progress import ProgressBar
from fastconv.keras.callbacks.record import CSVLogger, History
from fastconv.keras.callbacks.stopping import EarlyStopping, TerminateOnNaN

__all__ = [
    "CSVLogger",
    "Callback",
    "EarlyStopping",
    "History",
    "LearningRateScheduler",
    "Logs",
    "ModelCheckpoint",
    "ProgressBar",
    "ReduceLROnPlateau",
    "TerminateOnNaN",
]
