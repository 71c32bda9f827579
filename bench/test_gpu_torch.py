"""The bench beside PyTorch's GPU kernels, with PyTorch's CPU in the place of a GPU: values, rows and the table."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import gpu_torch
import pytest
import tables

from fastconv import cuda
from fastconv.bench import compare, machine, problems, record, training

torch = pytest.importorskip("torch")


@pytest.fixture
def on_the_cpu(monkeypatch):
    """Tensors that stay where they are and no graphs: ours takes them by their NumPy face."""
    monkeypatch.setattr(gpu_torch, "normal", lambda torch, shape: torch.randn(*shape))
    times = iter(range(1, 1000))
    monkeypatch.setattr(gpu_torch, "recorded", lambda torch, call: (SimpleNamespace(replay=call), 1))
    monkeypatch.setattr(gpu_torch, "seconds_of", lambda torch, run: run() is None or 1e-6 * next(times))


def as_tensors(function):
    def call(*arguments, precision=None, **options):
        if precision is not None:
            raise ValueError("no tensor core")
        arrays = [value.numpy() if isinstance(value, torch.Tensor) else value for value in arguments]
        return torch.from_numpy(function(*arrays, **options))

    return call


@pytest.mark.parametrize("shape", ["6x5x4,3x3x8,stride=2,padding=1", "6x5x4,3x3x8,groups=2", "6x6x4,max,2x2"])
def test_both_compute_the_same(on_the_cpu, monkeypatch, shape):
    for name in ("conv2d", "conv2d_grad_x", "conv2d_grad_weight", "max_pool2d"):
        monkeypatch.setattr(gpu_torch.fastconv, name, as_tensors(getattr(gpu_torch.fastconv, name)))
    rows = list(gpu_torch.rows_of(torch, problems.layer_of_text(shape, 2), 3))
    assert [row["pass"] for row in rows] == (["forward"] if "max" in shape else ["forward", "grad_x", "grad_weight"])
    assert all(row["error"] < 1e-5 and len(row["ours"]) == len(row["theirs"]) == 3 for row in rows)


def test_training_is_the_same(on_the_cpu):
    row = gpu_torch.row_of_training(torch, training.Training(32, 64), 2, "cpu")
    assert (row["network"], row["pass"]) == ("tutorial CNN", "train")
    assert 0 <= row["error"] < 1e-3
    assert len(row["ours"]) == len(row["theirs"]) == 2


def test_rows_make_a_table(tmp_path: Path):
    row = {"network": "n", "layer": "l", "count": 1, "batch": 8, "algorithm": "auto", "threads": 0, "pass": "forward"}
    rows = [
        {**row, "library": "PyTorch", "ours": [1e-5] * 3, "theirs": [2e-5] * 3},
        {**row, "library": "PyTorch", "layer": "m", "ours": [], "theirs": []},
    ]
    description = {**machine.describe(), "gpu": {"name": "NVIDIA H100"}}
    record.write(tmp_path / "gpu.json", "gpu", description, json.loads(json.dumps(rows)))
    marked = "<!-- table: gpu -->\n<!-- end table --><!-- short: gpu -->\n<!-- end table -->"
    page = tables.updated(marked, tmp_path)
    assert "NVIDIA H100; " in page
    assert "| n | forward against PyTorch | 8 | 2.00 | 2.00 (l) | 2.00 (l) | 0 of 2, 1 with wrong values |" in page
    assert "| n l | forward against PyTorch | 8 | 10.0 | 20.0 | 2.00 |" in page
    assert "| n | forward against PyTorch | 2.00 (2.00) |" in page


def test_without_a_gpu_it_says_so(monkeypatch, capsys):
    monkeypatch.setattr(cuda, "why_not", lambda: "nobody plugged one in")
    monkeypatch.setattr(compare, "describe_gpu", lambda name: None)
    assert gpu_torch.main([]) == 1
    assert "nobody plugged one in" in capsys.readouterr().out
