"""Pictures of a training run: curves, confusion matrix, filters, feature maps, Grad-CAM, images.

Each function returns a ``matplotlib.figure.Figure`` that belongs to no window and no global state:
``figure.savefig("curves.png")`` writes it, whatever backend the program uses.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastconv.keras.devices import placed
from fastconv.keras.grad_cam import heat_map
from fastconv.keras.graph import Graph
from fastconv.keras.layers.input import InputLayer
from fastconv.keras.network import Network

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DPI = 150
_TRAINING_COLOUR, _VALIDATION_COLOUR = "#4269d0", "#ef7d29"
_GREY = "#555555"
_MAP_COLOURS = "magma"
_COUNT_COLOURS = "Blues"
_SIGNED_COLOURS = "RdBu_r"
_HEAT_COLOURS, _HEAT_OPACITY = "jet", 0.45
# Above this share of the darkest cell a number is printed in white.
_DARK_CELL = 0.5


def training_curves(history: Mapping[str, Sequence[float]]) -> Figure:
    """Loss and metrics over the epochs, training beside validation.

    Parameters
    ----------
    history : mapping of str to sequence of float
        What ``fit(...).history`` holds: one list per quantity, ``val_...`` for validation.

    Returns
    -------
    matplotlib.figure.Figure
        One panel per quantity.

    Raises
    ------
    ValueError
        Where the history is empty.

    Examples
    --------
    >>> figure = training_curves({"loss": [0.9, 0.5], "val_loss": [1.0, 0.7], "accuracy": [0.6, 0.8]})
    >>> [axes.get_title(loc="left") for axes in figure.axes]
    ['Loss', 'Accuracy']
    """
    names = [name for name in history if not name.startswith("val_")]
    if not names:
        raise ValueError(f"history must hold at least one quantity. Received: history={history}")
    figure = _figure(4.6 * len(names), 3.6)
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        for label, key, colour in (
            ("training", name, _TRAINING_COLOUR),
            ("validation", f"val_{name}", _VALIDATION_COLOUR),
        ):
            if key in history:
                epochs = range(1, len(history[key]) + 1)
                axes.plot(epochs, history[key], marker="o", markersize=4, color=colour, label=label)
        axes.set_title(name.replace("_", " ").capitalize(), loc="left", fontweight="bold")
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(axis="y", color="#e5e5e5")
        axes.spines[["top", "right"]].set_visible(False)
        if f"val_{name}" in history:  # a learning rate has nothing beside it
            axes.legend(frameon=False)
    return figure


def confusion_matrix(matrix: ArrayLike, class_names: Sequence[str]) -> Figure:
    """How often each true class (row) was taken for each class (column).

    Parameters
    ----------
    matrix : ndarray of shape (C, C), integer
        ``matrix[true, predicted]`` counts samples.
    class_names : sequence of str
        Names of the C classes.

    Returns
    -------
    matplotlib.figure.Figure
        Cells coloured by their share of the row, with the counts written in them.

    Raises
    ------
    ValueError
        Where the matrix is not square with one row per class name.

    Examples
    --------
    >>> confusion_matrix([[8, 2], [1, 9]], ["cat", "dog"]).get_suptitle()
    '17 of 20 right (85.0%)'
    """
    counts = np.asarray(matrix)
    classes = len(class_names)
    if counts.shape != (classes, classes):
        raise ValueError(
            f"matrix must have one row and one column per class name. "
            f"Received: matrix.shape={counts.shape}, {classes} class names"
        )
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure = _figure(2.4 + 0.56 * classes, 2.0 + 0.56 * classes)
    axes = figure.subplots()
    axes.imshow(shares, cmap=_COUNT_COLOURS, vmin=0, vmax=1)
    for true, predicted in np.ndindex(counts.shape):
        if counts[true, predicted]:
            colour = "white" if shares[true, predicted] > _DARK_CELL else "#222222"
            axes.text(predicted, true, f"{counts[true, predicted]:,}", ha="center", va="center", color=colour, size=8)
    axes.set_xticks(range(classes), class_names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(classes), class_names)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    right, total = int(np.trace(counts)), int(counts.sum())
    # over the whole figure: beside long names the cells of two classes are narrower than it
    text = f"{right:,} of {total:,} right ({right / max(total, 1):.1%})"
    figure.suptitle(text, x=0.02, ha="left", fontsize="large", fontweight="bold")
    # white lines between the cells
    axes.set_xticks(np.arange(classes + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(classes + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1.5)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)
    return figure


def feature_maps(model: Network, image: ArrayLike, channels: int = 8) -> Figure:
    """One image and what each layer of a network makes of it, a row per layer that puts out images.

    Parameters
    ----------
    model : Sequential or Model
        A network of one input.
    image : ndarray of shape (H, W, 1 or 3)
        The input, scaled as the model expects it.
    channels : int
        How many channels of each layer to show: the most active ones.

    Returns
    -------
    matplotlib.figure.Figure
        The image at the left, the maps beside it, each scaled to its own range.

    Raises
    ------
    ValueError
        Where no layer puts out images.

    Examples
    --------
    >>> from fastconv.keras import Sequential, layers
    >>> model = Sequential([layers.Input((8, 8, 1)), layers.Conv2D(4, 3), layers.MaxPooling2D(2)])
    >>> figure = feature_maps(model, np.zeros((8, 8, 1)), channels=2)
    >>> [row.get_suptitle() for row in figure.subfigs[1].subfigs]
    ['conv2d: 6 x 6, 2 of 4 channels', 'max_pooling2d: 3 x 3, 2 of 4 channels']
    """
    image = np.asarray(image)
    maps = _maps_of(model, image)
    figure = _figure(1.1 * (channels + 3), 1.3 * len(maps))
    left, right = figure.subfigures(1, 2, width_ratios=(3, channels), squeeze=False)[0]
    axes = left.subplots()
    _show(axes, image)
    axes.set_title("input", loc="left", fontsize=9, color=_GREY)
    rows = right.subfigures(len(maps), 1, squeeze=False)[:, 0]
    for row, (title, activations) in zip(rows, maps, strict=True):
        height, width, count = activations.shape
        shown = min(channels, count)
        label = f"{title}: {height} x {width}, {shown} of {count} channels"
        row.suptitle(label, x=0.01, ha="left", fontsize=9, color=_GREY)
        panels = row.subplots(1, channels, squeeze=False)[0]
        strongest = np.argsort(-activations.mean(axis=(0, 1)), kind="stable")[:shown]
        for axes, channel in zip(panels, np.sort(strongest), strict=False):
            axes.imshow(activations[:, :, channel], cmap=_MAP_COLOURS)
        for axes in panels:
            axes.axis("off")
    return figure


def grad_cam(model: Network, image: ArrayLike, class_index: int | None = None, layer: str | None = None) -> Figure:
    """An image, and over it how much each place speaks for a class: Grad-CAM.

    Parameters
    ----------
    model : Sequential or Model
        A network of one image input and one output of class scores.
    image : ndarray of shape (H, W, 1 or 3)
        The input, scaled as the model expects it.
    class_index : int, optional
        The class; by default the one that the model predicts.
    layer : str, optional
        Name of the layer whose maps are weighed; by default the last convolution.

    Returns
    -------
    matplotlib.figure.Figure
        The image at the left; at the right with the heat map of `fastconv.keras.grad_cam.heat_map`, stretched over it,
        blue being zero and red the largest value.

    Raises
    ------
    ValueError
        As `fastconv.keras.grad_cam.heat_map`.

    Examples
    --------
    >>> from fastconv.keras import Sequential, layers
    >>> network = [layers.Conv2D(4, 3), layers.GlobalAveragePooling2D(), layers.Dense(3)]
    >>> figure = grad_cam(Sequential([layers.Input((8, 8, 1)), *network]), np.ones((8, 8, 1)), class_index=2)
    >>> [axes.get_title(loc="left") for axes in figure.axes]
    ['input', 'class 2']
    """
    image = np.asarray(image)
    if class_index is None:
        class_index = int(np.argmax(model(image[np.newaxis])))
    heat = heat_map(model, image, class_index, layer)
    figure = _figure(6.4, 3.6)
    height, width = image.shape[:2]
    for axes, title in zip(figure.subplots(1, 2), ("input", f"class {class_index}"), strict=True):
        _show(axes, image)
        axes.set_title(title, loc="left", fontsize=10)
    # the edges of the image, in pixels, whose centres have whole numbers
    extent = -0.5, width - 0.5, height - 0.5, -0.5
    largest = heat.max(initial=0) or 1
    axes.imshow(
        heat, cmap=_HEAT_COLOURS, alpha=_HEAT_OPACITY, vmin=0, vmax=largest, extent=extent, interpolation="bilinear"
    )
    return figure


def filters(kernel: ArrayLike, columns: int = 8) -> Figure:
    """The filters of a convolution, one picture each.

    Parameters
    ----------
    kernel : ndarray of shape (KH, KW, IC, OC)
        A convolution's weight, as `Conv2D.get_weights` gives it.
    columns : int
        Filters in a row.

    Returns
    -------
    matplotlib.figure.Figure
        Filters of three input channels in colour, others as the mean over their input channels.  Colours are scaled
        alike in all filters: blue is negative, white is zero, red is positive.

    Raises
    ------
    ValueError
        If the kernel has not four axes.

    Examples
    --------
    >>> len(filters(np.zeros((3, 3, 1, 6)), columns=4).axes)
    8
    """
    weights = np.asarray(kernel)
    if weights.ndim != 4:
        raise ValueError(f"kernel must have shape (KH, KW, IC, OC). Received: kernel.shape={weights.shape}")
    count = weights.shape[3]
    columns = min(columns, count)
    rows = math.ceil(count / columns)
    figure = _figure(1.1 * columns, 1.1 * rows)
    largest = np.abs(weights).max(initial=0) or 1
    in_colour = weights.shape[2] == 3
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in panels:
        axes.axis("off")
    for axes, number in zip(panels, range(count), strict=False):
        weight = weights[..., number]
        if in_colour:
            axes.imshow(0.5 + 0.5 * weight / largest)
        else:
            axes.imshow(weight.mean(axis=2), cmap=_SIGNED_COLOURS, vmin=-largest, vmax=largest)
    return figure


def image_grid(images: Sequence[ArrayLike], titles: Sequence[str], columns: int = 4) -> Figure:
    """Images side by side, a title above each.

    Parameters
    ----------
    images : sequence of ndarray of shape (H, W) or (H, W, 1 or 3)
        uint8, or float from 0 to 1; a single channel is shown in grey from its smallest to its largest value.
    titles : sequence of str
        One per image.
    columns : int
        Images in a row.

    Returns
    -------
    matplotlib.figure.Figure
        The images.

    Raises
    ------
    ValueError
        Where there is no image, or not one title per image.

    Examples
    --------
    >>> figure = image_grid([np.zeros((2, 2)), np.ones((2, 2))], ["dark", "bright"])
    >>> [axes.get_title(loc="left") for axes in figure.axes]
    ['dark', 'bright']
    """
    if not 0 < len(images) == len(titles):
        raise ValueError(
            f"images must be at least one, with a title for each. Received: {len(images)} images, {len(titles)} titles"
        )
    columns = min(columns, len(images))
    rows = math.ceil(len(images) / columns)
    figure = _figure(3.2 * columns, 3.6 * rows)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in panels[len(images) :]:
        axes.axis("off")
    for axes, image, title in zip(panels, images, titles, strict=False):
        _show(axes, np.asarray(image))
        axes.set_title(title, loc="left", fontsize=10)
    return figure


def _maps_of(model: Network, image: NDArray[Any]) -> list[tuple[str, NDArray[Any]]]:
    """Name and maps (H, W, C) of each layer that makes images of *image*."""
    x = np.ascontiguousarray(image[np.newaxis], dtype=model.dtype)
    if not model.built:
        model.build((None, *image.shape))
    shown = [layer for layer in model.layers if len(layer.output_shape) == 4 and not isinstance(layer, InputLayer)]
    if not shown:
        raise ValueError(f"model must have a layer that puts out images. Received: model {model.name}")
    graph = Graph(model.inputs, [model.output_of(layer) for layer in shown])
    results = graph.forward([placed(x, model.engine)], training=False)
    return [(layer.name, placed(result, None)[0]) for layer, result in zip(shown, results, strict=True)]


def _show(axes: Axes, image: NDArray[Any]) -> None:
    axes.imshow(image[:, :, 0] if image.ndim == 3 and image.shape[2] == 1 else image, cmap="gray")
    axes.axis("off")


def _figure(width: float, height: float) -> Figure:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError('plots need matplotlib: pip install "fastconv[demo]"') from None
    return Figure(figsize=(width, height), dpi=_DPI, layout="constrained", facecolor="white")
