"""From pixels to a judgement: ``python examples/whole_process.py [EPOCHS [TARGET [OUT.png]]]``.

Images are scaled in two ways, by the range and by mean and deviation of the training images.  A network is trained on
either; that with the better validation accuracy is judged on the test images by its confusion matrix, and by precision
and recall of each class.  The exit status is 1 where the test accuracy stays below TARGET.
"""

import sys

import numpy as np
from rich import print

from fastconv import keras, plots
from fastconv.keras import callbacks, datasets, layers, metrics

epochs = int(sys.argv[1]) if len(sys.argv) > 1 else 12
target = float(sys.argv[2]) if len(sys.argv) > 2 else 0.86
out = sys.argv[3] if len(sys.argv) > 3 else "confusion.png"


def min_max(images, of):
    """Smallest and largest pixel of the images *of* as 0 and 1."""
    return (images - of.min()) / np.ptp(of)


def standard(images, of):
    """Mean 0 and deviation 1, where the images are those *of*."""
    return (images - of.mean()) / of.std()


def network():
    model = keras.Sequential(
        [
            layers.Conv2D(32, (3, 3), padding="same", activation="relu", input_shape=(28, 28, 1)),
            layers.MaxPooling2D((2, 2)),
            layers.Conv2D(64, (3, 3), padding="same", activation="relu"),
            layers.MaxPooling2D((2, 2)),
            layers.Dropout(0.25),
            layers.Flatten(),
            layers.Dense(128, activation="relu"),
            layers.Dropout(0.5),
            layers.Dense(len(class_names), activation="softmax"),
        ]
    )
    model.compile(optimizer="adam", loss="categorical_crossentropy", metrics=["accuracy"])
    return model


keras.utils.set_random_seed(0)
(x_train, y_train), (x_test, y_test) = datasets.load_sample()
class_names = datasets.fashion_mnist.class_names
x_train, x_test = x_train[..., np.newaxis].astype("float32"), x_test[..., np.newaxis].astype("float32")
y_train, y_test = (keras.utils.to_categorical(y, len(class_names)) for y in (y_train, y_test))

best = 0.0
for scale in (min_max, standard):
    candidate = network()
    history = candidate.fit(
        scale(x_train, of=x_train),
        y_train,
        batch_size=64,
        epochs=epochs,
        validation_split=0.1,
        callbacks=[callbacks.EarlyStopping(monitor="val_accuracy", patience=3, restore_best_weights=True)],
    )
    reached = max(history.history["val_accuracy"])
    print(f"{scale.__name__}: validation accuracy {reached:.4f}")
    if reached > best:
        best, model, x = reached, candidate, scale(x_test, of=x_train)

loss, accuracy = model.evaluate(x, y_test, verbose=0)
probabilities = model.predict(x)
true, predicted = y_test.argmax(axis=1), probabilities.argmax(axis=1)
matrix = np.zeros((len(class_names), len(class_names)), int)
np.add.at(matrix, (true, predicted), 1)  # row: what it is, column: what it was taken for
plots.confusion_matrix(matrix, class_names).savefig(out)

print(f"{'':12} precision  recall")
for number, name in enumerate(class_names):
    scores = []
    for metric in (metrics.Precision(top_k=1, class_id=number), metrics.Recall(top_k=1, class_id=number)):
        metric.update_state(y_test, probabilities)
        scores.append(metric.result())
    print(f"{name:12} {scores[0]:9.3f} {scores[1]:7.3f}")

print(f"test accuracy {accuracy:.4f}, wanted at least {target}; the confusion matrix is in {out}")
sys.exit(accuracy < target)
