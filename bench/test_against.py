"""Two revisions are compared as they are, wrong values are seen, and nothing is left behind."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import against
import pytest

import fastconv

# The reference algorithm: nothing to compile in the processes of the revisions.
TINY = ["--shape", "6x5x2,3x3x4", "--batch", "1", "--pairs", "3", "--algorithm", "reference", "--pass", "grad_x"]


def git(repository: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=Somebody", "-c", "user.email=somebody@example.org"]
    done = subprocess.run(["git", *identity, *arguments], cwd=repository, check=True, capture_output=True, text=True)
    return done.stdout


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three commits of the package: as it is, with another version, and with a wrong gradient."""
    folder = tmp_path_factory.mktemp("repository")
    package = folder / "fastconv"
    shutil.copytree(Path(fastconv.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    git(folder, "init", "--quiet")
    changes = {
        "first": (package / "__init__.py", f'__version__ = "{fastconv.__version__}"', '__version__ = "0"'),
        "second": (package / "__init__.py", '__version__ = "0"', '__version__ = "1"'),
        "wrong": (
            package / "dispatch.py",
            "reference.conv2d_grad_x(geometry,",
            "1.5 * reference.conv2d_grad_x(geometry,",
        ),
    }
    for name, (path, old, new) in changes.items():
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))
        git(folder, "add", "--all")
        git(folder, "commit", "--quiet", "--message", name)
        git(folder, "tag", name)
    return folder


@pytest.fixture(autouse=True)
def nothing_left(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Work trees are made in a folder of this test, which is empty afterwards."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    yield
    assert list(tmp_path.iterdir()) == []
    assert len(git(repository, "worktree", "list").splitlines()) == 1


def test_two_revisions_are_timed_in_turns(repository: Path, capsys: Any) -> None:
    assert against.main(["first", "second", *TINY], repository) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "first / second" in text
    assert "noise: the interval meets 0.95 to 1.05" in text
    assert "Geometric mean of 1 ratios" in text


def test_wrong_values_are_seen_and_not_timed(repository: Path, capsys: Any) -> None:
    """This also shows that each process runs its own revision."""
    assert against.main(["first", "wrong", *TINY], repository) == 1
    text = capsys.readouterr().out
    assert "VALUES DIFFER" in text
    assert "error 5e-01" in text


def test_an_unknown_revision_and_a_refusal_are_told(repository: Path, capsys: Any) -> None:
    assert against.main(["first", "nowhere", *TINY], repository) == 2
    assert "nowhere" in capsys.readouterr().err
    assert against.main(["first", "second", "--net", "nowhere"], repository) == 2
    assert "network must be one of" in capsys.readouterr().err
    assert against.main(["first", "second", *TINY, "--algorithm", "depthwise"], repository) == 2
    assert "needs one input channel" in capsys.readouterr().err


def test_ctrl_c_removes_the_work_trees(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def interrupted(arguments: Any, both: Any, console: Any) -> bool:
        seen.append(len(git(repository, "worktree", "list").splitlines()))
        raise KeyboardInterrupt

    monkeypatch.setattr(against, "compare", interrupted)
    assert against.main(["first", "second", *TINY], repository) == 130
    assert seen == [3]


def test_the_interval_is_that_of_the_binomial_distribution() -> None:
    assert against.interval(range(1, 16)) == (4, 12)  # as in every table of the sign test
    assert against.interval(range(1, 26)) == (8, 18)
    assert against.interval([3.0, 1.0, 2.0]) == (1.0, 3.0)


def test_a_verdict_needs_the_whole_interval_outside_the_band() -> None:
    assert "faster" in against.verdict(1.06, 1.2)
    assert "slower" in against.verdict(0.8, 0.94)
    assert against.verdict(1.04, 1.2) == "noise"
    assert against.verdict(0.9, 1.1) == "noise"
