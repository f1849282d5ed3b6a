"""Scattered sums by the GPU's atomic additions, in no order that repeats."""

from __future__ import annotations

from typing import Any

import numpy as np

from minidl.backends.cupy_gpu.xp import cp

__all__ = ["_places", "add_at"]

_ATOMIC = frozenset("fdiILQ")  # float32, float64, int32, unsigned integers of 32 and 64 bits


def add_at(target: Any, positions: Any, values: Any) -> None:
    """target[positions[i]] += values[i]; all are (n,), of one dtype."""
    dtype = np.dtype(target.dtype)
    if dtype.char in _ATOMIC:
        cp.add.at(target, positions, values)
    elif dtype.kind in "iu" and dtype.itemsize == 8:  # two's complement wraps alike
        cp.add.at(target.view(np.uint64), positions, values.view(np.uint64))
    elif dtype.kind == "b":  # a sum of bools is whether one is True
        counts = target.astype(np.int32)
        cp.add.at(counts, positions, values.astype(np.int32))
        target[...] = counts != 0
    else:
        wide = np.int32 if dtype.kind in "iu" else np.float32
        sums = target.astype(wide)
        cp.add.at(sums, positions, values.astype(wide))
        target[...] = sums.astype(dtype)


def _places(item: Any) -> tuple[Any, ...]:
    """An index item; a mask as positions, which have to be counted: it waits for the GPU."""
    if isinstance(item, np.ndarray):
        item = cp.asarray(item)
    mask = isinstance(item, cp.ndarray) and item.ndim and item.dtype == np.bool_
    return cp.nonzero(item) if mask else (item,)
