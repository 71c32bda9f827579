"""The tables are made from the results, and the check of the README can fail."""

from __future__ import annotations

from math import sqrt
from pathlib import Path
from typing import Any

import pytest
import tables

from fastconv.bench import record

MACHINE = {
    "date": "2020-02-02",
    "cpu": "Some CPU",
    "cores": 2,
    "vector_bits": 256,
    "versions": {"numpy": "2.0", "torch": "not installed"},
    "environment": {},
    "roofline": [{"threads": 1, "gflops": 2.0, "copy_gbs": 4.0}],
}


def row(layer: str, count: int, ours: list[float], theirs: list[float]) -> dict[str, Any]:
    place = {"network": "net", "layer": layer, "count": count, "pass": "forward", "library": "numpy", "variant": "taps"}
    work = {"flops": 10**9, "bytes": 10**9}
    return {**place, **work, "algorithm": "auto", "batch": 8, "threads": 1, "ours": ours, "theirs": theirs}


@pytest.fixture
def results(tmp_path: Path) -> Path:
    rows = [row("won", 1, [1.0, 1.0, 9.0], [8.0, 8.0, 8.0]), row("lost", 3, [2.0], [1.0]), row("wrong", 1, [], [])]
    record.write(tmp_path / "some.json", "compare", MACHINE, rows)
    startup = {"name": "import", "rival": "import numba", "ours": [0.5], "theirs": [0.25]}
    record.write(tmp_path / "startup.json", "startup", MACHINE, [startup])
    return tmp_path


@pytest.fixture
def readme(tmp_path: Path) -> Path:
    path = tmp_path / "README.md"
    some, startup = "<!-- table: some -->\nold\n<!-- end table -->\n", "<!-- table: startup -->\n<!-- end table -->\n"
    path.write_text(f"before\n{some}between\n{startup}{some.replace('table:', 'short:')}")
    return path


def test_check_fails_on_an_old_table_and_passes_after_writing(readme: Path, results: Path) -> None:
    old = readme.read_text()
    assert tables.main(["--check"], [readme], results) == 1
    assert readme.read_text() == old
    assert tables.main([], [readme], results) == 0
    assert tables.main(["--check"], [readme], results) == 0
    readme.write_text(readme.read_text().replace("0.50 (lost)", "1.50 (lost)"))
    assert tables.main(["--check"], [readme], results) == 1


def test_tables_keep_the_text_around_them(readme: Path, results: Path) -> None:
    tables.main([], [readme], results)
    text = readme.read_text()
    machine = "Some CPU, 2 cores, 256-bit vectors; numpy 2.0, torch not installed; 2020-02-02."
    assert text.startswith(f"before\n<!-- table: some -->\n{machine}\n\n| network")
    assert "\n<!-- end table -->\nbetween\n<!-- table: startup -->\n" in text
    assert "| import | import numba | 500 | 250 |\n<!-- end table -->\n" in text
    assert "| network | pass | batch | 1 thread |\n" in text
    assert "| net | forward against numpy | 8 | 1.00 (0.50) |\n<!-- end table -->\n" in text


def test_losses_and_wrong_values_are_shown(readme: Path, results: Path) -> None:
    tables.main([], [readme], results)
    text = readme.read_text()
    assert "| 8.00 (won) | 0.50 (lost) | 1 of 3, 1 with wrong values | 29% / 18% |" in text
    assert "The 1 rows where fastconv is slower" in text
    assert "| net lost | forward against numpy taps | 8 | 1 | 2,000 | 1,000 | 0.50 |" in text


def test_check_fails_without_a_table_and_without_its_results(readme: Path, results: Path) -> None:
    readme.write_text("<!-- table: missing -->\n<!-- end table -->\n")
    assert tables.main(["--check"], [readme], results) == 1
    readme.write_text("no table\n")
    assert tables.main(["--check"], [readme], results) == 1


def test_mean_counts_a_layer_as_often_as_the_network_has_it(results: Path) -> None:
    (part,) = record.summarise(record.read(results / "some.json")["rows"])
    assert part.mean == pytest.approx((8 * 0.5**3) ** (1 / 4))
    assert (part.lost, part.wrong, part.layers) == (1, 1, 3)


def test_ratio_is_the_median_of_the_pairs_not_of_the_times() -> None:
    assert record.ratio(row("", 1, [1.0, 2.0, 4.0], [1.0, 4.0, 2.0])) == 1
    assert record.ratio(row("", 1, [1.0, 2.0, 3.0], [3.0, 6.0, 3.0])) == pytest.approx(3)
    assert record.ratio(row("", 1, [1.0], [sqrt(2)])) == pytest.approx(sqrt(2))


def test_roofline_share_is_the_least_time_over_the_time_taken() -> None:
    rows = [row("fast", 1, [0.5], [1.0]), row("often", 3, [1.0], [1.0])]  # either takes 0.5 s at 2 GFLOP/s
    ceilings = [{"threads": 1, "gflops": 2.0, "copy_gbs": 4.0}]
    assert record.roofline_share(rows, "ours", ceilings) == pytest.approx(4 * 0.5 / 3.5)
    assert record.roofline_share(rows, "ours", [{**ceilings[0], "copy_gbs": 1.0}]) == pytest.approx(4 / 3.5)
    assert record.roofline_share(rows, "ours", []) is None
