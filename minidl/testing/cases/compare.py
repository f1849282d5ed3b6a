"""Rows of comparison, tests for special values, and logic."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from minidl.dtypes import ALL, FLOAT, FLOATS, DType
from minidl.ops import compare as ops
from minidl.testing.case import Case, Sample, sample
from minidl.testing.draws import INTEGRAL, one, two, wide, wrapping


def _near(d: Any, dtype: DType) -> Sample:
    """Pairs of which about half are equal or close."""
    shape = d.shape()
    x = d.array(shape, dtype, extreme=True)
    near = x.copy()
    if dtype.kind == FLOAT:
        near = (near * np.asarray(d.choice([1, 1.001, 0.99]), near.dtype)).astype(near.dtype)
    y, mask = d.array(shape, dtype, extreme=True).copy(), d.mask(shape)
    y[mask] = near[mask].astype(y.dtype)
    return sample(x, d.layout(y))


def _closeness(d: Any, dtype: DType) -> Sample:
    x, y = _near(d, dtype).args
    return sample(x, y, rtol=d.choice([1e-5, 0.1]), atol=d.choice([1e-8, 1.0]),
                  equal_nan=d.boolean())  # fmt: skip


def _is_close(x: Any, y: Any, rtol: float, atol: float, equal_nan: bool) -> Any:
    found = np.zeros(x.shape, bool)
    for i in np.ndindex(x.shape):
        a, b = float(x[i]), float(y[i])
        if np.isfinite(a) and np.isfinite(b):
            found[i] = a == b or abs(a - b) <= atol + rtol * abs(b)
        else:
            found[i] = a == b or (equal_nan and a != a and b != b)
    return found


def _shift(d: Any, dtype: DType) -> Sample:
    shape = d.shape()
    return sample(d.array(shape, dtype, -9, 9), d.array(d.broadcastable(shape), dtype, 0, 6))


def _row(function: Callable, oracle: Any, inputs: Any, dtypes: Any = ALL, **options: Any) -> Case:
    name = function.__name__
    return Case(name, function, oracle, inputs, dtypes=dtypes, grad=False, **options)


_PAIR = two(-2, 2, numbers=True, extreme=True)
_SHORT = tuple(dtype for dtype in INTEGRAL if dtype.name != "bool")

CASES = [
    *(
        Case(
            name,
            getattr(ops, name),
            getattr(np, name),
            one(extreme=True),
            operators=("eq",),
            grad=False,
        )
        for name in ("isposinf", "isneginf", "isreal")
    ),
    *(
        _row(function, wrapping(oracle), _PAIR)
        for function, oracle in (
            (ops.eq, np.equal),
            (ops.ne, np.not_equal),
            (ops.lt, np.less),
            (ops.le, np.less_equal),
            (ops.gt, np.greater),
            (ops.ge, np.greater_equal),
        )
    ),
    *(
        _row(function, wide(oracle), two(-2, 2, extreme=True))
        for function, oracle in (
            (ops.logical_and, np.logical_and),
            (ops.logical_or, np.logical_or),
            (ops.logical_xor, np.logical_xor),
        )
    ),
    *(
        _row(function, wrapping(oracle), two(-9, 9, numbers=True), INTEGRAL)
        for function, oracle in (
            (ops.bitwise_and, np.bitwise_and),
            (ops.bitwise_or, np.bitwise_or),
            (ops.bitwise_xor, np.bitwise_xor),
        )
    ),
    _row(ops.bitwise_left_shift, wrapping(np.left_shift), _shift, _SHORT),
    _row(ops.bitwise_right_shift, wrapping(np.right_shift), _shift, _SHORT),
    _row(ops.bitwise_not, np.invert, one(), INTEGRAL),
    _row(ops.logical_not, np.logical_not, one(-1, 1, extreme=True)),
    _row(ops.isnan, wide(np.isnan), one(extreme=True)),
    _row(ops.isinf, wide(np.isinf), one(extreme=True)),
    _row(ops.isfinite, wide(np.isfinite), one(extreme=True)),
    _row(ops.signbit, wide(np.signbit), one(extreme=True)),
    _row(ops.isclose, _is_close, _closeness, (*FLOATS, *_SHORT)),
    _row(
        ops.allclose,
        lambda *args, **options: bool(_is_close(*args, **options).all()),
        _closeness,
        (*FLOATS, *_SHORT),
        operators=("isclose",),
    ),
    _row(
        ops.equal,
        lambda x, y: x.shape == y.shape and bool((x == y).all()),
        lambda d, dtype: d.choice([_near, two()])(d, dtype),
        operators=("eq",),
    ),
]
