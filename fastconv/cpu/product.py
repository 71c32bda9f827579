"""Blocks of a matrix product: gather the left factor, pack the right one, multiply register tile by register tile.

A convolution is the product of a (pixels x KH*KW*IC) matrix that nobody wants to store, each row the patch of x under
the kernel, with the (KH*KW*IC x OC) matrix that a HWIO weight already is.  The kernels in `conv_direct` take it block
by block: a few hundred KB of workspace per thread, resident in the L2 cache, whatever the size of the images.

    patches  (pixels of a tile or a strip x DEPTH), rows PATCH_STRIDE apart      `gather_patches`
    panel    (DEPTH x one or two vectors of columns)                             `pack_columns`
    sums     (rows x columns of a block)                                         `multiply_*`, `accumulate_*`

Padding takes part as zeros, as in ``np.pad`` followed by a convolution without padding.
"""

from __future__ import annotations

from fastconv import _jit
from fastconv.cpu import codegen, simd, tiles

TILE_ROWS = tiles.TILE_ROWS
TILE_VECTORS = tiles.TILE_VECTORS

# float32 numbers in a cache line.
LINE = 16
# Rows of the panel: 192 x 32 float32 are 24 KB, the better part of a 32 KB L1 cache, and 192 = 3 x 64 cuts the usual
# channel counts without a remainder.
DEPTH = 192
# The last vector written to a row, and the last tile of rows read from it, may reach beyond DEPTH by one of these.
_SLACK = max(codegen.VECTOR_BYTES // 4, TILE_ROWS)
# One more cache line keeps the rows from starting in the same L1 set.
PATCH_STRIDE = DEPTH + _SLACK + LINE


@_jit.inline
def copy_run(source, source_offset, target, target_offset, count):
    """Copy *count* numbers; the target may be overwritten up to the end of the last vector."""
    lanes = simd.lane_count(target)
    done = 0
    while done + lanes <= count:
        simd.store(target, target_offset + done, simd.load(source, source_offset + done))
        done += lanes
    if done < count:
        simd.store(target, target_offset + done, simd.load_first(source, source_offset + done, count - done))


@_jit.inline
def fill_zeros(target, target_offset, count):
    """Set *count* numbers to zero; the target may be overwritten up to the end of the last vector."""
    lanes = simd.lane_count(target)
    zeros = simd.zeros(target)
    for done in range(0, count, lanes):
        simd.store(target, target_offset + done, zeros)


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
            copy_run(x, from_x, patches, target + pixel * PATCH_STRIDE, stop - start)
        return
    for _ in range(pixels):
        if 0 <= ih < s.IH and iw >= 0 and iw + taps <= s.IW:
            copy_run(x, source + start, patches, target, stop - start)
        elif 0 <= ih < s.IH:
            gather_clipped(x, source, patches, target, start, stop, -iw * ic_of_group, (s.IW - iw) * ic_of_group)
        else:
            fill_zeros(patches, target, stop - start)
        target += PATCH_STRIDE
        iw += s.stride_w
        source += s.stride_w * s.IC
        ow += 1
        if ow == s.OW:
            n, oh, ow = next_pixel(n, oh, ow, s.OH, s.OW)
            ih = oh * s.stride_h - s.pad_top + kh * s.dilation_h
            iw = kw * s.dilation_w - s.pad_left
            source = ((n * s.IH + ih) * s.IW + iw) * s.IC + group * ic_of_group


@_jit.inline
def gather_clipped(x, source, patches, target, start, stop, inside_from, inside_to):
    """Elements [start, stop) of a run, of which only [inside_from, inside_to) lie inside the image."""
    inside_from = min(max(start, inside_from), stop)
    inside_to = max(min(stop, inside_to), inside_from)
    fill_zeros(patches, target, inside_from - start)
    copy_run(x, source + inside_from, patches, target + inside_from - start, inside_to - inside_from)
    fill_zeros(patches, target + inside_to - start, stop - inside_to)


@_jit.inline
def next_pixel(n, oh, ow, OH, OW):
    """(n, oh, ow) for an ow that has run over the end of its row."""
    while ow >= OW:
        ow -= OW
        oh += 1
        if oh == OH:
            oh = 0
            n += 1
    return n, oh, ow


@_jit.inline
def pixel_at(position, OH, OW):
    """(n, oh, ow) of a position in the sequence of all output pixels."""
    return position // (OH * OW), position // OW % OH, position % OW


@_jit.inline
def pack_columns(matrix, offset, stride, rows, columns, panel, panel_at, width):
    """``panel[row, :columns] = matrix[offset + row * stride :][:columns]``, the rest of its *width* zero."""
    lanes = simd.lane_count(panel)
    if columns >= width:
        for row in range(rows):
            for column in range(0, width, lanes):
                value = simd.load(matrix, offset + row * stride + column)
                simd.store(panel, panel_at + row * width + column, value)
    else:
        for row in range(rows):
            for column in range(0, width, lanes):
                count = min(max(columns - column, 0), lanes)
                value = simd.load_first(matrix, offset + row * stride + column, count)
                simd.store(panel, panel_at + row * width + column, value)


def _tile_product(vectors, row_stride, step):
    """A product with a panel *vectors* wide; element (m, k) of the left factor lies at m * row_stride + k * step."""

    @_jit.inline
    def product(left, left_at, panel, panel_at, sums, sums_at, sums_stride, length, first):
        """``sums[m, :] (+)= sum over k of left[m, k] * panel[k, :]`` for one register tile; *first* starts from zero.

        The sums stay in registers while k rises, so a step costs TILE_ROWS scalar loads and *vectors* vector loads for
        TILE_ROWS * *vectors* fused multiply-adds.
        """
        width = vectors * simd.lane_count(sums)
        if first:
            tile = tiles.zeros(sums, TILE_ROWS, vectors)
        else:
            tile = tiles.load(sums, sums_at, sums_stride, TILE_ROWS, vectors)
        for k in range(length):
            tile = tiles.rank1(tile, left, left_at + k * step, row_stride, panel, panel_at + k * width)
        tiles.store(tile, sums, sums_at, sums_stride)

    return product


# Rows are pixels, k runs over (kh, kw, ic): the forward pass and grad_x.
multiply_wide = _tile_product(TILE_VECTORS, PATCH_STRIDE, 1)
multiply_narrow = _tile_product(1, PATCH_STRIDE, 1)
# Rows are (kh, kw, ic), k runs over pixels: grad_weight.
accumulate_wide = _tile_product(TILE_VECTORS, 1, PATCH_STRIDE)
accumulate_narrow = _tile_product(1, 1, PATCH_STRIDE)
