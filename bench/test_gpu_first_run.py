"""The first run on a GPU, as far as it can be tested without one: who is asked, in which order, and what is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gpu_first_run
import pytest

from fastconv import cuda
from fastconv.bench import compare, record


def row(layer):
    """A row as `compare.measure` returns it on a machine with a GPU."""
    return {
        "network": layer.network,
        "layer": layer.name,
        "batch": layer.batch,
        "count": 1,
        "flops": 10**9,
        "cpu": [1e-2],
        "kernel": [2e-4],
        "predicted": 1e-4,
        "agreement": {"same_bits": True, "error": 0.0},
    }


RIVAL = {"library": "PyTorch", "pass": "forward", "ours": [2e-4], "theirs": [3e-4]}


def nothing_found(folder: Path, seconds: float) -> dict[str, Any]:
    return {}


def broken(folder: Path, seconds: float) -> dict[str, Any]:
    raise RuntimeError("crashed:\nthey met [twice]")


@pytest.fixture
def pretended_gpu(monkeypatch):
    described = {"name": "NVIDIA H100", "why_not": None, "sheet": "H100"}
    monkeypatch.setattr(cuda, "why_not", lambda: None)
    monkeypatch.setattr(compare, "describe_gpu", lambda name: described)
    monkeypatch.setattr(gpu_first_run, "checks_alone", lambda: [("one kernel", nothing_found)])
    monkeypatch.setattr(gpu_first_run, "checks_of_values", list)
    monkeypatch.setattr(gpu_first_run, "rivals", lambda layer: [RIVAL])
    monkeypatch.setattr(compare, "measure", lambda layers, *others: [row(layer) for layer in layers])


def test_without_a_gpu_it_says_so(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(cuda, "why_not", lambda: "nobody plugged one in [cu12]")
    path = tmp_path / "result.json"
    assert gpu_first_run.main(["--json", str(path)]) == gpu_first_run.EXIT_NO_GPU
    assert capsys.readouterr().out == "No GPU, so nothing was run: nobody plugged one in [cu12].\n"
    assert not path.exists()


def test_checks_then_times_in_one_file_and_on_one_page(pretended_gpu, tmp_path, capsys):
    path = tmp_path / "result.json"
    assert gpu_first_run.main(["--json", str(path), "--batch", "2"]) == gpu_first_run.EXIT_OK
    data = record.read(path)
    assert data["kind"] == "gpu_first_run"
    assert [(check["check"], check["outcome"]) for check in data["machine"]["checks"]] == [("one kernel", "passed")]
    assert {found["network"] for found in data["rows"]} == {*gpu_first_run.NETWORKS, "demo"}
    assert all(found["rivals"] == [RIVAL] for found in data["rows"])
    lines = capsys.readouterr().out.splitlines()
    (demo,) = [line for line in lines if line.split()[:2] == ["demo", "2"]]
    # layers, CPU, GPU, share of the roofline, cuDNN's time over ours
    assert demo.split()[2:] == ["7", "70.000", "1.4000", "50%", "1.50", "same", "bits"]
    assert len(lines) < 40


def test_after_a_failure_the_next_check_runs(pretended_gpu, monkeypatch, tmp_path, capsys):
    """Each is on disk before the next begins; layers are timed all the same."""
    path = tmp_path / "result.json"
    on_disk = []

    def look(folder: Path, seconds: float) -> dict[str, Any]:
        on_disk.extend(check["outcome"] for check in record.read(path)["machine"]["checks"])
        return {"told": "5 passed in 2.00s"}

    def measure(layers, *others):
        if layers[0].name == "conv2d_1":
            raise OSError("no memory is left")
        return [row(layer) for layer in layers]

    monkeypatch.setattr(gpu_first_run, "checks_alone", lambda: [("first", broken)])
    monkeypatch.setattr(gpu_first_run, "checks_of_values", lambda: [("second", look)])
    monkeypatch.setattr(compare, "measure", measure)
    assert gpu_first_run.main(["--json", str(path), "--batch", "1"]) == gpu_first_run.EXIT_WRONG
    assert on_disk == ["failed"]
    data = record.read(path)
    assert [check["outcome"] for check in data["machine"]["checks"]] == ["failed", "passed"]
    assert "they met" in data["machine"]["checks"][0]["message"]
    assert [found["layer"] for found in data["rows"] if "error" in found] == ["conv2d_1"]
    text = capsys.readouterr().out
    for words in ("they met [twice]", "5 passed in 2.00s", "1 failed", "same bits"):
        assert words in text


def test_it_ends_in_time(pretended_gpu, tmp_path, capsys):
    path = tmp_path / "result.json"
    assert gpu_first_run.main(["--json", str(path), "--minutes", "0"]) == gpu_first_run.EXIT_OK
    assert "layers were left out: 0 minutes are over" in capsys.readouterr().out
    assert [check["outcome"] for check in record.read(path)["machine"]["checks"]] == [gpu_first_run.LEFT_OUT]


@pytest.mark.parametrize(
    ("source", "seconds", "outcome", "said"),
    [
        ("print('here')", 20, "passed", "here"),
        ("print('here'); raise SystemExit(3)", 20, "failed", "here"),
        ("import os; print('here', flush=True); os.abort()", 20, "crashed", "here"),
        ("print('here', flush=True)\nwhile True: pass", 1, "hung", "here"),
        ("import os; print(os.environ['NUMBA_CACHE_DIR'])", 20, "passed", "a folder"),
    ],
)
def test_a_process_may_do_anything(source, seconds, outcome, said):
    found, printed = gpu_first_run.run_process(["-c", source], Path("a folder"), seconds)
    assert found == outcome
    assert said in printed


COLD = {"seconds": 9.0, "bits": "b", "stored": 5}


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({}, None),
        ({"warm": {"bits": "c"}}, "warm: other bits"),
        ({"prepared": {"bits": "c"}}, "prepared: other bits"),
        ({"warm": {"stored": 6}}, "warm: a kernel was compiled again"),
        ({"warm": {"seconds": 9.0}}, "warm: no sooner"),
        ({"prepared": {"stored": 6}}, "prepared: a kernel was compiled again"),
        ({"cold": {"stored": 0}}, "cold: no kernel was stored"),
    ],
)
def test_what_the_cache_must_do(monkeypatch, tmp_path, changed, complaint):
    answers = [COLD, {**COLD, "seconds": 1.0}, COLD, {**COLD, "seconds": 1.0}]
    names = ["cold", "warm", "ahead", "prepared"]
    parts = iter([{**answer, **changed.get(name, {})} for name, answer in zip(names, answers, strict=True)])
    asked = []
    monkeypatch.setattr(
        gpu_first_run, "run_part", lambda name, folder, seconds: asked.append((name, folder.name)) or next(parts)
    )
    check = gpu_first_run.run_check("kernel cache", gpu_first_run.check_cache, tmp_path, float("inf"))
    assert asked == [("start", "cold"), ("start", "cold"), ("compile_ahead", "ahead"), ("start", "ahead")]
    assert check["outcome"] == ("failed" if complaint else "passed")
    assert (complaint or "") in check["message"]


def test_every_file_with_an_emulator_is_a_check():
    names = [name for name, _ in gpu_first_run.checks_of_values()]
    assert names[0] == "values: conv_direct"
    assert names[-1] == "values: libraries and models"
    assert {"values: conv_winograd", "values: keras_device", "values: conv_tensorcore"} <= set(names)
    assert len(names) == len(set(names))


def test_a_part_that_fails_says_why(tmp_path):
    with pytest.raises(RuntimeError, match="fly failed"):
        gpu_first_run.run_part("fly", tmp_path, 60)
