"""Softmax cross-entropy from logits, forward and backward."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastconv.arrays import FloatArray, float_array, index_array, leave, on_device, shape_of
from fastconv.rooms import room


def softmax_cross_entropy(logits: ArrayLike, labels: ArrayLike, *, label_smoothing: float = 0.0) -> FloatArray:
    """Cross-entropy between the softmax of the logits and the labels, for each sample.

    ``loss[n] = -sum over c of target[n, c] * log(softmax(logits[n]))[c]``, with
    ``target = (1 - label_smoothing) * labels + label_smoothing / C``.

    Parameters
    ----------
    logits : ndarray of shape (N, C), float32 or float64
        Scores before softmax.
    labels : integer array of shape (N,) or float array of shape (N, C)
        The class of each sample, or a probability for each class (one-hot, for instance).
    label_smoothing : float from 0 to 1
        The share of the target that is spread evenly over all classes.

    Returns
    -------
    losses : ndarray of shape (N,), the dtype of *logits*
        Their mean is the usual loss of a batch.

    Raises
    ------
    TypeError
        If *logits* is neither float32 nor float64, or *labels* of shape (N,) are no integers.
    ValueError
        If the shapes do not fit, a label is no class, a probability is negative or NaN, or *label_smoothing* is not
        from 0 to 1.

    Notes
    -----
    Computed from the logarithm of the softmax, which never overflows: the loss of logits of any finite size is finite.
    A class with probability 0 takes no part, even if its logit is minus infinity.  The same bits for any number of
    threads.

    Examples
    --------
    >>> import numpy as np
    >>> softmax_cross_entropy(np.array([[0.0, 0.0], [1000.0, 0.0]]), [0, 0])
    array([0.69314718, 0.        ])
    """
    scores, classes = _validated(logits, labels, label_smoothing)
    return leave(room(scores).softmax.cross_entropy(scores, classes, label_smoothing))


def softmax_cross_entropy_backward(
    grad_losses: ArrayLike, logits: ArrayLike, labels: ArrayLike, *, label_smoothing: float = 0.0
) -> FloatArray:
    """Gradient of `softmax_cross_entropy` by the logits: ``(softmax(logits) * sum(target) - target) * grad_losses``.

    Parameters
    ----------
    grad_losses : ndarray of shape (N,) or a number, the dtype of *logits*
        Gradient by each sample's loss.  For the mean over the batch it is the number ``1 / N``.
    logits, labels, label_smoothing
        As in `softmax_cross_entropy`.

    Returns
    -------
    grad_logits : ndarray of shape (N, C), the dtype of *logits*

    Raises
    ------
    TypeError, ValueError
        As `softmax_cross_entropy`; also if *grad_losses* is neither a number nor of shape (N,).

    Notes
    -----
    From the softmax itself, so no size of logits overflows; the same bits for any number of threads.

    Examples
    --------
    >>> import numpy as np
    >>> softmax_cross_entropy_backward(1.0, np.array([[0.0, 0.0]]), [0])
    array([[-0.5,  0.5]])
    """
    scores, classes = _validated(logits, labels, label_smoothing)
    N = len(scores)
    if shape_of(grad_losses) not in ((), (N,)):
        raise ValueError(f"grad_losses must be a number or have shape ({N},). Received: shape={shape_of(grad_losses)}")
    factors = _factors(grad_losses, scores)
    return leave(room(scores).softmax.cross_entropy_backward(factors, scores, classes, label_smoothing))


def _validated(logits: ArrayLike, labels: ArrayLike, label_smoothing: float) -> tuple[FloatArray, NDArray[Any]]:
    """Logits as a contiguous matrix; labels as class numbers (N,) or probabilities (N, C)."""
    shape = shape_of(logits)
    if len(shape) != 2 or shape[1] == 0:
        raise ValueError(f"logits must have shape (N, C) with at least one class. Received: logits.shape={shape}")
    scores = float_array("logits", logits)
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"label_smoothing must be from 0 to 1. Received: label_smoothing={label_smoothing!r}")
    if shape_of(labels) == shape:
        return scores, _probabilities(labels, scores)
    if shape_of(labels) != shape[:1]:
        raise ValueError(
            f"labels must have shape (N,) or (N, C). Received: labels.shape={shape_of(labels)}, logits.shape={shape}"
        )
    return scores, _classes(labels, scores)


def _probabilities(labels: ArrayLike, scores: FloatArray) -> NDArray[Any]:
    """A probability for each class; their values are only looked at in host memory."""
    if on_device(labels) or on_device(scores):
        return float_array("labels", labels, scores, "logits")
    probabilities = np.asarray(labels)
    if probabilities.size and not probabilities.min() >= 0:
        raise ValueError(f"labels must be probabilities, none negative or NaN. Received: minimum={probabilities.min()}")
    return float_array("labels", probabilities.astype(scores.dtype, copy=False), scores, "logits")


def _classes(labels: ArrayLike, scores: FloatArray) -> NDArray[Any]:
    """A class number for each sample; the numbers are only looked at in host memory."""
    N, C = scores.shape
    if N == 0 and not on_device(scores):
        return np.empty(0, np.int64)
    classes = index_array("labels", labels, scores, "logits", " of shape (N,)")
    if on_device(classes):
        return classes
    numbers = np.ascontiguousarray(classes, np.int64)
    wrong = numbers.view(np.uint64) >= C  # a negative number is a large one there
    if wrong.any():
        raise ValueError(
            f"labels must be from 0 to {C - 1}, as logits.shape={scores.shape}. "
            f"Received: labels[{wrong.argmax()}]={classes[wrong.argmax()]}"
        )
    return numbers


def _factors(grad_losses: Any, scores: FloatArray) -> Any:
    """A number, or one for each sample that lies where the logits do."""
    if on_device(grad_losses) and np.ndim(grad_losses) == 0:
        raise TypeError("grad_losses must be a Python number or have shape (N,). Received: one number on the GPU")
    if np.ndim(grad_losses) == 0:
        return float(grad_losses)
    in_host_memory = not (on_device(grad_losses) or on_device(scores))
    values = np.asarray(grad_losses, scores.dtype) if in_host_memory else grad_losses
    return float_array("grad_losses", values, scores, "logits")
