"""Sorting and selection by rank."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from minidl.autograd.op import Array, Index, op
from minidl.errors import OutOfRangeError
from minidl.ops.method import method
from minidl.ops.reduce import axis
from minidl.tensor import Tensor


class _Ranked(NamedTuple):
    """Values and their indices (int64) along the axis."""

    values: Tensor
    indices: Tensor


@op(outputs=("values", "indices"))
def _topk(table: Any, input: Array, k: int, dim: int, largest: bool) -> Any:
    if not input.ndim:
        return input.copy(), np.zeros((), np.int64)
    dim = axis(input.ndim, dim)
    if not 0 <= k <= input.shape[dim]:
        raise OutOfRangeError(f"k={k} of an axis of {input.shape[dim]} elements")
    order = _order(table, input, dim, largest)
    order = np.take(order, range(k), axis=dim)
    return table.take_along_axis(input, order, axis=dim), order


@_topk.gradient
def _(g: Any, indices: Tensor, input_shape: tuple[int, ...], dim: int) -> Any:
    return _put_along(g[0], indices, input_shape, dim)


def _order(table: Any, x: Any, dim: int, descending: bool) -> Any:
    """Stable ranks with NaN as the largest value."""
    if not descending:
        return table.argsort(x, axis=dim, kind="stable")
    # ties keep their order when the reversed array is sorted and read backwards
    ranks = table.argsort(table.flip(x, dim), axis=dim, kind="stable")
    return x.shape[dim] - 1 - table.flip(ranks, dim)


@op(promote=None)
def _put_along(table: Any, grad: Array, indices: Index, shape: tuple[int, ...], dim: int) -> Any:
    if not grad.ndim:
        return grad.copy()
    out = table.zeros(shape, grad.dtype)
    np.put_along_axis(out, indices, grad, axis(len(shape), dim))
    return out


@_put_along.gradient
def _(g: Tensor, indices: Tensor, dim: int) -> Any:
    return _take_along(g, indices, dim)


@op(promote=None)
def _take_along(table: Any, input: Array, indices: Index, dim: int) -> Any:
    return table.take_along_axis(input, indices, axis=dim) if input.ndim else input.copy()


@_take_along.gradient
def _(g: Tensor, indices: Tensor, input_shape: tuple[int, ...], dim: int) -> Any:
    return _put_along(g, indices, input_shape, dim)


@method("topk")
def topk(input: Tensor, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> Any:
    """The `k` largest (or smallest) elements along `dim`, in order, and their indices."""
    return _Ranked(*_topk(input, k, dim, largest))
