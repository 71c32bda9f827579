"""What comes before training, under Keras's names."""

from fastconv.keras.preprocessing import image

__all__ = ["image"]
