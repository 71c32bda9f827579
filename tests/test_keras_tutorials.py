"""Code as tutorials and books have it: with fastconv in its import lines it runs, and ends as it does with Keras."""

from __future__ import annotations

import importlib.util
import inspect
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fastconv.keras import callbacks, datasets

pytest.importorskip("scipy", reason="SciPy is not installed")
image_of_pillow = pytest.importorskip("PIL.Image", reason="Pillow is not installed")

TUTORIALS = {path.stem: path.read_text(encoding="utf-8") for path in Path(__file__).with_name("tutorials").glob("*.py")}
# What `plt.show()` says where there is a screen.
pytestmark = pytest.mark.filterwarnings("ignore:FigureCanvasAgg is non-interactive")

#: All that a reader changes.
IMPORTS = (
    (r"^import tensorflow as tf$", "import fastconv as tf"),
    (r"^import keras$", "from fastconv import keras"),
    (r"^from tensorflow import ", "from fastconv import "),
    (r"^from (tensorflow\.)?keras\b", "from fastconv.keras"),
)
SHAPES = {"mnist": (28, 28), "fashion_mnist": (28, 28), "cifar10": (32, 32, 3)}
IMAGES = 200
RNG = np.random.default_rng(0)


def pixels(*shape):
    return RNG.integers(0, 256, shape, np.uint8)


def random_data(shape):
    """Images and labels as `load_data` gives them; those of CIFAR have an axis more."""
    columns = (1,) if len(shape) == 3 else ()
    return tuple(
        (pixels(count, *shape), RNG.integers(0, 10, (count, *columns), np.uint8)) for count in (IMAGES, IMAGES // 4)
    )


DATA = {name: random_data(shape) for name, shape in SHAPES.items()}


@pytest.fixture
def names(no_window, monkeypatch, tmp_path):
    """What a tutorial finds: a photograph, folders of images, no window; and data sets that need no network."""
    for name, data in DATA.items():
        known = getattr(datasets, name)
        monkeypatch.setattr(datasets, name, replace(known, files={}, read=lambda _, data=data: data))
    for part in ("train", "validation"):
        for folder in ("cats", "dogs"):
            (tmp_path / part / folder).mkdir(parents=True)
            for number in range(8):
                image_of_pillow.fromarray(pixels(30, 35, 3)).save(tmp_path / part / folder / f"{number}.png")
    image_of_pillow.fromarray(pixels(60, 50, 3)).save(tmp_path / "photo.png")
    found = {"train_dir": "train", "validation_dir": "validation", "photo": "photo.png"}
    return {name: str(tmp_path / path) for name, path in found.items()}


def run(name, text, names):
    """All names there are after the text of a tutorial has run."""
    namespace = {"__name__": name, **names}
    exec(compile(text, f"{name}.py", "exec"), namespace)
    return {key: value for key, value in namespace.items() if not key.startswith("__")}


def translated(text):
    for pattern, replacement in IMPORTS:
        text = re.sub(pattern, replacement, text, flags=re.MULTILINE)
    return text


def essence(value):
    """What must be alike in both libraries: shapes, numbers of parameters, names of averages, and plain values."""
    if inspect.ismodule(value) or inspect.isfunction(value) or inspect.isclass(value):
        return None
    if hasattr(value, "summary"):
        return "model", value.output_shape, value.count_params()
    if hasattr(value, "history"):
        return "history", sorted(value.history), [len(numbers) for numbers in value.history.values()]
    if isinstance(value, list | tuple) and value and hasattr(value[0], "shape"):
        return [tuple(part.shape) for part in value]
    if isinstance(value, list) and all(isinstance(part, float) for part in value):
        return len(value)  # scores
    if hasattr(value, "shape"):
        return tuple(value.shape)
    return value if isinstance(value, str | int | bool | list | dict) else None


@pytest.mark.parametrize("name", TUTORIALS)
def test_a_tutorial_runs_with_other_imports(name, names):
    text = translated(TUTORIALS[name])
    assert "tensorflow" not in text
    for value in run(name, text, names).values():
        if isinstance(value, callbacks.History):
            assert all(np.all(np.isfinite(numbers)) for numbers in value.history.values())


@pytest.mark.skipif(importlib.util.find_spec("tensorflow") is None, reason="TensorFlow is not installed")
@pytest.mark.parametrize("name", TUTORIALS)
def test_a_tutorial_ends_as_it_does_with_keras(name, names, monkeypatch):
    import tensorflow

    tensorflow.keras.backend.clear_session()  # layers are numbered from the first again
    for data_set, data in DATA.items():
        monkeypatch.setattr(getattr(tensorflow.keras.datasets, data_set), "load_data", lambda data=data: data)
    ours, theirs = (run(name, text, names) for text in (translated(TUTORIALS[name]), TUTORIALS[name]))
    assert ours.keys() == theirs.keys()
    for key, value in ours.items():
        assert essence(value) == essence(theirs[key]), key


def test_only_import_lines_are_changed():
    for text in TUTORIALS.values():
        lines = zip(text.splitlines(), translated(text).splitlines(), strict=True)
        assert all(before.startswith(("import ", "from ")) for before, after in lines if before != after)
