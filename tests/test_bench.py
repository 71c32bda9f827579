"""`fastconv bench`: wrong values are never timed, every argument is checked, and the report hides nothing."""

from __future__ import annotations

import os
import re
from html.parser import HTMLParser

import numba
import numpy as np
import pytest

from fastconv import cli
from fastconv.bench import command, libraries, problems

pytest.importorskip("threadpoolctl", reason="the bench needs threadpoolctl, which is not installed")

from fastconv.bench import charts, machine, measure, record, report, roofline, timing, training
from fastconv.bench.libraries import Contender, numpy as numpy_library

SMALL = ["bench", "--shape", "6x5x3,3x3x4", "--batch", "1", "--threads", "1", "--pairs", "2", "--against", "numpy"]
MACHINE = {
    "date": "2020-02-02",
    "cpu": "Some <CPU>",
    "cores": 2,
    "vector_bits": 256,
    "versions": {"numpy": "2.0"},
    "environment": {},
    "roofline": [{"threads": 1, "gflops": 100.0, "copy_gbs": 10.0}],
}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """The ceilings of the machine are measured in next to no time, and one set of pairs is enough."""
    monkeypatch.setattr(roofline, "STEPS", 1000)
    monkeypatch.setattr(roofline, "COPY_NUMBERS", 1 << 18)
    monkeypatch.setattr(timing, "SAMPLE_SECONDS", 1e-4)


def row(layer="conv", ours=(1.0,), theirs=(2.0,), **changes):
    """A row as `measure` yields it."""
    return {
        "network": "net",
        "layer": layer,
        "count": 1,
        "batch": 8,
        "problem": "x=(8, 4, 4, 3)",
        "flops": 1_000_000,
        "bytes": 10_000,
        "images": 8,
        "pass": "forward",
        "threads": 1,
        "algorithm": "auto",
        "library": "numpy",
        "variant": "taps",
        "error": 1e-7,
        "first_ours": 0.1,
        "first_theirs": 0.1,
        "ours": list(ours),
        "theirs": list(theirs),
        **changes,
    }


# ---- rows ---------------------------------------------------------------------------------------------------------


def test_a_row_has_the_times_of_every_pair(tmp_path, capsys):
    path = tmp_path / "new" / "result.json"
    assert cli.main([*SMALL, "--json", str(path)]) == cli.EXIT_OK
    data = record.read(path)
    assert [found["weights"] for found in data["rows"]] == ["array", "kept"]
    for found in data["rows"]:
        assert (found["network"], found["layer"], found["pass"]) == ("shape", "6x5x3,3x3x4", "forward")
        assert (found["threads"], found["batch"], found["library"], found["algorithm"]) == (1, 1, "numpy", "auto")
        assert len(found["ours"]) == len(found["theirs"]) == 2
        assert found["error"] < 1e-5
        assert found["flops"] == 2 * 4 * 3 * 4 * 27
    assert data["machine"]["versions"]["numpy"] == np.__version__
    assert data["machine"]["roofline"][0]["gflops"] > 0
    text = capsys.readouterr().out
    assert "speed-up" in text
    assert "forward, kept" in text


def test_the_version_of_a_package_is_that_of_the_distribution_that_holds_it():
    """As `tensorflow` may come from tensorflow-cpu, so `_pytest` comes from pytest."""
    described = machine.describe([libraries.Library(("_pytest",), {})])
    assert described["versions"]["_pytest"] == pytest.__version__


def test_settings_are_told_that_slow_what_is_timed(monkeypatch):
    for name in machine.SLOWING:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    monkeypatch.setenv("NUMBA_BOUNDSCHECK", "0")
    assert machine.describe([libraries.Library(("_pytest",), {})])["environment"] == {"NUMBA_BOUNDSCHECK": "0"}
    assert (
        machine.settings(machine.describe([numpy_library.LIBRARY])) == "OPENBLAS_CORETYPE=Haswell, NUMBA_BOUNDSCHECK=0"
    )
    assert "OPENBLAS_CORETYPE" not in machine.warning()
    assert "OPENBLAS_CORETYPE=Haswell" in machine.warning([numpy_library.LIBRARY])


def test_wrong_values_are_never_timed(monkeypatch, capsys, tmp_path):
    right = numpy_library.LIBRARY.variants["conv2d", "forward"]["taps"]

    def prepare(problem, threads):
        def compute(copy):
            out = right(problem, threads).compute(copy)
            out[0, 2, 1, 3] += 0.1
            return out

        return Contender(compute)

    wrong = libraries.Library(("numpy",), {("conv2d", "forward"): {"wrong": prepare}})
    monkeypatch.setattr(numpy_library, "LIBRARY", wrong)
    json, html = tmp_path / "result.json", tmp_path / "result.html"
    assert cli.main([*SMALL, "--json", str(json), "--html", str(html)]) == cli.EXIT_MISSED
    assert "VALUES DIFFER" in capsys.readouterr().out
    rows = record.read(json)["rows"]
    assert len(rows) == 2
    assert all(found["ours"] == found["theirs"] == [] for found in rows)
    assert "Values differ: shape 6x5x3,3x3x4 forward" in html.read_text()


def test_not_a_number_is_a_difference():
    zeros, ones = np.zeros((2, 3), np.float32), np.ones((2, 3), np.float32)
    assert measure.difference(ones, ones) == 0
    assert measure.difference(ones * np.float32(np.nan), ones) == float("inf")
    assert measure.difference(ones[:1], ones) == float("inf")
    assert measure.difference(zeros, ones) == 1
    assert measure.difference((ones, zeros), (ones, ones)) == 1


def test_all_passes_and_every_pooling_can_be_timed(tmp_path):
    path = tmp_path / "result.json"
    shapes = ["--shape", "6x5x3,3x3x4", "6x6x4,max,2x2", "6x6x4,average,2x2", "6x6x4,global_average"]
    arguments = ["--pass", "forward,grad_x,grad_weight,all", "--json", str(path)]
    assert cli.main(["bench", *shapes, *SMALL[3:], *arguments]) == cli.EXIT_OK
    rows = record.read(path)["rows"]
    of_convolution = ["forward", "forward, kept", "grad_x", "grad_weight", "all"]
    assert [record.pass_of(found) for found in rows] == of_convolution + 3 * ["forward", "grad_x", "all"]
    assert all(found["ours"] for found in rows)
    assert rows[4]["flops"] == 3 * rows[0]["flops"]


def test_training_is_timed_against_numpy_made_to_train(monkeypatch, tmp_path, capsys):
    """No installed library but PyTorch can train, so NumPy borrows our own `fit`."""
    monkeypatch.setitem(training.IMAGES, "book", 16)
    trainer = libraries.Library(("numpy",), {("network", "train"): {"borrowed": training.ours}})
    monkeypatch.setattr(numpy_library, "LIBRARY", trainer)
    path = tmp_path / "result.json"
    arguments = ["--train", "book", "--batch", "8", "--threads", "1", "--pairs", "1", "--against", "numpy"]
    monkeypatch.setattr(training.Training, "seconds", 0)
    assert cli.main(["bench", *arguments, "--json", str(path)]) == cli.EXIT_OK
    (found,) = record.read(path)["rows"]
    assert (found["network"], found["batch"], found["images"], found["error"]) == ("book CNN", 8, 16, 0)
    assert "images/s" in capsys.readouterr().out


@pytest.mark.parametrize("network", training.NETWORKS)
def test_pytorch_trains_the_same_network(network):
    torch_library = pytest.importorskip("fastconv.bench.libraries.torch", reason="PyTorch is not installed")
    problem = training.Training(8, images=24, chosen=network).problem()
    ours = training.ours(problem, 1)
    mine = [ours.as_ours(ours.compute(0)) for _ in range(2)]
    for prepare in torch_library.LIBRARY.variants["network", "train"].values():
        theirs = prepare(problem, 1)
        losses = [theirs.as_ours(theirs.compute(0)) for _ in range(2)]
        np.testing.assert_allclose(losses, mine, rtol=training.Training.tolerance)
        assert mine[1] < mine[0]


# ---- arguments ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--net", "nowhere"], "network must be one of resnet_50_v1_5"),
        (["--layer", "nothing"], "layer must be one of"),
        (["--threads", "999"], "threads must be from 1 to"),
        (["--shape", "5x5"], "shape must be like HxWxIC"),
        (["--shape", "5x5x3,3x3x4,stripe=2"], "'stripe' is none of stride"),
        (["--shape", "2x2x3,3x3x4"], "the padded image must be at least as large"),
        (["--train", "--against", "numpy"], "none of numpy can compute"),
        ([*SMALL[1:], "--algorithm", "magic"], "algorithm must be one of"),
    ],
)
def test_unknown_arguments_are_named(arguments, message, capsys):
    assert cli.main(["bench", *arguments]) == cli.EXIT_USAGE
    assert message in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--pass", "sideways"], "must be some of forward,grad_x,grad_weight,all"),
        (["--against", "numpy,nobody"], "not 'nobody'"),
        (["--threads", "0"], "must be at least 1"),
        (["--batch", "x"], "invalid"),
        (["--pairs", "0"], "must be at least 1"),
    ],
)
def test_malformed_arguments_are_named(arguments, message, capsys):
    with pytest.raises(SystemExit):
        cli.main(["bench", *arguments])
    assert message in capsys.readouterr().err


def test_what_is_not_installed_is_named_in_one_line(monkeypatch, capsys):
    def load(name):
        if name == "numpy":
            return numpy_library.LIBRARY
        raise ModuleNotFoundError("No module", name="onnx" if name == "onnxruntime" else name)

    monkeypatch.setattr(libraries, "load", load)
    assert cli.main([*SMALL[:-1], "numpy,jax,onnxruntime"]) == cli.EXIT_OK
    assert "Not installed, skipped: jax, onnxruntime (onnx).\n" in capsys.readouterr().out


def test_a_refusal_is_a_sentence(monkeypatch, capsys):
    def refuse(problem, threads):
        raise ValueError("does not like it")

    fussy = libraries.Library(("numpy",), {("conv2d", "forward"): {"fussy": refuse}})
    monkeypatch.setattr(numpy_library, "LIBRARY", fussy)
    assert cli.main(SMALL) == cli.EXIT_USAGE  # nothing is left
    assert "Skipped shape 6x5x3,3x3x4 forward against numpy: does not like it" in capsys.readouterr().err


def test_an_algorithm_need_not_take_every_layer(capsys):
    shapes = ["bench", "--shape", "6x5x3,3x3x3", "6x5x3,3x3x3,groups=3", *SMALL[3:], "--algorithm", "depthwise"]
    assert cli.main(shapes) == cli.EXIT_OK
    text = " ".join(capsys.readouterr().out.split())
    assert 'Skipped shape 6x5x3,3x3x3 forward against numpy: algorithm="depthwise" needs one input channel' in text


def test_ctrl_c_keeps_the_rows(monkeypatch, tmp_path, capsys):
    right = numpy_library.LIBRARY.variants["conv2d", "forward"]["taps"]

    def interrupted(problem, threads):
        if problem.geometry.OC == 5:
            raise KeyboardInterrupt
        return right(problem, threads)

    slow = libraries.Library(("numpy",), {("conv2d", "forward"): {"taps": interrupted}})
    monkeypatch.setattr(numpy_library, "LIBRARY", slow)
    path = tmp_path / "result.json"
    shapes = ["--shape", "6x5x3,3x3x4", "6x5x3,3x3x5", "6x5x3,3x3x6"]
    assert cli.main(["bench", *shapes, *SMALL[3:], "--json", str(path)]) == cli.EXIT_OK
    assert len(record.read(path)["rows"]) == 2
    assert "Stopped by Ctrl-C after 2 rows." in capsys.readouterr().out


def test_the_networks_hold_what_their_names_say():
    found = {layer.name: layer.geometry for layer in problems.layers(["pockets", "pool"])}
    assert (found["4 groups of 17"].G, found["4 groups of 17"].IC) == (4, 68)
    assert found["dilated 2"].dilation == (2, 2)
    assert found["25x25"].KW == 25
    assert found["1x1 stride 2"].stride == (2, 2)
    assert found["width 257"].IW == 257
    assert found["resnet global average"].out_shape == (8, 1, 1, 2048)
    assert found["resnet max 3x3 stride 2"].out_shape == (8, 56, 56, 64)


def test_a_layer_alone_is_looked_for_in_every_network():
    arguments = cli._parser().parse_args(["bench", "--layer", "conv2d", "--batch", "1,2"])
    tasks = command.chosen_tasks(arguments)
    assert {task.network for task in tasks} == {"keras_mnist", "keras_cifar10", "handson_fashion_mnist"}
    assert {task.batch for task in tasks} == {1, 2}


def test_threads_are_set_and_put_back():
    before = numba.get_num_threads()
    with machine.threads(1, [numpy_library.LIBRARY]):
        assert numba.get_num_threads() == 1
    assert numba.get_num_threads() == before


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="only Linux can confine a process to some cores")
def test_a_process_is_confined_to_some_cores_and_let_go():
    before = os.sched_getaffinity(0)
    with libraries.cores(1):
        assert len(os.sched_getaffinity(0)) == 1
    assert os.sched_getaffinity(0) == before


# ---- the report -----------------------------------------------------------------------------------------------------


class Tags(HTMLParser):
    """Checks that tags are closed in order, and collects what a page would load."""

    def __init__(self):
        super().__init__()
        self.open, self.loaded = [], []

    def handle_starttag(self, tag, attrs):
        self.loaded += [value for name, value in attrs if name in ("src", "href", "data")]
        if tag not in ("meta",):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_report_has_every_row_and_marks_losses():
    rows = [row("won"), row("lost", theirs=[0.5]), row("wrong", [], []), row("threads", threads=2)]
    rows.append(row("trained", network="training", **{"pass": "train"}))
    page = report.page(MACHINE, rows)
    for name in ("won", "lost", "wrong", "threads", "trained"):
        assert f">{name}<" in page or f" {name}<" in page
    assert "Some &lt;CPU&gt;, 2 cores" in page
    assert "Where fastconv is slower: 1 of 4 rows" in page
    assert '<span class="bad">0.50</span>' in page
    assert page.count('<rect class="lost"') == 2  # among the losses, and in its network
    assert "Values differ: net wrong forward" in page
    assert page.count('<polyline class="roof"') == 1
    assert "images/s" in page


def test_the_report_is_whole_and_needs_nothing_from_elsewhere():
    page = report.page(MACHINE, [row()])
    tags = Tags()
    tags.feed(page)
    assert tags.open == []
    assert tags.loaded == []
    assert not re.search(r"https?:|url\(|@import|<script", page)


def test_settings_that_slow_a_library_are_an_alarm():
    page = report.page({**MACHINE, "environment": {"NUMBA_BOUNDSCHECK": "1"}}, [row()])
    assert "Measured with NUMBA_BOUNDSCHECK=1" in page


def test_bars_are_sorted_and_grow_from_one():
    bars = [charts.Bar("b", 2.0, ""), charts.Bar("a", 0.5, ""), charts.Bar("c", 1.0, "")]
    chart = charts.ratio_bars(bars, [0.5, 2.0])
    assert re.findall(r">([abc])<", chart) == ["a", "c", "b"]
    widths = [float(width) for width in re.findall(r'<rect class="\w+" [^>]*width="([\d.]+)"', chart)]
    assert widths[0] == pytest.approx(widths[2], abs=0.2)
    assert widths[1] == 1


def test_the_roof_bends_where_both_ceilings_meet():
    points = [charts.Point(0.5, 1.0, "forward", ""), charts.Point(50.0, 90.0, "forward", "")]
    chart = charts.roofline_plot(roofline.Roofline(1, 100.0, 10.0), points)
    (path,) = re.findall(r'points="([^"]+)"', chart)
    (_, low), (bend, top), (_, end) = ([float(part) for part in corner.split(",")] for corner in path.split())
    assert top == end < low
    assert bend == charts.Axis(0.1, 100, charts.ROOF_LEFT, charts.WIDTH - charts.ROOF_RIGHT)(10)


# ---- the ceilings --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2])
def test_the_multiply_adds_are_done(count):
    tile = roofline.TILE_ROWS * roofline.TILE_VECTORS * roofline.codegen.VECTOR_BYTES // 4
    factors, sums = np.full(64, 0.5, np.float32), np.zeros(count * tile, np.float32)
    if count == 1:
        roofline.multiply_adds_serial(12, factors, sums)
    else:
        roofline.multiply_adds_parallel(count, 12, factors, sums)
    assert np.all(sums == 12 * 0.25)


def test_the_products_are_done():
    columns = roofline.TILE_VECTORS * roofline.codegen.VECTOR_BYTES // 4
    depth, rows = roofline.product.MOST_DEPTH, roofline.TILE_ROWS
    left, panel = np.full(rows * depth, 0.5, np.float32), np.full(depth * columns, 0.25, np.float32)
    sums = np.zeros(rows * columns, np.float32)
    roofline.products_serial(2, left, np.arange(rows) * depth, panel, sums)
    assert np.all(sums == depth * 0.125)
    run, flops = roofline.products()
    run(1)
    assert flops == 2 * depth * sums.size


@pytest.mark.skipif(numba.config.BOUNDSCHECK, reason="checks of bounds are memory accesses")
def test_the_loop_has_no_memory_access():
    compiled = numba.njit(nogil=True, error_model="numpy")(roofline.multiply_adds_serial.py_func)  # uncached: readable
    compiled(1, np.full(64, 0.5, np.float32), np.zeros(1024, np.float32))
    (assembly,) = compiled.inspect_asm().values()
    fused = [line for line in assembly.splitlines() if "vfmadd" in line]
    if not fused:
        pytest.skip("this CPU has no vfmadd instruction")
    assert not [line for line in fused if "(" in line]


def test_rooflines_are_positive():
    found = roofline.roofline(1)
    assert found.gflops > 0
    assert found.copy_gbs > 0
