"""Rows of reductions, cumulative sums and products."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from minidl.dtypes import ALL, FLOAT, DType, float64
from minidl.ops import cumulative, reduce
from minidl.testing.case import Case, Sample, sample
from minidl.testing.draws import NUMBERS, Inputs


def _over(low: float = -3, high: float = 3, min_side: int = 0, **options: Any) -> Inputs:
    """An array, axes (None, one or several) and keepdim."""

    def inputs(d: Any, dtype: DType) -> Sample:
        shape = d.shape(min_side=min_side)
        x = d.array(shape, dtype, low, high, **options)
        return sample(x, d.axes(len(shape)), d.boolean())

    return inputs


def _along(low: float = -3, high: float = 3, min_side: int = 0, **options: Any) -> Inputs:
    """An array, one axis and keepdim."""

    def inputs(d: Any, dtype: DType) -> Sample:
        shape = d.shape(min_side=min_side)
        x = d.array(shape, dtype, low, high, **options)
        return sample(x, d.axis(len(shape)), d.boolean())

    return inputs


def _with_gaps(d: Any, dtype: DType) -> Sample:
    """Extreme values, with NaN for the largest numbers, whose sums depend on the order."""
    x = d.array(d.shape(), dtype, extreme=True)
    if dtype.kind == FLOAT:
        with np.errstate(all="ignore"):
            large = np.isfinite(x) & (np.abs(x) > 100)
        x = d.layout(np.where(large, dtype.numpy.type(np.nan), x))
    return sample(x, d.axes(x.ndim), d.boolean())


def _spread_out(d: Any, dtype: DType) -> Sample:
    """With few elements, that differ: the deviation has a kink where all are equal, and the
    distances of close ones from their mean have few digits in half precision."""
    shape = d.shape(min_dims=1, max_dims=2, min_side=2, max_side=4)
    x = d.array(shape, dtype, distinct=True)
    return sample(x, d.axes(len(shape)), correction=d.choice([1, 0]), keepdim=d.boolean())


def _deviation(d: Any, dtype: DType) -> Sample:
    shape = d.shape(min_side=2)
    x = d.array(shape, dtype)
    return sample(x, d.axes(len(shape)), correction=d.choice([1, 0, 1.5]), keepdim=d.boolean())


def _flat(x: Any) -> Any:
    """A 0-d array as one of one element, so that it has the axes 0 and -1."""
    return x.reshape(-1) if not x.ndim else x


def _reduction(function: Callable) -> Any:
    """An oracle of NumPy's form: axis and keepdims."""

    def oracle(x: Any, dim: Any = None, keepdim: bool = False) -> Any:
        if not x.ndim:
            return np.asarray(function(_flat(x))).reshape(())
        return function(x, axis=dim, keepdims=keepdim)

    return oracle


def _whole_sum(function: Callable) -> Any:
    def sums(x: Any, **options: Any) -> Any:
        return function(x, dtype=np.int64 if x.dtype.kind in "iub" else None, **options)

    return _reduction(sums)


def _variance(x: Any, dim: Any, correction: float, keepdim: bool) -> Any:
    flat_x, dim = (_flat(x), None) if not x.ndim else (x, dim)
    count = x.size if dim is None else math.prod(np.array(flat_x.shape)[np.atleast_1d(dim)])
    keepdim = keepdim and bool(x.ndim)
    away = (flat_x - flat_x.mean(axis=dim, keepdims=True)) ** 2
    return away.sum(axis=dim, keepdims=keepdim) / np.float64(max(count - correction, 0))


def _std(*args: Any, **options: Any) -> Any:
    return np.sqrt(_variance(*args, **options))


def _log_of_sums(x: Any, dim: Any, keepdim: bool) -> Any:
    return _reduction(lambda x, **axes: np.log(np.sum(np.exp(x.astype(np.float64)), **axes)))(
        x, dim, keepdim
    )


def _norms(d: Any, dtype: DType) -> Sample:
    x, dim, keepdim = _over(0.25, 3, min_side=1, distinct=True)(d, dtype).args
    p = d.choice([2, "fro", 1, math.inf, -math.inf, 3, 1.5, 0.5, 0])
    return sample(x, p, dim, keepdim)


def _norm(x: Any, p: Any, dim: Any, keepdim: bool) -> Any:
    def norm(x: Any, **axes: Any) -> Any:
        size = np.abs(x)
        if p in (math.inf, -math.inf):
            return np.max(size, **axes) if p > 0 else np.min(size, **axes)
        if p == 0:
            return np.sum(size != 0, **axes).astype(np.float64)
        power = 2 if p == "fro" else p
        return np.sum(size**power, **axes) ** (1 / power)

    return _reduction(norm)(x, dim, keepdim)


def _chosen(choose: Callable) -> Any:
    """(values, indices) along an axis, by `choose(1-d array) -> index`; or the value of all."""

    def oracle(x: Any, dim: int | None = None, keepdim: bool = False) -> Any:
        if dim is None:
            return x.reshape(-1)[choose(x.reshape(-1))]
        rows = np.moveaxis(_flat(x), dim, -1)
        shape = rows.shape[:-1] if x.ndim else ()
        indices = [choose(row) for row in rows.reshape(-1, rows.shape[-1])]
        values = [r[i] for r, i in zip(rows.reshape(-1, rows.shape[-1]), indices, strict=True)]
        found = np.array(values, x.dtype).reshape(shape), np.array(indices, np.int64).reshape(shape)
        return tuple(np.expand_dims(f, dim) if keepdim and x.ndim else f for f in found)

    return oracle


def _best(better: Callable[[Any, Any], bool]) -> Callable[[Any], int]:
    def choose(row: Any) -> int:
        best = 0
        for i, value in enumerate(row):
            if value != value:  # the first NaN wins
                return i
            if better(value, row[best]):
                best = i
        return best

    return choose


def _index_of(choose: Callable) -> Any:
    def oracle(x: Any, dim: int | None, keepdim: bool) -> Any:
        if dim is None:
            index = np.asarray(choose(x.reshape(-1)))
            return index.reshape((1,) * x.ndim) if keepdim else index
        return _chosen(choose)(x, dim, keepdim)[1]

    return oracle


def _indexed(d: Any, dtype: DType) -> Sample:
    x, dim, keepdim = _along(min_side=1, extreme=True)(d, dtype).args
    return sample(x, d.choice([dim, None]), keepdim)


def _middle(row: Any) -> int:
    missing = np.flatnonzero(row != row)
    if missing.size:
        return int(missing[0])
    return int(np.flatnonzero(row == np.sort(row)[(len(row) - 1) // 2])[0])


def _extremum(d: Any, dtype: DType) -> Sample:
    x, dim, keepdim = _along(min_side=1, extreme=True)(d, dtype).args
    return sample(x) if d.integer(0, 2) == 2 else sample(x, dim, keepdim)


def _distinct_extremum(d: Any, dtype: DType) -> Sample:
    x, dim, keepdim = _along(min_side=1, distinct=True)(d, dtype).args
    return sample(x) if d.integer(0, 2) == 2 else sample(x, dim, keepdim)


def _running(function: Callable) -> Any:
    def oracle(x: Any, dim: int) -> Any:
        dtype = np.int64 if x.dtype.kind in "iub" else None
        return function(_flat(x), axis=dim, dtype=dtype).reshape(x.shape)

    return oracle


def _scanned(low: float, high: float, zeros: bool = False) -> Inputs:
    """An array and an axis; with some zeros, which products must not divide by."""

    def inputs(d: Any, dtype: DType) -> Sample:
        shape = d.shape(max_dims=3)
        x = d.array(shape, dtype, low, high)
        if zeros and x.size and d.boolean():
            x = np.where(np.asarray(d.mask(shape)), x, np.zeros((), x.dtype))
        return sample(x, d.axis(len(shape)))

    return inputs


def _products(d: Any, dtype: DType) -> Sample:
    x, dim = _scanned(-2, 2, zeros=True)(d, dtype).args
    return sample(x) if d.boolean() else sample(x, dim, d.boolean())


def _truth(function: Callable) -> Any:
    def oracle(x: Any, dim: Any = None, keepdim: bool = False) -> Any:
        found = np.asarray(_reduction(function)(x, dim, keepdim))
        return found.astype(np.uint8) if x.dtype == np.uint8 else found

    return oracle


def _large(d: Any, dtype: DType) -> Sample:
    """Large enough for the path through BLAS, along the first or the last axes."""
    x = d.array(d.choice([(130, 40), (9, 30, 25)]), dtype)
    return sample(x, d.choice([0, -1, (0, 1)]), d.boolean())


_largest, _smallest = _best(lambda a, b: a > b), _best(lambda a, b: a < b)

CASES = [
    Case("sum", reduce.sum, _whole_sum(np.sum), _over(), dtypes=ALL),
    Case(
        "sum_large",
        reduce.sum,
        _reduction(np.sum),
        _large,
        torch="torch.sum",
        operators=("sum",),
        scale=16,  # hundreds of terms in another order than the oracle's
    ),
    Case(
        "sum_dtype",
        reduce.sum,
        lambda x, dtype: x.astype(np.float64).sum(),
        lambda d, dtype: sample(d.array(d.shape(), dtype), dtype=float64),
        torch="torch.sum",
        dtypes=ALL,
        operators=("sum", "cast"),
    ),
    Case(
        "nansum",
        reduce.nansum,
        _whole_sum(np.nansum),
        _with_gaps,
        dtypes=ALL,
        operators=("sum", "where"),
    ),  # fmt: skip
    Case("mean", reduce.mean, _reduction(np.mean), _over()),
    Case("var", reduce.var, _variance, _deviation, grad_inputs=_spread_out),
    Case("std", reduce.std, _std, _deviation, grad_inputs=_spread_out),
    Case(
        "var_mean",
        reduce.var_mean,
        lambda x, dim, **options: (
            _variance(x, dim, **options),
            _reduction(np.mean)(x, dim, options["keepdim"]),
        ),
        _deviation,
        grad_inputs=_spread_out,
        operators=("var", "mean"),
    ),
    Case(
        "std_mean",
        reduce.std_mean,
        lambda x, dim, **options: (
            _std(x, dim, **options),
            _reduction(np.mean)(x, dim, options["keepdim"]),
        ),
        _spread_out,
        operators=("std", "mean"),
    ),
    # positive: the maximum and the logarithm may cancel, which the tests of the kernels allow for
    Case("logsumexp", reduce.logsumexp, _log_of_sums, _along(1, 5), dtypes=ALL),
    Case(
        "norm",
        reduce.norm,
        _norm,
        _norms,
        # for three axes or more PyTorch knows p=2 only by that name
        torch=lambda torch, x, p, *args: torch.norm(x, 2 if p == "fro" else p, *args),
    ),
    Case(
        "prod",
        cumulative.prod,
        _whole_sum(np.prod),
        _products,
        dtypes=ALL,
        operators=("prod", "prod_backward"),
    ),
    Case("cumsum", cumulative.cumsum, _running(np.cumsum), _scanned(-3, 3), dtypes=ALL),
    Case(
        "cumprod",
        cumulative.cumprod,
        _running(np.cumprod),
        _scanned(-2, 2, zeros=True),
        dtypes=ALL,
        operators=("cumprod", "cumprod_backward"),
    ),
    Case(
        "amax",
        reduce.amax,
        _reduction(np.max),
        _over(min_side=1, extreme=True),
        dtypes=ALL,
        grad_inputs=_over(min_side=1, distinct=True),
        torch=lambda torch, x, dim, keepdim: torch.amax(x, () if dim is None else dim, keepdim),
    ),
    Case(
        "amin",
        reduce.amin,
        _reduction(np.min),
        _over(min_side=1, extreme=True),
        dtypes=ALL,
        grad_inputs=_over(min_side=1, distinct=True),
        torch=lambda torch, x, dim, keepdim: torch.amin(x, () if dim is None else dim, keepdim),
    ),
    Case(
        "max",
        reduce.max,
        _chosen(_largest),
        _extremum,
        dtypes=ALL,
        grad_inputs=_distinct_extremum,
        operators=("max", "put_along"),
    ),
    Case(
        "min",
        reduce.min,
        _chosen(_smallest),
        _extremum,
        dtypes=ALL,
        grad_inputs=_distinct_extremum,
        operators=("min", "take_along"),
    ),
    Case("argmax", reduce.argmax, _index_of(_largest), _indexed, dtypes=NUMBERS, grad=False),
    Case("argmin", reduce.argmin, _index_of(_smallest), _indexed, dtypes=NUMBERS, grad=False),
    Case(
        "median",
        reduce.median,
        _chosen(_middle),
        _distinct_extremum,
        dtypes=NUMBERS,
        operators=("median", "median_of_all"),
    ),
    Case("any", reduce.any, _truth(np.any), _over(-1, 1), dtypes=ALL, grad=False),
    Case("all", reduce.all, _truth(np.all), _over(-1, 1), dtypes=ALL, grad=False),
    Case(
        "count_nonzero",
        reduce.count_nonzero,
        lambda x, dim: np.asarray(_reduction(lambda x, **axes: np.sum(x != 0, **axes))(x, dim)),
        lambda d, dtype: sample(*_over(-1, 1)(d, dtype).args[:2]),
        dtypes=ALL,
        grad=False,
    ),
]
