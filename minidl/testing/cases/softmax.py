"""Rows of `minidl.ops.softmax`."""

from __future__ import annotations

from typing import Any

import numpy as np

from minidl.dtypes import DType, float64
from minidl.ops.softmax import log_softmax, softmax, softmin
from minidl.testing.case import Case, Sample, sample


def _inputs(d: Any, dtype: DType) -> Sample:
    shape = d.shape()
    # a weight near 1 has a logarithm and a gradient that cancel
    return sample(d.array(shape, dtype, -1, 1), d.axis(len(shape)))


def _cast_inputs(d: Any, dtype: DType) -> Sample:
    return sample(*_inputs(d, dtype).args, float64)


def _weights(x: Any, dim: int, dtype: Any = None) -> Any:
    """exp(x) / sum(exp(x)), row by row."""
    if not x.ndim:
        return np.ones(())
    rows = np.moveaxis(x, dim, -1)
    out = np.empty(rows.shape)
    for i in np.ndindex(rows.shape[:-1]):
        e = np.exp(rows[i])
        out[i] = e / e.sum()
    return np.moveaxis(out, -1, dim)


def _logs(x: Any, dim: int) -> Any:
    return np.log(_weights(x, dim))


CASES = [
    Case("softmax", softmax, _weights, _inputs, operators=("softmax", "softmax_backward")),
    Case("softmax_dtype", softmax, _weights, _cast_inputs, torch="torch.softmax"),
    Case("log_softmax", log_softmax, _logs, _inputs,
         operators=("log_softmax", "log_softmax_backward")),
    Case("softmin", softmin, lambda x, dim: _weights(-x, dim), _inputs),
]  # fmt: skip
