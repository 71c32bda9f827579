"""The profile of a machine: what is built in, what a file changes, and how one is measured."""

import pytest
from cases import BY_NAME
from rich.console import Console

from fastconv import cli, dispatch, profile, winograd_choice
from fastconv.geometry import conv2d_geometry


@pytest.fixture
def path(tmp_path, monkeypatch):
    """An empty place for the profile; what was read or chosen before is forgotten, and again afterwards."""
    path = tmp_path / "somewhere" / "profile.json"
    monkeypatch.setenv("FASTCONV_PROFILE", str(path))
    for remembered in (profile.current, dispatch.choose):
        remembered.cache_clear()
    yield path
    for remembered in (profile.current, dispatch.choose):
        remembered.cache_clear()


def chosen(name):
    return dispatch.choose("conv2d_forward", BY_NAME[name].geometry, 4, "auto").__module__.rpartition("_")[2]


def test_without_a_file_the_built_in_rule_holds(path):
    assert profile.current() == profile.Profile()
    assert chosen("plain") == "winograd"


def test_a_file_changes_the_choice(path):
    assert profile.write(profile.Profile(channels=33)) == path
    assert profile.current() == profile.Profile(channels=33)
    assert chosen("plain") == "direct"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"channels": "many", "fill": 1, "work": 1}'])
def test_a_damaged_file_is_named(path, text):
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(ValueError, match=r"profile.json is not a profile; delete it or .* Received: "):
        chosen("plain")


def test_the_place_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.delenv("FASTCONV_PROFILE")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert profile.location() == tmp_path / "fastconv" / "profile.json"


def test_tuning_writes_what_was_measured(path, monkeypatch, capsys):
    pytest.importorskip("threadpoolctl", reason="the bench needs threadpoolctl, which is not installed")
    from fastconv.bench import tune

    # Winograd wins with more than 12 channels and more than half of the tiles full
    monkeypatch.setattr(
        tune, "speed_up", lambda g: 2.0 if g.IC > 12 and winograd_choice.fill_of_tiles(g.OH, g.OW) > 0.5 else 0.5
    )
    found = tune.tune(Console())
    assert found == profile.current() == profile.Profile(16, 36 / 64, 64)
    assert "pays from 16 channels" in capsys.readouterr().out


def test_a_threshold_is_where_all_larger_numbers_pay():
    pytest.importorskip("threadpoolctl", reason="the bench needs threadpoolctl, which is not installed")
    from fastconv.bench.tune import first_that_pays

    assert first_that_pays([(1, 2.0), (2, 0.9), (3, 1.1), (4, 1.5)]) == 3
    assert first_that_pays([(1, 2.0), (2, 1.1)]) == 1
    assert first_that_pays([(1, 2.0), (2, 0.9)]) > 2


def test_explain_measures_when_asked(monkeypatch, capsys):
    pytest.importorskip("threadpoolctl", reason="the bench needs threadpoolctl, which is not installed")
    from fastconv.bench import roofline, speed

    monkeypatch.setattr(speed, "roofline", lambda threads: roofline.Roofline(threads, 100.0, 10.0))
    assert cli.main(["explain", "1,5,7,3", "1,1,3,4", "--measure"]) == cli.EXIT_OK
    g = conv2d_geometry((1, 5, 7, 3), (1, 1, 3, 4))
    out = capsys.readouterr().out
    # 1.12 kB at 10 GB/s take longer than 840 FLOP at 100 GFLOP/s
    assert f"roofline   {g.bytes(4) / 1e7:.3g} ms for the plain sum, limited by memory: 100 GFLOP/s" in out
    assert "% of the roofline" in out
