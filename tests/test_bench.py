"""The comparison refuses wrong values, and every number of its command line is checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import compare
import numpy as np
import pytest
import record
from competitors import COMPETITORS, Contender
from problems import Problem

COMMAND = ["--net", "keras_mnist", "--layer", "conv2d", "--batch", "1", "--pass", "forward", "--threads", "1"]
COMMAND += ["--against", "numpy", "--pairs", "2"]


def test_a_row_has_the_times_of_every_pair(tmp_path: Path) -> None:
    path = tmp_path / "new" / "result.json"
    assert compare.main([*COMMAND, "--json", str(path)]) == 0
    data = record.read(path)
    (row,) = data["rows"]
    assert (row["layer"], row["pass"], row["threads"], row["library"]) == ("conv2d", "forward", 1, "numpy")
    assert len(row["ours"]) == len(row["theirs"]) == 2
    assert row["error"] < 1e-5
    assert data["machine"]["versions"]["numpy"] == np.__version__


def test_wrong_values_are_never_timed(monkeypatch: pytest.MonkeyPatch, capsys: Any, tmp_path: Path) -> None:
    right = COMPETITORS["forward"]["numpy"]["taps"]

    def prepare(problem: Problem) -> Contender:
        def compute(copy: int) -> Any:
            out = right(problem).compute(copy)
            out[0, 3, 5, 7] += 0.1
            return out

        return Contender(compute)

    monkeypatch.setitem(COMPETITORS["forward"]["numpy"], "taps", prepare)
    path = tmp_path / "result.json"
    assert compare.main([*COMMAND, "--json", str(path)]) == 1
    assert "VALUES DIFFER" in capsys.readouterr().out
    (row,) = record.read(path)["rows"]
    assert row["ours"] == row["theirs"] == []


def test_not_a_number_is_a_difference() -> None:
    zeros = np.zeros((2, 3), np.float32)
    ones = np.ones((2, 3), np.float32)
    assert compare.difference(ones, ones) == 0
    assert compare.difference(ones * np.float32(np.nan), ones) == float("inf")
    assert compare.difference(ones[:1], ones) == float("inf")
    assert compare.difference(zeros, ones) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--net", "nowhere"], "network must be one of"),
        (["--layer", "nothing"], "layer must be a name"),
        (["--threads", "0"], "threads must be from 1 to"),
        (["--pass", "sideways"], "must be some of forward,grad_x,grad_weight"),
    ],
)
def test_unknown_arguments_are_named(arguments: list[str], message: str, capsys: Any) -> None:
    with pytest.raises(SystemExit):
        compare.main(arguments)
    assert message in capsys.readouterr().err
