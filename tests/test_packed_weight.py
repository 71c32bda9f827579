"""`PackedWeight`: the bits of the array, packed once, and never out of date, in calls and in layers."""

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from cases import BY_NAME, CASES, normal_arrays

import fastconv
from fastconv import PackedWeight, conv1d, conv2d, conv2d_backward, conv2d_grad_x, conv_transpose2d, dense, threads
from fastconv.cpu import conv_direct, conv_winograd
from fastconv.dispatch import CONV2D
from fastconv.geometry import conv2d_geometry
from fastconv.keras import Sequential, layers
from fastconv.keras.models import load_model

CALLS = 3


def same_bits(actual, expected):
    assert actual.dtype == expected.dtype
    assert actual.shape == expected.shape
    assert actual.tobytes() == expected.tobytes()


def channels_first(array):
    return np.ascontiguousarray(array.transpose(0, 3, 1, 2))


# Kernels that pack or transform the weight that they receive.
PACKING = (conv_direct.conv2d_forward_direct_serial, conv_winograd.conv2d_forward_winograd_serial)


@pytest.fixture
def packings(monkeypatch):
    """Counts the weights that are packed or transformed, in calls of one thread."""
    found = []
    monkeypatch.setattr(threads, "worker_count", lambda work: 1)
    run = threads.run

    def counted(serial, parallel, workers, *arguments):
        weight = arguments[1]
        if serial in PACKING and weight.size > 0:
            found.append(serial)
        run(serial, parallel, workers, *arguments)

    monkeypatch.setattr(threads, "run", counted)
    return found


# ---- the same bits --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_bits_are_those_of_the_array(case):
    """With every algorithm that takes the problem; the first call packs, the later ones find what it made."""
    a = normal_arrays(case.geometry)
    for algorithm in ("auto", *(one.name for one in CONV2D if one.refuses(case.geometry, 4) is None)):
        options = {**case.options, "algorithm": algorithm}
        kept = PackedWeight(a.weight)
        out = conv2d(a.x, a.weight, a.bias, residual=a.residual, activation="relu", **options)
        grad_x = conv2d_grad_x(a.grad_out, a.weight, a.x.shape, **options)
        for _ in range(CALLS):
            same_bits(conv2d(a.x, kept, a.bias, residual=a.residual, activation="relu", **options), out)
            same_bits(conv2d_grad_x(a.grad_out, kept, a.x.shape, **options), grad_x)


@pytest.mark.parametrize("name", ["plain", "grouped", "strided tail", "depthwise"])
def test_float64_and_channels_first(name):
    case = BY_NAME[name]
    a = normal_arrays(case.geometry, np.float64)
    kept = PackedWeight(a.weight)
    weight = np.ascontiguousarray(a.weight.transpose(3, 2, 0, 1))
    kept_first = PackedWeight(weight)
    x, grad_out = channels_first(a.x), channels_first(a.grad_out)
    for _ in range(CALLS):
        same_bits(conv2d(a.x, kept, **case.options), conv2d(a.x, a.weight, **case.options))
        for result, expected in (
            (conv2d(x, kept_first, layout="NCHW", **case.options), conv2d(x, weight, layout="NCHW", **case.options)),
            (
                conv2d_grad_x(grad_out, kept_first, x.shape, layout="NCHW", **case.options),
                conv2d_grad_x(grad_out, weight, x.shape, layout="NCHW", **case.options),
            ),
        ):
            same_bits(result, expected)


def test_one_weight_serves_different_calls():
    """Layouts, groups, strides and paddings: what is kept for one is not taken for another."""
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((3, 3, 3, 3), np.float32)
    x = rng.standard_normal((2, 9, 3, 9), np.float32)
    kept = PackedWeight(weight)
    calls = [
        {"layout": "NCHW"},
        {"groups": 3, "layout": "NCHW"},
        *({"stride": stride, "padding": padding} for stride in (1, 2, 3) for padding in ("valid", "same", 1)),
    ]
    for _ in range(2):
        for call in calls:
            shape = (2, 9, 3, 9) if "groups" in call else (2, 3, 9, 9) if "layout" in call else (2, 9, 9, 3)
            images = x.reshape(shape)
            out = conv2d(images, weight, **call)
            same_bits(conv2d(images, kept, **call), out)
            same_bits(conv2d_grad_x(out, kept, shape, **call), conv2d_grad_x(out, weight, shape, **call))


def test_the_gradient_of_x_keeps_a_weight_for_each_way_to_compute_it():
    """Winograd has the taps in their order for small images without padding, and turned for others."""
    rng = np.random.default_rng(5)
    weight = rng.standard_normal((3, 3, 16, 16)).astype(np.float32)
    kept = PackedWeight(weight)
    for padding in (0, 1, 0):
        g = conv2d_geometry((1, 9, 9, 16), weight.shape, padding=padding)
        grad_out = rng.standard_normal(g.out_shape).astype(np.float32)
        call = {"padding": padding, "algorithm": "winograd"}
        same_bits(conv2d_grad_x(grad_out, kept, g.x_shape, **call), conv2d_grad_x(grad_out, weight, g.x_shape, **call))


def test_dense_series_and_transposed():
    rng = np.random.default_rng(1)
    matrix, kernel = rng.standard_normal((37, 19), np.float32), rng.standard_normal((3, 7, 5), np.float32)
    spread = rng.standard_normal((4, 3, 5, 7), np.float32)
    x, series = rng.standard_normal((11, 37), np.float32), rng.standard_normal((2, 13, 7), np.float32)
    images = rng.standard_normal((2, 5, 3, 7), np.float32)
    kept_matrix, kept_kernel, kept_spread = PackedWeight(matrix), PackedWeight(kernel), PackedWeight(spread)
    for _ in range(CALLS):
        same_bits(dense(x, kept_matrix, activation="relu"), dense(x, matrix, activation="relu"))
        same_bits(conv1d(series, kept_kernel, padding="same"), conv1d(series, kernel, padding="same"))
        first = np.ascontiguousarray(series.transpose(0, 2, 1))
        same_bits(
            conv1d(first, PackedWeight(kernel.transpose(2, 1, 0)), layout="NCW"),
            conv1d(first, kernel.transpose(2, 1, 0), layout="NCW"),
        )
        same_bits(conv_transpose2d(images, kept_spread, stride=2), conv_transpose2d(images, spread, stride=2))


def test_the_batch_and_the_number_of_workers_do_not_matter(monkeypatch):
    case = BY_NAME["over one block of depth and columns"]
    a = normal_arrays(case.geometry)
    kept = PackedWeight(a.weight)
    out = conv2d(a.x, a.weight, **case.options)
    for workers in (1, 2, 3, 16):
        monkeypatch.setattr(threads, "worker_count", lambda work, workers=workers: workers)
        same_bits(conv2d(a.x, kept, **case.options), out)
        same_bits(conv2d(a.x[0], kept, **case.options), out[0])


def test_gradients_take_it_as_an_array():
    case = BY_NAME["plain"]
    a = normal_arrays(case.geometry)
    expected = conv2d_backward(a.grad_out, a.x, a.weight, **case.options)
    found = conv2d_backward(a.grad_out, a.x, PackedWeight(a.weight), **case.options)
    for actual, wanted in zip(found, expected, strict=True):
        same_bits(actual, wanted)


# ---- packed once, never out of date ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "algorithm"), [("plain", "direct"), ("plain", "winograd"), ("winograd, many channels", "winograd")]
)
def test_it_is_packed_once(name, algorithm, packings):
    case = BY_NAME[name]
    a = normal_arrays(case.geometry)
    kept = PackedWeight(a.weight)
    for _ in range(CALLS):
        conv2d(a.x, kept, algorithm=algorithm, **case.options)
    assert len(packings) == 1
    for _ in range(CALLS):
        conv2d_grad_x(a.grad_out, kept, a.x.shape, algorithm=algorithm, **case.options)
    assert len(packings) == 2


def test_the_callers_array_may_change():
    weight, x = np.ones((3, 3, 8, 8), np.float32), np.ones((1, 5, 5, 8), np.float32)
    kept = PackedWeight(weight)
    weight[:] = 2
    assert (conv2d(x, kept) == 72).all()
    weight[:] = 3
    assert (conv2d(x, kept) == 72).all()
    with pytest.raises(ValueError, match="read-only"):
        np.asarray(kept)[:] = 4


def test_several_threads_may_use_one():
    case = BY_NAME["winograd, many tiles"]
    a = normal_arrays(case.geometry)
    expected = conv2d(a.x, a.weight, **case.options).tobytes()
    with ThreadPoolExecutor(8) as pool:
        for _ in range(5):
            kept = PackedWeight(a.weight)
            found = pool.map(lambda _, kept=kept: conv2d(a.x, kept, **case.options).tobytes(), range(16))
            assert set(found) == {expected}


def test_a_pickle_holds_the_weight_alone():
    a = normal_arrays(BY_NAME["plain"].geometry)
    kept = PackedWeight(a.weight)
    before = len(pickle.dumps(kept))
    out = conv2d(a.x, kept)
    assert len(pickle.dumps(kept)) == before
    for again in (pickle.loads(pickle.dumps(kept)), copy.deepcopy(kept)):
        same_bits(conv2d(a.x, again), out)
    assert repr(kept) == "PackedWeight(shape=(3, 3, 32, 32), dtype=float32)"


# ---- the same errors ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "shape", "dtype"),
    [
        (conv2d, (3, 3, 4, 5), np.float32),
        (conv2d, (3, 4, 5), np.float32),
        (conv2d, (9, 9, 3, 5), np.float32),
        (conv2d, (3, 3, 3, 5), np.float64),
        (dense, (4, 5), np.float32),
        (dense, (3, 3, 5), np.float32),
        (conv_transpose2d, (3, 3, 5, 4), np.float32),
    ],
)
def test_what_does_not_fit_raises_the_same(call, shape, dtype):
    x, weight = np.ones((1, 7, 7, 3), np.float32), np.ones(shape, dtype)
    with pytest.raises((ValueError, TypeError)) as expected:
        call(x, weight)
    kept = PackedWeight(weight)
    for _ in range(2):
        with pytest.raises(type(expected.value)) as found:
            call(x, kept)
        assert str(found.value) == str(expected.value)


def test_a_dtype_is_checked_in_every_call():
    weight = np.ones((1, 1, 3, 2), np.float32)
    kept = PackedWeight(weight)
    conv2d(np.ones((1, 2, 2, 3), np.float32), kept)
    with pytest.raises(TypeError, match="weight must have the dtype of the first array, float64"):
        conv2d(np.ones((1, 2, 2, 3), np.float64), kept)
    with pytest.raises(TypeError, match="weight must be float32 or float64"):
        PackedWeight(np.ones((1, 1, 3, 2), np.int32))


# ---- layers ---------------------------------------------------------------------------------------------------------


def small_model():
    model = Sequential(
        [
            layers.Input((8, 8, 16)),
            layers.Conv2D(16, 3, padding="same", activation="relu"),
            layers.DepthwiseConv2D(3),
            layers.Conv2D(8, 1),
            layers.Flatten(),
            layers.Dense(3),
        ]
    )
    model.compile("adam", fastconv.keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


X = np.random.default_rng(2).standard_normal((4, 8, 8, 16), np.float32)
Y = np.array([0, 1, 2, 1])


def by_hand(model):
    """The prediction of a model of the same weights that has kept nothing."""
    fresh = small_model()
    fresh.set_weights(model.get_weights())
    return fresh.predict(X)


def fit(model, path):
    model.fit(X, Y, verbose=0)


def train_on_batch(model, path):
    model.train_on_batch(X, Y)


def set_weights(model, path):
    model.set_weights([2 * weight for weight in model.get_weights()])


def assign(model, path):
    for variable in model.weights:
        variable.assign(variable.value + 1)


def set_value(model, path):
    for variable in model.weights:
        variable.value = variable.value + 1


def change_in_place(model, path):
    for variable in model.weights:
        with variable.changing() as array:
            array += 1


def fail_while_changing(model, path):
    def change(variable):
        with variable.changing() as array:
            array += 1
            raise RuntimeError("half done")

    for variable in model.weights:
        with pytest.raises(RuntimeError, match="half done"):
            change(variable)


CHANGES = [fit, train_on_batch, set_weights, assign, set_value, change_in_place, fail_while_changing]


@pytest.mark.parametrize("change", CHANGES)
def test_a_layer_sees_every_change_of_its_weights(change, tmp_path):
    model = small_model()
    before = model.predict(X)
    same_bits(model.predict(X), before)
    change(model, tmp_path)
    after = model.predict(X)
    assert (after != before).any()
    same_bits(after, by_hand(model))
    same_bits(model(X), after)


def test_a_loaded_model_keeps_its_own(tmp_path):
    model = small_model()
    before = model.predict(X)
    model.save(tmp_path / "model.safetensors")
    loaded = load_model(tmp_path / "model.safetensors")
    same_bits(loaded.predict(X), before)
    loaded.fit(X, Y, verbose=0)
    same_bits(loaded.predict(X), by_hand(loaded))
    same_bits(model.predict(X), before)


def test_a_variable_does_not_change_unseen():
    (kernel, _) = small_model().layers[0].weights
    for array in (kernel.value, np.asarray(kernel.packed())):
        with pytest.raises(ValueError, match="read-only"):
            array[:] = 0


def test_copies_of_a_model_go_their_own_way():
    model = small_model()
    before = model.predict(X)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        same_bits(other.predict(X), before)
        other.fit(X, Y, verbose=0)
        same_bits(other.predict(X), by_hand(other))
        same_bits(model.predict(X), before)


def test_layers_pack_once_for_many_predictions(packings):
    model = small_model()
    model.predict(X)
    first = len(packings)
    assert first == 3  # two convolutions and a dense layer; depthwise reads the weight as it is
    model.predict(X[:1])
    model(X)
    model.evaluate(X, Y, verbose=0)
    assert len(packings) == first
    model.train_on_batch(X, Y)
    trained = len(packings)
    model.predict(X)
    assert len(packings) == trained + first
