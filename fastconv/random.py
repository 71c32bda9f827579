"""The function of ``tf.random`` that training code calls: code written for TensorFlow seeds itself with it."""

from fastconv.keras.utils import set_random_seed as set_seed

__all__ = ["set_seed"]
