"""Reductions over axes: sum, product, largest, smallest, their places, any, all."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from minidl.backends.cupy_gpu.xp import cp
from minidl.backends.native_cuda.launch import BUSY, KINDS, Family, pointer
from minidl.backends.native_cuda.movement import contiguous, dense_order

_kernels = Family("reduce")
_LONGEST = 64  # numbers that a thread adds up one after the other, at most
_FLOAT, _DOUBLE = np.dtype(np.float32), np.dtype(np.float64)
_INT, _BOOL = np.dtype(np.int64), np.dtype(np.bool_)
_INTEGERS = {np.dtype(np.int32): "int32", _INT: "int64", _BOOL: "bool"}


class _Way(NamedTuple):
    """How a dtype is reduced: the kernel, the dtype of the result, and what is in between.

    A workspace, of `words` numbers of dtype `part` for each part, goes to kernel `again`; `raw`
    asks a kernel for such parts where its result is something else.
    """

    kernel: str
    result: np.dtype
    part: np.dtype
    again: str
    raw: bool = False
    words: int = 1


def _plain(kernel: str, result: np.dtype, again: str | None = None) -> _Way:
    return _Way(kernel, result, result, again or kernel)


def _sums() -> dict[tuple[np.dtype, np.dtype], _Way]:
    """(dtype, dtype of the result) -> way."""
    found = {(d, d): _plain(f"sum_{kind}", d) for d, kind in KINDS.items() if d.itemsize > 2}
    for d, kind in KINDS.items():
        if d.itemsize == 2:
            found[d, d] = _Way(f"sum_{kind}", d, _FLOAT, f"sum_of_{kind}", True)
    for d, kind in _INTEGERS.items():
        found[d, _INT] = _plain(f"sum_{kind}", _INT, "sum_int64")
    return found


def _extremes(name: str) -> dict[np.dtype, _Way]:
    return {d: _plain(f"{name}_{kind}", d) for d, kind in (KINDS | {_INT: "int64"}).items()}


def _places(name: str) -> dict[np.dtype, _Way]:
    found = {}
    for d, kind in (KINDS | {_INT: "int64"}).items():
        wide = "float32" if d.itemsize == 2 else kind
        found[d] = _Way(f"{name}_{kind}", _INT, _INT, f"{name}_of_{wide}", True, 2)
    return found


_SUMS = _sums()
_PRODUCTS = {d: _plain(f"prod_{KINDS[d]}", _DOUBLE, "prod_float64") for d in (_FLOAT, _DOUBLE)}


# ---------------------------------------------------------------- launches


def _rows(outer: int, width: int, size: int) -> tuple[int, int, int, int, int]:
    """How to reduce rows, `size` elements in 16 bytes: (blocks, threads, group, length, parts)."""
    if width <= 1024:
        return -(-outer // 8), 256, 32, width, 1
    group = 128 if width <= 4096 else 256 if width <= 16384 else 512
    least = -(-width // (group * _LONGEST * min(size, 4)))  # a thread has up to 4 accumulators
    # a block alone reads this much faster than a second launch starts
    short = width <= 16 * group * size
    useful = 1 if short else -(-width // (4 * group * size))
    parts = max(min(-(-BUSY // outer), useful), least)
    length = -(-width // parts)
    length = -(-length // 16) * 16
    parts = -(-width // length)
    return outer * parts, group, group, length, parts


def _columns(outer: int, width: int, inner: int, unit: int) -> tuple[int, int, int, int, int]:
    """How to reduce columns, `unit` per thread: (blocks, threads, strips, length, parts)."""
    strips = 8 if width >= 32 else 1
    chunks = -(-(outer * inner // unit) // (32 * (8 // strips)))
    least = -(-width // (_LONGEST * strips))
    useful = 1 if width <= 32 * strips else -(-width // (8 * strips))
    parts = max(min(-(-BUSY // (2 * chunks)), useful), least)
    length = -(-width // parts)
    parts = -(-width // length)
    return chunks * parts, 256, strips, length, parts


def _reduced(
    x: Any, shape: tuple[int, int, int], way: _Way, parted: bool, last: bool
) -> tuple[Any, _Way]:
    """x, seen as (outer, width, inner), reduced over the middle: what there is, and its way.

    parted: x is the parts of another reduction; not `last`: the result is.
    """
    outer, width, inner = shape
    words = way.words if parted else 1
    while True:
        size = 16 // (x.itemsize * words)
        if inner == 1 and width >= 32:
            plan, kernel = _rows(outer, width, size), way.kernel
        else:
            aligned = inner % size == 0 and pointer(x) % 16 == 0
            plan = _columns(outer, width, inner, size if aligned else 1)
            kernel = f"{way.kernel}_columns"
        blocks, threads, group, length, parts = plan
        finished = parts == 1 and last
        raw = int(way.raw and not finished)
        words = way.words if raw else 1
        out = cp.empty((outer, parts, inner * words), way.result if finished else way.part)
        given = pointer(x), pointer(out), outer, width, inner, length, parts, group, raw
        _kernels.start(kernel, blocks, threads, 0, *given)
        way = way._replace(kernel=way.again)
        if parts == 1:
            return out, way
        x, width = out, parts


def _over(x: Any, axes: Sequence[int], way: _Way) -> Any:
    """x, which has elements, reduced over the axes, which count from the front: without them."""
    one = len(axes) == 1
    order = list(range(x.ndim))
    if not x.flags.c_contiguous:
        order = dense_order(x)
        moved = x.transpose(*order)
        # where several axes are reduced to a place, that counts in C order
        if moved.flags.c_contiguous and (one or way.words == 1):
            x = moved
        else:
            x, order = contiguous(x), list(range(x.ndim))
    kept = [a for a in order if a not in axes]
    gone = [i for i, a in enumerate(order) if a in axes and x.shape[i] > 1]
    shape = x.shape
    groups: list[list[int]] = []  # axes that are neighbours; between them nothing or axes of size 1
    for i in gone:
        if groups and all(shape[j] == 1 for j in range(groups[-1][-1] + 1, i)):
            groups[-1].append(i)
        else:
            groups.append([i])
    if not groups:
        x, _ = _reduced(x, (x.size, 1, 1), way, False, True)
    left, parted = list(shape), False
    while groups:
        group = groups.pop()
        start, stop = group[0], group[-1] + 1
        sides = math.prod(left[:start]), math.prod(left[start:stop]), math.prod(left[stop:])
        x, way = _reduced(x, sides, way, parted, not groups)
        parted = True
        left[start:stop] = [1] * (stop - start)
    sizes = {a: shape[i] for i, a in enumerate(order)}
    x = x.reshape(tuple([sizes[a] for a in kept]))
    if kept != sorted(kept):
        x = contiguous(x.transpose(*[kept.index(a) for a in sorted(kept)]))
    return x


def _result(x: Any, axis: Any, keepdims: bool, way: _Way) -> Any:
    every = range(x.ndim)
    axes = every if axis is None else [axis] if isinstance(axis, int) else axis
    axes = sorted({a % x.ndim for a in axes})
    shape = [1 if a in axes else n for a, n in enumerate(x.shape) if keepdims or a not in axes]
    return _over(x, axes, way).reshape(tuple(shape))


# ---------------------------------------------------------------- entries


def _sum(below: Callable) -> Callable:
    def entry(x: Any, axis: Any = None, keepdims: bool = False, dtype: Any = None) -> Any:
        given = x.dtype if x.dtype in KINDS else _INT
        way = _SUMS.get((x.dtype, given if dtype is None else np.dtype(dtype)))
        if way is None or not x.size:
            return below(x, axis=axis, keepdims=keepdims, dtype=dtype)
        return _result(x, axis, keepdims, way)

    return entry


def _prod(below: Callable) -> Callable:
    def entry(x: Any, axis: Any = None, keepdims: bool = False, dtype: Any = None) -> Any:
        way = _PRODUCTS.get(x.dtype)
        if way is None or not x.size or np.dtype(dtype or x.dtype) != way.result:
            return below(x, axis=axis, keepdims=keepdims, dtype=dtype)
        return _result(x, axis, keepdims, way)

    return entry


def _by_dtype(ways: dict[np.dtype, _Way]) -> Callable[[Callable], Callable]:
    def over(below: Callable) -> Callable:
        def entry(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
            way = ways.get(x.dtype)
            if way is None or not x.size:
                return below(x, axis=axis, keepdims=keepdims)
            return _result(x, axis, keepdims, way)

        return entry

    return over


def _count_nonzero(below: Callable) -> Callable:
    def entry(x: Any, axis: Any = None) -> Any:
        if x.dtype != _BOOL or not x.size:
            return below(x, axis=axis)
        return _result(x, axis, False, _SUMS[_BOOL, _INT])

    return entry


OVER: dict[str, Callable[[Callable], Callable]] = {
    "sum": _sum,
    "prod": _prod,
    "amax": _by_dtype(_extremes("amax")),
    "amin": _by_dtype(_extremes("amin")),
    "any": _by_dtype({_BOOL: _plain("any_bool", _BOOL)}),
    "all": _by_dtype({_BOOL: _plain("all_bool", _BOOL)}),
    "argmax": _by_dtype(_places("argmax")),
    "argmin": _by_dtype(_places("argmin")),
    "count_nonzero": _count_nonzero,
}
HALF = frozenset(["sum", "amax", "amin", "argmax", "argmin"])
