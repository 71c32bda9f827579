"""Softmax cross-entropy from logits, forward and backward."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastconv.arrays import FloatArray, float_array
from fastconv.cpu.softmax import softmax_forward


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
    A class with probability 0 takes no part, even if its logit is minus infinity.

    Examples
    --------
    >>> import numpy as np
    >>> softmax_cross_entropy(np.array([[0.0, 0.0], [1000.0, 0.0]]), [0, 0])
    array([0.69314718, 0.        ])
    """
    scores, classes = _validated(logits, labels, label_smoothing)
    log_softmax = softmax_forward(scores, logarithm=True)
    if classes.ndim == 1 and not label_smoothing:
        return 0 - np.take_along_axis(log_softmax, classes[:, np.newaxis], axis=1)[:, 0]
    target = _target(classes, scores, label_smoothing)
    products = np.zeros_like(scores)
    np.multiply(target, log_softmax, out=products, where=target != 0)
    losses: FloatArray = 0 - products.sum(axis=1)
    return losses


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

    Examples
    --------
    >>> import numpy as np
    >>> softmax_cross_entropy_backward(1.0, np.array([[0.0, 0.0]]), [0])
    array([[-0.5,  0.5]])
    """
    scores, classes = _validated(logits, labels, label_smoothing)
    N = len(scores)
    if np.shape(grad_losses) not in ((), (N,)):
        raise ValueError(f"grad_losses must be a number or have shape ({N},). Received: shape={np.shape(grad_losses)}")
    grad_logits: FloatArray = softmax_forward(scores)
    if classes.ndim == 1 and not label_smoothing:
        grad_logits[np.arange(N), classes] -= 1
    else:
        target = _target(classes, scores, label_smoothing)
        grad_logits *= target.sum(axis=1, keepdims=True)
        grad_logits -= target
    grad_logits *= np.broadcast_to(np.asarray(grad_losses, scores.dtype), N)[:, np.newaxis]
    return grad_logits


def _validated(logits: ArrayLike, labels: ArrayLike, label_smoothing: float) -> tuple[FloatArray, NDArray[Any]]:
    """Logits as a contiguous matrix; labels as class numbers (N,) or probabilities (N, C)."""
    shape = np.shape(logits)
    if len(shape) != 2 or shape[1] == 0:
        raise ValueError(f"logits must have shape (N, C) with at least one class. Received: logits.shape={shape}")
    scores = float_array("logits", logits)
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"label_smoothing must be from 0 to 1. Received: label_smoothing={label_smoothing!r}")
    classes = np.asarray(labels)
    if classes.shape == shape:
        if classes.size and not classes.min() >= 0:
            raise ValueError(f"labels must be probabilities, none negative or NaN. Received: minimum={classes.min()}")
        return scores, classes.astype(scores.dtype)
    if classes.shape != shape[:1]:
        raise ValueError(
            f"labels must have shape (N,) or (N, C). Received: labels.shape={classes.shape}, logits.shape={shape}"
        )
    if classes.size == 0:
        return scores, np.empty(0, np.intp)
    if classes.dtype.kind not in "iu":
        raise TypeError(f"labels of shape (N,) must be integers. Received: labels.dtype={classes.dtype}")
    wrong = (classes < 0) | (classes >= shape[1])
    if wrong.any():
        raise ValueError(
            f"labels must be from 0 to {shape[1] - 1}, as logits.shape={shape}. "
            f"Received: labels[{wrong.argmax()}]={classes[wrong.argmax()]}"
        )
    return scores, classes.astype(np.intp)


def _target(classes: NDArray[Any], scores: FloatArray, label_smoothing: float) -> FloatArray:
    """The smoothed distribution over the classes that each sample should have."""
    C = scores.shape[1]
    if classes.ndim == 2:
        target = classes
    else:
        target = np.zeros_like(scores)
        target[np.arange(len(scores)), classes] = 1
    return target * scores.dtype.type(1 - label_smoothing) + scores.dtype.type(label_smoothing / C)
