"""The tutorial on convolutional networks, on real images: ``python examples/train_cnn.py [EPOCHS [TARGET [FOLDER]]]``.

The tutorial's own lines for TensorFlow, with other import lines and the Fashion-MNIST images that the package ships in
the place of a download.  Twenty-five images with their classes and the course of the accuracy are written to FOLDER.
The exit status is 1 where the test accuracy stays below TARGET.
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
from rich import print

import fastconv as tf
from fastconv.keras import datasets, layers, models

epochs = int(sys.argv[1]) if len(sys.argv) > 1 else 10
target = float(sys.argv[2]) if len(sys.argv) > 2 else 0.86
folder = Path(sys.argv[3] if len(sys.argv) > 3 else ".")

tf.random.set_seed(0)
(train_images, train_labels), (test_images, test_labels) = datasets.load_sample()
class_names = datasets.fashion_mnist.class_names
train_images, test_images = train_images / 255.0, test_images / 255.0

plt.figure(figsize=(10, 10))
for i in range(25):
    plt.subplot(5, 5, i + 1)
    plt.xticks([])
    plt.yticks([])
    plt.grid(False)
    plt.imshow(train_images[i], cmap="gray")
    plt.xlabel(class_names[train_labels[i]])
plt.savefig(folder / "images.png")
plt.close()

model = models.Sequential()
model.add(layers.Conv2D(32, (3, 3), activation="relu", input_shape=(28, 28, 1)))
model.add(layers.MaxPooling2D((2, 2)))
model.add(layers.Conv2D(64, (3, 3), activation="relu"))
model.add(layers.MaxPooling2D((2, 2)))
model.add(layers.Conv2D(64, (3, 3), activation="relu"))
model.summary()  # 320 + 18,496 + 36,928 = 55,744 parameters

model.add(layers.Flatten())
model.add(layers.Dense(64, activation="relu"))
model.add(layers.Dense(10))
model.summary()

model.compile(
    optimizer="adam", loss=tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"]
)
history = model.fit(train_images, train_labels, epochs=epochs, validation_data=(test_images, test_labels))

plt.plot(history.history["accuracy"], label="accuracy")
plt.plot(history.history["val_accuracy"], label="val_accuracy")
plt.xlabel("Epoch")
plt.ylabel("Accuracy")
plt.ylim([0.5, 1])
plt.legend(loc="lower right")
plt.savefig(folder / "accuracy.png")
plt.close()

test_loss, test_accuracy = model.evaluate(test_images, test_labels, verbose=0)
print(f"test accuracy {test_accuracy:.4f}, wanted at least {target}")
sys.exit(test_accuracy < target)
