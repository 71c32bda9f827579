"""The first run on a GPU, as far as it can be tested without one: who is asked, in which order, and what is written."""

from __future__ import annotations

import gpu_first_run
import pytest

from fastconv import cuda
from fastconv.bench import compare, record

PASSED = {"test": "same bits", "outcome": "passed", "seconds": 0.1, "message": ""}
FAILED = {**PASSED, "test": "two streams", "outcome": "failed", "message": "they met"}


def row(layer):
    """A row as `compare.measure` returns it on a machine with a GPU."""
    return {
        "network": layer.network,
        "layer": layer.name,
        "batch": layer.batch,
        "flops": 10**9,
        "cpu": [1e-2],
        "kernel": [2e-4],
        "predicted": 1e-4,
        "agreement": {"same_bits": True, "error": 0.0},
    }


@pytest.fixture
def pretended_gpu(monkeypatch):
    described = {"name": "NVIDIA H100", "why_not": None, "sheet": "H100"}
    monkeypatch.setattr(cuda, "why_not", lambda: None)
    monkeypatch.setattr(compare, "describe_gpu", lambda name: described)
    monkeypatch.setattr(gpu_first_run, "check_values", lambda: [PASSED])
    monkeypatch.setattr(gpu_first_run, "rivals", lambda layer: {"cudnn": {"seconds": [3e-4], "error": 1e-6}})
    monkeypatch.setattr(compare, "measure", lambda layers, *others: [row(layer) for layer in layers])


def test_without_a_gpu_it_says_so(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(cuda, "why_not", lambda: "nobody plugged one in [cu12]")
    path = tmp_path / "result.json"
    assert gpu_first_run.main(["--json", str(path)]) == gpu_first_run.EXIT_NO_GPU
    assert capsys.readouterr().out == "No GPU, so nothing was run: nobody plugged one in [cu12].\n"
    assert not path.exists()


def test_values_then_times_in_one_file(pretended_gpu, tmp_path, capsys):
    path = tmp_path / "result.json"
    assert gpu_first_run.main(["--json", str(path), "--batch", "2"]) == gpu_first_run.EXIT_OK
    data = record.read(path)
    assert data["kind"] == "gpu_first_run"
    assert data["machine"]["values"] == [PASSED]
    assert {found["network"] for found in data["rows"]} == {*gpu_first_run.NETWORKS, "demo"}
    assert all(found["rivals"]["cudnn"]["seconds"] == [3e-4] for found in data["rows"])
    text = capsys.readouterr().out
    assert "50%" in text  # of the roofline
    assert "0.3000" in text  # cuDNN


def test_wrong_values_are_never_timed(pretended_gpu, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(gpu_first_run, "check_values", lambda: [PASSED, FAILED])
    monkeypatch.setattr(compare, "measure", None)
    path = tmp_path / "result.json"
    assert gpu_first_run.main(["--json", str(path)]) == gpu_first_run.EXIT_WRONG
    assert "nothing was timed: two streams" in capsys.readouterr().out
    data = record.read(path)
    assert data["rows"] == []
    assert data["machine"]["values"][1]["message"] == "they met"
