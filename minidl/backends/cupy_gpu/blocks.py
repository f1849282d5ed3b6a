"""Whole arrays at once: on a GPU pieces would only start more kernels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from minidl.backends.cupy_gpu.xp import cp

__all__ = ["pointwise", "spans", "sum_rows"]


def spans(count: int, width: int = 1) -> Iterator[tuple[int, int]]:
    """All rows in one piece."""
    if count:
        yield 0, count


def pointwise(kernel: Callable[..., None], scratch: int, *inputs: Any) -> Any:
    """Run `kernel(out, *inputs, *scratch)` on the flat arrays."""
    first = inputs[0]
    out = cp.empty(first.shape, first.dtype)
    if out.size:
        spare = [cp.empty(out.size, first.dtype) for _ in range(scratch)]
        kernel(out.reshape(-1), *[x.reshape(-1) for x in inputs], *spare)
    return out


def sum_rows(x: Any) -> Any:
    """Column sums of a (rows, width) array."""
    return cp.sum(x, axis=0)
