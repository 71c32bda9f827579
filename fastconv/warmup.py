"""What `fastconv warmup` compiles: calls of each operation that layers need.

On the CPU a kernel is specialised by dtypes, so the calls are tiny.  On a GPU it is specialised by the size of its
tiles and by whether four channels are loaded at a time, and these follow from shapes.  So the shapes are those of
networks, and not small ones: nothing is computed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import zip_longest
from typing import Any

import numba
import numpy as np

from fastconv import functional, threads
from fastconv.cpu import total, update
from fastconv.cpu.activation import ACTIVATIONS
from fastconv.cuda.ahead import Compiler
from fastconv.cuda.array import Array
from fastconv.demo import tutorial_network
from fastconv.keras import Sequential, layers, losses, optimizers
from fastconv.packed_weight import PackedWeight

Call = Callable[[], object]

#: Images in one launch: one of prediction, and the default of training.
BATCHES = (1, 32)
#: Pixels on a side, input channels, output channels and pixels on a side of the kernel.
CONVOLUTIONS = (
    (224, 3, 64, 7),
    (56, 64, 64, 1),
    (56, 64, 64, 3),
    (28, 128, 128, 3),
    (28, 64, 64, 5),
    (14, 256, 256, 3),
    (14, 256, 1024, 1),
    (7, 512, 512, 3),
    (28, 1, 32, 3),
    (30, 30, 50, 3),
)
STRIDES = (1, 2)
#: The images of `fastconv train`, and those of CIFAR-10.
IMAGES = ((28, 28, 1), (32, 32, 3))
CLASSES = 10


def cpu_calls(dtype: str) -> list[Call]:
    """One tiny call of every operation that has kernels of its own."""
    rng = np.random.default_rng(0)

    def array(*shape: int) -> Any:
        return rng.standard_normal(shape).astype(dtype)

    x, weight, bias, grad = array(1, 6, 6, 4), array(3, 3, 4, 4), array(4), array(1, 4, 4, 4)
    features, depthwise, matrix, labels = array(1, 12, 12, 16), array(3, 3, 1, 4), array(6, 4), np.arange(6) % 4
    optimizer_arrays = [array(8) ** 2 for _ in range(4)]

    def convolution(algorithm: str = "direct") -> None:
        functional.conv2d(x, weight, bias, activation="relu", algorithm=algorithm)
        functional.conv2d_backward(grad, x, weight, algorithm=algorithm)

    def other_convolutions() -> None:
        colours, many = features[..., :3], array(3, 3, 3, 16)
        functional.conv2d_grad_weight(functional.conv2d(colours, many), colours, many.shape)
        last, kernel = array(1, 64, 64, 8), array(3, 3, 8, 1)
        out = functional.conv2d(last, kernel, bias[:1], padding=1, algorithm="direct")
        functional.conv2d_backward(out, last, kernel, padding=1, algorithm="direct")
        functional.conv_transpose2d(x, weight, bias)

    def few_tiles_of_many_channels() -> None:
        many = PackedWeight(array(3, 3, 176, 176))
        functional.conv2d(array(1, 4, 4, 176), many, padding=1, algorithm="winograd")

    def depthwise_convolution() -> None:
        functional.conv2d(x, depthwise, bias, groups=4)
        functional.conv2d_backward(grad, x, depthwise, groups=4)

    def pooling() -> None:
        _, indices = functional.max_pool2d(x, 2, return_indices=True)
        functional.max_pool2d(x, 2)
        functional.min_pool2d(x, 2, return_indices=True)
        functional.max_pool2d_backward(array(1, 3, 3, 4), indices, x.shape)
        functional.max_unpool2d_backward(x, indices)
        functional.avg_pool2d(x, 2)
        functional.avg_pool2d_backward(array(1, 3, 3, 4), x.shape, 2)
        _, indices = functional.max_pool2d(features, 2, return_indices=True)
        functional.max_pool2d_backward(array(*indices.shape), indices, features.shape)

    def dense() -> None:
        functional.dense_backward(functional.dense(matrix, array(4, 4), bias), matrix, array(4, 4))

    def activations_loss_and_dropout() -> None:
        functional.activation_backward(matrix, functional.relu(matrix), "relu")
        functional.softmax_backward(matrix, functional.softmax(matrix))
        functional.softmax_cross_entropy(matrix, labels)
        functional.softmax_cross_entropy_backward(1.0, matrix, labels)
        functional.dropout(matrix, 0.5, seed=0)

    def batch_normalization() -> None:
        _, mean, variance = functional.batch_norm_training(matrix, bias, bias)
        functional.batch_norm(matrix, bias, bias, mean, variance)
        functional.batch_norm_backward(matrix, matrix, bias, mean, variance)

    def updates() -> None:
        parameter, gradient, mean, square = optimizer_arrays
        update.sgd_update(parameter, gradient, mean, learning_rate=0.1, momentum=0.9)
        update.adam_update(parameter, gradient, mean, square, iteration=1, learning_rate=0.1)
        update.rmsprop_update(parameter, gradient, square, mean, None, learning_rate=0.1)

    calls: list[Call] = [convolution, other_convolutions, depthwise_convolution, pooling, dense]
    calls += [activations_loss_and_dropout, batch_normalization, updates]
    if dtype == "float32":
        calls += [partial(convolution, "winograd"), few_tiles_of_many_channels, partial(total.of, matrix)]
    return calls


def compile_for_cpu(
    dtypes: Sequence[str], shown: Callable[[list[Call]], Iterable[Call]] = iter, part: int = 0, parts: int = 1
) -> None:
    """Make every call of `cpu_calls` once with one thread and once with all; of several processes each makes a part.

    Calls of different dtypes have no kernel in common, so those of two processes are of one dtype each.
    """
    threshold, all_threads = threads.PARALLEL_THRESHOLD, numba.get_num_threads()
    calls = [call for together in zip_longest(*map(cpu_calls, dtypes)) for call in together if call is not None]
    try:
        threads.PARALLEL_THRESHOLD = 0  # small problems too may use the parallel kernels
        for call in shown(calls[part::parts]):
            for number in (1, all_threads):
                numba.set_num_threads(number)
                call()
    finally:
        threads.PARALLEL_THRESHOLD = threshold
        numba.set_num_threads(all_threads)


def gpu_calls(engine: Compiler) -> list[Call]:
    """Calls that compile the kernels."""
    return [
        *(partial(_train, engine, image) for image in IMAGES),
        *(partial(_convolve, engine, *one) for one in CONVOLUTIONS),
        *(partial(others, engine) for others in (_depthwise, _layers, _optimizers)),
    ]


def _array(engine: Compiler, *shape: int) -> Array:
    return Array(engine, engine.empty((int(np.prod(shape)),), np.float32), shape)


def _train(engine: Compiler, image: tuple[int, ...]) -> None:
    """An epoch of the network of `fastconv train`, then a prediction."""
    model = tutorial_network(image, CLASSES).to(engine)
    model.compile(optimizers.Adam(), losses.SparseCategoricalCrossentropy(from_logits=True), ["accuracy"])
    for batch in BATCHES:
        x, y = np.zeros((batch, *image), np.float32), np.zeros(batch, np.int64)
        model.fit(x, y, batch_size=batch, verbose=0)
        model.evaluate(x, y, batch_size=batch, verbose=0)
        model.predict(x.astype(np.uint8), batch_size=batch)


def _convolve(engine: Compiler, extent: int, inputs: int, outputs: int, kernel: int) -> None:
    weight, bias = _array(engine, kernel, kernel, inputs, outputs), _array(engine, outputs)
    for batch in BATCHES:
        x = _array(engine, batch, extent, extent, inputs)
        for stride in STRIDES:
            out = functional.conv2d(x, weight, bias, stride=stride, padding="same", activation="relu")
            functional.conv2d_backward(out, x, weight, stride=stride, padding="same")


def _depthwise(engine: Compiler) -> None:
    x, weight = _array(engine, 32, 28, 28, 128), _array(engine, 3, 3, 1, 128)
    for stride in STRIDES:
        out = functional.conv2d(x, weight, stride=stride, padding="same", groups=128)
        functional.conv2d_backward(out, x, weight, stride=stride, padding="same", groups=128)


def _layers(engine: Compiler) -> None:
    """Forward in training, backward and forward in prediction."""
    maps = [
        layers.BatchNormalization(),
        layers.MaxPooling2D(2),
        layers.AveragePooling2D(2),
        layers.GlobalAveragePooling2D(),
        layers.GlobalMaxPooling2D(),
        layers.Conv2DTranspose(64, 3, strides=2),
        layers.SeparableConv2D(64, 3),
        layers.ZeroPadding2D(1),
        layers.Dropout(0.5),
        *(layers.Activation(name) for name in ACTIVATIONS if name is not None),
    ]
    rows = [layers.Dense(CLASSES, activation="softmax"), layers.BatchNormalization(), layers.Flatten()]
    merging = [layers.Add(), layers.Concatenate()]
    small, large = _array(engine, 32, 256), _array(engine, 32, 14, 14, 64)
    inputs: list[tuple[Any, Any]] = [(layer, large) for layer in maps]
    inputs += [(layer, small) for layer in rows] + [(layer, [large, large]) for layer in merging]
    for layer, x in inputs:
        layer.build([part.shape for part in x] if layer.merges else x.shape)
        layer.to(engine)
        out = layer.forward(x, training=True)
        layer.backward(out)
        layer.forward(x)


def _optimizers(engine: Compiler) -> None:
    """A step of each, on a network without convolutions."""
    chosen = (
        optimizers.SGD(0.1),
        optimizers.SGD(0.1, momentum=0.9),
        optimizers.SGD(0.1, momentum=0.9, nesterov=True),
        optimizers.RMSprop(0.1),
        optimizers.AdamW(0.1),
        optimizers.Adam(0.1, clipnorm=1.0),
    )
    for optimizer in chosen:
        model = Sequential([layers.Input((64,)), layers.Dense(CLASSES, activation="softmax")]).to(engine)
        model.compile(optimizer, "sparse_categorical_crossentropy", ["accuracy"])
        model.fit(np.zeros((32, 64), np.float32), np.zeros(32, np.int64), verbose=0)
