"""What only a GPU can show: arrays and streams of other libraries, graphs, memory, and whole models on the device."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from emulator import needs_target

from fastconv import conv2d, conv2d_backward, cuda, max_pool2d
from fastconv.cuda import device

# Numba warns of every launch with less than 128 blocks, which these small problems are
pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("ignore:Grid size")]

needs_target()
if (_reason := device.why_not()) is not None:
    pytest.skip(_reason, allow_module_level=True)

from test_keras_device import IMAGES, LABELS, assert_same_weights, demo  # noqa: E402 - it needs the target

RANDOM = np.random.default_rng(0)
X = RANDOM.standard_normal((2, 9, 8, 16)).astype(np.float32)
WEIGHT = RANDOM.standard_normal((3, 3, 16, 20)).astype(np.float32)
OUT = conv2d(X, WEIGHT, padding=1, algorithm="direct")
#: Numbers of an operation that keeps a GPU busy for a while, so that what does not wait for it is too early.
BUSY = 6000


def torch_with_a_gpu() -> Any:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("PyTorch sees no GPU")
    return torch


def to_torch(values: Any) -> Any:
    return torch_with_a_gpu().from_numpy(values).cuda()


def to_cupy(values: Any) -> Any:
    return pytest.importorskip("cupy").asarray(values)


def to_numba(values: Any) -> Any:
    return device.target().to_device(values)


#: A library's name: how an array gets there and back.
LIBRARIES: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "fastconv": (cuda.asarray, lambda array: array.numpy()),
    "numba": (to_numba, lambda array: array.copy_to_host()),
    "torch": (to_torch, lambda array: array.cpu().numpy()),
    "cupy": (to_cupy, lambda array: array.get()),
}


@pytest.mark.parametrize("library", LIBRARIES)
def test_results_come_in_the_callers_library(library: str) -> None:
    there, back = LIBRARIES[library]
    x, weight = there(X), there(WEIGHT)
    out = conv2d(x, weight, padding=1, algorithm="direct")
    assert type(out) is type(x)
    assert np.array_equal(back(out), OUT)
    grads = conv2d_backward(out, x, weight, padding=1, algorithm="direct")
    for found, expected in zip(grads, conv2d_backward(OUT, X, WEIGHT, padding=1, algorithm="direct"), strict=True):
        assert np.array_equal(back(found), expected)
    pooled, index = max_pool2d(x, 2, return_indices=True)
    expected_pooled, expected_index = max_pool2d(X, 2, return_indices=True)
    assert np.array_equal(back(pooled), expected_pooled)
    assert np.array_equal(back(index), expected_index)
    with pytest.raises(TypeError, match="host"):
        conv2d(x, WEIGHT, padding=1)


def test_results_go_into_the_callers_memory() -> None:
    torch = torch_with_a_gpu()
    x, weight = to_torch(X), to_torch(WEIGHT)
    out = torch.empty(OUT.shape, device="cuda")
    address = out.data_ptr()
    assert conv2d(x, weight, padding=1, algorithm="direct", out=out) is out
    assert out.data_ptr() == address
    assert np.array_equal(out.cpu().numpy(), OUT)
    nchw = conv2d(
        x.permute(0, 3, 1, 2).contiguous(),
        weight.permute(3, 2, 0, 1).contiguous(),
        padding=1,
        algorithm="direct",
        layout="NCHW",
    )
    assert np.array_equal(nchw.permute(0, 2, 3, 1).cpu().numpy(), OUT)


def test_kernels_wait_for_what_is_on_the_stream_of_the_library() -> None:
    """x is computed late, on a stream that is not the default one."""
    torch = torch_with_a_gpu()
    factor, weight = torch.rand(BUSY, BUSY, device="cuda"), to_torch(WEIGHT)
    x = torch.zeros(X.shape, device="cuda")
    values = to_torch(X)
    torch.cuda.synchronize()
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        torch.mm(factor, factor)
        x.copy_(values)
        out = conv2d(x, weight, padding=1, algorithm="direct")
        found = out.cpu()
    assert np.array_equal(found.numpy(), OUT)


def test_a_stream_of_the_caller() -> None:
    stream = device.target().stream()
    x, weight = cuda.asarray(X), cuda.asarray(WEIGHT)
    device.target().synchronize()
    with cuda.stream(stream):
        out = conv2d(x, weight, padding=1, algorithm="direct")
        found = out.numpy()
    assert np.array_equal(found, OUT)


def test_a_graph_replays_a_convolution() -> None:
    """PyTorch captures what is launched on its stream, ours too, and replays it on new values."""
    torch = torch_with_a_gpu()
    x, weight = to_torch(np.zeros_like(X)), to_torch(WEIGHT)
    out = conv2d(x, weight, padding=1, algorithm="direct")
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = conv2d(x, weight, padding=1, algorithm="direct")
    x.copy_(to_torch(X))
    graph.replay()
    assert np.array_equal(out.cpu().numpy(), OUT)


def test_training_ends_with_the_bits_of_the_cpu(tmp_path: Path) -> None:
    here, there = demo("cpu"), demo("cuda")
    expected = here.fit(IMAGES, LABELS, batch_size=4, epochs=3, verbose=0).history
    found = there.fit(IMAGES, LABELS, batch_size=4, epochs=3, verbose=0).history
    assert_same_weights(here, there)
    assert found == expected
    predicted = there.predict(IMAGES)
    assert np.array_equal(predicted, here.predict(IMAGES))
    # more batches than two are replayed as a graph, on the stream of the caller
    images, labels = np.tile(IMAGES, (8, 1, 1, 1)), np.tile(LABELS, 8)
    expected = here.fit(images, labels, batch_size=5, epochs=3, verbose=0).history
    with cuda.stream(device.target().stream()):
        found = there.fit(images, labels, batch_size=5, epochs=3, verbose=0).history
        predicted, scores = there.predict(images, batch_size=5), there.evaluate(images, labels, batch_size=5, verbose=0)
    assert_same_weights(here, there)
    assert found == expected
    assert np.array_equal(predicted, here.predict(images, batch_size=5))
    assert scores == pytest.approx(here.evaluate(images, labels, batch_size=5, verbose=0))
    there.save(tmp_path / "there.safetensors")
    assert np.array_equal(there.to("cpu").predict(images), predicted)


@pytest.mark.parametrize("size", [4, 1])
def test_memory_does_not_grow(size: int) -> None:
    """Once an epoch has run, all memory of the next one is that of the last."""
    model = demo("cuda")
    context = device.target().current_context()
    free = []
    for _ in range(4):
        model.fit(IMAGES, LABELS, batch_size=size, epochs=2, verbose=0)
        free.append(context.get_memory_info().free)
    assert free[1] == free[2] == free[3]


def test_large_arrays() -> None:
    """More than 2 GB in one array: positions of numbers fit, those of bytes do not."""
    image = np.random.default_rng(1).standard_normal((1, 1024, 1024, 16)).astype(np.float32)
    weight = WEIGHT[:1, :1]
    x = cuda.asarray(np.tile(image, (40, 1, 1, 1)))
    out = conv2d(x, cuda.asarray(weight), algorithm="direct")
    assert out.size * out.itemsize > 2**31
    assert np.array_equal(out.numpy()[-1:], conv2d(image, weight, algorithm="direct"))
    del out
    cuda.empty_cache()
