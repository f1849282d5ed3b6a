"""Rows of `minidl.ops.sort`. Inputs are distinct where the choice among equals is free."""

from __future__ import annotations

from typing import Any

import numpy as np

from minidl.dtypes import FLOATS, INTEGERS, DType, bool_, int32, int64
from minidl.ops.along import put_along, take_along
from minidl.ops.sort import (
    argsort,
    bucketize,
    kthvalue,
    msort,
    searchsorted,
    sort,
    topk,
    unique,
)
from minidl.testing.case import Case, Sample, sample

ORDERED = (*FLOATS, int64, int32)


def _key(value: Any) -> tuple[bool, Any]:
    return (value != value, value)  # NaN is the largest


def _ranks(x: np.ndarray, dim: int, descending: bool) -> np.ndarray:
    """Stable ranks by Python's sort, row by row."""
    if not x.ndim:
        return np.zeros((), np.int64)
    rows = np.moveaxis(x, dim, -1)
    out = np.empty(rows.shape, np.int64)
    for place in np.ndindex(rows.shape[:-1]):
        row = rows[place]
        ups = sorted(range(len(row)), key=lambda i, row=row: _key(row[i]))
        if descending:  # equal elements keep their order
            ups = sorted(range(len(row))[::-1], key=lambda i, row=row: _key(row[i]))[::-1]
        out[place] = ups
    return np.moveaxis(out, -1, dim)


def _at(x: np.ndarray, ranks: np.ndarray, dim: int) -> np.ndarray:
    if not x.ndim:
        return x
    out = np.empty(ranks.shape, x.dtype)
    for place in np.ndindex(ranks.shape):
        source = list(place)
        source[dim] = ranks[place]
        out[place] = x[tuple(source)]
    return out


def _sorted(x: np.ndarray, dim: int, descending: bool) -> tuple[np.ndarray, np.ndarray]:
    ranks = _ranks(x, dim, descending)
    return _at(x, ranks, dim), ranks


def _distinct(d: Any, dtype: DType, **shapes: int) -> np.ndarray:
    return d.array(d.shape(**shapes), dtype, low=-8, high=8, distinct=True)


def _sort_inputs(d: Any, dtype: DType) -> Sample:
    x = _distinct(d, dtype)
    return sample(x, d.axis(x.ndim), d.boolean())


def _ties_inputs(d: Any, dtype: DType) -> Sample:
    x = d.array(d.shape(), dtype, low=-1, high=1, extreme=True)
    return sample(x, d.axis(x.ndim), d.boolean())


def _topk_inputs(d: Any, dtype: DType) -> Sample:
    if d.boolean():  # long axes are partitioned first
        x = d.array((40,), dtype, low=-8, high=8, distinct=True)
        return sample(x, d.integer(0, 5), d.choice([0, -1]), d.boolean())
    x = _distinct(d, dtype)
    dim = d.axis(x.ndim)
    return sample(x, d.integer(0, x.shape[dim]) if x.ndim else 1, dim, d.boolean())


def _top(x: np.ndarray, k: int, dim: int, largest: bool) -> tuple[np.ndarray, np.ndarray]:
    ranks = _ranks(x, dim, largest)
    ranks = np.take(ranks, range(k), dim) if x.ndim else ranks
    return _at(x, ranks, dim), ranks


def _kth_inputs(d: Any, dtype: DType) -> Sample:
    x = _distinct(d, dtype, min_side=1)
    dim = d.axis(x.ndim)
    return sample(x, d.integer(1, x.shape[dim] if x.ndim else 1), dim, d.boolean())


def _kth(x: np.ndarray, k: int, dim: int, keepdim: bool) -> Any:
    if not x.ndim:
        return x, np.zeros((), np.int64)
    ranks = np.take(_ranks(x, dim, False), [k - 1], dim)
    found = _at(x, ranks, dim), ranks
    return found if keepdim else tuple(np.squeeze(a, dim) for a in found)


def _unique_inputs(d: Any, dtype: DType) -> Sample:
    x = d.array(d.shape(min_side=1), dtype, low=-2, high=2)
    dim = d.choice([None, d.axis(x.ndim)]) if x.ndim else None
    return sample(x, return_inverse=True, return_counts=True, dim=dim)


def _unique(x: np.ndarray, return_inverse: bool, return_counts: bool, dim: int | None) -> Any:
    rows = x.reshape(-1, 1) if dim is None else np.moveaxis(x, dim, 0).reshape(x.shape[dim], -1)
    keys = [tuple(row.tolist()) for row in rows]
    values = sorted(set(keys))
    inverse = np.array([values.index(key) for key in keys])
    counts = np.array([keys.count(value) for value in values])
    first = [keys.index(value) for value in values]
    if dim is None:
        return x.reshape(-1)[first], inverse.reshape(x.shape), counts
    return np.take(x, first, dim), inverse, counts


def _search_inputs(d: Any, dtype: DType) -> Sample:
    lead = d.shape(max_dims=2, min_side=1, max_side=3) if d.boolean() else ()
    sequence = np.sort(d.array((*lead, d.integer(0, 5)), dtype).astype(np.float64), -1)
    shape = (*lead, d.integer(1, 4)) if lead else d.shape(max_dims=2)
    sequence = d.layout(sequence.astype(dtype.numpy), broadcast=False)
    return sample(sequence, d.array(shape, dtype), right=d.boolean())


def _searched(sequence: np.ndarray, x: np.ndarray, right: bool) -> np.ndarray:
    out = np.empty(x.shape, np.int64)
    for place in np.ndindex(x.shape):
        row = sequence if sequence.ndim == 1 else sequence[place[:-1]]
        out[place] = np.sum(row <= x[place]) if right else np.sum(row < x[place])
    return out


def _bucket_inputs(d: Any, dtype: DType) -> Sample:
    boundaries = np.sort(d.array((d.integer(0, 5),), dtype).astype(np.float64))
    return sample(d.array(d.shape(), dtype), boundaries.astype(dtype.numpy), right=d.boolean())


def _put_inputs(d: Any, dtype: DType) -> Sample:
    shape = d.shape(min_side=1)
    dim = d.axis(len(shape))
    ranks = np.take(_ranks(np.asarray(d.rng.random(shape)), dim, False), [0], dim) if shape else 0
    ranks = d.layout(np.asarray(ranks), broadcast=False)
    return sample(d.array(ranks.shape, dtype), ranks, shape, dim)


def _put_back(g: np.ndarray, ranks: np.ndarray, shape: tuple[int, ...], dim: int) -> np.ndarray:
    if not g.ndim:
        return g
    out = np.zeros(shape, g.dtype)
    for place in np.ndindex(ranks.shape):
        target = list(place)
        target[dim] = ranks[place]
        out[tuple(target)] = g[place]
    return out


def _take_inputs(d: Any, dtype: DType) -> Sample:
    x = _distinct(d, dtype)
    dim = d.axis(x.ndim)
    return sample(x, d.layout(_ranks(x, dim, d.boolean())), dim)


CASES = [
    Case("sort", sort, _sorted, _sort_inputs, dtypes=ORDERED,
         torch=lambda torch, x, dim, down: torch.sort(x, dim, down)),
    Case("sort with ties", sort, _sorted, _ties_inputs, operators=("sort",), dtypes=ORDERED,
         grad_inputs=_sort_inputs,
         torch=lambda torch, x, dim, down: torch.sort(x, dim=dim, descending=down, stable=True)),
    Case("argsort", argsort, _ranks, _ties_inputs, grad=False, dtypes=(*ORDERED, bool_),
         torch=lambda torch, x, dim, down: torch.argsort(x, dim=dim, descending=down,
                                                         stable=True)),
    Case("msort", msort, lambda x: np.sort(x, 0),
         lambda d, dtype: sample(_distinct(d, dtype, min_dims=1)), operators=("sort",)),
    Case("topk", topk, _top, _topk_inputs, dtypes=ORDERED),
    Case("kthvalue", kthvalue, _kth, _kth_inputs, dtypes=ORDERED),
    Case("unique", unique, _unique, _unique_inputs, dtypes=(*INTEGERS, bool_)),
    Case("searchsorted", searchsorted, _searched, _search_inputs, grad=False, dtypes=ORDERED),
    Case("bucketize", bucketize, lambda x, b, right: _searched(b, x, right), _bucket_inputs,
         grad=False, operators=("searchsorted",)),
    Case("sort gradient", put_along, _put_back, _put_inputs, torch=None,
         operators=("put_along",)),
    Case("take along ranks", take_along, _at, _take_inputs, torch=None,
         operators=("take_along",)),
]  # fmt: skip
