"""Random variations of one image: ``python examples/augmentation.py [OUT.png [PHOTO]]``.

Every image of a training set can be turned, moved, sheared, zoomed and mirrored anew in each epoch.  The seed decides
all of it: the exit status is 1 where the same seed gives other images.
"""

import sys

import numpy as np
from matplotlib.cbook import get_sample_data
from rich import print

from fastconv import plots
from fastconv.keras.preprocessing.image import ImageDataGenerator, img_to_array, load_img

VARIATIONS = 11
out = sys.argv[1] if len(sys.argv) > 1 else "augmentation.png"
photo = sys.argv[2] if len(sys.argv) > 2 else get_sample_data("grace_hopper.jpg", asfileobj=False)

generator = ImageDataGenerator(
    rotation_range=20,
    width_shift_range=0.1,
    height_shift_range=0.1,
    shear_range=10,
    zoom_range=0.2,
    horizontal_flip=True,
    fill_mode="nearest",
    rescale=1 / 255,
)
image = img_to_array(load_img(photo, target_size=(150, 128), interpolation="bilinear"))


def variations(seed):
    """The same image, varied differently in each epoch."""
    batches = generator.flow(image[np.newaxis], batch_size=1, seed=seed)
    return np.concatenate([next(batches) for _ in range(VARIATIONS)])


varied = variations(seed=0)
if not np.array_equal(varied, variations(seed=0)):
    sys.exit("the same seed gave other images")
titles = ["the image", *(f"epoch {epoch + 1}" for epoch in range(VARIATIONS))]
plots.image_grid([image / 255, *varied.clip(0, 1)], titles, columns=4).savefig(out)
print(f"{VARIATIONS} variations are in {out}")
