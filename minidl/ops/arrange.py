"""Putting tensors together and their elements in another order (copies)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from minidl.autograd.op import Array, op
from minidl.errors import ShapeError
from minidl.ops.index import getitem
from minidl.ops.reduce import axis
from minidl.tensor import Tensor


@op
def cat(k: Any, tensors: Sequence[Array], dim: int = 0) -> Any:
    """Join along axis `dim`. tensors: of equal shapes elsewhere; 1-d empty ones are skipped."""
    parts = [t for t in tensors if t.shape != (0,)] or list(tensors[:1])
    dim = axis(parts[0].ndim, dim)
    if any(p.shape[:dim] + p.shape[dim + 1 :] != parts[0].shape[:dim] + parts[0].shape[dim + 1 :]
           for p in parts):
        raise ShapeError(f"shapes must agree except along axis {dim}")
    return k.cat(parts, axis=dim)


@cat.gradient
def _(g: Tensor, tensors_shape: list, dim: int) -> Any:
    dim = axis(g.ndim, dim)
    parts, start = [], 0
    for shape in tensors_shape:
        if shape == (0,):
            parts.append(None)
            continue
        stop = start + shape[dim]
        parts.append(getitem(g, (slice(None),) * dim + (slice(start, stop),)))
        start = stop
    return parts
