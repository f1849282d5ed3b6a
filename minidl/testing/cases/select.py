"""Rows of conditions, masks, limits, the larger of two, and writing."""

from __future__ import annotations

from typing import Any

import numpy as np

from minidl.dtypes import ALL, FLOAT, DType
from minidl.ops.convert import clone
from minidl.ops.select import (
    clamp,
    clamp_max,
    clamp_min,
    copysign,
    fmax,
    fmin,
    heaviside,
    masked_fill,
    masked_select,
    maximum,
    minimum,
    nan_to_num,
    where,
)
from minidl.testing.case import Case, Sample, sample
from minidl.testing.draws import NUMBERS, one, two, wrapping


def _condition(d: Any, dtype: DType) -> Sample:
    shape = d.shape()
    mask = d.mask(d.broadcastable(shape, within=True))
    x, y = (d.array(d.broadcastable(shape, within=True), dtype) for _ in range(2))
    if d.integer(0, 3) == 3:
        return sample(mask, x, d.number(-2, 2))
    return sample(mask, x, y)


def _weak_where(mask: Any, x: Any, y: Any) -> Any:
    if isinstance(y, float) and x.dtype.kind != "f":
        x = x.astype(np.float64)
    return np.where(mask, x, y)


def _masked(d: Any, dtype: DType) -> Sample:
    shape = d.shape()
    mask = d.mask(d.broadcastable(shape))
    x = d.array(shape, dtype, extreme=True)
    return sample(x, mask, d.integer(0, 2))


def _masked_by_tensor(d: Any, dtype: DType) -> Sample:
    shape = d.shape()
    return sample(d.array(shape, dtype), d.mask(shape), d.array((), dtype))


def _selected(d: Any, dtype: DType) -> Sample:
    shape = d.shape()
    return sample(d.array(shape, dtype), d.mask(d.broadcastable(shape)))


def _select(x: Any, mask: Any) -> Any:
    shape = np.broadcast_shapes(x.shape, mask.shape)
    return np.broadcast_to(x, shape)[np.broadcast_to(mask, shape)]


def _special(d: Any, dtype: DType) -> Sample:
    return sample(d.array(d.shape(), dtype, extreme=True), d.choice([None, 1.0]),
                  d.number(-3, 3), d.number(-3, 3))  # fmt: skip


def _no_special(x: Any, nan: Any, posinf: float, neginf: float) -> Any:
    return np.nan_to_num(x, nan=nan or 0.0, posinf=posinf, neginf=neginf)


def _limits(d: Any, dtype: DType) -> Sample:
    """Numbers below which, above which, between which the elements stay."""
    x = d.array(d.shape(), dtype, extreme=True)
    low, high = (d.number(-2, 1), d.number(-1, 2)) if dtype.kind == FLOAT else (d.integer(0, 1), 2)
    return sample(x, *d.choice([(low, high), (low, None), (None, high)]))


def _tensor_limits(d: Any, dtype: DType) -> Sample:
    shape = d.shape()
    x = d.array(shape, dtype, -3, 3)
    low = d.array(d.broadcastable(shape, within=True), dtype, -2, 1)
    high = d.array(d.broadcastable(shape, within=True), dtype, -1, 2)
    return sample(x, *d.choice([(low, high), (low, None), (None, high)]))


def _limited(x: Any, low: Any, high: Any) -> Any:
    if low is not None:
        x = np.where(np.isnan(x) | (x > low), x, low) if x.dtype.kind == "f" else (
            np.where(x > low, x, low)
        )  # fmt: skip
    if high is not None:
        x = np.where(x > high, high, x)
    return x


def _one_limit(d: Any, dtype: DType) -> Sample:
    limit = d.number(-1, 1) if dtype.kind == FLOAT else d.integer(0, 2)
    return sample(d.array(d.shape(), dtype), limit)


def _written(d: Any, dtype: DType) -> Sample:
    shape = d.shape()
    return sample(d.array(shape, dtype), d.array(d.broadcastable(shape, within=True), dtype))


def _signs(d: Any, dtype: DType) -> Sample:
    shape = d.shape()
    return sample(d.array(shape, dtype, 0.5, 3), d.constant(d.array(shape, dtype, extreme=True)))


def _steps(d: Any, dtype: DType) -> Sample:
    shape = d.shape()
    x = np.asarray(np.round(d.array(shape, dtype, -1, 1)), dtype.numpy)
    return sample(x, d.array(d.broadcastable(shape), dtype))


CASES = [
    Case("copysign", copysign, np.copysign, _signs, operators=("where",)),
    Case("heaviside", heaviside, np.heaviside, _steps, operators=("where",), grad=False),
    Case("where", where, _weak_where, _condition, dtypes=NUMBERS),
    Case(
        "where_indices",
        where,
        lambda x: np.nonzero(np.atleast_1d(x)),
        one(-1, 1, extreme=True),
        torch="torch.where",
        dtypes=ALL,
        grad=False,
        operators=("where",),
    ),
    Case(
        "masked_fill",
        masked_fill,
        lambda x, mask, value: np.where(mask, np.asarray(value).astype(x.dtype), x),
        _masked,
        dtypes=ALL,
        operators=("where",),
    ),
    Case(
        "masked_fill_tensor",
        masked_fill,
        lambda x, mask, value: np.where(mask, value.astype(x.dtype), x),
        _masked_by_tensor,
        torch="torch.masked_fill",
        scale=16,  # the gradient of the value is a sum that may cancel
        operators=("where",),
    ),
    Case(
        "masked_select",
        masked_select,
        _select,
        _selected,
        dtypes=ALL,
        operators=("masked_select", "masked_put"),
    ),
    Case("nan_to_num", nan_to_num, _no_special, _special, operators=("replace_special",)),
    Case(
        "clamp",
        clamp,
        _limited,
        _limits,
        dtypes=NUMBERS,
        operators=("clamp", "clamp_scalar"),
    ),
    Case(
        "clamp_tensors",
        clamp,
        _limited,
        _tensor_limits,
        torch="torch.clamp",
        operators=("clamp",),
    ),  # fmt: skip
    Case(
        "clamp_min",
        clamp_min,
        lambda x, limit: np.where(x > limit, x, limit),
        _one_limit,
        operators=("clamp", "clamp_scalar"),
    ),
    Case(
        "clamp_max",
        clamp_max,
        lambda x, limit: np.where(x > limit, limit, x),
        _one_limit,
        operators=("clamp", "clamp_scalar"),
    ),
    *(
        Case(function.__name__, function, wrapping(oracle), two(extreme=True), dtypes=ALL)
        for function, oracle in (
            (maximum, np.maximum),
            (minimum, np.minimum),
            (fmax, np.fmax),
            (fmin, np.fmin),
        )
    ),
    Case(
        "copy_",
        lambda x, src: clone(x).copy_(src),
        lambda x, src: np.broadcast_to(src, x.shape).astype(x.dtype),
        _written,
        torch=lambda torch, x, src: x.clone().copy_(src),
        operators=("cast",),
    ),
    Case(
        "fill_",
        lambda x, value: clone(x).fill_(value),
        lambda x, value: np.full_like(x, value),
        lambda d, dtype: sample(d.array(d.shape(), dtype), d.integer(0, 3)),
        torch=lambda torch, x, value: x.clone().fill_(value),
        dtypes=ALL,
        operators=("clone",),
    ),
    Case(
        "masked_fill_",
        lambda x, mask, value: clone(x).masked_fill_(mask, value),
        lambda x, mask, value: np.where(mask, value, x),
        lambda d, dtype: sample(d.array((3, 4), dtype), d.mask((4,)), d.number(-1, 1)),
        torch=lambda torch, x, mask, value: x.clone().masked_fill_(mask, value),
        operators=("where",),
    ),
    Case(
        "clamp_",
        lambda x, low, high: clone(x).clamp_(low, high),
        _limited,
        _limits,
        torch=lambda torch, x, low, high: x.clone().clamp_(low, high),
        operators=("clamp", "clamp_scalar"),
    ),
]
