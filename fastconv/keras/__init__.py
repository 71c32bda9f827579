"""The layer API under Keras's module names: code written for ``tensorflow.keras`` needs another import line, no more."""

from fastconv.keras import callbacks as callbacks
from fastconv.keras import datasets as datasets
from fastconv.keras import initializers as initializers
from fastconv.keras import layers as layers
from fastconv.keras import losses as losses
from fastconv.keras import metrics as metrics
from fastconv.keras import models as models
from fastconv.keras import optimizers as optimizers
from fastconv.keras import utils as utils
from fastconv.keras.layers import Input as Input
from fastconv.keras.models import Sequential as Sequential
