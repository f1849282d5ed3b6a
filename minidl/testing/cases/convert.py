"""Rows of copies and conversions."""

from __future__ import annotations

from typing import Any

import numpy as np

from minidl.dtypes import ALL, DType, float32, float64, int32
from minidl.ops import convert as ops
from minidl.testing.case import Case, Sample, sample
from minidl.testing.draws import one


def _to_float(d: Any, dtype: DType) -> Sample:
    return sample(d.array(d.shape(), dtype), d.choice([float32, float64]))


CASES = [
    # on the CPU's tables it stays where it is
    Case("to_device", lambda x: x.cpu().to(x.device), np.copy, one(extreme=True), None, dtypes=ALL),
    Case("clone", ops.clone, np.array, one(extreme=True), dtypes=ALL),
    Case(
        "to",
        ops.to,
        lambda x, dtype: x.astype(np.float64),
        _to_float,
        torch=lambda torch, x, dtype: x.to(dtype, copy=True),
        dtypes=ALL,
        # a difference quotient drowns in the rounding to float32
        grad_inputs=lambda d, dtype: sample(d.array(d.shape(), dtype), float64),
        operators=("cast",),
    ),
    Case(
        "to_integers",
        lambda x: ops.to(x, int32),
        lambda x: x.astype(np.int32),
        one(),
        torch=lambda torch, x: x.to(torch.int32),
        grad=False,
        operators=("cast_exact",),
    ),
]
