"""Layer and root-mean-square normalisation over the last axes, and their gradients.

Statistics are in what is computed in: float32 for 16-bit arrays, else the arrays' own dtype.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from minidl.backends.cupy_gpu.xp import cp
from minidl.backends.native_cuda.launch import (
    BUSY,
    KINDS,
    Family,
    kept_memory,
    pointer,
    rows_plan,
)

_kernels = Family("norm")


def _wide(dtype: Any) -> Any:
    """What the kernels compute in."""
    return dtype if dtype.itemsize == 8 else np.dtype(np.float32)


def _kind(x: Any, *others: Any) -> str | None:
    """The suffix of the kernels, where all arrays (or None) are of one dtype that they take."""
    alike = all(other is None or other.dtype == x.dtype for other in others)
    return KINDS.get(x.dtype) if alike else None


def _forward(
    kernel: str, x: Any, y: Any, ndim: int, weight: Any, bias: Any, eps: float
) -> tuple[Any, Any, Any, Any]:
    """out, x + y, mean, rstd: the last three where the kernel gives them."""
    lead = x.shape[: x.ndim - ndim]
    rows, width = math.prod(lead), math.prod(x.shape[x.ndim - ndim :])
    out, total = cp.empty(x.shape, x.dtype), None if y is None else cp.empty(x.shape, x.dtype)
    if not x.size:
        mean, rstd = (cp.full(lead, math.nan, _wide(x.dtype)) for _ in range(2))
        return out, total, mean, rstd
    mean = None if kernel.startswith("rms") else cp.empty(lead, _wide(x.dtype))
    rstd = cp.empty(lead, _wide(x.dtype))
    given = [None if a is None else cp.ascontiguousarray(a) for a in (x, y, weight, bias)]
    kept = 1 if y is None else 2
    blocks, threads, group, shared = rows_plan(rows, width, x.itemsize, kept)
    places = [pointer(a) for a in (*given, out, total, mean, rstd)]
    _kernels.start(kernel, blocks, threads, shared, *places, rows, width, group, shared, float(eps))
    return out, total, mean, rstd


def _layer_norm(below: Callable) -> Callable:
    def entry(x: Any, ndim: int, weight: Any, bias: Any, eps: float) -> Any:
        kind = _kind(x, weight, bias)
        if kind is None:
            return below(x, ndim, weight, bias, eps)
        out, _, *statistics = _forward(f"layer_norm_{kind}", x, None, ndim, weight, bias, eps)
        return out, *statistics

    return entry


def _add_layer_norm(below: Callable) -> Callable:
    def entry(x: Any, y: Any, ndim: int, weight: Any, bias: Any, eps: float) -> Any:
        kind = _kind(x, y, weight, bias)
        if kind is None or x.shape != y.shape:
            return below(x, y, ndim, weight, bias, eps)
        return _forward(f"add_layer_norm_{kind}", x, y, ndim, weight, bias, eps)

    return entry


def _rms_norm(below: Callable) -> Callable:
    def entry(x: Any, ndim: int, weight: Any, eps: float) -> Any:
        kind = _kind(x, weight)
        if kind is None:
            return below(x, ndim, weight, eps)
        out, _, _, rstd = _forward(f"rms_norm_{kind}", x, None, ndim, weight, None, eps)
        return out, rstd

    return entry


def _sums_plan(rows: int, width: int, dtype: Any) -> tuple[int, int, int, int]:
    """How to sum columns: (blocks, threads, threads per row, columns of the work space).

    Threads per row hold the sums of their columns, 128 bytes of each; 0 if no block can.
    """
    columns, piece = 128 // _wide(dtype).itemsize, 16 // dtype.itemsize
    group = next((group for group in (32, 128, 256) if width <= group * columns), 0)
    span = (group or 256) * piece
    pitch = -(-width // span) * span
    if not group:
        tiles = pitch // span
        return tiles * max(1, min(rows, BUSY // tiles)), 256, 0, pitch
    threads = 256 if group == 32 else group
    return min(-(-rows * group // threads), BUSY * 64 // threads), threads, group, pitch


def _backward(
    name: str, g: Any, x: Any, ndim: int, weight: Any, mean: Any, rstd: Any
) -> tuple[Any, Any, Any]:
    """dx, dweight or None without weight, dbias or None without mean."""
    shape = x.shape[x.ndim - ndim :]
    width, wide, kind = math.prod(shape), _wide(x.dtype), KINDS[x.dtype]
    made = cp.empty if x.size else cp.zeros
    dx = cp.empty(x.shape, x.dtype)
    dweight = None if weight is None else made(shape, x.dtype)
    dbias = None if mean is None else made(shape, x.dtype)
    if not x.size:
        return dx, dweight, dbias
    rows = x.size // width
    blocks, threads, group, pitch = _sums_plan(rows, width, x.dtype)
    shares = blocks if group else blocks // (pitch // (256 * (16 // x.itemsize)))
    sums = [None if a is None else cp.empty((shares, pitch), wide) for a in (dweight, dbias)]
    arrays = [None if a is None else cp.ascontiguousarray(a) for a in (g, x, weight, mean, rstd)]

    def start(kernel: str, blocks: int, threads: int, shared: int, group: int, kept: int) -> None:
        places = [pointer(a) for a in (*arrays, dx, *sums)]
        fields = rows, width, group, kept, pitch
        _kernels.start(f"{kernel}_{kind}", blocks, threads, shared, *places, *fields)

    if group:
        kept = kept_memory(2 * (threads // group), width, x.itemsize)
        # a warp's sums meet those of the other warps in shared memory
        start(name, blocks, threads, max(kept, 32768) if group == 32 else kept, group, kept)
    else:
        plan = rows_plan(rows, width, x.itemsize, 2)
        start("norm_dx", *plan[:2], plan[3], *plan[2:])
        if any(a is not None for a in sums):
            start("norm_columns", blocks, threads, 0, 0, 0)
    outs = [pointer(a) for a in (*sums, dweight, dbias)]
    blocks = pitch // 32 * sum(a is not None for a in sums)
    _kernels.start(f"norm_sums_{kind}", blocks, 512, 0, *outs, shares, width, group or 256, pitch)
    return dx, dweight, dbias


def _statistics(x: Any, *given: Any) -> bool:
    """Whether the statistics are of the dtype that the kernels compute in."""
    return all(a.dtype == _wide(x.dtype) for a in given)


def _layer_norm_backward(below: Callable) -> Callable:
    def entry(g: Any, x: Any, ndim: int, weight: Any, mean: Any, rstd: Any) -> Any:
        if _kind(x, g, weight) is None or not _statistics(x, mean, rstd):
            return below(g, x, ndim, weight, mean, rstd)
        return _backward("layer_norm_backward", g, x, ndim, weight, mean, rstd)

    return entry


def _rms_norm_backward(below: Callable) -> Callable:
    def entry(g: Any, x: Any, ndim: int, weight: Any, rstd: Any) -> Any:
        if _kind(x, g, weight) is None or not _statistics(x, rstd):
            return below(g, x, ndim, weight, rstd)
        return _backward("rms_norm_backward", g, x, ndim, weight, None, rstd)[:2]

    return entry


OVER: dict[str, Callable[[Callable], Callable]] = {
    "layer_norm": _layer_norm,
    "add_layer_norm": _add_layer_norm,
    "rms_norm": _rms_norm,
    "layer_norm_backward": _layer_norm_backward,
    "rms_norm_backward": _rms_norm_backward,
}
HALF = frozenset(OVER)
