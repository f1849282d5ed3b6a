"""Rows of a table by index, and the sum of a gradient's rows per index, in a fixed order."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from minidl.backends.cupy_gpu.xp import cp
from minidl.backends.native_cuda.launch import KINDS, Family, pointer

_kernels = Family("embedding")
_THREADS = 256
_TILES = 128  # blocks of a sort, which each add up what all of them counted


def _indices(x: Any) -> Any:
    """Indices as kernels read them."""
    return cp.ascontiguousarray(x.astype(np.int64, copy=False))


def _group(count: int) -> int:
    """Threads for a row of so many units of work."""
    return 128 if count > 256 else min(32, 1 << max(0, count - 1).bit_length())


def _teams(rows: int, group: int) -> int:
    """Blocks for so many rows."""
    return -(-rows // (_THREADS // group))


def _take(below: Callable) -> Callable:
    def entry(x: Any, indices: Any, axis: Any = None, **options: Any) -> Any:
        rows = x.ndim == 2 and axis in (0, -2) and x.flags.c_contiguous
        places = isinstance(indices, cp.ndarray) and indices.dtype.kind in "iu"
        if not rows or not places or options:
            return below(x, indices, axis=axis, **options)
        if not len(x):  # the operator has refused the indices
            return cp.zeros((*indices.shape, x.shape[1]), x.dtype)
        out = cp.empty((*indices.shape, x.shape[1]), x.dtype)
        if not out.size:
            return out
        index = _indices(indices)
        table, target = pointer(x), pointer(out)
        row = x.shape[1] * x.itemsize
        unit = math.gcd(table, target, row, 16)
        width = row // unit
        group = _group(width)
        places = table, pointer(index), target
        blocks = _teams(index.size, group)
        _kernels.start(
            f"take_{unit}", blocks, _THREADS, 0, *places, index.size, len(x), width, group
        )
        return out

    return entry


def _sorted(index: Any, count: int) -> Any:
    """Tokens in the order of their indices, then of their places: both in one number each."""
    tokens = index.size
    bits = max(1, (count - 1).bit_length())
    passes = -(-bits // 10)
    each = -(-bits // passes)
    digits = 1 << each
    tile = max(1024, -(-tokens // (_TILES * _THREADS)) * _THREADS)
    blocks = -(-tokens // tile)
    counts = cp.empty((blocks, digits), np.int64)
    found = None
    for shift in range(0, passes * each, each):
        given, found = found, cp.empty(tokens, np.uint64)
        for kernel, shared in (("sort_count", 4 * digits), ("sort_place", 40 * digits)):
            places = pointer(index), pointer(given), pointer(found), pointer(counts)
            sizes = tokens, count, tile, blocks, shift, each
            _kernels.start(kernel, blocks, _THREADS, shared, *places, *sizes)
    return found


def _embedding_backward(below: Callable) -> Callable:
    def entry(g: Any, index: Any, num_embeddings: int, padding_idx: int | None) -> Any:
        tokens, width = index.size, g.shape[-1]
        kind = KINDS.get(g.dtype)
        if kind is None or max(tokens, num_embeddings) >= 1 << 31:
            return below(g, index, num_embeddings, padding_idx)
        if not tokens or not width or not num_embeddings:
            return cp.zeros((num_embeddings, width), g.dtype)
        out = cp.empty((num_embeddings, width), g.dtype)
        g = cp.ascontiguousarray(g)
        order = _sorted(_indices(index), num_embeddings)
        starts = cp.empty(num_embeddings + 1, np.int64)
        # an index with all tokens: as many parts as a part has tokens
        part = 1 << max(5, math.isqrt(tokens).bit_length() - 1)
        count = tokens // part
        wide = np.float64 if g.dtype == np.float64 else np.float32
        parts = cp.empty((count, width), wide) if count else None
        padding = -1 if padding_idx is None else padding_idx % num_embeddings
        group = _group(-(-width * g.itemsize // 16))
        sizes = tokens, num_embeddings, width, part if count else 0, padding, group

        def start(kernel: str, blocks: int) -> None:
            arrays = pointer(g), pointer(order), pointer(starts), pointer(parts), pointer(out)
            _kernels.start(kernel, blocks, _THREADS, 0, *arrays, *sizes)

        start("embedding_starts", num_embeddings // _THREADS + 1)
        start(f"embedding_parts_{kind}", _teams(count, group))
        start(f"embedding_sums_{kind}", _teams(num_embeddings, group))
        return out

    return entry


OVER: dict[str, Callable[[Callable], Callable]] = {
    "take": _take,
    "embedding_backward": _embedding_backward,
}
HALF = frozenset(["embedding_backward"])
