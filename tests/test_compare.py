"""`fastconv compare`: without a GPU it says so, predicts and marks it, and proves values on the emulator."""

from __future__ import annotations

import re
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from fastconv import cli, cuda

pytest.importorskip("threadpoolctl", reason="the bench needs threadpoolctl, which is not installed")

from fastconv.bench import charts, compare, compare_report, crossover, gpu, model_layers, problems, record, timing
from fastconv.cuda import device, launches
from fastconv.cuda.roofline import bound, transfer_seconds

SMALL = ["compare", "--shape", "6x5x4,3x3x8", "--batch", "1,2", "--threads", "1", "--samples", "2"]
MACHINE = {
    "date": "2020-02-02",
    "cpu": "Some <CPU>",
    "cores": 2,
    "vector_bits": 256,
    "versions": {"numpy": "2.0"},
    "environment": {},
    "threads": 1,
}
PREDICTED = {"name": "H100", "why_not": "there is none", "sheet": "H100"}
PRESENT = {"name": "NVIDIA <GPU>", "why_not": None, "sheet": None}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(timing, "SAMPLE_SECONDS", 1e-4)


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(cuda, "why_not", lambda: "nobody plugged one in")


def row(layer="conv", batch=1, cpu=1.0, kernel=0.5, upload=0.25, download=0.25, **changes):
    """A row as `compare.measure` returns it."""
    return {
        "network": "net",
        "layer": layer,
        "count": 1,
        "batch": batch,
        "problem": "x=(1, 4, 4, 3)",
        "flops": 1_000_000,
        "bytes": 10_000,
        "threads": 1,
        "algorithm": "direct",
        "first_cpu": 0.1,
        "cpu": [cpu],
        "measured": False,
        "kernel": [kernel],
        "call": [kernel],
        "upload": [upload],
        "download": [download],
        "compile": None,
        "predicted": kernel,
        "tolerance": 1e-4,
        "agreement": None,
        **changes,
    }


# ---- the command ----------------------------------------------------------------------------------------------------


def test_without_a_gpu_times_are_predicted_and_say_so(no_gpu, tmp_path, capsys):
    json, html = tmp_path / "new" / "result.json", tmp_path / "new" / "result.html"
    assert cli.main([*SMALL, "--gpu", "T4", "--json", str(json), "--html", str(html)]) == cli.EXIT_OK
    text = capsys.readouterr().out
    assert "No GPU: nobody plugged one in.\n" in text
    assert "GPU times are PREDICTED for T4" in text
    assert "PREDICTED, T4" in text
    data = record.read(json)
    assert data["machine"]["gpu"] == {"name": "T4", "why_not": "nobody plugged one in", "sheet": "T4"}
    assert [found["batch"] for found in data["rows"]] == [1, 2]
    for found in data["rows"]:
        assert not found["measured"]
        assert found["compile"] is found["agreement"] is None
        assert len(found["cpu"]) == 2
        layer = problems.layer_of_text("6x5x4,3x3x8", found["batch"])
        (launch,) = launches.conv2d("forward", layer.geometry)
        least = bound(gpu.GPUS[0], launch).seconds
        assert found["kernel"] == pytest.approx([gpu.LAUNCH_SECONDS + least], abs=1e-9)
        copied = transfer_seconds(gpu.GPUS[0], 4 * layer.batch * 6 * 5 * 4)
        assert found["upload"] == pytest.approx([gpu.COPY_SECONDS + copied], abs=1e-9)
    page = html.read_text()
    assert "<b>PREDICTED</b> for T4" in page
    assert "nobody plugged one in" in page


def test_emulation_proves_the_same_bits(no_gpu, tmp_path, capsys):
    """A convolution, a depthwise one and both poolings, as PTX."""
    try:
        device.target()
    except ImportError as error:
        pytest.skip(f"no kernel can be compiled: {error}")
    json = tmp_path / "result.json"
    shapes = [
        "28x28x64,3x3x64,padding=same",
        "9x9x64,3x3x64,groups=64",
        "8x8x16,max,2x2",
        "8x8x16,average,3x3,stride=2",
    ]
    arguments = ["compare", "--shape", *shapes, "--batch", "1,2", "--threads", "1", "--samples", "1", "--emulate"]
    assert cli.main([*arguments, "--json", str(json)]) == cli.EXIT_OK
    assert "same bits (emulated)" in capsys.readouterr().out
    rows = record.read(json)["rows"]
    assert len(rows) == 8
    for found in rows:
        assert found["agreement"]["same_bits"]
        assert found["agreement"]["emulated"]
        assert found["agreement"]["error"] == 0
    assert rows[0]["agreement"]["problem"].startswith("x=(1, 5, 5, 8) weight=(3, 3, 8, 8)")
    assert [found["algorithm"] for found in rows[::2]] == ["direct", "depthwise", "max", "average"]


def test_values_that_differ_are_an_exit_status(no_gpu, monkeypatch, capsys):
    agreement = gpu.Agreement("x", same_bits=False, error=0.5)
    monkeypatch.setattr(gpu, "emulate", lambda layer: agreement)
    monkeypatch.setattr(device, "target", lambda: None)
    assert cli.main([*SMALL, "--emulate"]) == cli.EXIT_MISSED
    assert "VALUES DIFFER, error 5e-01 (emulated)" in capsys.readouterr().out


def test_emulation_needs_the_target_before_anything_is_timed(no_gpu, monkeypatch, capsys):
    def missing():
        raise ImportError("pip install 'fastconv[cuda]'")

    monkeypatch.setattr(device, "target", missing)
    monkeypatch.setattr(compare, "measure", None)
    assert cli.main([*SMALL, "--emulate"]) == cli.EXIT_USAGE
    assert "pip install 'fastconv[cuda]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--gpu", "GTX"], 'device must be one of "cuda:T4"'),
        (["--model", "vgg"], "--model must be one of demo. Received: vgg"),
        (["--net", "vgg"], "network must be one of resnet_50_v1_5"),
        (["--layer", "conv9"], "--layer must be the name of a layer. Received: conv9"),
    ],
)
def test_names_of_nothing_are_refused(no_gpu, arguments, message, capsys):
    assert cli.main(["compare", *arguments]) == cli.EXIT_USAGE
    assert message in " ".join(capsys.readouterr().err.split())


def test_layers_of_the_demo_network():
    arguments = cli._parser().parse_args(["compare", "--batch", "32,8"])
    layers = compare.chosen_layers(arguments)
    assert [(layer.name, layer.batch) for layer in layers[:3]] == [("conv2d", 8), ("conv2d", 32), ("max_pooling2d", 8)]
    assert [layer.geometry.out_shape[1:] for layer in layers[::2]] == [
        (26, 26, 32),
        (13, 13, 32),
        (11, 11, 64),
        (5, 5, 64),
        (3, 3, 64),
        (1, 1, 64),
        (1, 1, 10),
    ]
    assert model_layers.layers_of("demo", 3)[0].geometry.x_shape == (3, 28, 28, 1)


@pytest.mark.parametrize("network", ["pockets", "pool", "mobilenet_dw", "resnet_50_v1_5"])
def test_small_layers_are_of_the_same_kind(network):
    for layer in problems.layers([network]):
        small = gpu.shrunk(layer)
        assert gpu.algorithm(small) == gpu.algorithm(layer)
        assert small.batch == 1
        if layer.operation == "conv2d":
            before, after = layer.geometry, small.geometry
            for name in ("KH", "KW", "stride", "dilation", "padding"):
                assert getattr(before, name) == getattr(after, name)
            assert before.is_depthwise == after.is_depthwise
            for extents in ((before.IC // before.G, after.IC // after.G), (before.OC // before.G, after.OC // after.G)):
                assert extents[0] % 4 == 0 or extents[1] % 4
                assert extents[1] <= min(extents[0], 8)


# ---- what the rows add up to ----------------------------------------------------------------------------------------


def test_break_even_is_where_the_gpu_stays_ahead():
    rows = [row(batch=batch, cpu=cpu) for batch, cpu in ((1, 0.4), (2, 2.0), (4, 0.9), (8, 1.0), (16, 3.0))]
    (curve,) = crossover.curves(rows)
    assert [point.gpu for point in curve.points] == [1.0] * 5
    assert curve.break_even() == 8
    assert curve.break_even(with_transfer=False) == 2
    assert crossover.batch_of(curve, with_transfer=True) == "8"
    (slow,) = crossover.curves([row(batch=2, cpu=0.1), row(batch=4, cpu=0.2)])
    assert slow.break_even() is None
    assert crossover.batch_of(slow, with_transfer=True) == "above 4"
    (fast,) = crossover.curves([row(batch=2, cpu=9.0), row(batch=4, cpu=9.0)])
    assert crossover.batch_of(fast, with_transfer=True) == "2 or less"


def test_crossing_is_interpolated_between_logarithms():
    (curve,) = crossover.curves([row(batch=1, cpu=0.1), row(batch=100, cpu=10.0)])
    assert curve.crossing() == pytest.approx((10.0, 1.0))
    (never,) = crossover.curves([row(batch=1, cpu=2.0), row(batch=100, cpu=10.0)])
    assert never.crossing() is None


def test_a_network_copies_only_its_ends():
    rows = [
        row("first", upload=1.0, download=2.0, cpu=10.0),
        row("last", upload=4.0, download=8.0, count=3, cpu=1.0),
    ]
    whole, first, _ = crossover.curves(rows)
    assert (whole.layer, whole.points) == (crossover.WHOLE, (crossover.Point(1, 13.0, 2.0, 2.0, 9.0),))
    assert first.points[0].transfer == 3.0


def test_a_batch_that_is_not_whole_is_left_out():
    """As after Ctrl-C."""
    whole, *_ = crossover.curves([row("first"), row("first", batch=2), row("last")])
    assert [point.batch for point in whole.points] == [1]


def test_agreement_in_words():
    def found(**changes: Any) -> str:
        return crossover.agreement(row(agreement={"same_bits": False, "error": 1e-6, "emulated": False, **changes}))

    assert crossover.agreement(row()) == "not compared"
    assert found(same_bits=True, error=0.0) == "same bits"
    assert found() == "error 1e-06"
    assert found(error=float("inf")).startswith("VALUES DIFFER")
    assert found(error=float("nan")).startswith("VALUES DIFFER")


# ---- the page -------------------------------------------------------------------------------------------------------


def test_the_page_marks_predictions_and_needs_nothing_from_elsewhere():
    rows = [row(layer, batch, cpu=0.1 * batch) for layer in ("a<b", "c") for batch in (1, 100)]
    page = compare_report.page({**MACHINE, "gpu": PREDICTED}, rows)
    assert "Nothing here ran on a GPU" in page
    assert page.count(">as fast at batch 10<") == 2  # in the plot of each layer
    assert page.count(">as fast at batch 7.5<") == 1  # and of both, with 0.5 s of transfer once
    assert page.count("kernel, ms, predicted") == 1
    assert "a&lt;b" in page
    assert "a<b" not in page
    assert "Some &lt;CPU&gt;" in page
    assert page.count("<svg") == page.count("</svg>") == 3
    assert not re.search(r"https?:|url\(|@import|<script| src=", page)


def test_the_page_of_a_real_gpu():
    same = {"problem": "x", "same_bits": True, "error": 0.0, "emulated": False}
    wrong = {**same, "same_bits": False, "error": 0.5}
    rows = [row(measured=True, compile=0.5, agreement=same), row("bad", measured=True, compile=0.5, agreement=wrong)]
    page = compare_report.page({**MACHINE, "gpu": PRESENT}, rows)
    assert "PREDICTED" not in page
    assert "predicted" not in page
    assert "GPU: <b>NVIDIA &lt;GPU&gt;</b>" in page
    assert '<p class="alarm">Values differ: net bad, batch 1: VALUES DIFFER, error 5e-01</p>' in page
    assert ">500<" in page  # compile


def test_one_batch_size_makes_a_plot():
    chart = charts.times_plot([charts.Line("CPU", "cpu", [(8, 0.001)])], None)
    assert "CPU, batch 8: 1 ms" in chart


# ---- a GPU, pretended -----------------------------------------------------------------------------------------------


class PretendedCuda:
    """Numba's CUDA target with a clock that goes on by 3 ms for each kernel and by 1 ms for each copy."""

    def __init__(self):
        self.now = 0.0

    def event(self):
        def record():
            marker.at = self.now

        marker = SimpleNamespace(at=None, record=record, synchronize=lambda: None)
        return marker

    def event_elapsed_time(self, start, stop):
        return stop.at - start.at

    def synchronize(self):
        pass

    def get_current_device(self):
        return SimpleNamespace(name=b"NVIDIA A100-SXM4-40GB")


class OnDevice:
    """An array of the pretended GPU, and its own memory."""

    def __init__(self, clock, values):
        self.clock, self.values, self.size, self.memory = clock, values, values.size, self
        self.engine = SimpleNamespace(recording=lambda: PretendedRecording(clock))

    def numpy(self):
        return self.values

    def copy_to_device(self, host):
        self.clock.now += 1

    copy_to_host = copy_to_device


class PretendedRecording:
    """Replays without the millisecond in which Python starts a kernel."""

    def __init__(self, clock):
        self.clock = clock

    @contextmanager
    def on(self):
        before = self.clock.now
        yield
        self.took = (self.clock.now - before) * 2 / 3

    def replay(self):
        self.clock.now += self.took


def test_a_gpu_is_timed_by_its_own_clock(monkeypatch):
    pretended, on_host = PretendedCuda(), gpu.compute

    def compute(layer, inputs, out=None):
        if isinstance(inputs[0], np.ndarray):
            return on_host(layer, inputs)
        pretended.now += 3
        return OnDevice(pretended, on_host(layer, [part.values for part in inputs]))

    layer = problems.layer_of_text("6x5x4,3x3x8", 2)
    monkeypatch.setattr(device, "available", lambda: True)
    monkeypatch.setattr(device, "target", lambda: pretended)
    monkeypatch.setattr(gpu.cuda, "asarray", lambda values: OnDevice(pretended, values))
    monkeypatch.setattr(gpu, "compute", compute)
    found = gpu.measure(layer, samples=3)
    assert found.times.kernel == pytest.approx([2e-3] * 3)
    assert found.times.call == pytest.approx([3e-3] * 3)
    assert found.times.upload == found.times.download == pytest.approx([1e-3] * 3)
    assert found.agreement.same_bits
    assert gpu.name_of_device() == "NVIDIA A100-SXM4-40GB"
    assert gpu.model_of_device().name == "A100"
