"""Rows of `minidl.ops.embedding`."""

from __future__ import annotations

from typing import Any

import numpy as np

from minidl.dtypes import DType, float32, float64, int64
from minidl.ops.embedding import embedding, embedding_bag, one_hot
from minidl.testing.case import Case, Sample, sample


def _inputs(d: Any, dtype: DType) -> Sample:
    count = d.integer(1, 5)
    index = d.index(count, d.shape(max_dims=3, max_side=4))
    return sample(index, d.array((count, d.integer(1, 3)), dtype))


def _padded_inputs(d: Any, dtype: DType) -> Sample:
    index, weight = _inputs(d, dtype).args
    return sample(index, weight, d.integer(-len(weight), len(weight) - 1))


def _unpadded_inputs(d: Any, dtype: DType) -> Sample:
    # the padding row is looked up but gets no gradient: a difference quotient would find one
    index, weight, padding = _padded_inputs(d, dtype).args
    weight = np.concatenate([weight, np.ones_like(weight[:1])])
    return sample(index, weight, d.choice([-1, len(weight) - 1]))


def _rows(index: Any, weight: Any, padding_idx: Any = None) -> Any:
    out = np.empty((*index.shape, weight.shape[1]))
    for i in np.ndindex(index.shape):
        out[i] = weight[index[i]]
    return out


def _one_hot_inputs(d: Any, dtype: DType) -> Sample:
    count = d.integer(1, 5)
    shape = d.shape(max_dims=3, max_side=4, min_side=1)
    return sample(d.index(count, shape), d.choice([-1, count, count + 2]))


def _one_hot(index: Any, num_classes: int) -> Any:
    count = int(index.max()) + 1 if num_classes == -1 else num_classes
    out = np.zeros((*index.shape, count), np.int64)
    for i in np.ndindex(index.shape):
        out[(*i, index[i])] = 1
    return out


def _bag_inputs(d: Any, dtype: DType) -> Sample:
    count = d.integer(1, 5)
    weight = d.array((count, d.integer(1, 3)), dtype, distinct=True)
    mode = d.choice(["sum", "mean", "max"])
    if d.boolean():
        shape = (d.integer(1, 3), d.integer(1, 4))
        return sample(d.index(count, shape), weight, mode=mode)
    index = d.index(count, (d.integer(1, 6),))
    cuts = sorted(d.integer(0, len(index)) for _ in range(d.integer(0, 2)))
    return sample(index, weight, np.array([0, *cuts]), mode=mode)


def _bags(index: Any, weight: Any, offsets: Any = None, mode: str = "mean") -> Any:
    bags = list(index) if offsets is None else np.split(index, offsets[1:])
    reduce = {"sum": np.sum, "mean": np.mean, "max": np.max}[mode]
    empty = np.zeros(weight.shape[1])
    return np.stack([reduce(weight[bag], axis=0) if len(bag) else empty for bag in bags])


CASES = [
    Case("embedding_bag", embedding_bag, _bags, _bag_inputs, dtypes=(float64, float32),
         torch="torch.nn.functional.embedding_bag"),
    Case("embedding", embedding, _rows, _inputs, torch="torch.nn.functional.embedding",
         operators=("embedding", "embedding_backward")),
    Case("embedding_padding", embedding, _rows, _padded_inputs, grad_inputs=_unpadded_inputs,
         torch="torch.nn.functional.embedding"),
    Case("one_hot", one_hot, _one_hot, _one_hot_inputs, dtypes=(int64,), grad=False),
]  # fmt: skip
