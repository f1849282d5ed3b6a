"""Rows of look-ups, their gradients and of scattering."""

from __future__ import annotations

from typing import Any

import numpy as np

from minidl.backends import reference
from minidl.dtypes import DType, int64, uint8
from minidl.testing.case import Sample, sample
from minidl.testing.entries.draws import FEW, array, shape, side
from minidl.testing.entry import WORKING, Entry, entry
from minidl.testing.targets import device


def _embedding(d: Any, dtype: DType) -> Sample:
    lead = [d.choice((3, 1, 9, 17, 0)) for _ in range(d.integer(0, 2))]
    rows = d.integer(1, 9)
    g = array(d, (*lead, side(d)), dtype, extreme=True)
    padding = d.integer(0, rows - 1) if d.boolean() else None
    return sample(g, d.index(rows, lead), rows, padding)


def _repeats(wants: Any, g: Any, index: Any, rows: int, padding: int | None) -> Any:
    """Repeats times sum|g| per element: hundreds of tokens may have one index."""
    counts = np.bincount(index.reshape(-1), minlength=rows)[:, None]
    return counts * reference.embedding_backward(np.abs(g), index, rows, padding)


def _take(d: Any, dtype: DType) -> Sample:
    x = array(d, (d.integer(1, 9), side(d)), dtype, extreme=True)
    index = d.index(len(x), [d.choice((3, 1, 9, 17, 0)) for _ in range(d.integer(0, 2))])
    kind = d.choice([np.int64, np.int32, np.uint8])
    return Sample((x, index.astype(kind)), {"axis": 0})


def _scatter(d: Any, dtype: DType) -> Sample:
    full = shape(d, least=1, empty=False)
    dim = d.axis(len(full))
    sides = [d.integer(0, n) for n in full]
    sides[dim] = d.choice((3, 1, 9, 17))
    src = array(d, [n + d.integer(0, 1) for n in sides], dtype)
    return sample(array(d, full, dtype), dim, d.index(full[dim], sides), src)


def _scatter_reduce(d: Any, dtype: DType) -> Sample:
    drawn = _scatter(d, dtype)
    return Sample((*drawn.args, d.choice(["amax", "amin", "prod"]), d.boolean()), {})


def _index_add(d: Any, dtype: DType) -> Sample:
    full = shape(d, least=1, empty=False)
    dim, count = d.axis(len(full)), d.choice((3, 1, 9, 17, 0))
    sides = list(full)
    sides[dim] = count
    index = d.index(full[dim], (count,))
    return sample(array(d, full, dtype), dim, index, array(d, sides, dtype), d.choice([1, 3, -2]))


def _index_put(d: Any, dtype: DType) -> Sample:
    x = array(d, (4, 5, side(d, empty=False)), dtype)
    many = d.choice(FEW)
    indices = d.choice([
        (d.index(4, (many,)),), (d.index(4, (many,)), d.index(5, (many,))),
        (slice(None), d.index(5, (many,))), (2, slice(0, 3)), (d.mask((4, 5)),),
    ])  # fmt: skip
    accumulate = d.boolean()
    values = array(d, d.choice([x[indices].shape, ()]), dtype)
    if device() != "cpu" and not accumulate:
        # of several values for one place any may win there
        values = np.full(values.shape, 2, values.dtype)
    return sample(x, indices, values, accumulate)


# integer sums are exact; a place that many terms meet has the rounding of their sum
ROWS: tuple[Entry, ...] = (
    entry("take", _take, dtypes=(*WORKING, int64, uint8), half="always", same="bits"),
    entry("embedding_backward", _embedding, half="table", scale=2, floor=_repeats),
    entry("scatter_add", _scatter, dtypes=(*WORKING, int64), scale=2),
    # a product of many terms has the rounding of each
    entry("scatter_reduce", _scatter_reduce, dtypes=(*WORKING, int64), scale=32),
    entry("index_add", _index_add, dtypes=(*WORKING, int64), scale=2),
    entry("index_put", _index_put, scale=2),
)
