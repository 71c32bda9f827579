"""Learn from a folder of image files, and from few of them: ``python examples/image_folder.py [EPOCHS [TARGET]]``.

The package's shirts and dresses are written to files, one folder a class.  What keeps 200 of them from being learnt by
heart is here together: every image is varied anew in each epoch, large weights cost, whole maps are dropped by chance,
and batches are normalised.  The exit status is 1 where the accuracy on other files stays below TARGET.
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image
from rich import print

from fastconv import keras
from fastconv.keras import layers, regularizers
from fastconv.keras.preprocessing.image import ImageDataGenerator, img_to_array, load_img

epochs = int(sys.argv[1]) if len(sys.argv) > 1 else 15
target = float(sys.argv[2]) if len(sys.argv) > 2 else 0.85
CLASSES = {"dress": 3, "shirt": 6}
FILES_OF_A_CLASS = 200


def write_images(folder):
    """Folders of image files, as people keep them."""
    (images, labels), _ = keras.datasets.load_sample()
    for name, label in CLASSES.items():
        (folder / name).mkdir()
        for number, image in enumerate(images[labels == label][:FILES_OF_A_CLASS]):
            Image.fromarray(image).save(folder / name / f"{number}.png")


def network():
    """A small network with everything that keeps it from learning by heart."""
    decay = regularizers.l2(1e-4)
    return keras.Sequential(
        [
            layers.Conv2D(16, (3, 3), kernel_regularizer=decay, use_bias=False, input_shape=(32, 32, 1)),
            layers.BatchNormalization(momentum=0.9),
            layers.Activation("relu"),
            layers.MaxPooling2D((2, 2)),
            layers.SpatialDropout2D(0.1),
            layers.Conv2D(32, (3, 3), kernel_regularizer=decay, use_bias=False),
            layers.BatchNormalization(momentum=0.9),
            layers.Activation("relu"),
            layers.MaxPooling2D((2, 2)),
            layers.Flatten(),
            layers.Dropout(0.5),
            layers.Dense(1, activation="sigmoid"),
        ]
    )


with TemporaryDirectory() as directory:
    folder = Path(directory)
    write_images(folder)
    keras.utils.set_random_seed(0)
    varied = ImageDataGenerator(
        rescale=1.0 / 255,
        rotation_range=10,
        width_shift_range=0.1,
        height_shift_range=0.1,
        shear_range=5,
        zoom_range=0.1,
        horizontal_flip=True,
        fill_mode="constant",
        validation_split=0.5,
    )
    plain = ImageDataGenerator(rescale=1.0 / 255, validation_split=0.5)
    files = {"target_size": (32, 32), "color_mode": "grayscale", "batch_size": 20, "class_mode": "binary"}
    train = varied.flow_from_directory(folder, **files, subset="training", seed=0)
    validation = plain.flow_from_directory(folder, **files, subset="validation", shuffle=False)
    print(f"{train.samples} files to learn from, {validation.samples} others; classes {train.class_indices}")

    model = network()
    model.compile(optimizer="rmsprop", loss="binary_crossentropy", metrics=["accuracy"])
    model.summary()
    history = model.fit(
        train, steps_per_epoch=train.samples // train.batch_size, epochs=epochs, validation_data=validation
    )

    one = img_to_array(load_img(validation.filepaths[0], color_mode="grayscale", target_size=(32, 32))) / 255
    name = list(train.class_indices)[int(model.predict(one[np.newaxis])[0, 0] > 0.5)]
    print(f"{validation.filenames[0]} is taken for: {name}")

accuracy = history.history["val_accuracy"][-1] if epochs else 0
print(f"accuracy on files not seen {accuracy:.4f}, wanted at least {target}")
sys.exit(accuracy < target)
