"""The shares of the peak are taken as they say."""

from __future__ import annotations

from pathlib import Path

import peak
import tables

from fastconv.bench import problems, record


def test_rows_are_written_and_make_a_table(tmp_path: Path, monkeypatch) -> None:
    layer = problems.layer_of_text("6x5x64,3x3x64", 1)
    monkeypatch.setattr(peak, "dense_layers", lambda networks: [layer])
    assert peak.main(["--pairs", "1", "--json", str(tmp_path / "peak.json")]) == 0
    data = record.read(tmp_path / "peak.json")
    places = [(row["pass"], row["ceiling"]) for row in data["rows"]]
    assert places == [(direction, ceiling) for direction in peak.PASSES for ceiling in peak.CEILINGS]
    assert all(0 < record.ratio(row) < 2 for row in data["rows"])  # a share, or the loop did not do what it counts
    page = tables.updated("<!-- table: peak -->\n<!-- end table -->", tmp_path)
    assert "| forward | registers | " in page
    assert "All 6 rows" in page


def test_only_dense_layers_with_many_channels_are_taken() -> None:
    chosen = peak.dense_layers(["mobilenet", "mobilenet_dw"])
    assert {layer.network for layer in chosen} == {"mobilenet"}
    assert all(min(layer.geometry.IC, layer.geometry.OC) >= peak.LEAST_CHANNELS for layer in chosen)
    assert len({layer.geometry for layer in chosen}) == len(chosen) == 8
