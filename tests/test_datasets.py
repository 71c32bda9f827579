"""Data sets: file formats, downloads with mirrors and checksums, the shipped sample, image folders."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import io
import tarfile

import numpy as np
import pytest

from fastconv.keras import datasets


def idx(array):
    """An array of bytes as a gzip-compressed IDX file."""
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes()
    return gzip.compress(header + array.tobytes())


def tiny_mnist(rng):
    shapes = [(6, 5, 4), (6,), (3, 5, 4), (3,)]
    arrays = [rng.integers(0, 256, shape, dtype=np.uint8) for shape in shapes]
    return arrays, dict(zip(datasets.mnist.files, map(idx, arrays), strict=True))


@pytest.fixture
def only_cache(tmp_path, monkeypatch):
    """An empty cache, and no data sets of the system."""
    monkeypatch.setattr(datasets, "SYSTEM_DIRECTORY", tmp_path / "system")
    monkeypatch.setenv("FASTCONV_DATA", str(tmp_path / "cache"))
    return tmp_path / "cache"


def served(tmp_path, dataset, files, mirrors=()):
    """*dataset* with the given files on a mirror that is a folder."""
    folder = tmp_path / "mirror"
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    checksums = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    return dataclasses.replace(dataset, files=checksums, mirrors=(*mirrors, folder.as_uri() + "/"))


def test_mnist_files_are_downloaded_checked_and_cached(tmp_path, only_cache):
    arrays, files = tiny_mnist(np.random.default_rng(0))
    dataset = served(tmp_path, datasets.mnist, files)
    (x_train, y_train), (x_test, y_test) = dataset.load_data()
    for got, expected in zip((x_train, y_train, x_test, y_test), arrays, strict=True):
        assert got.dtype == np.uint8
        np.testing.assert_array_equal(got, expected)
    assert sorted(path.name for path in (only_cache / "mnist").iterdir()) == sorted(files)
    without_network = dataclasses.replace(dataset, mirrors=())
    np.testing.assert_array_equal(without_network.load_data()[0][0], arrays[0])


def test_a_mirror_that_fails_is_followed_by_the_next(tmp_path, only_cache):
    arrays, files = tiny_mnist(np.random.default_rng(1))
    missing = (tmp_path / "nowhere").as_uri() + "/"
    dataset = served(tmp_path, datasets.mnist, files, mirrors=(missing,))
    np.testing.assert_array_equal(dataset.load_data()[1][0], arrays[2])


def test_a_corrupted_file_is_refused_and_not_kept(tmp_path, only_cache):
    _, files = tiny_mnist(np.random.default_rng(2))
    dataset = served(tmp_path, datasets.mnist, files)
    damaged = tmp_path / "mirror" / "train-labels-idx1-ubyte.gz"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")
    with pytest.raises(OSError, match=r"train-labels-idx1-ubyte.gz of mnist could not be downloaded(.|\n)*SHA-256"):
        dataset.load_data()
    assert [path.name for path in (only_cache / "mnist").iterdir()] == ["train-images-idx3-ubyte.gz"]


def test_without_network_the_error_says_what_to_do(only_cache):
    offline = dataclasses.replace(datasets.cifar10, mirrors=("http://127.0.0.1:9/",))
    with pytest.raises(OSError, match=r"put it at .*cifar-10-binary\.tar\.gz, or train on the shipped sample"):
        offline.load_data()


def test_system_files_are_used_before_the_cache(tmp_path, only_cache):
    arrays, files = tiny_mnist(np.random.default_rng(3))
    (tmp_path / "system" / "mnist").mkdir(parents=True)
    for name, content in files.items():
        (tmp_path / "system" / "mnist" / name).write_bytes(content)
    np.testing.assert_array_equal(dataclasses.replace(datasets.mnist, mirrors=()).load_data()[0][1], arrays[1])


def test_cifar10_has_keras_shapes(tmp_path, only_cache):
    rng = np.random.default_rng(4)
    records = rng.integers(0, 256, (12, 3073), dtype=np.uint8)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        names = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
        for name, part in zip(names, np.split(records, 6), strict=True):
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}.bin")
            member.size = part.nbytes
            archive.addfile(member, io.BytesIO(part.tobytes()))
    dataset = served(tmp_path, datasets.cifar10, {"cifar-10-binary.tar.gz": buffer.getvalue()})
    (x_train, y_train), (x_test, y_test) = dataset.load_data()
    assert x_train.shape == (10, 32, 32, 3)
    assert y_train.shape == (10, 1)
    assert (x_test.shape, y_test.shape) == ((2, 32, 32, 3), (2, 1))
    # the red plane comes first in the file, then green, then blue
    assert x_train[3, 5, 7].tolist() == [records[3, 1 + 1024 * c + 32 * 5 + 7] for c in range(3)]


def test_idx_files_of_another_type_or_length_are_refused(tmp_path):
    path = tmp_path / "x.gz"
    path.write_bytes(gzip.compress(b"\x00\x00\x0d\x01" + bytes(8)))
    with pytest.raises(ValueError, match=r"IDX file of unsigned bytes. Received: first bytes b'\\x00\\x00\\r"):
        datasets.read_idx(path)
    path.write_bytes(gzip.compress(gzip.decompress(idx(np.zeros((2, 3), np.uint8)))[:-1]))
    with pytest.raises(ValueError, match=r"must hold \(2, 3\) bytes, as its header says. Received: 5 bytes"):
        datasets.read_idx(path)


def test_the_sample_is_balanced_and_small():
    (x_train, y_train), (x_test, y_test) = datasets.load_sample()
    assert (x_train.shape, x_test.shape) == ((8500, 28, 28), (1500, 28, 28))
    assert (x_train.dtype, y_train.dtype) == (np.uint8, np.uint8)
    assert np.bincount(y_train).tolist() == [850] * 10
    assert np.bincount(y_test).tolist() == [150] * 10
    assert datasets.SAMPLE.stat().st_size <= 4_000_000
    assert (datasets.SAMPLE.parent / "LICENSE-fashion-mnist").is_file()


def test_the_sample_shares_no_image_between_training_and_test():
    (x_train, _), (x_test, _) = datasets.load_sample()
    assert not {image.tobytes() for image in x_train} & {image.tobytes() for image in x_test}


def test_the_sample_is_drawn_from_the_full_sets_own_split():
    if not (datasets.SYSTEM_DIRECTORY / "fashion-mnist").is_dir():
        pytest.skip("the full Fashion-MNIST is not installed on this machine")
    for (x, y), (x_sample, y_sample) in zip(datasets.fashion_mnist.load_data(), datasets.load_sample(), strict=True):
        full = {(image.tobytes(), label) for image, label in zip(x, y, strict=True)}
        assert {(image.tobytes(), label) for image, label in zip(x_sample, y_sample, strict=True)} <= full


def write_folder(root, classes, count, mode="L", size=(12, 9)):
    image_module = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    for label, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for number in range(count):
            image_module.new(mode, size, 20 * label + number).save(root / name / f"{number:02}.png")


def test_image_folder_is_split_80_to_20_by_file_name(tmp_path):
    write_folder(tmp_path, ["dog", "cat"], 10)
    ((x_train, y_train), (x_test, y_test)), names = datasets.load_directory(tmp_path, image_size=(6, 8))
    assert names == ("cat", "dog")
    assert (x_train.shape, x_test.shape) == ((16, 6, 8, 1), (4, 6, 8, 1))
    assert y_test.tolist() == [0, 0, 1, 1]
    # files 04 and 09 of each class; cat was written second
    assert x_test[:, 0, 0, 0].tolist() == [24, 29, 4, 9]
    assert y_train.tolist() == [0] * 8 + [1] * 8


def test_one_coloured_image_makes_the_folder_coloured(tmp_path):
    write_folder(tmp_path, ["a", "b"], 5)
    image_module = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    image_module.new("RGB", (4, 4), (255, 0, 0)).save(tmp_path / "b" / "05.png")
    ((x_train, _), _), _ = datasets.load_directory(tmp_path, image_size=(4, 4))
    assert x_train.shape == (9, 4, 4, 3)
    assert x_train[-1, 0, 0].tolist() == [255, 0, 0]


def test_image_folder_errors_say_what_is_missing(tmp_path):
    with pytest.raises(ValueError, match=r"one folder per class, at least two\. Received: directory="):
        datasets.load_directory(tmp_path / "nowhere")
    write_folder(tmp_path, ["a", "b"], 4)
    with pytest.raises(ValueError, match=r"at least 5 images\. Received: 4 in .*a"):
        datasets.load_directory(tmp_path)
