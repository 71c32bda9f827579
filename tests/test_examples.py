"""The examples run, and fail when they miss what they promise."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

from fastconv import cuda
from fastconv.bench import gpu
from fastconv.keras import datasets

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
    """The sample cut down to what a test has time for."""
    train, test = datasets.load_sample()
    small = tuple(array[:1000] for array in train), tuple(array[:200] for array in test)
    monkeypatch.setattr(datasets, "load_sample", lambda: small)


def test_train_cnn_reaches_what_two_short_epochs_can(small_sample, monkeypatch, capsys):
    assert run("train_cnn.py", 2, 0.4, monkeypatch=monkeypatch) == 0
    assert "test accuracy 0." in capsys.readouterr().out


def test_train_cnn_fails_below_its_target(small_sample, monkeypatch):
    assert run("train_cnn.py", 0, 0.9, monkeypatch=monkeypatch) == 1


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
