"""The examples run, and fail when they miss what they promise."""

from __future__ import annotations

import runpy
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fastconv import cuda
from fastconv.bench import gpu
from fastconv.keras import datasets, layers

pytest.importorskip("matplotlib", reason="matplotlib is not installed")

EXAMPLES = Path(__file__).parent.parent / "examples"


def run(name, *arguments, monkeypatch):
    """Run an example as a program; the result is its exit status."""
    monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
    try:
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    except SystemExit as exit_:
        return exit_.code
    return 0


@pytest.fixture
def small_sample(monkeypatch):
    """The sample cut down to what a test has time for; it stands for the full data set as well."""
    train, test = datasets.load_sample()
    small = tuple(array[:1000] for array in train), tuple(array[:200] for array in test)
    monkeypatch.setattr(datasets, "load_sample", lambda: small)
    monkeypatch.setattr(datasets, "fashion_mnist", replace(datasets.fashion_mnist, files={}, read=lambda _: small))


def test_train_cnn_reaches_what_two_short_epochs_can(small_sample, no_window, monkeypatch, capsys, tmp_path):
    assert run("train_cnn.py", 2, 0.4, tmp_path, monkeypatch=monkeypatch) == 0
    text = capsys.readouterr().out
    for words in ("(None, 3, 3, 64)", "Total params: 55,744", "Total params: 93,322", "test accuracy 0."):
        assert words in text
    assert all((tmp_path / name).stat().st_size > 10_000 for name in ("images.png", "accuracy.png"))


def test_train_cnn_fails_below_its_target(small_sample, no_window, monkeypatch, tmp_path):
    assert run("train_cnn.py", 1, 1.01, tmp_path, monkeypatch=monkeypatch) == 1


def test_the_book_model_learns_from_a_little(small_sample, monkeypatch, capsys):
    assert run("book_model.py", 1, 0.15, monkeypatch=monkeypatch) == 0
    assert "Total params: 1,413,834" in capsys.readouterr().out


def test_the_whole_process_ends_in_a_matrix_and_a_table(small_sample, monkeypatch, capsys, tmp_path):
    assert run("whole_process.py", 2, 0.4, tmp_path / "confusion.png", monkeypatch=monkeypatch) == 0
    text = capsys.readouterr().out
    for words in ("min_max: validation accuracy 0.", "standard: validation accuracy 0.", "precision  recall"):
        assert words in text
    assert all(name in text for name in datasets.fashion_mnist.class_names)
    assert (tmp_path / "confusion.png").stat().st_size > 10_000


def test_a_folder_of_images_is_learnt_from(monkeypatch, capsys):
    pytest.importorskip("scipy", reason="SciPy is not installed")
    assert run("image_folder.py", 4, 0.55, monkeypatch=monkeypatch) == 0
    text = capsys.readouterr().out
    assert "200 files to learn from, 200 others" in text
    assert "png is taken for: " in text


def test_vgg16_learns_a_few_images_by_heart(monkeypatch, capsys):
    assert run("vgg16.py", 6, 0.15, monkeypatch=monkeypatch) == 0
    assert "Total params: 15,243,978" in capsys.readouterr().out
    assert run("vgg16.py", 0, 1, monkeypatch=monkeypatch) == 1


def test_pooling_writes_its_pictures_and_fails_when_its_check_does(monkeypatch, tmp_path):
    assert run("pooling.py", tmp_path / "pooling.png", monkeypatch=monkeypatch) == 0
    assert (tmp_path / "pooling.png").stat().st_size > 10_000
    monkeypatch.setattr(layers.MinPooling2D, "operation", staticmethod(layers.MaxPooling2D.operation))
    assert "MinPooling2D differs" in run("pooling.py", tmp_path / "other.png", monkeypatch=monkeypatch)
    assert not (tmp_path / "other.png").exists()


def test_residual_network_learns_from_a_little(small_sample, monkeypatch, capsys):
    assert run("residual_network.py", 3, 0.2, monkeypatch=monkeypatch) == 0
    assert "add_2 (Add)" in capsys.readouterr().out


def test_edge_filter_writes_its_pictures(monkeypatch, tmp_path):
    pytest.importorskip("PIL", reason="Pillow is not installed")
    assert run("edge_filter.py", tmp_path / "edges.png", monkeypatch=monkeypatch) == 0
    assert (tmp_path / "edges.png").stat().st_size > 10_000


def test_edge_filter_fails_when_its_check_does(monkeypatch, tmp_path):
    pytest.importorskip("PIL", reason="Pillow is not installed")
    from fastconv import nn

    right = nn.depthwise_conv2d
    monkeypatch.setattr(nn, "depthwise_conv2d", lambda *arguments, **options: right(*arguments, **options) + 1)
    assert "differ from NumPy's" in run("edge_filter.py", tmp_path / "edges.png", monkeypatch=monkeypatch)
    assert not (tmp_path / "edges.png").exists()


def test_augmentation_writes_its_pictures(monkeypatch, tmp_path):
    pytest.importorskip("scipy", reason="SciPy is not installed")
    assert run("augmentation.py", tmp_path / "augmentation.png", monkeypatch=monkeypatch) == 0
    assert (tmp_path / "augmentation.png").stat().st_size > 10_000


def test_augmentation_fails_where_a_seed_gives_other_images(monkeypatch, tmp_path):
    pytest.importorskip("scipy", reason="SciPy is not installed")
    from fastconv.keras.preprocessing import image

    def unseeded(self, x, seed=None):
        return x + np.random.default_rng().random(x.shape, np.float32)

    monkeypatch.setattr(image.ImageDataGenerator, "random_transform", unseeded)
    assert "the same seed gave other images" in run("augmentation.py", tmp_path / "x.png", monkeypatch=monkeypatch)
    assert not (tmp_path / "x.png").exists()


def test_gpu_vs_cpu_runs_without_a_gpu(monkeypatch, capsys):
    monkeypatch.setattr(cuda, "why_not", lambda: "nobody plugged one in [cu12]")
    assert run("gpu_vs_cpu.py", 1, 2, monkeypatch=monkeypatch) == 0
    text = capsys.readouterr().out
    assert "No GPU: nobody plugged one in [cu12]. Its times are PREDICTED, for H100" in text
    assert "batch    2: CPU" in text
    assert "same bits as the CPU" in text or "cannot be compiled" in text


def test_gpu_vs_cpu_fails_where_values_differ(monkeypatch):
    monkeypatch.setattr(cuda, "why_not", lambda: "nobody plugged one in")
    monkeypatch.setattr(gpu, "emulate", lambda layer: gpu.Agreement("x", False, 0.1))
    assert run("gpu_vs_cpu.py", 1, monkeypatch=monkeypatch) == "the GPU's values are not the CPU's"
