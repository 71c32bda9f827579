"""Patches of x, the left factor of a convolution: where they lie, and copies of them where they do not lie ready.

A patch, the KH * KW * IC numbers under the kernel at one output pixel, consists of runs of neighbours in memory.

    IN_PLACE   no patch has padding: read from x itself
    STRIP      the rows of x for a few rows of outputs, copied with their padding, if those are small
    PATCHES    the patches of a tile of pixels, gathered block of depths by block of depths; those without padding too,
               where they lie so far apart that a tile of them does not stay in the L1 cache (`direct_plan`)

In place or in a strip, element k of the patch of a pixel lies at *place of the pixel + offset of k*, whatever the
padding, stride, dilation and groups; the products in `product` take both from tables.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastconv import _jit
from fastconv.cpu import product
from fastconv.cpu.product import MOST_DEPTH, PATCH_STRIDE, TILE_ROWS
from fastconv.cpu.shape import ConvShape

# Where the left factor of the product is read from.
IN_PLACE, STRIP, PATCHES = range(3)

# Largest strip in bytes, to stay in the L2 cache.
STRIP_BYTES = 128 * 1024


@_jit.inline
def gather_patches(x, patches, shape, group, n, oh, ow, pixels, first_depth, depth):
    """``patches[pixel, k - first_depth] = x[n, ih, iw, ic]`` for pixels from (n, oh, ow) on, depths k = (kh, kw, ic).

    Numbers that are neighbours in x are copied in one run: the KW * IC of a kernel row, or the IC / G of one tap where
    dilation or groups separate the taps.  Runs outside, pixels inside, so that the index arithmetic of a run is done
    once; runs are written in rising order, because each may spill up to a vector over the place of the next.
    """
    s = shape
    ic_of_group = s.IC // s.G
    taps = s.KW if s.G == 1 and s.dilation_w == 1 else 1
    run = taps * ic_of_group
    kh, kw, target = 0, 0, 0
    if first_depth > 0:
        # divisions are slow, and a small kernel, all in one block of depths, can do without
        runs_of_row = s.KW // taps
        number = first_depth // run
        kh, kw, target = number // runs_of_row, number % runs_of_row * taps, number * run - first_depth
    while target < depth:
        # the part [start, stop) of this run that lies in the block of depths
        start = max(-target, 0)
        stop = min(depth - target, run)
        gather_run(x, patches, s, group, n, oh, ow, pixels, kh, kw, taps, start, stop, target + start)
        target += run
        kw += taps
        if kw == s.KW:
            kw = 0
            kh += 1


@_jit.inline
def offset_in_x(shape, depth):
    """How far from the place of a patch in x a depth lies."""
    s = shape
    ic_of_group = s.IC // s.G
    tap, ic = depth // ic_of_group, depth % ic_of_group
    return (tap // s.KW * s.dilation_h * s.IW + tap % s.KW * s.dilation_w) * s.IC + ic


@_jit.inline
def gather_run(x, patches, shape, group, n, oh, ow, pixels, kh, kw, taps, start, stop, target):
    """One run, from the taps at (kh, kw) on, of the patches of all pixels: its elements [start, stop)."""
    s = shape
    ic_of_group = s.IC // s.G
    ih = oh * s.stride_h - s.pad_top + kh * s.dilation_h
    iw = ow * s.stride_w - s.pad_left + kw * s.dilation_w
    source = ((n * s.IH + ih) * s.IW + iw) * s.IC + group * ic_of_group
    last_iw = iw + (pixels - 1) * s.stride_w + taps - 1
    if 0 <= ih < s.IH and iw >= 0 and last_iw < s.IW and ow + pixels <= s.OW:
        # all pixels in one row and well inside: nothing to look after, which is half the time of a short run
        for pixel in range(pixels):
            from_x = source + start + pixel * s.stride_w * s.IC
            product.copy_run(x, from_x, patches, target + pixel * PATCH_STRIDE, stop - start)
        return
    for _ in range(pixels):
        if 0 <= ih < s.IH and iw >= 0 and iw + taps <= s.IW:
            product.copy_run(x, source + start, patches, target, stop - start)
        elif 0 <= ih < s.IH:
            gather_clipped(x, source, patches, target, start, stop, -iw * ic_of_group, (s.IW - iw) * ic_of_group)
        else:
            product.fill_zeros(patches, target, stop - start)
        target += PATCH_STRIDE
        iw += s.stride_w
        source += s.stride_w * s.IC
        ow += 1
        if ow == s.OW:
            n, oh, ow = product.next_pixel(n, oh, ow, s.OH, s.OW)
            ih = oh * s.stride_h - s.pad_top + kh * s.dilation_h
            iw = kw * s.dilation_w - s.pad_left
            source = ((n * s.IH + ih) * s.IW + iw) * s.IC + group * ic_of_group


@_jit.inline
def gather_clipped(x, source, patches, target, start, stop, inside_from, inside_to):
    """Elements [start, stop) of a run, of which only [inside_from, inside_to) lie inside the image."""
    inside_from = min(max(start, inside_from), stop)
    inside_to = max(min(stop, inside_to), inside_from)
    product.fill_zeros(patches, target, inside_from - start)
    product.copy_run(x, source + inside_from, patches, target + inside_from - start, inside_to - inside_from)
    product.fill_zeros(patches, target + inside_to - start, stop - inside_to)


@_jit.inline
def copy_strip(x, strip, shape, group, n, oh, rows):
    """The rows of x that *rows* rows of outputs from (n, oh) on read, with their padding: (ih, iw, ic of a group).

    One copy of a row serves all taps of all its outputs: with few channels this is several times less to copy than
    the patches, and in longer runs.
    """
    s = shape
    ic_of_group = s.IC // s.G
    pitch = strip_pitch(s)
    left = min(max(s.pad_left * ic_of_group, 0), pitch)
    first_iw = max(-s.pad_left, 0)
    inside = max(min((s.IW - first_iw) * ic_of_group, pitch - left), 0)
    first_ih = oh * s.stride_h - s.pad_top
    for row in range((rows - 1) * s.stride_h + (s.KH - 1) * s.dilation_h + 1):
        ih = first_ih + row
        target = row * pitch
        if 0 <= ih < s.IH:
            source = ((n * s.IH + ih) * s.IW + first_iw) * s.IC + group * ic_of_group
            product.fill_zeros(strip, target, left)
            if s.G == 1:
                product.copy_run(x, source, strip, target + left, inside)
            else:
                for iw in range(inside // ic_of_group):
                    product.copy_run(x, source + iw * s.IC, strip, target + left + iw * ic_of_group, ic_of_group)
            product.fill_zeros(strip, target + left + inside, pitch - left - inside)
        else:
            product.fill_zeros(strip, target, pitch)


@_jit.inline
def strip_pitch(shape):
    """Numbers in a row of a strip: the columns of x that a row of outputs reads, channels of one group."""
    s = shape
    return ((s.OW - 1) * s.stride_w + (s.KW - 1) * s.dilation_w + 1) * (s.IC // s.G)


@_jit.inline
def _out_row(shape, n, oh, ow):
    """Where pixel (n, oh, ow) lies in the sequence of all pixels of out."""
    s = shape
    return (n * s.OUT_H + s.start_h + s.step_h * oh) * s.OUT_W + s.start_w + s.step_w * ow


@_jit.inline
def place_pixels(shape, source, group, n, oh, ow, pixels, places_in, places_out):
    """Where the patches of the pixels from (n, oh, ow) on start in x or in the strip, and where their outputs go.

    The last pixel is repeated to fill the last tile and one more.  Gathered patches always lie at the same place.
    """
    s = shape
    ic_of_group = s.IC // s.G
    first_oh = oh
    column_step = s.stride_w * (ic_of_group if source == STRIP else s.IC)
    out_step = s.step_w * s.OC
    done = 0
    while done < pixels:
        if source == STRIP:
            start = (oh - first_oh) * s.stride_h * strip_pitch(s) + ow * column_step
        else:
            row = n * s.IH + oh * s.stride_h - s.pad_top
            start = (row * s.IW + ow * s.stride_w - s.pad_left) * s.IC + group * ic_of_group
        out_start = _out_row(s, n, oh, ow) * s.OC
        count = min(s.OW - ow, pixels - done)
        for pixel in range(count):
            places_in[done + pixel] = start + pixel * column_step
            places_out[done + pixel] = out_start + pixel * out_step
        done += count
        n, oh, ow = product.next_pixel(n, oh, ow + count, s.OH, s.OW)
    for pixel in range(pixels, pixels + 2 * TILE_ROWS):
        places_in[pixel] = places_in[pixels - 1]
        places_out[pixel] = places_out[pixels - 1]
    if source == PATCHES:
        for pixel in range(TILE_ROWS):
            places_in[pixel] = pixel * PATCH_STRIDE


def source_of(shape: ConvShape, itemsize: int) -> int:
    """Patches without padding are read in place; else from a strip, if that is small; else they are gathered."""
    s = shape
    last_h = (s.OH - 1) * s.stride_h - s.pad_top + (s.KH - 1) * s.dilation_h
    last_w = (s.OW - 1) * s.stride_w - s.pad_left + (s.KW - 1) * s.dilation_w
    if s.pad_top <= 0 and s.pad_left <= 0 and last_h < s.IH and last_w < s.IW:
        return IN_PLACE
    return STRIP if strip_size(s, 1) * itemsize <= STRIP_BYTES else PATCHES


def strip_size(shape: ConvShape, rows: int) -> int:
    """Numbers in a strip for *rows* rows of outputs, see `copy_strip`."""
    s = shape
    return ((rows - 1) * s.stride_h + (s.KH - 1) * s.dilation_h + 1) * strip_pitch(s)


def pieces_of(shape: ConvShape, source: int, depth: int) -> NDArray[np.int64]:
    """The depths (kh, kw, ic) as runs of neighbours in memory, cut at blocks of *depth*: pairs (offset, count)."""
    s = shape
    ic_of_group = s.IC // s.G
    total_depth = s.KH * s.KW * ic_of_group
    if source == PATCHES:
        return np.array([(0, min(depth, total_depth - k)) for k in range(0, total_depth, depth)], np.int64).reshape(-1)
    pixel = ic_of_group if source == STRIP else s.IC
    row = ((s.OW - 1) * s.stride_w + (s.KW - 1) * s.dilation_w + 1) * pixel if source == STRIP else s.IW * pixel
    pieces: list[list[int]] = []
    k = 0
    for kh in range(s.KH):
        for kw in range(s.KW):
            start, count = kh * s.dilation_h * row + kw * s.dilation_w * pixel, ic_of_group
            while count:
                part = min(count, depth - k % depth)
                if k % depth and sum(pieces[-1]) == start:
                    pieces[-1][1] += part
                else:
                    pieces.append([start, part])
                start, count, k = start + part, count - part, k + part
    return np.array(pieces, np.int64).reshape(-1)


@_jit.inline
def step_of_pixel(shape, source):
    """From the patch of a pixel to that of the next one in the row."""
    s = shape
    if source == PATCHES:
        return PATCH_STRIDE
    return s.stride_w * (s.IC // s.G if source == STRIP else s.IC)


@_jit.inline
def place_runs(shape, source, group, n, oh, ow, pixels, runs):
    """The same places as runs of pixels in one row: (number of runs, unused), then (place of the first, count) each."""
    s = shape
    ic_of_group = s.IC // s.G
    first_oh = oh
    column_step = step_of_pixel(s, source)
    runs[0], done = 0, 0
    while done < pixels:
        count = min(s.OW - ow, pixels - done)
        if source == PATCHES:
            start, count = 0, pixels
        elif source == STRIP:
            start = (oh - first_oh) * s.stride_h * strip_pitch(s) + ow * column_step
        else:
            row = n * s.IH + oh * s.stride_h - s.pad_top
            start = (row * s.IW + ow * s.stride_w - s.pad_left) * s.IC + group * ic_of_group
        runs[0] += 1
        runs[2 * runs[0]] = start
        runs[2 * runs[0] + 1] = count
        done += count
        n, oh, ow = product.next_pixel(n, oh, ow + count, s.OH, s.OW)


def offsets_of(shape: ConvShape, source: int) -> NDArray[np.int64]:
    """The offset of every depth; the last is repeated to fill the last tile of depths."""
    pieces = pieces_of(shape, source, MOST_DEPTH).reshape(-1, 2)
    offsets = [start + element for start, count in pieces for element in range(count)]
    return np.array(offsets + offsets[-1:] * TILE_ROWS, np.int64)
