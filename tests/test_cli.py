"""The `fastconv` command, called as a function."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import pkgutil
import signal
import subprocess
import sys
from functools import partial

import numba
import numpy as np
import pytest

import fastconv
from fastconv import cli, cpu, threads, warmup
from fastconv.cuda import ahead
from fastconv.cuda.device import Kernel
from fastconv.keras import callbacks, datasets, models

needs_demo = pytest.mark.skipif(
    any(importlib.util.find_spec(package) is None for package in cli.DEMO_PACKAGES),
    reason="the demo packages (matplotlib, safetensors) are not installed",
)


@pytest.fixture
def few_images(monkeypatch):
    """`fastconv train` sees 128 training and 60 test images of the sample."""
    whole = cli.load_images("sample")
    few = dataclasses.replace(
        whole,
        x_train=whole.x_train[:128],
        y_train=whole.y_train[:128],
        x_test=whole.x_test[:60],
        y_test=whole.y_test[:60],
    )
    monkeypatch.setattr(cli, "load_images", lambda name: few)
    return few


@pytest.fixture
def no_pictures(monkeypatch):
    """Drawing takes longer than the training of these tests."""
    monkeypatch.setattr(cli, "write_pictures", lambda *arguments: None)


@needs_demo
def test_train_shows_tables_and_writes_model_and_pictures(few_images, tmp_path, capsys):
    out = tmp_path / "run"
    assert cli.main(["train", "--epochs", "1", "--out", str(out)]) == cli.EXIT_OK
    assert sorted(path.name for path in out.iterdir()) == [
        "confusion.png",
        "curves.png",
        "feature_maps.png",
        "model.safetensors",
    ]
    text = capsys.readouterr().out
    for words in (
        "Total params: 93,322",
        "images/s",
        "val_accuracy",
        "Test accuracy",
        "Ankle boot",
        "Most often taken",
    ):
        assert words in text
    model = models.load_model(out / "model.safetensors")
    accuracy = model.evaluate(few_images.x_test, few_images.y_test, verbose=0)[1]
    assert f"Test accuracy {accuracy:.2%}" in text


@needs_demo
def test_same_seed_writes_the_same_weights(few_images, no_pictures, tmp_path):
    files = []
    for number, seed in enumerate((3, 3, 4)):
        out = tmp_path / str(number)
        cli.main(["train", "--epochs", "1", "--seed", str(seed), "--out", str(out)])
        files.append((out / "model.safetensors").read_bytes())
    assert files[0] == files[1]
    assert files[0] != files[2]


@needs_demo
def test_a_missed_target_is_exit_status_1_and_still_saves(few_images, no_pictures, tmp_path, capsys):
    arguments = ["train", "--epochs", "1", "--out", str(tmp_path), "--target-accuracy"]
    assert cli.main([*arguments, "1.0"]) == cli.EXIT_MISSED
    assert "is below the target 1.0" in capsys.readouterr().out
    assert (tmp_path / "model.safetensors").is_file()
    assert cli.main([*arguments, "0"]) == cli.EXIT_OK


@needs_demo
def test_ctrl_c_ends_the_epoch_and_saves(few_images, no_pictures, tmp_path, capsys, monkeypatch):
    batches = []

    def press(self, batch, logs):
        batches.append(batch)
        if len(batches) == 6:  # the second batch of the second epoch
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(callbacks.LearningRateScheduler, "on_train_batch_end", press)
    assert cli.main(["train", "--epochs", "5", "--out", str(tmp_path)]) == cli.EXIT_OK
    assert len(batches) == 6
    text = capsys.readouterr().out
    assert "Stopped by Ctrl-C" in text
    assert "2 epochs in" in text
    assert (tmp_path / "model.safetensors").is_file()


def test_a_second_ctrl_c_interrupts_at_once(ctrl_c):
    model = models.Sequential()
    before = signal.getsignal(signal.SIGINT)
    with cli.ctrl_c_ends_training(model):
        signal.raise_signal(signal.SIGINT)
        assert model.stop_training
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_images_are_floats_from_0_to_1_with_a_channel_axis():
    images = cli.load_images("sample")
    assert images.x_train.shape == (8500, 28, 28, 1)
    assert images.x_train.dtype == np.float32
    assert (images.x_train.min(), images.x_train.max()) == (0, 1)
    assert images.y_test.shape == (1500,)
    assert len(images.class_names) == 10


def test_a_folder_of_class_folders_can_be_trained_on(tmp_path):
    image_module = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    for label, name in enumerate(("dark", "light")):
        (tmp_path / name).mkdir()
        for number in range(5):
            image_module.new("RGB", (40, 30), (200 * label, 0, number)).save(tmp_path / name / f"{number}.png")
    images = cli.load_images(str(tmp_path))
    assert images.x_train.shape == (8, 64, 64, 3)
    assert images.class_names == ("dark", "light")
    assert cli.tutorial_network(images.x_train.shape[1:], 2).output_shape == (None, 2)


def test_wrong_data_and_missing_network_are_exit_status_2(tmp_path, capsys, monkeypatch):
    assert cli.main(["train", "--data", "imagenet", "--out", str(tmp_path)]) == cli.EXIT_USAGE
    assert "--data must be sample, fashion-mnist, mnist, cifar10 or an existing folder" in capsys.readouterr().err
    monkeypatch.setenv("FASTCONV_DATA", str(tmp_path / "empty"))
    monkeypatch.setitem(cli.DATASETS, "mnist", dataclasses.replace(datasets.mnist, name="absent", mirrors=()))
    assert cli.main(["train", "--data", "mnist", "--out", str(tmp_path)]) == cli.EXIT_USAGE
    assert "could not be downloaded" in capsys.readouterr().err


def test_missing_packages_are_told_before_the_training(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    assert cli.main(["train", "--out", str(tmp_path)]) == cli.EXIT_USAGE
    assert 'pip install "fastconv[demo]"' in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [[], ["fly"], ["train", "--epochs", "0"], ["train", "--target-accuracy", "86"], ["explain", "1,2"]]
)
def test_wrong_arguments_are_exit_status_2(arguments):
    with pytest.raises(SystemExit) as exit_info:
        cli.main(arguments)
    assert exit_info.value.code == cli.EXIT_USAGE


def test_info_names_versions_cpu_and_caches(capsys):
    assert cli.main(["info"]) == cli.EXIT_OK
    text = capsys.readouterr().out
    for words in (fastconv.__version__, np.__version__, "bits: ", "Threads", "Compiled kernels", "Data sets"):
        assert words in text


def test_explain_prints_the_choice_and_refuses_shapes_that_do_not_fit(capsys):
    assert cli.main(["explain", "1,32,32,16", "3,3,16,32", "--padding", "same"]) == cli.EXIT_OK
    assert "chosen" in capsys.readouterr().out
    assert cli.main(["explain", "1,32,32,16", "3,3,8,32"]) == cli.EXIT_USAGE
    assert "Received: x.shape=(1, 32, 32, 16)" in capsys.readouterr().err
    assert cli.main(["explain", "1,32,32,16", "3,3,16,32", "--device", "cuda:A100"]) == cli.EXIT_OK
    assert "on A100 (sm_80): 108 multiprocessors" in capsys.readouterr().out


def test_warmup_calls_every_kernel_with_one_thread_and_with_several(monkeypatch):
    seen, counts = set(), set()

    def run_serially(serial, parallel, workers, *arguments):
        seen.update((serial, parallel))
        counts.add(workers)
        serial(*arguments)

    monkeypatch.setattr(threads, "run", run_serially)
    warmup.compile_for_cpu(("float32",))
    assert counts == {1, numba.get_num_threads()}
    forgotten = [
        f"{module.__name__}.{name}"
        for info in pkgutil.iter_modules(cpu.__path__, "fastconv.cpu.")
        for module in [importlib.import_module(info.name)]
        for name, value in vars(module).items()
        if name.endswith(("_serial", "_parallel")) and value not in seen
    ]
    assert forgotten == []


def test_warmup_for_a_gpu_that_must_be_here(capsys, monkeypatch):
    monkeypatch.setattr(ahead, "why_not", lambda: "nobody plugged one in [cu12]")
    assert cli.main(["warmup", "--device", "cuda"]) == cli.EXIT_USAGE
    assert capsys.readouterr().err == "fastconv: nobody plugged one in [cu12]\n"
    assert cli.main(["warmup", "--device", "cuda:voodoo"]) == cli.EXIT_USAGE
    assert '"cuda:H100"' in capsys.readouterr().err


def test_warmup_for_a_gpu_that_is_elsewhere(capsys, monkeypatch):
    """Each kernel once; nothing is compiled here."""
    asked = []
    monkeypatch.setattr(ahead, "cached", lambda kernel, capability: asked.append((kernel, capability)))
    zeros = Kernel(print, None, 128, 1)
    monkeypatch.setattr(
        warmup, "gpu_calls", lambda engine: [partial(engine.launch, zeros, blocks) for blocks in (0, 1, 2)]
    )
    monkeypatch.setattr(ahead, "compiling_for", lambda capability: contextlib.nullcontext())
    assert cli.main(["warmup", "--device", "cuda:H100"]) == cli.EXIT_OK
    assert asked == [(zeros, (9, 0))]
    assert "1 kernels for compute capability 9.0 are compiled and cached (" in capsys.readouterr().out


def test_the_package_is_a_command():
    done = subprocess.run([sys.executable, "-m", "fastconv", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"fastconv {fastconv.__version__}\n"
