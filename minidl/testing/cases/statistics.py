"""Rows of `minidl.ops.statistics`, and of what is counted or taken by rank along an axis."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

import minidl.ops as ops
from minidl.dtypes import FLOATS, INTEGERS, DType, float32, float64
from minidl.testing.case import Case, Sample, sample

WIDE = (float64, float32)
BETWEEN = ("linear", "lower", "higher", "midpoint", "nearest")


def _along(*attributes: Any, least: int = 1, **options: Any) -> Any:
    """An array, an axis, and attributes that are functions of `d`."""

    def inputs(d: Any, dtype: DType) -> Sample:
        shape = d.shape(min_side=1, min_dims=least)
        x = d.array(shape, dtype, **options)
        return sample(x, d.axis(len(shape)), *(a(d) for a in attributes))

    return inputs


def _keep(d: Any) -> bool:
    return d.boolean()


def _lines(function: Callable[..., Any], outputs: int = 1) -> Any:
    """An oracle that calls `function` for each line along the axis, which keepdim may keep."""

    def oracle(x: np.ndarray, dim: int, *others: Any) -> Any:
        *args, keepdim = others
        rows = np.moveaxis(np.atleast_1d(x), dim, -1)
        found = [function(row, *args) for row in rows.reshape(-1, rows.shape[-1])]
        results = []
        for i in range(outputs):
            values = [f[i] for f in found] if outputs > 1 else found
            out = np.array(values).reshape(rows.shape[:-1] if x.ndim else ())
            results.append(np.expand_dims(out, dim) if keepdim and x.ndim else out)
        return tuple(results) if outputs > 1 else results[0]

    return oracle


# ---------------------------------------------------------------- by rank


def _quantile(row: np.ndarray, q: float, between: str, skip: bool = False) -> float:
    missing = np.isnan(row)
    ordered = sorted(row[~missing])
    if (missing.any() and not skip) or not ordered:
        return math.nan
    rank = q * (len(ordered) - 1)
    low, high = ordered[math.floor(rank)], ordered[math.ceil(rank)]
    if between == "linear":
        return low + (rank - math.floor(rank)) * (high - low)
    whole = {"lower": math.floor, "higher": math.ceil, "nearest": round}
    return ordered[whole[between](rank)] if between in whole else (low + high) / 2


def _quantiles(name: str, skip: bool) -> Case:
    function = getattr(ops, name)

    def inputs(d: Any, dtype: DType) -> Sample:
        # quarters of axes of up to 5 elements: exact ranks in any precision
        q, between = d.choice([0, 0.25, 0.5, 0.75, 1]), d.choice(BETWEEN)
        x, dim, keepdim = _along(_keep, distinct=True)(d, dtype).args
        if skip and x.size > 1 and d.boolean():
            x = np.where(x == x.reshape(-1)[0], np.full((), np.nan, x.dtype), x)
        return sample(x, dim, q, between, keepdim)

    return Case(
        name,
        lambda x, dim, q, between, keep: function(x, q, dim, keep, interpolation=between),
        _lines(lambda row, q, between: _quantile(row, q, between, skip)),
        inputs,
        torch=lambda torch, x, dim, q, between, keep: getattr(torch, name)(
            x, q, dim, keep, interpolation=between
        ),
        dtypes=WIDE,
        grad_inputs=None if not skip else _quantiles("quantile", False).inputs,
    )


def _nanmean(row: np.ndarray) -> float:
    there = row[~np.isnan(row)]
    return there.sum() / np.float64(there.size) if there.size else math.nan


def _nanmedian(row: np.ndarray) -> tuple[float, int]:
    there = np.sort(row[~np.isnan(row)])
    if not there.size:
        return math.nan, 0
    middle = there[(there.size - 1) // 2]
    return middle, int(np.flatnonzero(row == middle)[0])


def _mode(row: np.ndarray) -> tuple[Any, int]:
    found = max(sorted(set(row.tolist())), key=lambda v: (row.tolist().count(v), -v))
    return np.asarray(found, row.dtype), int(np.flatnonzero(row == found)[-1])


def _tied(d: Any, dtype: DType) -> Sample:
    x, dim, keepdim = _along(_keep, low=-2, high=2)(d, dtype).args
    return sample(np.round(x).astype(x.dtype), dim, keepdim)


def _running(better: Callable[[Any, Any], bool]) -> Any:
    def oracle(x: np.ndarray, dim: int) -> Any:
        rows = np.moveaxis(np.atleast_1d(x), dim, -1)
        values, indices = rows.copy(), np.zeros(rows.shape, np.int64)
        for place in np.ndindex(rows.shape[:-1]):
            best = 0
            for i, value in enumerate(rows[place]):
                kept = rows[place][best]
                if value != value or (kept == kept and (value == kept or better(value, kept))):
                    best = i
                values[(*place, i)], indices[(*place, i)] = rows[place][best], best
        return tuple(np.moveaxis(r, -1, dim).reshape(x.shape) for r in (values, indices))

    return oracle


# ---------------------------------------------------------------- counts


def _count_inputs(d: Any, dtype: DType) -> Sample:
    n = d.integer(1, 12)  # torch counts nothing in int64, whatever the weights
    return sample(d.index(6, (n,)), d.choice([None, d.array((n,), dtype)]), d.integer(0, 9))


def _counted(x: np.ndarray, weights: Any, least: int) -> np.ndarray:
    out = np.zeros(max([least, *(x + 1)]), np.int64 if weights is None else np.float64)
    for i, place in enumerate(x):
        out[place] += 1 if weights is None else weights[i]
    return out


def _bins_inputs(d: Any, dtype: DType) -> Sample:
    x = d.array(d.shape(min_dims=1, min_side=1), dtype)
    low = d.integer(-3, 2)
    # halves and whole numbers as edges: exact in any precision
    return sample(
        np.round(x * 4).astype(x.dtype) / 4, 2 * d.integer(1, 3), low, low + 3 * d.integer(1, 2)
    )


def _binned(x: np.ndarray, bins: int, low: float, high: float) -> np.ndarray:
    out = np.zeros(bins)
    for value in x.ravel():
        if low <= value <= high:
            out[min(int((value - low) * bins / (high - low)), bins - 1)] += 1
    return out


def _runs(x: np.ndarray, dim: int | None) -> Any:
    rows = x.reshape(-1) if dim is None else np.moveaxis(x, dim, 0)
    first = [i for i in range(len(rows)) if i == 0 or np.any(rows[i] != rows[i - 1])]
    lengths = [b - a for a, b in zip(first, [*first[1:], len(rows)], strict=True)]
    places = np.repeat(np.arange(len(first)), lengths)
    values = rows[first] if dim is None else np.moveaxis(rows[first], 0, dim)
    return values, places.reshape(x.shape) if dim is None else places, np.array(lengths)


def _runs_inputs(d: Any, dtype: DType) -> Sample:
    x = d.array(d.shape(min_dims=1, min_side=1), dtype, 0, 1)
    return sample(x, d.choice([None, d.axis(x.ndim)]))


# ---------------------------------------------------------------- covariance, differences


def _observations(d: Any, dtype: DType) -> Sample:
    return sample(d.array((d.integer(2, 4), d.integer(3, 6)), dtype, distinct=True))


def _in_general_position(d: Any, dtype: DType) -> Sample:
    """Variables of which no two lie on a line, where the correlation is cut off at 1."""
    x = d.rng.standard_normal((d.integer(2, 4), d.integer(4, 6))).astype(dtype.numpy)
    return sample(d.layout(x, broadcast=False))


def _covariance(x: np.ndarray, correction: int) -> np.ndarray:
    away = x - x.mean(1, keepdims=True)
    return (away[:, None] * away[None]).sum(-1) / np.float64(x.shape[1] - correction)


def _correlation(x: np.ndarray) -> np.ndarray:
    found = _covariance(x, 0)
    scale = np.sqrt(np.diag(found))
    return found / scale / scale[:, None]


def _difference(x: np.ndarray, n: int, dim: int) -> np.ndarray:
    for _ in range(min(n, x.shape[dim])):
        rows = np.moveaxis(x, dim, 0)
        x = np.moveaxis(np.array([rows[i + 1] - rows[i] for i in range(len(rows) - 1)]).reshape(
            len(rows) - 1, *rows.shape[1:]).astype(x.dtype), 0, dim)  # fmt: skip
    return x


def _areas(y: np.ndarray, x: np.ndarray, dim: int) -> np.ndarray:
    rows, places = np.moveaxis(y, dim, -1), np.moveaxis(x, dim, -1)
    return (rows[..., 1:] + rows[..., :-1]) / 2 * (places[..., 1:] - places[..., :-1])


def _curve(d: Any, dtype: DType) -> Sample:
    shape = d.shape(min_dims=1, min_side=1)
    return sample(d.array(shape, dtype), d.array(shape, dtype), d.axis(len(shape)))


CASES = [
    _quantiles("quantile", False),
    _quantiles("nanquantile", True),
    Case("aminmax", lambda x, dim, keep: ops.aminmax(x, dim=dim, keepdim=keep),
         _lines(lambda row: (row.min(), row.max()), 2), _along(_keep, distinct=True),
         torch=lambda torch, x, dim, keep: torch.aminmax(x, dim=dim, keepdim=keep),
         operators=("amin", "amax"), dtypes=(*FLOATS, *INTEGERS)),
    Case("nanmean", ops.nanmean, _lines(_nanmean), _along(_keep, extreme=True), dtypes=WIDE,
         grad_inputs=_along(_keep), operators=("sum", "div")),
    Case("nanmedian", ops.nanmedian, _lines(_nanmedian, 2), _along(_keep, distinct=True),
         dtypes=WIDE, operators=("gather",)),
    Case("mode", ops.mode, _lines(_mode, 2), _tied, grad_inputs=_along(_keep, distinct=True),
         dtypes=(*WIDE, *INTEGERS), operators=("gather",)),
    Case("cummax", ops.cummax, _running(lambda a, b: a > b), _along(extreme=True),
         grad_inputs=_along(distinct=True), dtypes=(*FLOATS, *INTEGERS), operators=("cumbest",)),
    Case("cummin", ops.cummin, _running(lambda a, b: a < b), _along(extreme=True),
         grad_inputs=_along(distinct=True), dtypes=(*FLOATS, *INTEGERS), operators=("cumbest",)),
    Case("bincount", ops.bincount, _counted, _count_inputs, dtypes=WIDE, grad=False),
    Case("histc", ops.histc, _binned, _bins_inputs, dtypes=WIDE, grad=False, operators=()),
    Case("unique_consecutive", lambda x, dim: ops.unique_consecutive(x, True, True, dim), _runs,
         _runs_inputs, torch=lambda torch, x, dim: torch.unique_consecutive(x, True, True, dim),
         dtypes=(*WIDE, *INTEGERS), grad=False),
    Case("cov", lambda x: ops.cov(x, correction=0), lambda x: _covariance(x, 0), _observations,
         torch=lambda torch, x: torch.cov(x, correction=0), dtypes=WIDE, operators=("matmul",)),
    Case("corrcoef", ops.corrcoef, _correlation, _observations, dtypes=WIDE,
         grad_inputs=_in_general_position, operators=("matmul",)),
    Case("diff", ops.diff, _difference,
         lambda d, dtype: sample((x := d.array(d.shape(min_dims=1, min_side=1), dtype)),
                                 d.integer(0, 3), d.axis(x.ndim)),
         dtypes=(*WIDE, *INTEGERS), operators=("sub",)),
    Case("trapezoid", lambda y, x, dim: ops.trapezoid(y, x, dim=dim),
         lambda y, x, dim: _areas(y, x, dim).sum(-1), _curve,
         torch=lambda torch, y, x, dim: torch.trapezoid(y, x, dim=dim), dtypes=WIDE,
         operators=("mul",)),
    Case("cumulative_trapezoid", lambda y, x, dim: ops.cumulative_trapezoid(y, x, dim=dim),
         lambda y, x, dim: np.moveaxis(np.cumsum(_areas(y, x, dim), -1), -1, dim), _curve,
         torch=lambda torch, y, x, dim: torch.cumulative_trapezoid(y, x, dim=dim), dtypes=WIDE,
         operators=("cumsum",)),
]  # fmt: skip
