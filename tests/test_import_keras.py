"""Weights from Keras's files: written by hand here, in Keras's own format, and by Keras where it is installed."""

from __future__ import annotations

import importlib.util
import os
import zipfile

import numpy as np
import pytest

from fastconv.keras import Input, Model, Sequential, layers

h5py = pytest.importorskip("h5py", reason="h5py is not installed")


def network(library_layers=layers, input_of=Input, model_of=Model):
    """Two layers of one class, weights in several variables, layers without any, a name of somebody's own."""
    inputs = input_of((8, 8, 3))
    x = library_layers.SeparableConv2D(4, 3, activation="relu")(inputs)
    x = library_layers.BatchNormalization()(x)
    y = library_layers.Conv2D(4, 3, padding="same")(x)
    x = library_layers.Add()([x, y])
    x = library_layers.Conv2D(5, 3, use_bias=False)(x)
    x = library_layers.Dropout(0.5)(library_layers.Flatten()(x))
    return model_of(inputs, library_layers.Dense(10, activation="softmax", name="head")(x))


GROUPS = {
    "separable_conv2d": [(3, 3, 3, 1), (1, 1, 3, 4), (4,)],
    "batch_normalization": [(4,)] * 4,
    "conv2d": [(3, 3, 4, 4), (4,)],
    "conv2d_1": [(3, 3, 4, 5)],
    "dense": [(80, 10), (10,)],
}


def write(path, groups=GROUPS, dtype=np.float32):
    """A file as Keras writes it; returns the arrays in the order of the layers."""
    rng = np.random.default_rng(0)
    arrays = []
    with h5py.File(path, "w") as file:
        for empty in ("flatten", "dropout", "add", "input_layer"):
            file.create_group(f"layers/{empty}/vars")
        file.create_dataset("layers/dropout/seed_generator/vars/0", data=np.zeros(2, np.uint32))
        file.create_dataset("optimizer/vars/0", data=7)
        for name, shapes in groups.items():
            for number, shape in enumerate(shapes):
                arrays.append(rng.uniform(0.5, 1.5, shape).astype(dtype))
                file.create_dataset(f"layers/{name}/vars/{number}", data=arrays[-1])
    return arrays


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64])
def test_the_arrays_of_a_file_become_the_weights(tmp_path, dtype):
    model = network()
    arrays = write(tmp_path / "a.weights.h5", dtype=dtype)
    model.load_weights(tmp_path / "a.weights.h5")
    for weight, array in zip(model.get_weights(), arrays, strict=True):
        np.testing.assert_array_equal(weight, array.astype(np.float32))


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_an_archive_holds_the_same_file(tmp_path, compression):
    arrays = write(tmp_path / "a.weights.h5")
    with zipfile.ZipFile(tmp_path / "a.keras", "w", compression) as archive:
        archive.writestr("config.json", "not read")
        archive.write(tmp_path / "a.weights.h5", "model.weights.h5")
    model = network()
    model.load_weights(str(tmp_path / "a.keras"))
    for weight, array in zip(model.get_weights(), arrays, strict=True):
        np.testing.assert_array_equal(weight, array)


def test_more_than_ten_layers_of_a_class_keep_their_order(tmp_path):
    groups = {f"dense_{number}" if number else "dense": [(2, 2), (2,)] for number in range(12)}
    arrays = write(tmp_path / "a.weights.h5", groups)
    model = Sequential([layers.Dense(2, input_shape=(2,)), *(layers.Dense(2) for _ in range(11))])
    model.load_weights(tmp_path / "a.weights.h5")
    for weight, array in zip(model.get_weights(), arrays, strict=True):
        np.testing.assert_array_equal(weight, array)


def not_hdf5(path):
    path.write_bytes(b"nothing of the kind")


def truncated(path):
    write(path)
    path.write_bytes(path.read_bytes()[:2000])


def of_other_shapes(path):
    write(path, {**GROUPS, "conv2d_1": [(3, 3, 5, 4)]})


def with_a_layer_more(path):
    write(path, {**GROUPS, "dense_1": [(1, 1)]})


def with_a_layer_less(path):
    write(path, {name: shapes for name, shapes in GROUPS.items() if name != "dense"})


def of_integers(path):
    write(path, dtype=np.int32)


def of_an_older_keras(path):
    with h5py.File(path, "w") as file:
        file.create_dataset("conv2d/conv2d/kernel:0", data=np.ones(3))


def replaced(path, make):
    """A file whose bias of the dense layer is what *make* puts in its place."""
    write(path)
    with h5py.File(path, "a") as file:
        variables = file["layers/dense/vars"]
        del variables["1"]
        make(variables, path)


def with_a_link_to_another_file(path):
    write(path.with_name("secret.h5"))
    link = h5py.ExternalLink(str(path.with_name("secret.h5")), "layers/dense/vars/1")
    replaced(path, lambda variables, _: variables.__setitem__("1", link))


def with_numbers_of_another_file(path):
    secret = path.with_name("secret")
    secret.write_bytes(bytes(40))
    replaced(
        path, lambda variables, _: variables.create_dataset("1", (10,), np.float32, external=[(str(secret), 0, 40)])
    )


def with_a_view_of_another_file(path):
    layout = h5py.VirtualLayout(shape=(10,), dtype=np.float32)
    layout[:] = h5py.VirtualSource(str(path.with_name("secret.h5")), "layers/dense/vars/1", shape=(10,))
    replaced(path, lambda variables, _: variables.create_virtual_dataset("1", layout))


def with_a_group_for_an_array(path):
    replaced(path, lambda variables, _: variables.create_group("1"))


def with_a_name_left_out(path):
    replaced(path, lambda variables, _: variables.create_dataset("2", data=np.ones(10, np.float32)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (not_hdf5, r"must be a whole file written by Keras. Received: .*a\.weights\.h5"),
        (truncated, r"must be a whole file written by Keras. Received: .*a\.weights\.h5"),
        (
            of_other_shapes,
            r"layer conv2d_1 has weights of shapes \[\(3, 3, 4, 5\)\]. Received: .*a\.weights\.h5, conv2d_1",
        ),
        (with_a_layer_more, r"weights of the model's layers only, .* Received: .*a\.weights\.h5, with dense_1"),
        (with_a_layer_less, r"layer head has weights of shapes .* Received: .*a\.weights\.h5, dense of shapes \[\]"),
        (of_integers, r"/layers/separable_conv2d/vars/0 must hold floating-point numbers. Received: .*int32"),
        (of_an_older_keras, r"written by Keras 3. Received: .*a\.weights\.h5, without a Group /layers in it"),
        (with_a_link_to_another_file, r"without a Dataset /layers/dense/vars/1 in it"),
        (with_numbers_of_another_file, r"/layers/dense/vars/1 must be a data set with its numbers in the file"),
        (with_a_view_of_another_file, r"/layers/dense/vars/1 must be a data set with its numbers in the file"),
        (with_a_group_for_an_array, r"without a Dataset /layers/dense/vars/1 in it"),
        (with_a_name_left_out, r"without a Dataset /layers/dense/vars/1 in it"),
    ],
)
def test_a_file_that_does_not_fit_changes_nothing(tmp_path, make, message):
    path = tmp_path / "a.weights.h5"
    make(path)
    model = network()
    before = model.get_weights()
    with pytest.raises(ValueError, match=message):
        model.load_weights(path)
    for weight, old in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, old)


@pytest.mark.parametrize("members", [None, {}, {"model.weights.h5": b"nothing"}], ids=["no zip", "empty", "no hdf5"])
def test_an_archive_that_is_none_is_refused(tmp_path, members):
    path = tmp_path / "a.keras"
    if members is None:
        path.write_bytes(b"nothing of the kind")
    else:
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in members.items():
                archive.writestr(name, content)
    with pytest.raises(ValueError, match=r"must be a whole file written by Keras. Received: .*a\.keras"):
        network().load_weights(path)


def test_no_file_and_no_weights():
    with pytest.raises(FileNotFoundError):
        network().load_weights("nowhere.weights.h5")
    with pytest.raises(ValueError, match="the model has no weights yet"):
        Sequential([layers.Dense(2)]).load_weights("nowhere.weights.h5")


@pytest.mark.filterwarnings("ignore")  # Keras's own code warns, and this is not a test of it
@pytest.mark.skipif(importlib.util.find_spec("keras") is None, reason="keras is not installed")
@pytest.mark.parametrize("suffix", [".weights.h5", ".keras"])
def test_files_of_keras_itself(tmp_path, suffix):
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import keras

    for make in (
        lambda k: network(k.layers, k.Input, k.Model),
        lambda k: k.Sequential(
            [k.layers.Input((6, 2)), *(k.layers.Conv1D(2, 1) for _ in range(11)), k.layers.Dense(2)]
        ),
    ):
        other = make(keras)
        rng = np.random.default_rng(0)
        other.set_weights([rng.uniform(0.5, 1.5, weight.shape) for weight in other.get_weights()])
        other.compile("adam", "mse")
        path = tmp_path / f"a{suffix}"
        (other.save if suffix == ".keras" else other.save_weights)(path)
        from fastconv import keras as ours

        model = make(ours)
        model.load_weights(path)
        for weight, wanted in zip(model.get_weights(), other.get_weights(), strict=True):
            np.testing.assert_array_equal(weight, wanted)
