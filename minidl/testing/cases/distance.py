"""Rows of `minidl.ops.distance`."""

from __future__ import annotations

from typing import Any

import numpy as np

from minidl.dtypes import DType, float32, float64
from minidl.ops.distance import cdist, cosine_similarity, dist, pairwise_distance, pdist
from minidl.testing.case import Case, Sample, sample
from minidl.testing.draws import alike

WIDE = (float64, float32)  # compositions round half dtypes more than once
ORDERS = (2.0, 1.0, 3.0)


def _norm(x: Any, p: float, axis: Any = -1, keepdims: bool = False) -> Any:
    return (np.abs(x) ** p).sum(axis, keepdims=keepdims) ** (1 / p)


def _apart(d: Any, dtype: DType, *shapes: tuple[int, ...]) -> tuple[np.ndarray, ...]:
    """Arrays whose values lie in intervals apart, so that no difference is near a kink."""
    return alike(*(d.array(s, dtype, 4 * i + 1, 4 * i + 3) for i, s in enumerate(shapes)))


def _cosine_inputs(d: Any, dtype: DType) -> Sample:
    shape = d.shape(min_dims=1, max_dims=3, min_side=2)
    x, y = alike(
        d.array(shape, dtype, 0.5, 3), d.array(d.broadcastable(shape, True), dtype, 0.5, 3)
    )
    return sample(x, y, d.axis(len(shape)), d.choice([1e-8, 1e-3]))


def _cosine(x: Any, y: Any, dim: int, eps: float) -> Any:
    x, y = np.broadcast_arrays(x, y)
    sizes = [np.maximum(_norm(v, 2, dim), eps) for v in (x, y)]
    return (x * y).sum(dim) / (sizes[0] * sizes[1])


def _pair_inputs(d: Any, dtype: DType) -> Sample:
    shape = d.shape(min_dims=1, max_dims=3, min_side=1)
    x, y = _apart(d, dtype, shape, shape)
    return sample(x, y, d.choice(ORDERS), d.choice([1e-6, 0.0]), d.boolean())


def _dist_inputs(d: Any, dtype: DType) -> Sample:
    shape = d.shape(min_side=1)
    x, y = _apart(d, dtype, shape, d.broadcastable(shape))
    return sample(x, y, d.choice(ORDERS))


def _cdist_inputs(d: Any, dtype: DType) -> Sample:
    lead, size = d.shape(max_dims=1, min_side=1), d.integer(1, 4)
    x, y = _apart(d, dtype, (*lead, d.integer(1, 3), size), (*lead, d.integer(1, 3), size))
    return sample(x, y, d.choice(ORDERS))


def _pdist_inputs(d: Any, dtype: DType) -> Sample:
    rows = d.array((d.integer(2, 4), d.integer(1, 4)), dtype, distinct=True)
    return sample(rows, d.choice(ORDERS))


def _pdist(x: Any, p: float) -> Any:
    return np.array([_norm(x[i] - x[j], p) for i in range(len(x)) for j in range(i + 1, len(x))])


CASES = [
    Case("cosine_similarity", cosine_similarity, _cosine, _cosine_inputs, dtypes=WIDE, scale=4),
    Case("pairwise_distance", pairwise_distance,
         lambda x, y, p, eps, keepdim: _norm(x - y + eps, p, -1, keepdim),
         _pair_inputs, dtypes=WIDE, scale=4, torch="torch.nn.functional.pairwise_distance"),
    Case("dist", dist, lambda x, y, p: _norm(x - y, p, None), _dist_inputs, dtypes=WIDE, scale=4),
    Case("cdist", cdist, lambda x, y, p: _norm(x[..., :, None, :] - y[..., None, :, :], p),
         _cdist_inputs, dtypes=WIDE, scale=4),
    Case("pdist", pdist, _pdist, _pdist_inputs, dtypes=WIDE, scale=4,
         torch="torch.nn.functional.pdist"),
]  # fmt: skip
