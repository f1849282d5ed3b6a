"""Statistics: quantiles, counts, histograms, covariances; differences and integrals of samples."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

import minidl.ops.reduce as reduce
from minidl.autograd.op import Array, Index, constant, op
from minidl.backends import kernels_for
from minidl.dtypes import FLOAT, float32, float64
from minidl.errors import (
    ArgumentError,
    DeviceError,
    DTypeError,
    OutOfRangeError,
    ShapeError,
    UnsupportedError,
)
from minidl.ops.along import gather
from minidl.ops.arithmetic import div, lerp
from minidl.ops.arrange import cat
from minidl.ops.compare import isnan, ne
from minidl.ops.convert import cast
from minidl.ops.cumulative import cumsum
from minidl.ops.index import narrow
from minidl.ops.matmul import matmul
from minidl.ops.method import check_tensor, method
from minidl.ops.reduce import Chosen, axis, nansum
from minidl.ops.select import clamp
from minidl.ops.sort import sort
from minidl.ops.transcendental import sqrt
from minidl.ops.views import diagonal, flatten, movedim, reshape, squeeze, t, unsqueeze
from minidl.tensor import Tensor

__all__ = [
    "aminmax",
    "bincount",
    "corrcoef",
    "cov",
    "cumulative_trapezoid",
    "diff",
    "histc",
    "histogram",
    "mode",
    "nanmean",
    "nanmedian",
    "nanquantile",
    "quantile",
    "trapezoid",
    "trapz",
]


class _Extremes(NamedTuple):
    min: Tensor
    max: Tensor


class _Histogram(NamedTuple):
    hist: Tensor
    bin_edges: Tensor


def _real(name: str, input: Tensor) -> None:
    check_tensor(name, "input", input)
    if input.dtype not in (float32, float64):
        raise DTypeError("needs float32 or float64", operator=name, got=repr(input.dtype))


# ---------------------------------------------------------------- by rank


@method("aminmax")
def aminmax(input: Tensor, *, dim: int | None = None, keepdim: bool = False) -> Any:
    """(min, max) along `dim`, or of all elements; NaN where there is one."""
    check_tensor("aminmax", "input", input)
    return _Extremes(reduce.amin(input, dim, keepdim), reduce.amax(input, dim, keepdim))


_BETWEEN = ("linear", "lower", "higher", "midpoint", "nearest")


def _quantile(
    name: str, input: Tensor, q: Any, dim: int | None, keepdim: bool, between: str, skip: bool
) -> Tensor:
    _real(name, input)
    if between not in _BETWEEN:
        rule = f"interpolation must be one of {', '.join(_BETWEEN)}"
        raise ArgumentError(rule, operator=name, got=repr(between))
    if isinstance(q, Tensor) and q.dtype != input.dtype:
        raise DTypeError("q must have input's dtype", operator=name, got=repr(q.dtype))
    if isinstance(q, Tensor) and q.requires_grad:
        raise UnsupportedError(f"[{name}] there is no gradient by q; pass q.detach()")
    k: Any = kernels_for(input.array)
    rule = "q must be numbers in [0, 1] on one axis"
    if isinstance(q, Tensor) and q.is_cuda and not input.is_cuda:
        raise DeviceError("q must be on the CPU, as input is", operator=name)
    if isinstance(q, Tensor) and k.device != "cpu":
        wanted = k.asarray(q.array)
        if wanted.ndim > 1:
            raise ArgumentError(rule, operator=name, got=f"shape {wanted.shape}")
        outside = k.logical_not(k.logical_and(wanted >= 0, wanted <= 1))
        k.refuse(outside, ArgumentError(rule, operator=name))
        wanted = k.clip(wanted, 0, 1)
    else:
        wanted = np.asarray(q.array if isinstance(q, Tensor) else q, input.array.dtype)
        if wanted.ndim > 1 or not np.all((wanted >= 0) & (wanted <= 1)):
            got = f"shape {wanted.shape}: {wanted.tolist()}"
            raise ArgumentError(rule, operator=name, got=got)
        wanted = k.asarray(wanted)
    if not input.numel():
        raise ShapeError("there are no elements", operator=name, got=str(input.shape))
    i = 0 if dim is None else axis(input.ndim, dim, name)
    x = flatten(input) if dim is None or not input.ndim else movedim(input, i, -1)
    ordered = sort(x, -1).values
    missing = k.isnan(x.array)
    last = x.shape[-1] - 1 - (missing.sum(-1, keepdims=True) if skip else 0)
    rank = wanted.reshape(-1) * k.maximum(last, 0)  # (..., q)
    rank = k.broadcast_to(rank, (*x.shape[:-1], wanted.size)).astype(x.array.dtype)
    if not skip:  # the largest element is then NaN
        rank = k.where(missing.any(-1, keepdims=True), x.shape[-1] - 1, rank)
    if between in ("lower", "higher", "nearest"):
        rank = {"lower": k.floor, "higher": k.ceil, "nearest": k.round}[between](rank)
    below = k.floor(rank)
    out = gather(ordered, -1, constant(below.astype(np.int64)))
    if between in ("linear", "midpoint"):
        weight = rank - below if between == "linear" else k.full(rank.shape, 0.5, rank.dtype)
        above = gather(ordered, -1, constant(k.ceil(rank).astype(np.int64)))
        out = lerp(out, above, constant(weight.astype(x.array.dtype)))
    out = movedim(out, -1, 0)  # (q, ...)
    if keepdim:
        shape = (1,) * input.ndim if dim is None else reduce.kept(input.shape, dim)
        out = reshape(out, (wanted.size, *shape))
    return out if wanted.ndim else squeeze(out, 0)


@method("quantile")
def quantile(
    input: Tensor,
    q: Any,
    dim: int | None = None,
    keepdim: bool = False,
    *,
    interpolation: str = "linear",
) -> Tensor:
    """The values below which the parts `q` in [0, 1] of the elements along `dim` lie.

    q: a number, or (Q,), which becomes the result's first axis. `interpolation` says what lies
    between two elements: "linear", "lower", "higher", "midpoint" or "nearest". NaN where there is
    one. Float32 and float64.
    """
    return _quantile("quantile", input, q, dim, keepdim, interpolation, False)


@method("nanquantile")
def nanquantile(
    input: Tensor,
    q: Any,
    dim: int | None = None,
    keepdim: bool = False,
    *,
    interpolation: str = "linear",
) -> Tensor:
    """`quantile` of the elements that are not NaN."""
    return _quantile("nanquantile", input, q, dim, keepdim, interpolation, True)


@method("nanmean")
def nanmean(input: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """`mean` of the elements that are not NaN; NaN where there is none."""
    check_tensor("nanmean", "input", input)
    if input.dtype.kind != FLOAT:
        raise DTypeError("needs a floating point tensor", operator="nanmean",
                         got=repr(input.dtype))  # fmt: skip
    count = reduce.sum(ne(isnan(input), True), dim, keepdim)
    return div(nansum(input, dim, keepdim, dtype=dtype), count)


@method("nanmedian")
def nanmedian(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
    """`median` of the elements that are not NaN, with its index along `dim`."""
    check_tensor("nanmedian", "input", input)
    i = 0 if dim is None else axis(input.ndim, dim, "nanmedian")
    x = flatten(input) if dim is None or not input.ndim else input
    if not x.shape[i]:
        if dim is None:
            return reduce.median(input)
        raise OutOfRangeError("no elements to choose from", operator="nanmedian",
                              got=str(input.shape))  # fmt: skip
    ordered = sort(x, i)
    k: Any = kernels_for(x.array)
    there = (x.array == x.array).sum(i, keepdims=True)
    rank = constant(k.maximum(there - 1, 0) // 2)
    found = [gather(part, i, rank) for part in ordered]
    if dim is None or not input.ndim:
        found = [reshape(part, ()) for part in found]
    elif not keepdim:
        found = [squeeze(part, i) for part in found]
    return found[0] if dim is None else Chosen(*found)


@method("mode")
def mode(input: Tensor, dim: int = -1, keepdim: bool = False) -> Any:
    """The most frequent element along `dim`, the least of several, and the index of its last.

    Returns (values, indices). Counts on the CPU.
    """
    check_tensor("mode", "input", input)
    i = axis(input.ndim, dim, "mode")
    x = input if input.ndim else reshape(input, (1,))
    if not x.shape[i]:
        raise OutOfRangeError("no elements to choose from", operator="mode", got=str(input.shape))
    k: Any = kernels_for(x.array)
    rows = np.moveaxis(k.host(x.array), i, -1)
    places = np.empty(rows.shape[:-1], np.int64)
    for place in np.ndindex(places.shape):
        values, counts = np.unique(rows[place], return_counts=True, equal_nan=True)
        found = values[np.argmax(counts)]
        same = rows[place] == found if found == found else rows[place] != rows[place]
        places[place] = np.flatnonzero(same)[-1]
    indices = constant(k.asarray(np.expand_dims(places, i)))
    chosen = [gather(x, i, indices), indices]
    if not input.ndim:
        chosen = [reshape(part, ()) for part in chosen]
    elif not keepdim:
        chosen = [squeeze(part, i) for part in chosen]
    return Chosen(*chosen)


# ---------------------------------------------------------------- counts


@op(nondiff=True, promote=None)
def _bincount(k: Any, input: Index, weights: Array | None, minlength: int) -> Any:
    if input.ndim != 1 or input.dtype.kind not in "iu":
        raise DTypeError("input must be integers on one axis")
    k.refuse(k.lt(input, 0), OutOfRangeError("input must not be negative"))
    if weights is not None and weights.shape != input.shape:
        raise ShapeError("weights must have input's shape")
    if minlength < 0:
        raise ArgumentError("minlength must not be negative")
    if not input.size:
        return k.zeros(minlength, np.int64 if weights is None else weights.dtype)
    places = input.astype(np.int64)
    if k.device != "cpu":
        k.host(places[:1])  # waits in any case, for the size of the result: raises what is refused
    out = k.bincount(places, weights, minlength)
    narrow = weights is not None and weights.dtype == np.float32
    return out.astype(np.float32) if narrow else out


@method("bincount")
def bincount(input: Tensor, weights: Tensor | None = None, minlength: int = 0) -> Tensor:
    """How often each integer 0, 1, ... occurs, or the sum of its `weights`.

    input: (N,) integers -> (max + 1,), at least `minlength`; int64, or float64 with weights
    (float32 for float32 ones). There is no gradient.
    """
    check_tensor("bincount", "input", input)
    return _bincount(input, weights, minlength)


def _range(name: str, x: Any, low: float, high: float, widened: float) -> tuple[float, float]:
    """The given range or that of the elements, `widened` both ways where it has no width."""
    if low == high and x.size:
        k: Any = kernels_for(x)
        low, high = (float(k.host(extreme)) for extreme in (x.min(), x.max()))
    if low == high:
        low, high = low - widened, high + widened
    if not (math.isfinite(low) and math.isfinite(high)) or low > high:
        raise ArgumentError("the range must be finite and not reversed", operator=name,
                            got=f"[{low}, {high}]")  # fmt: skip
    return low, high


@method("histc")
def histc(input: Tensor, bins: int = 100, min: float = 0, max: float = 0) -> Tensor:
    """How many elements lie in each of `bins` equal parts of [min, max]; others are left out.

    Without a range it is that of the elements. Returns (bins,) of input's dtype.
    """
    _real("histc", input)
    if bins < 1:
        raise ArgumentError("bins must be positive", operator="histc", got=str(bins))
    x, k = input.array.reshape(-1), kernels_for(input.array)
    low, high = _range("histc", x, min, max, 1)
    inside = x[k.nonzero((x >= low) & (x <= high))].astype(np.float64)
    places = k.minimum(((inside - low) / (high - low) * bins).astype(np.int64), bins - 1)
    return constant(k.bincount(places, minlength=bins).astype(input.array.dtype))


@method("histogram")
def histogram(
    input: Tensor,
    bins: Any,
    *,
    range: tuple[float, float] | None = None,
    weight: Tensor | None = None,
    density: bool = False,
) -> Any:
    """Counts per bin (or sums of `weight`), and the bins' edges: (hist, bin_edges).

    bins: their number, within `range` or from the least to the largest element; or the edges,
    (B + 1,) in order. The last bin has its right edge. `density` divides by the total and by the
    widths.
    """
    _real("histogram", input)
    k: Any = kernels_for(input.array)
    x, dtype = input.array.reshape(-1), input.array.dtype
    if isinstance(bins, Tensor):
        if range is not None:
            raise ArgumentError("range is for a number of bins", operator="histogram")
        edges: Any = kernels_for(bins.array).host(bins.array).astype(np.float64)
    else:
        low, high = _range("histogram", x, *(range or (0, 0)), 0.5)
        edges = np.linspace(low, high, bins + 1)
    if edges.ndim != 1 or edges.size < 2 or np.any(np.diff(edges) < 0):
        raise ArgumentError("the edges must be two or more, in order", operator="histogram")
    weights = None if weight is None else weight.array.reshape(-1)
    if weights is not None and weight is not None and weight.shape != input.shape:
        raise ShapeError("weight must have input's shape", operator="histogram",
                         got=f"{input.shape}, {weight.shape}")  # fmt: skip
    edges = k.asarray(edges)
    hist, _ = k.histogram(x, edges, weights=weights, density=density)
    return _Histogram(constant(hist.astype(dtype)), constant(edges.astype(dtype)))


# ---------------------------------------------------------------- covariance


@method("cov")
def cov(
    input: Tensor,
    *,
    correction: int = 1,
    fweights: Tensor | None = None,
    aweights: Tensor | None = None,
) -> Tensor:
    """The covariances of variables (rows) over observations (columns).

    input: (V, N) -> (V, V), but () for V = 1 and for (N,). fweights: (N,) integers, how often
    each observation counts; aweights: (N,) its weight. Source: numpy.cov, ddof is `correction`.
    """
    check_tensor("cov", "input", input)
    if input.ndim > 2:
        raise ShapeError("needs at most two axes", operator="cov", got=str(input.shape))
    rows = reshape(input, (1, input.numel())) if input.ndim < 2 else input
    if rows.dtype.kind != FLOAT:
        rows = cast(rows, float32)
    count: Any = rows.shape[1]
    total, weights = count, None
    for name, given, kinds in (("fweights", fweights, "iu"), ("aweights", aweights, "f")):
        if given is None:
            continue
        if given.shape != (count,) or given.array.dtype.kind not in kinds:
            raise ShapeError(f"{name} needs one {'integer' if kinds == 'iu' else 'number'} for each"
                             f" of {count} observations", operator="cov",
                             got=f"{given.shape} {given.dtype}")  # fmt: skip
        k: Any = kernels_for(given.array)
        k.refuse(given.array < 0, ArgumentError(f"{name} must not be negative", operator="cov"))
        part = cast(given, rows.dtype)
        weights = part if weights is None else weights * part  # type: ignore[operator]
    if weights is None:
        mean, norm = reduce.mean(rows, 1, True), total - correction
    else:
        total = reduce.sum(weights)
        mean = div(reduce.sum(rows * weights, 1, True), total)  # type: ignore[operator]
        norm = total - correction
        if aweights is not None:
            mixed = reduce.sum(weights * cast(aweights, rows.dtype))  # type: ignore[operator]
            norm = total - correction * div(mixed, total)
    away = rows - mean  # type: ignore[operator]
    other = away if weights is None else away * weights  # type: ignore[operator]
    out = div(matmul(other, t(away)), clamp(norm, 0) if isinstance(norm, Tensor) else max(norm, 0))
    return out if rows.shape[0] > 1 else reshape(out, ())


@method("corrcoef")
def corrcoef(input: Tensor) -> Tensor:
    """Pearson's correlations of variables (rows) over observations (columns), in [-1, 1].

    input: (V, N) -> (V, V), but () for V = 1 and for (N,).
    """
    check_tensor("corrcoef", "input", input)
    found = cov(input)
    if not found.ndim:
        return div(found, found)
    scale = sqrt(diagonal(found))
    return clamp(div(div(found, unsqueeze(scale, 1)), unsqueeze(scale, 0)), -1, 1)


# ---------------------------------------------------------------- differences and integrals


@method("diff")
def diff(
    input: Tensor,
    n: int = 1,
    dim: int = -1,
    prepend: Tensor | None = None,
    append: Tensor | None = None,
) -> Tensor:
    """The differences of neighbours along `dim`, `n` times over.

    `prepend` and `append` are joined to the input first. bool gives whether neighbours differ.
    """
    check_tensor("diff", "input", input)
    if not input.ndim:
        raise ShapeError("needs a tensor with axes", operator="diff", got="()")
    if n < 0:
        raise ArgumentError("n must not be negative", operator="diff", got=str(n))
    i = axis(input.ndim, dim, "diff")
    if n == 0:
        return input
    joined = [part for part in (prepend, input, append) if part is not None]
    x = cat(joined, i) if len(joined) > 1 else input
    for _ in range(min(n, x.shape[i])):
        size = x.shape[i] - 1
        later, earlier = narrow(x, i, 1, size), narrow(x, i, 0, size)
        same = input.array.dtype.kind == "b"
        x = ne(later, earlier) if same else later - earlier  # type: ignore[operator]
    return x


def _areas(name: str, y: Tensor, x: Any, dx: Any, dim: int) -> tuple[Tensor, int]:
    """The areas of the trapezoids between neighbours along `dim`."""
    check_tensor(name, "y", y)
    i = axis(y.ndim, dim, name)
    if x is not None and dx is not None:
        raise ArgumentError("needs x or dx, not both", operator=name)
    size = y.shape[i] if y.ndim else 0
    if size == 0:
        shape = reduce.kept(y.shape, i)
        raise ShapeError("needs a tensor with elements along dim", operator=name, got=str(shape))
    sums = narrow(y, i, 1, size - 1) + narrow(y, i, 0, size - 1)  # type: ignore[operator]
    width: Any = 1 if dx is None else dx
    if x is not None:
        if x.ndim == 1 and y.ndim > 1:
            x = reshape(x, (-1,) + (1,) * (y.ndim - 1 - i))
        if x.shape[x.ndim - (y.ndim - i)] != size:
            raise ShapeError("x needs y's size along dim", operator=name,
                             got=f"{x.shape}, {y.shape}")  # fmt: skip
        width = diff(x, 1, x.ndim - (y.ndim - i))
    return div(sums * width, 2), i  # type: ignore[operator]


def trapezoid(y: Tensor, x: Tensor | None = None, *, dx: Any = None, dim: int = -1) -> Tensor:
    """The integral along `dim` by the trapezoidal rule: of `y` at places `x`, or `dx` (1) apart."""
    areas, i = _areas("trapezoid", y, x, dx, dim)
    return reduce.sum(areas, i)


trapz = trapezoid


def cumulative_trapezoid(
    y: Tensor, x: Tensor | None = None, *, dx: Any = None, dim: int = -1
) -> Tensor:
    """`trapezoid` up to each place: one element less along `dim` than `y`."""
    areas, i = _areas("cumulative_trapezoid", y, x, dx, dim)
    return cumsum(areas, i)
