"""Sums over axes."""

from __future__ import annotations

from typing import Any

from minidl.backends.cupy_gpu.xp import cp

__all__ = ["sum"]


def sum(
    x: Any, axis: tuple[int, ...] | None = None, keepdims: bool = False, dtype: Any = None
) -> Any:
    """The sum over the axes: CuPy adds up in trees, which lose no digits over long sums."""
    return cp.asarray(cp.sum(x, axis=axis, keepdims=keepdims, dtype=dtype), order="C")
