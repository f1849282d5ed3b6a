"""Attention, forward and backward, a block of query rows at a time ("FlashAttention", Dao et al.,
2022; the specification's file names the other sources).

Keys and values of a head are packed once into the panels that `tiles.tile` reads. Then, per block
of query rows: scores into scratch that stays in the second-level cache, one pass of mask, maximum,
exponential and sum over each row, and the product with the values; the division comes last, on the
small result. The backward pass recomputes the weights from the log-sum-exp and makes all three
gradients from one visit of a block. Columns that no row of a causal block sees are left out.
Threads share heads, and forward also the rows of a head, so no sum depends on their number.

Limits: 4 T S D operations forward and 10 backward (half of it causal) at the rate of `tile` (150
Gflop/s of float32 on one core of an Emerald Rapids Xeon, where NumPy's BLAS has 87 for 64 x 64 x
256), and one exponential per score each time (0.45 ns). At T = S = 256, D = 64 that is 112 + 29 us
forward and 280 + 29 us backward per head.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from minidl.backends.numba_kernels import tiles
from minidl.backends.numba_kernels.compiled import (
    Flags4,
    In2,
    In3,
    In4,
    Index1,
    Kernel,
    Out2,
    Out3,
    helper,
    split,
    workers,
)
from minidl.backends.numba_kernels.elementary import decay, largest, like, widest
from minidl.backends.numba_kernels.tiles import tile, turn
from minidl.backends.reference.attention import fold_mask

ROWS = 64  # query rows of a block at most, a multiple of a tile's height
SCORES = 1 << 17  # scores of a block: 512 KiB of float32
GAP = 16  # elements between rows of scratch, so that they do not fall into one set of a cache
FEW = 4  # query rows per head for which packing the keys does not pay
_PLAIN, _BOOL, _ADDED = range(3)  # kinds of masks


@helper
def _up(n, step):
    return (n + step - 1) // step * step


@helper
def _room(count, x):
    """A flat array of the dtype of x that begins on a cache line."""
    room = np.empty(count + 64, x.dtype)
    first = (64 - room.ctypes.data % 64) % 64 // x.itemsize
    return room[first : first + count]


@helper
def _pack(x, width, out):
    """x (rows, columns) as panels (columns / width, rows, width), padded with zeros."""
    rows, columns = x.shape
    for panel in range(_up(columns, width) // width):
        for i in range(rows):
            target = out[(panel * rows + i) * width : (panel * rows + i + 1) * width]
            part = x[i, panel * width : min(columns, (panel + 1) * width)]
            for j in range(part.size):
                target[j] = part[j]
            for j in range(part.size, width):
                target[j] = like(target[0], 0.0)


@helper
def _pack_transposed(x, width, out):
    """The transpose of x (columns, rows) as panels (columns / width, rows, width), padded."""
    columns, rows = x.shape
    flat, lanes = x.reshape(-1), width // 2
    square = rows // lanes * lanes
    for first in range(0, columns, lanes):
        panel, half = first // width, first % width
        count = min(lanes, columns - first)
        place = panel * rows * width + half
        if count == lanes:
            for i in range(0, square, lanes):
                turn(flat, first * rows + i, rows, out, place + i * width, lanes)
        for i in range(square if count == lanes else 0, rows):
            for j in range(lanes):
                value = flat[(first + j) * rows + i] if j < count else like(flat[0], 0.0)
                out[place + i * width + j] = value
        if first + lanes >= columns and half == 0:  # the other half of the last panel
            for i in range(rows):
                for j in range(lanes):
                    out[place + lanes + i * width + j] = like(flat[0], 0.0)


@helper
def _rows_of(x, factor, padded, out):
    """x (rows, columns) times a factor, and rows of zeros after it up to `padded`."""
    rows, columns = x.shape
    scale = like(out[0], factor)
    for i in range(rows):
        source, target = x[i], out[i * columns : (i + 1) * columns]
        for j in range(columns):
            target[j] = source[j] * scale
    for i in range(rows * columns, padded * columns):
        out[i] = like(scale, 0.0)


@helper
def _mask_row(row, live, kind, flags, added, n, g, i):
    """Apply one row of the mask, whose axes may have length 1, to the first `live` scores.

    The others become -inf: whole vectors cost less than the tails of short loops.
    """
    for j in range(live, row.size):
        row[j] = like(row[0], -np.inf)
    if kind == _BOOL:
        seen = flags[n, min(g, flags.shape[1] - 1), min(i, flags.shape[2] - 1)]
        if seen.size == 1:
            if not seen[0]:
                for j in range(live):
                    row[j] = like(row[0], -np.inf)
        else:
            for j in range(live):
                row[j] = row[j] if seen[j] else like(row[j], -np.inf)
    elif kind == _ADDED:
        more = added[n, min(g, added.shape[1] - 1), min(i, added.shape[2] - 1)]
        if more.size == 1:
            for j in range(live):
                row[j] += more[0]
        else:
            for j in range(live):
                row[j] += more[j]


@helper
def _products(a, high, inner, panels, count, height, width, out, step):
    """out (high, count width) = a (high, inner) times `count` panels."""
    for panel in range(count):
        for m in range(0, high, height):
            place = m * step + panel * width
            tile(
                a,
                m * inner,
                inner,
                1,
                panels,
                panel * inner * width,
                out,
                place,
                step,
                inner,
                False,
            )


@Kernel
def _forward(
    start: int,
    stop: int,
    parts: int,
    block: int,
    q: In3,
    k: In3,
    v: In3,
    scale: float,
    causal: bool,
    kind: int,
    flags: Flags4,
    added: In4,
    chosen: Index1,
    height: int,
    width: int,
    out: Out3,
    lse: Out2,
) -> None:
    """Items of which `parts` share the rows of a kv head, in blocks of `block` rows."""
    widest()
    group, queries, size = q.shape[0] // k.shape[0], q.shape[1], q.shape[2]
    keys, depth = v.shape[1], v.shape[2]
    step, across = _up(keys, width) + GAP, _up(depth, width)
    k_panels, v_panels = _room(step * size, k), _room(keys * across, k)
    query, scores = _room(block * size, k), _room(block * step, k)
    weighted, totals = _room(block * across, k), np.empty(block, k.dtype)
    blocks, before = _up(queries, block) // block, -1
    for item in range(start, stop):
        n, part = item // parts, item % parts
        if n != before:
            before = n
            _pack_transposed(k[n], width, k_panels)
            _pack(v[n], width, v_panels)
        for h in range(n * group, (n + 1) * group):
            for at in range(blocks * part // parts, blocks * (part + 1) // parts):
                first = at * block
                count = min(block, queries - first)
                columns = min(keys, first + count) if causal else keys
                high = _up(count, height)
                panels = _up(columns, width) // width
                _rows_of(q[h, first : first + count], scale, high, query)
                _products(query, high, size, k_panels, panels, height, width, scores, step)
                for r in range(count):
                    i = first + r
                    live = min(columns, i + 1) if causal else columns
                    row = scores[r * step : r * step + panels * width]
                    _mask_row(row, live, kind, flags, added, chosen[n], h - n * group, i)
                    top = largest(row)
                    if top == -np.inf:  # a row that sees no key: exp(-inf - 0) = 0
                        top = like(top, 0.0)
                    total = like(top, 0.0)
                    for j in range(row.size):
                        e = decay(row[j] - top)
                        row[j] = e
                        total += e
                    lse[h, i], totals[r] = math.log(total) + top, total
                for m in range(0, high, height):
                    for p in range(across // width):
                        place = m * across + p * width
                        from_ = p * keys * width
                        tile(
                            scores, m * step, step, 1, v_panels, from_, weighted, place, across,
                            columns, False,
                        )  # fmt: skip
                for r in range(count):
                    total, target = totals[r], out[h, first + r]
                    source = weighted[r * across : r * across + depth]
                    for j in range(depth):
                        target[j] = source[j] / total if total != 0 else total


@Kernel
def _backward(
    start: int,
    stop: int,
    block: int,
    g: In3,
    q: In3,
    k: In3,
    v: In3,
    out: In3,
    lse: In2,
    scale: float,
    causal: bool,
    kind: int,
    flags: Flags4,
    added: In4,
    chosen: Index1,
    height: int,
    width: int,
    dq: Out3,
    dk: Out3,
    dv: Out3,
) -> None:
    """All gradients of the kv heads start <= n < stop, in blocks of `block` query rows."""
    widest()
    group, queries, size = q.shape[0] // k.shape[0], q.shape[1], q.shape[2]
    keys, depth = v.shape[1], v.shape[2]
    wide, across, along = _up(keys, width), _up(depth, width), _up(size, width)
    step = wide + GAP
    k_turned, v_turned = _room(wide * size, k), _room(wide * depth, k)
    k_panels = _room(keys * along, k)
    query, query_panels = _room(block * size, k), _room(block * along, k)
    given, given_panels = _room(block * depth, k), _room(block * across, k)
    weights, slopes = _room(block * step, k), _room(block * step, k)
    dquery = _room(block * along, k)
    dkeys, dvalues = _room(wide * along, k), _room(wide * across, k)
    for n in range(start, stop):
        _pack_transposed(k[n], width, k_turned)
        _pack_transposed(v[n], width, v_turned)
        _pack(k[n], width, k_panels)
        dkeys[:] = 0
        dvalues[:] = 0
        for h in range(n * group, (n + 1) * group):
            for first in range(0, queries, block):
                count = min(block, queries - first)
                columns = min(keys, first + count) if causal else keys
                high, panels = _up(count, height), _up(columns, width) // width
                _rows_of(q[h, first : first + count], scale, high, query)
                _rows_of(g[h, first : first + count], 1.0, high, given)
                _pack(query[: count * size].reshape(count, size), width, query_panels)
                _pack(g[h, first : first + count], width, given_panels)
                _products(query, high, size, k_turned, panels, height, width, weights, step)
                _products(given, high, depth, v_turned, panels, height, width, slopes, step)
                for r in range(count):
                    i, shift = first + r, lse[h, first + r]
                    delta = like(shift, 0.0)
                    for j in range(depth):
                        delta += g[h, i, j] * out[h, i, j]
                    live = min(columns, i + 1) if causal else columns
                    if shift == -np.inf:  # it saw no key: exp(s - inf) = 0
                        shift = -shift
                    p = weights[r * step : r * step + panels * width]
                    d = slopes[r * step : r * step + panels * width]
                    _mask_row(p, live, kind, flags, added, chosen[n], h - n * group, i)
                    for j in range(p.size):
                        e = decay(p[j] - shift)
                        p[j] = e
                        d[j] = e * (d[j] - delta)
                for j in range(0, panels * width, height):
                    for m in range(across // width):
                        place, from_ = j * across + m * width, m * count * width
                        tile(
                            weights,
                            j,
                            1,
                            step,
                            given_panels,
                            from_,
                            dvalues,
                            place,
                            across,
                            count,
                            True,
                        )
                    for m in range(along // width):
                        place, from_ = j * along + m * width, m * count * width
                        tile(
                            slopes,
                            j,
                            1,
                            step,
                            query_panels,
                            from_,
                            dkeys,
                            place,
                            along,
                            count,
                            True,
                        )
                for m in range(0, high, height):
                    for p in range(along // width):
                        place, from_ = m * along + p * width, p * keys * width
                        tile(
                            slopes,
                            m * step,
                            step,
                            1,
                            k_panels,
                            from_,
                            dquery,
                            place,
                            along,
                            columns,
                            False,
                        )
                for r in range(count):
                    target = dq[h, first + r]
                    for j in range(size):
                        target[j] = dquery[r * along + j] * like(target[0], scale)
        for i in range(keys):
            for j in range(size):
                dk[n, i, j] = dkeys[i * along + j]
            for j in range(depth):
                dv[n, i, j] = dvalues[i * across + j]


def _mask(mask: np.ndarray | None, q: np.ndarray, k: np.ndarray) -> tuple[Any, ...]:
    """What the kernels take of a mask: kind, values and which of them a kv head uses."""
    lead, group = k.shape[:-2], q.shape[-3] // k.shape[-3]
    flags, added = np.empty((1, 1, 1, 0), np.bool_), np.empty((1, 1, 1, 0), q.dtype)
    chosen = np.zeros(math.prod(lead), np.int64)
    if mask is None:
        return _PLAIN, flags, added, chosen
    values, index = fold_mask(mask, lead, group)
    if index is not None:
        chosen = index.astype(np.int64)
    if values.dtype == np.bool_:
        return _BOOL, np.ascontiguousarray(values), added, chosen
    return _ADDED, flags, np.ascontiguousarray(values, q.dtype), chosen


def _heads(x: np.ndarray) -> np.ndarray:
    """(*lead, H, T, D) -> (N * G, T, D)."""
    return np.ascontiguousarray(x).reshape(-1, *x.shape[-2:])


def _shape(q: np.ndarray, k: np.ndarray) -> tuple[int, int, int]:
    """Query rows of a block, and height and width of a tile."""
    height, width = tiles.shape(q.itemsize)
    rows = max(1, min(ROWS, SCORES // k.shape[-2], q.shape[-2]))
    return -(-rows // height) * height, height, width


def attention(below: Callable) -> Callable:
    """The entry over the one that takes few query rows per head."""

    def attention(
        q: np.ndarray,
        k: np.ndarray,
        v: np.ndarray,
        mask: np.ndarray | None,
        causal: bool,
        scale: float,
    ) -> tuple[np.ndarray, np.ndarray]:
        """As specified in reference/attention.py."""
        if _small(q, k, v):
            return below(q, k, v, mask, causal, scale)
        out = np.empty((*q.shape[:-1], v.shape[-1]), q.dtype)
        lse = np.empty(q.shape[:-1], q.dtype)
        count, queries = math.prod(k.shape[:-2]), q.shape[-2]
        block, *sizes = _shape(q, k)
        work = lse.size * k.shape[-2] * (1 + q.shape[-1] / 32)
        # the rows of a head are shared where there are fewer heads than four per thread
        threads = workers(lse.size, work)
        parts = min(-(-4 * threads // count), -(-queries // block)) if threads > 1 else 1
        split(
            _forward[q.dtype], count * parts, work, parts, block, *map(_heads, (q, k, v)),
            float(scale), bool(causal), *_mask(mask, q, k), *sizes, _heads(out),
            lse.reshape(-1, queries),
        )  # fmt: skip
        return out, lse

    return attention


def attention_backward(below: Callable) -> Callable:
    """The entry over the one that takes few query rows per head."""

    def attention_backward(
        g: np.ndarray,
        q: np.ndarray,
        k: np.ndarray,
        v: np.ndarray,
        mask: np.ndarray | None,
        causal: bool,
        scale: float,
        out: np.ndarray,
        lse: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """As specified in reference/attention.py."""
        if _small(q, k, v):
            return below(g, q, k, v, mask, causal, scale, out, lse)
        grads = np.empty(q.shape, q.dtype), np.empty(k.shape, k.dtype), np.empty(v.shape, v.dtype)
        block, *sizes = _shape(q, k)
        work = lse.size * k.shape[-2] * (1 + q.shape[-1] / 16)
        split(
            _backward[q.dtype], math.prod(k.shape[:-2]), work, block,
            *map(_heads, (g, q, k, v, out)), np.ascontiguousarray(lse).reshape(-1, q.shape[-2]),
            float(scale), bool(causal), *_mask(mask, q, k), *sizes, *map(_heads, grads),
        )  # fmt: skip
        return grads

    return attention_backward


def _small(q: np.ndarray, k: np.ndarray, v: np.ndarray) -> bool:
    """Whether there are few query rows per kv head, or nothing to compute at all."""
    if not (q.size and k.size and v.size):
        return True
    return q.shape[-2] * (q.shape[-3] // k.shape[-3]) < FEW


OVER: dict[str, Callable[[Callable], Callable]] = {
    "attention": attention,
    "attention_backward": attention_backward,
}
