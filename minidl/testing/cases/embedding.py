"""Rows of `minidl.ops.embedding`."""

from __future__ import annotations

from typing import Any

import numpy as np

from minidl.dtypes import DType, int64
from minidl.ops.embedding import embedding, one_hot
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


CASES = [
    Case("embedding", embedding, _rows, _inputs, torch="torch.nn.functional.embedding",
         operators=("embedding", "embedding_backward")),
    Case("embedding_padding", embedding, _rows, _padded_inputs, grad_inputs=_unpadded_inputs,
         torch="torch.nn.functional.embedding"),
    Case("one_hot", one_hot, _one_hot, _one_hot_inputs, dtypes=(int64,), grad=False),
]  # fmt: skip
