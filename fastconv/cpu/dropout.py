"""Dropout with random numbers that are a function of (seed, position): Philox-4x32-10.

Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3" (SC 2011).  The generator has no state: it
encrypts a counter.  So any thread computes the numbers of any element, the backward pass computes them again instead of
reading a stored mask, and the mask of a seed is the same on every machine.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange
from numpy.typing import NDArray

from fastconv import _jit, threads
from fastconv.memory import empty

_ROUNDS = 10
# Multipliers and key increments of the paper (the latter: the golden ratio and sqrt(3) - 1, as 32-bit fractions).
_MULTIPLIER_0, _MULTIPLIER_1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_WEYL_0, _WEYL_1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
_LOW_WORD = np.uint64(0xFFFFFFFF)
_WORD_BITS = np.uint64(32)
# One counter gives four words, for four neighbouring elements.
_WORDS = 4

_TASK_ELEMENTS = 16 * 1024
# Integer operations per element, for the decision between one thread and several.
_WORK_PER_ELEMENT = 32


@_jit.inline
def philox(counter, key):
    """Four 32-bit words (as uint64) for a counter of four such words and a key of two.

    A round multiplies two words, and mixes the high halves of the products with the other two words and the key.
    """
    word_0, word_1, word_2, word_3 = counter
    key_0, key_1 = key
    for _ in range(_ROUNDS):
        product_0, product_1 = _MULTIPLIER_0 * word_0, _MULTIPLIER_1 * word_2
        word_0 = (product_1 >> _WORD_BITS) ^ word_1 ^ key_0
        word_2 = (product_0 >> _WORD_BITS) ^ word_3 ^ key_1
        word_1, word_3 = product_1 & _LOW_WORD, product_0 & _LOW_WORD
        key_0, key_1 = (key_0 + _WEYL_0) & _LOW_WORD, (key_1 + _WEYL_1) & _LOW_WORD
    return word_0, word_1, word_2, word_3


@_jit.inline
def random_words(words, start, key):
    """The random words of the elements from *start* on: element i has word ``i % 4`` of counter ``i // 4``.

    *start* and the length of *words* are multiples of 4.
    """
    zero = np.uint64(0)
    first = np.uint64(start // _WORDS)
    for k in range(words.size // _WORDS):
        number = first + np.uint64(k)
        word_0, word_1, word_2, word_3 = philox((number & _LOW_WORD, number >> _WORD_BITS, zero, zero), key)
        at = k * _WORDS
        words[at], words[at + 1], words[at + 2], words[at + 3] = word_0, word_1, word_2, word_3


@_jit.tasks
def dropout_tasks(x, out, seed, threshold, scale, first, last):
    """Blocks *first* to *last* of ``out = x * scale`` where the element's random word is at least *threshold*, else 0.

    The words of a block go through a buffer in cache, so that both loops are vectorised.  Each output element has one
    writer.
    """
    key = (seed & _LOW_WORD, seed >> _WORD_BITS)
    words = np.empty(_TASK_ELEMENTS, np.uint32)
    zero = x.dtype.type(0)
    for task in range(first, last):
        start = task * _TASK_ELEMENTS
        source, target = x[start : start + _TASK_ELEMENTS], out[start : start + _TASK_ELEMENTS]
        random_words(words[: -(-source.size // _WORDS) * _WORDS], start, key)
        for i in range(source.size):
            target[i] = source[i] * scale if words[i] >= threshold else zero


@_jit.kernel
def dropout_serial(x, out, seed, threshold, scale, tasks):
    dropout_tasks(x, out, seed, threshold, scale, 0, tasks)


@_jit.parallel_kernel
def dropout_parallel(workers, x, out, seed, threshold, scale, tasks):
    for worker in prange(workers):
        first, last = tasks * worker // workers, tasks * (worker + 1) // workers
        dropout_tasks(x, out, seed, threshold, scale, first, last)


def dropout(x: Any, rate: float, seed: int) -> NDArray[Any]:
    """A contiguous array with a share *rate* of its elements 0 and the others divided by ``1 - rate``."""
    out = empty(x.shape, x.dtype)
    threshold = np.uint32(rate * 2**32)
    scale = x.dtype.type(1 / (1 - rate))
    arguments = (x.reshape(-1), out.reshape(-1), np.uint64(seed), threshold, scale, -(-x.size // _TASK_ELEMENTS))
    threads.run(dropout_serial, dropout_parallel, threads.worker_count(x.size * _WORK_PER_ELEMENT), *arguments)
    return out
