"""Extremes and products of what meets, by scans: CuPy accumulates and scatters sums only.

A scan over n elements takes log n steps, each of which joins what is twice as far apart.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from minidl.backends.cupy_gpu.xp import cp

__all__ = ["cummax", "cummin", "scatter_reduce"]


def _scan(function: Callable[..., Any], x: Any, group: Any = None) -> Any:
    """`function` of the elements up to each one along the first axis, within its group.

    group: (n,), neighbours of one value belong together; None: all do.
    """
    out, step = cp.array(x, order="C"), 1
    while step < len(out):
        joined = function(out[step:], out[:-step])
        if group is not None:
            joined = cp.where(group[step:] == group[:-step], joined, out[step:])
        out[step:] = joined
        step *= 2
    return out


def _along(function: Callable[..., Any], x: Any, axis: int) -> Any:
    if not x.ndim:
        return x.copy()
    return cp.ascontiguousarray(cp.moveaxis(_scan(function, cp.moveaxis(x, axis, 0)), 0, axis))


def cummax(x: Any, axis: int) -> Any:
    """The largest of the elements up to each one along `axis`."""
    return _along(cp.maximum, x, axis)


def cummin(x: Any, axis: int) -> Any:
    """The smallest of the elements up to each one along `axis`."""
    return _along(cp.minimum, x, axis)


def _multiply(x: Any, y: Any) -> Any:
    return cp.multiply(x, y, dtype=x.dtype)


def scatter_reduce(x: Any, dim: int, index: Any, src: Any, reduce: str, include_self: bool) -> Any:
    """A copy of x in which all that `index` sends to a place along `dim` meets there.

    What meets is brought together by a stable sort of the places, so the order is that of `src`.
    """
    if not index.size:
        return cp.array(x, order="C")
    function = {"amax": cp.maximum, "amin": cp.minimum, "prod": _multiply}[reduce]
    places = cp.zeros(index.shape, cp.int64)
    for axis, length in enumerate(index.shape):
        own = cp.arange(length).reshape(-1, *(1,) * (x.ndim - axis - 1))
        at = index % x.shape[axis] if axis == dim % x.ndim else own
        places += at * math.prod(x.shape[axis + 1 :])
    places = places.reshape(-1)
    order = cp.argsort(places, kind="stable")
    places = places[order]
    values = src[tuple(slice(n) for n in index.shape)].reshape(-1)[order]
    met = _scan(function, values.astype(x.dtype, copy=False), places)
    # the last of those that meet has the result of all
    every = cp.arange(x.size)
    last = cp.maximum(cp.searchsorted(places, every, side="right") - 1, 0)
    flat = x.reshape(-1)
    total = function(flat, met[last]) if include_self else met[last]
    return cp.where(places[last] == every, total, flat).reshape(x.shape)
