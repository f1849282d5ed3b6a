"""Sorting, selection by rank, and look-ups in sorted sequences. NaN is the largest value."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from minidl.autograd.op import Array, op
from minidl.errors import ArgumentError, OutOfRangeError, ShapeError
from minidl.ops.along import put_along, take_along
from minidl.ops.method import check_tensor, method
from minidl.ops.views import axis, reshape
from minidl.tensor import Tensor

__all__ = [
    "argsort",
    "bucketize",
    "kthvalue",
    "msort",
    "searchsorted",
    "sort",
    "topk",
    "unique",
    "unique_consecutive",
]


class _Ranked(NamedTuple):
    """Values and their indices (int64) along the axis."""

    values: Tensor
    indices: Tensor


def _order(table: Any, x: Any, dim: int, descending: bool) -> Any:
    """Stable ranks with NaN as the largest value."""
    if not descending:
        return table.argsort(x, axis=dim, kind="stable")
    # ties keep their order when the reversed array is sorted and read backwards
    ranks = table.argsort(table.flip(x, dim), axis=dim, kind="stable")
    return x.shape[dim] - 1 - table.flip(ranks, dim)


# ---------------------------------------------------------------- sort


@op(outputs=("values", "indices"))
def _sort(table: Any, input: Array, dim: int, descending: bool) -> Any:
    dim = axis(input.ndim, dim)
    if not input.ndim:
        return input.copy(), table.zeros((), np.int64)
    order = _order(table, input, dim, descending)
    return table.take_along_axis(input, order, axis=dim), order


@_sort.gradient
def _(g: Any, indices: Tensor, input_shape: tuple[int, ...], dim: int) -> Any:
    return put_along(g[0], indices, input_shape, dim)


@method("sort")
def sort(input: Tensor, dim: int = -1, descending: bool = False, stable: bool | None = None) -> Any:
    """The elements in order along `dim`, and where each came from; always stable.

    Returns (values, indices), both of input's shape. NaN is larger than all numbers.
    """
    return _Ranked(*_sort(input, dim, descending))


@op(nondiff=True)
def _argsort(table: Any, input: Array, dim: int, descending: bool) -> Any:
    dim = axis(input.ndim, dim)
    return _order(table, input, dim, descending) if input.ndim else table.zeros((), np.int64)


@method("argsort")
def argsort(input: Tensor, dim: int = -1, descending: bool = False, stable: bool = False) -> Tensor:
    """The indices (int64) that put the elements in order along `dim`; always stable."""
    return _argsort(input, dim, descending)


@method("msort")
def msort(input: Tensor) -> Tensor:
    """The elements in order along axis 0."""
    return sort(input, 0).values


# ---------------------------------------------------------------- by rank


@op(outputs=("values", "indices"))
def _topk(table: Any, input: Array, k: int, dim: int, largest: bool) -> Any:
    dim = axis(input.ndim, dim)
    size = input.shape[dim] if input.ndim else 1
    if not 0 <= k <= size:
        raise OutOfRangeError(f"k={k} of an axis of {size} elements")
    if not input.ndim:
        return input.copy(), table.zeros((), np.int64)
    lead = (slice(None),) * dim
    if not 0 < 8 * k <= size:
        order = _order(table, input, dim, largest)[(*lead, slice(k))]
    else:
        # a partition first: only k elements are sorted
        places = table.argpartition(input, size - k if largest else max(k - 1, 0), axis=dim)
        places = places[(*lead, slice(size - k, None) if largest else slice(k))]
        found = table.take_along_axis(input, places, axis=dim)
        order = table.take_along_axis(places, _order(table, found, dim, largest), axis=dim)
    return table.take_along_axis(input, order, axis=dim), table.ascontiguousarray(order)


@_topk.gradient
def _(g: Any, indices: Tensor, input_shape: tuple[int, ...], dim: int) -> Any:
    return put_along(g[0], indices, input_shape, dim)


@method("topk")
def topk(input: Tensor, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> Any:
    """The `k` largest (or smallest) elements along `dim`, in order, and their indices.

    Returns (values, indices) of input's shape with k along dim; which of equal elements are taken
    is not specified, as in PyTorch.
    """
    return _Ranked(*_topk(input, k, dim, largest))


@op(outputs=("values", "indices"))
def _kthvalue(table: Any, input: Array, k: int, dim: int) -> Any:
    dim = axis(input.ndim, dim)
    size = input.shape[dim] if input.ndim else 1
    if not 1 <= k <= size:
        raise OutOfRangeError(f"k={k} of an axis of {size} elements, counted from 1")
    if not input.ndim:
        return input.copy(), table.zeros((), np.int64)
    order = table.argpartition(input, k - 1, axis=dim)
    place = order[(*(slice(None),) * dim, slice(k - 1, k))]
    return table.take_along_axis(input, place, axis=dim), place.copy()


@_kthvalue.gradient
def _(g: Any, indices: Tensor, input_shape: tuple[int, ...], dim: int) -> Any:
    return put_along(g[0], indices, input_shape, dim)


@method("kthvalue")
def kthvalue(input: Tensor, k: int, dim: int = -1, keepdim: bool = False) -> Any:
    """The `k`-th smallest element along `dim` (the smallest for 1) and its index.

    Returns (values, indices) without axis dim, or with it at size 1.
    """
    found = _kthvalue(input, k, dim)
    if not keepdim and input.ndim:
        dim = axis(input.ndim, dim)
        shape = input.shape[:dim] + input.shape[dim + 1 :]
        found = [reshape(x, shape) for x in found]
    return _Ranked(*found)


# ---------------------------------------------------------------- sets


@op(outputs=("values", "inverse", "counts"))
def _unique(table: Any, input: Array, dim: int | None) -> Any:
    if dim is None:
        flat = input.reshape(-1)
        values, inverse, counts = table.unique(flat, False, True, True, equal_nan=False)
        return values, inverse.reshape(input.shape), counts
    dim = axis(input.ndim, dim)
    if input.size == 0:
        raise ShapeError("slices of a tensor without elements cannot be told apart")
    # on the CPU: CuPy compares slices one by one, and waits for each
    found = np.unique(table.host(input), False, True, True, axis=dim, equal_nan=False)
    values, inverse, counts = map(table.asarray, found)
    return values, inverse.reshape(-1), counts


@method("unique")
def unique(
    input: Tensor,
    sorted: bool = True,
    return_inverse: bool = False,
    return_counts: bool = False,
    dim: int | None = None,
) -> Any:
    """The different elements in order (or the different slices of axis `dim`); each NaN differs.

    Returns values, then (input's shape) where each element went and how often each value occurs,
    if asked. There is no gradient.
    """
    values, inverse, counts = _unique(input, dim)
    asked = [values, *[inverse] * return_inverse, *[counts] * return_counts]
    return asked[0] if len(asked) == 1 else tuple(asked)


@op(outputs=("values", "inverse", "counts"))
def _unique_consecutive(table: Any, input: Array, dim: int | None) -> Any:
    rows = input.reshape(-1, 1) if dim is None else table.moveaxis(input, dim, 0)
    flat = rows.reshape(len(rows), -1)
    starts = table.ones(len(rows), np.bool_)
    starts[1:] = (flat[1:] != flat[:-1]).any(1)
    (places,) = table.nonzero(starts)
    inverse = table.cumsum(starts, dtype=np.int64) - 1
    ends = table.full((1,), len(rows), places.dtype)
    counts = table.cat([places[1:], ends]) - places if len(rows) else places.copy()
    if dim is None:
        return input.reshape(-1)[places], inverse.reshape(input.shape), counts
    return table.moveaxis(rows[places], 0, dim).copy(), inverse, counts


@method("unique_consecutive")
def unique_consecutive(
    input: Tensor,
    return_inverse: bool = False,
    return_counts: bool = False,
    dim: int | None = None,
) -> Any:
    """The elements in C order (or the slices of axis `dim`) without repetitions of neighbours.

    Returns values, then where each element went and the lengths of the runs, if asked. There is
    no gradient.
    """
    check_tensor("unique_consecutive", "input", input)
    i = dim if dim is None else axis(input.ndim, dim, "unique_consecutive")
    if i is not None and not input.ndim:
        i = None
    values, inverse, counts = _unique_consecutive(input, i)
    asked = [values, *[inverse] * return_inverse, *[counts] * return_counts]
    return asked[0] if len(asked) == 1 else tuple(asked)


# ---------------------------------------------------------------- in sorted sequences


@op(nondiff=True)
def _searchsorted(table: Any, sorted_sequence: Array, input: Array, right: bool) -> Any:
    side = "right" if right else "left"
    if sorted_sequence.ndim == 1:
        return table.searchsorted(sorted_sequence, input, side)
    if sorted_sequence.ndim == 0 or sorted_sequence.shape[:-1] != input.shape[:-1]:
        raise ShapeError("all axes but the last must agree, or the sequence must have one axis")
    out = table.empty(input.shape, np.int64)
    for row in np.ndindex(input.shape[:-1]):
        out[row] = table.searchsorted(sorted_sequence[row], input[row], side)
    return out


def searchsorted(
    sorted_sequence: Tensor,
    input: Any,
    *,
    out_int32: bool = False,
    right: bool = False,
    side: str | None = None,
    sorter: Tensor | None = None,
) -> Tensor:
    """Where each element would be inserted to keep the last axis of the sequence sorted.

    sorted_sequence: (n,), or (..., n) with input (..., m) -> int64 of input's shape. `right` (or
    side="right") is behind equal elements. `sorter` gives the order of an unsorted sequence.
    """
    if side not in (None, "left", "right") or (side == "left" and right):
        got = f"side={side!r}, right={right}"
        raise ArgumentError("side must be 'left' or 'right'", operator="searchsorted", got=got)
    if sorter is not None:
        sorted_sequence = take_along(sorted_sequence, sorter, -1)
    found = _searchsorted(sorted_sequence, input, right or side == "right")
    return found.int() if out_int32 else found  # type: ignore[attr-defined]


def bucketize(
    input: Any, boundaries: Tensor, *, out_int32: bool = False, right: bool = False
) -> Tensor:
    """The bucket of each element: how many of the sorted `boundaries` (n,) are below it.

    `right`: boundaries equal to the element count too.
    """
    check_tensor("bucketize", "boundaries", boundaries)
    if boundaries.ndim != 1:
        raise ShapeError("boundaries need one axis", operator="bucketize",
                         got=str(boundaries.shape))  # fmt: skip
    return searchsorted(boundaries, input, out_int32=out_int32, right=right)
