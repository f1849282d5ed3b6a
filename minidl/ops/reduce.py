"""Reductions over axes: sums and what is made of them, extremes, truth."""

from __future__ import annotations

import builtins
import math
from typing import Any, NamedTuple

import numpy as np

from minidl.autograd.op import Array, op
from minidl.dtypes import FLOAT
from minidl.errors import ArgumentError, DTypeError, OutOfRangeError, ShapeError, UnsupportedError
from minidl.ops.along import put_along
from minidl.ops.arithmetic import abs, flat, sign
from minidl.ops.compare import eq, isnan, logical_or
from minidl.ops.convert import cast
from minidl.ops.creation import sizes
from minidl.ops.method import check_tensor, method
from minidl.ops.select import masked_fill, maximum, minimum
from minidl.ops.transcendental import exp, pow
from minidl.ops.views import axes, axis, expand, reshape
from minidl.tensor import Tensor

__all__ = [
    "all",
    "amax",
    "amin",
    "any",
    "argmax",
    "argmin",
    "count_nonzero",
    "logsumexp",
    "max",
    "mean",
    "median",
    "min",
    "nansum",
    "norm",
    "std",
    "std_mean",
    "sum",
    "var",
    "var_mean",
]


# ---------------------------------------------------------------- axes


def kept(shape: tuple[int, ...], dim: Any) -> tuple[int, ...]:
    """`shape` with the axes of `dim` at size 1."""
    gone = axes(len(shape), dim)
    return tuple([1 if i in gone else n for i, n in enumerate(shape)])


def spread(g: Tensor, shape: tuple[int, ...], dim: Any) -> Tensor:
    """A reduced gradient seen in the shape before the reduction."""
    return expand(reshape(g, kept(shape, dim)), shape)


def _count(shape: tuple[int, ...], dim: Any) -> int:
    """How many elements make one result."""
    return math.prod(shape[i] for i in axes(len(shape), dim))


def _not_empty(x: Array, dim: Any) -> None:
    for i in axes(x.ndim, dim) if not x.size else ():
        if not x.shape[i]:
            raise OutOfRangeError(f"axis {i} has no elements to choose from")


# ---------------------------------------------------------------- sums


def _total(k: Any, x: Array, dim: Any, keepdim: bool) -> Array:
    """The sum over the axes of `dim`; integers and bool are summed in int64."""
    dims = None if dim is None else axes(x.ndim, dim)
    if x.dtype.kind in "iub":
        return k.sum(x, axis=dims, keepdims=keepdim, dtype=np.int64)
    return k.sum(x, axis=dims, keepdims=keepdim)


@op
def _sum(k: Any, input: Array, dim: Any, keepdim: bool) -> Any:
    return _total(k, input, dim, keepdim)


@_sum.gradient
def _(g: Tensor, input_shape: tuple, dim: Any) -> Any:
    return spread(g, input_shape, dim)


@method("sum")
def sum(input: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """Sum over `dim` (None: all axes, an int, several); integers and bool give int64."""
    if dtype is not None:
        input = cast(input, dtype)
        if dtype is bool or input.array.dtype.kind == "b":
            return any(input, axes(input.ndim, dim), keepdim)
    total = _sum(input, dim, keepdim)
    return total if dtype is None else cast(total, dtype)


def sum_to(g: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Sum a gradient down to the shape that was broadcast: what the engine does to all of them."""
    extra = g.ndim - len(shape)
    wide = [i for i in range(g.ndim) if i < extra or (shape[i - extra] == 1 != g.shape[i])]
    return reshape(_sum(g, tuple(wide), False) if wide else g, shape)


@method("nansum")
def nansum(input: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """`sum` with 0 in place of NaN."""
    if input.dtype.kind == FLOAT:
        input = masked_fill(input, isnan(input), 0)
    return sum(input, dim, keepdim, dtype=dtype)


@method("sum_to_size")
def _sum_to_size(input: Tensor, *size: Any) -> Tensor:
    """`input` summed over axes, so that it has the shape `size`, which broadcasts to its own."""
    wanted = sizes(size, "sum_to_size")
    shape = input.shape
    if len(wanted) > len(shape) or builtins.any(
        own not in (n, 1) for own, n in zip(wanted[::-1], shape[::-1], strict=False)
    ):
        raise ShapeError("size must broadcast to the shape", operator="sum_to_size",
                         got=f"{shape} to {wanted}")  # fmt: skip
    return sum_to(input, wanted)


@op
def _mean(k: Any, input: Array, dim: Any, keepdim: bool) -> Any:
    if input.dtype.kind != "f":
        raise DTypeError("needs a floating point tensor; pass dtype=")
    count = _count(input.shape, dim)
    return k.div(_total(k, input, dim, keepdim), count)


@_mean.gradient
def _(g: Tensor, input_shape: tuple, dim: Any) -> Any:
    return spread(g / (_count(input_shape, dim) or 1), input_shape, dim)


@method("mean")
def mean(input: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """Mean over `dim` (None: all axes); NaN of nothing. Raises DTypeError for integers."""
    return _mean(input if dtype is None else cast(input, dtype), dim, keepdim)


@op
def _var(k: Any, input: Array, dim: Any, correction: float, keepdim: bool) -> Any:
    return _variance(k, input, dim, correction, keepdim)


def _variance(k: Any, x: Array, dim: Any, correction: float, keepdim: bool) -> Any:
    if x.dtype.kind != "f":
        raise DTypeError("needs a floating point tensor")
    count, dims = _count(x.shape, dim), axes(x.ndim, dim)
    # from the first element on: equal elements have no distance then, and large ones lose no digits
    first = x[tuple([slice(1) if i in dims else slice(None) for i in range(x.ndim)])]
    away = k.asarray(k.sub(x, first))
    k.sub(away, k.div(_total(k, away, dim, True), count), out=away)
    total = _total(k, k.square(away, out=away), dim, keepdim)
    return k.div(total, builtins.max(count - correction, 0))


@_var.gradient
def _(g: Tensor, input: Tensor, dim: Any, correction: float) -> Any:
    free = builtins.max(_count(input.shape, dim) - correction, 0)
    scaled = reshape(g * (2 / free if free else math.inf), kept(input.shape, dim))
    return scaled * (input - _mean(input, dim, True))


@op
def _std(k: Any, input: Array, dim: Any, correction: float, keepdim: bool) -> Any:
    return k.sqrt(_variance(k, input, dim, correction, keepdim))


@_std.gradient
def _(g: Tensor, input: Tensor, out: Tensor, dim: Any, correction: float) -> Any:
    free = builtins.max(_count(input.shape, dim) - correction, 0)
    # 0 where all elements are equal: PyTorch's choice
    scaled = masked_fill(g / (out * free), eq(out, 0), 0)
    return reshape(scaled, kept(input.shape, dim)) * (input - _mean(input, dim, True))


def _var_arguments(dim: Any, unbiased: bool | None, correction: float | None) -> tuple[Any, float]:
    if isinstance(dim, bool):  # var(input, unbiased)
        dim, unbiased = None, dim
    if unbiased is not None and correction is not None:
        raise ArgumentError("unbiased and correction exclude each other", operator="var")
    if correction is None:
        correction = 1 if unbiased is None else int(unbiased)
    return dim, correction


@method("var")
def var(
    input: Tensor,
    dim: Any = None,
    unbiased: bool | None = None,
    keepdim: bool = False,
    *,
    correction: float | None = None,
) -> Tensor:
    """Variance over `dim` (None: all axes): squared distances from the mean / (n - correction).

    correction is 1 by default, 0 with unbiased=False. Raises DTypeError for integers.
    """
    dim, correction = _var_arguments(dim, unbiased, correction)
    return _var(input, dim, correction, keepdim)


@method("std")
def std(
    input: Tensor,
    dim: Any = None,
    unbiased: bool | None = None,
    keepdim: bool = False,
    *,
    correction: float | None = None,
) -> Tensor:
    """Standard deviation over `dim`: the square root of `var`; its gradient at 0 is 0."""
    dim, correction = _var_arguments(dim, unbiased, correction)
    return _std(input, dim, correction, keepdim)


def var_mean(
    input: Tensor,
    dim: Any = None,
    unbiased: bool | None = None,
    keepdim: bool = False,
    *,
    correction: float | None = None,
) -> tuple[Tensor, Tensor]:
    """`var` and `mean` of the same axes."""
    dim, correction = _var_arguments(dim, unbiased, correction)
    return _var(input, dim, correction, keepdim), mean(input, dim, keepdim)


def std_mean(
    input: Tensor,
    dim: Any = None,
    unbiased: bool | None = None,
    keepdim: bool = False,
    *,
    correction: float | None = None,
) -> tuple[Tensor, Tensor]:
    """`std` and `mean` of the same axes."""
    dim, correction = _var_arguments(dim, unbiased, correction)
    return _std(input, dim, correction, keepdim), mean(input, dim, keepdim)


@op(promote="float")
def _logsumexp(k: Any, input: Array, dim: Any, keepdim: bool) -> Any:
    return k.logsumexp(input, axes(input.ndim, dim), keepdim)


@_logsumexp.gradient
def _(g: Tensor, input: Tensor, out: Tensor, dim: Any) -> Any:
    shape = kept(input.shape, dim)
    return reshape(g, shape) * exp(input - reshape(out, shape))


@method("logsumexp")
def logsumexp(input: Tensor, dim: Any, keepdim: bool = False) -> Tensor:
    """log(sum(exp(input))) over `dim` (an int or several) without overflow."""
    if dim is None:
        raise ArgumentError("dim must be an axis or several", operator="logsumexp")
    return _logsumexp(input, dim, keepdim)


@op
def _norm(k: Any, input: Array, p: float, dim: Any, keepdim: bool) -> Any:
    if p == 2:
        return k.sqrt(_total(k, k.square(input), dim, keepdim))
    if p == 0:
        return _total(k, k.ne(input, 0).astype(input.dtype), dim, keepdim)
    size = k.abs(input)
    if math.isinf(p):
        return _extreme(k, k.amax if p > 0 else k.amin, size, dim, keepdim)
    if p == 1:
        return _total(k, size, dim, keepdim)
    return k.pow(_total(k, k.pow(size, p), dim, keepdim), 1 / p)


@_norm.gradient
def _(g: Tensor, input: Tensor, out: Tensor, p: float, dim: Any) -> Any:
    shape = kept(input.shape, dim)
    g, out = reshape(g, shape), reshape(out, shape)
    if p == 0:
        return flat(input)
    if p == 1:
        return g * sign(input)
    if p == 2:
        return input * masked_fill(g / out, eq(out, 0), 0)
    if math.isinf(p):
        return sign(input) * _evenly(g, abs(input), out, dim)
    slope = sign(input) * pow(abs(input), p - 1)
    if p < 1:
        slope = masked_fill(slope, eq(input, 0), 0)
    return slope * masked_fill(g * pow(out, 1 - p), eq(out, 0), 0)


@method("norm")
def norm(
    input: Tensor, p: Any = "fro", dim: Any = None, keepdim: bool = False, dtype: Any = None
) -> Tensor:
    """The p-norm sum(|x| ** p) ** (1 / p) over `dim`; p: a number, inf, -inf, or "fro" (2).

    Raises DTypeError for integers, UnsupportedError for p="nuc".
    """
    if p == "nuc":
        raise UnsupportedError("the nuclear norm is not there; use p='fro'", operator="norm")
    if isinstance(p, str) and p != "fro":
        raise ArgumentError("p must be a number or 'fro'", operator="norm", got=repr(p))
    if dtype is not None:
        input = cast(input, dtype)
    if input.dtype.kind != FLOAT:
        raise DTypeError("needs a floating point tensor", operator="norm", got=repr(input.dtype))
    return _norm(input, 2.0 if p in ("fro", None) else float(p), dim, keepdim)


# ---------------------------------------------------------------- the largest, the smallest


def _extreme(k: Any, choose: Any, x: Array, dim: Any, keepdim: bool) -> Array:
    if x.size:
        return choose(x, axis=axes(x.ndim, dim), keepdims=keepdim)
    _not_empty(x, dim)
    # CuPy refuses arrays without elements even where other axes are reduced
    return _total(k, x, dim, keepdim).astype(x.dtype, copy=False)


def _evenly(g: Tensor, input: Tensor, out: Tensor, dim: Any) -> Tensor:
    """The gradient of a chosen value shared by all elements that are equal to it, or NaN too."""
    shape = kept(input.shape, dim)
    chosen = logical_or(eq(input, reshape(out, shape)), isnan(input))
    return reshape(g, shape) / sum(chosen, dim, True) * chosen


@method("amax")
@op
def amax(k: Any, input: Array, dim: Any = (), keepdim: bool = False) -> Any:
    """The largest element over `dim` (all axes by default); equal ones share the gradient.

    NaN where there is one. Raises OutOfRangeError for an axis without elements.
    """
    return _extreme(k, k.amax, input, dim, keepdim)


@amax.gradient
def _(g: Tensor, input: Tensor, out: Tensor, dim: Any) -> Any:
    return _evenly(g, input, out, dim)


@method("amin")
@op
def amin(k: Any, input: Array, dim: Any = (), keepdim: bool = False) -> Any:
    """The smallest element over `dim` (all axes by default); equal ones share the gradient.

    NaN where there is one. Raises OutOfRangeError for an axis without elements.
    """
    return _extreme(k, k.amin, input, dim, keepdim)


@amin.gradient
def _(g: Tensor, input: Tensor, out: Tensor, dim: Any) -> Any:
    return _evenly(g, input, out, dim)


class Chosen(NamedTuple):
    """Values and their indices (int64) along an axis."""

    values: Tensor
    indices: Tensor


@op(outputs=("values", "indices"))
def _max(k: Any, input: Array, dim: int, keepdim: bool) -> Any:
    return _chosen(k, input, dim, keepdim, _largest)


@op(outputs=("values", "indices"))
def _min(k: Any, input: Array, dim: int, keepdim: bool) -> Any:
    return _chosen(k, input, dim, keepdim, _smallest)


def _largest(k: Any, x: Array, i: int) -> Array:
    return k.argmax(x, axis=i, keepdims=True)


def _smallest(k: Any, x: Array, i: int) -> Array:
    return k.argmin(x, axis=i, keepdims=True)


def _chosen(k: Any, x: Array, dim: int, keepdim: bool, choose: Any) -> tuple[Array, Array]:
    i = axis(x.ndim, dim)
    if not x.ndim:
        return x.copy(), k.zeros((), "int64")
    _not_empty(x, i)
    shape = kept(x.shape, i) if keepdim else x.shape[:i] + x.shape[i + 1 :]
    if not x.size:
        return k.empty(shape, x.dtype), k.empty(shape, "int64")
    indices = choose(k, x, i)
    return k.take_along_axis(x, indices, axis=i).reshape(shape), indices.reshape(shape)


@_max.gradient
@_min.gradient
def _chosen_gradient(g: Any, indices: Tensor, input_shape: tuple[int, ...], dim: int) -> Any:
    one = kept(input_shape, dim)
    return put_along(reshape(g[0], one), reshape(indices, one), input_shape, dim)


@method("max")
def max(input: Tensor, dim: Any = None, keepdim: bool = False, *, other: Any = None) -> Any:
    """The largest element; along axis `dim` with its index (values, indices); or of two tensors.

    `max(input)` shares its gradient among equal elements, `max(input, dim)` gives it to the
    first, `max(input, other)` is `maximum`. NaN counts as the largest. Raises OutOfRangeError
    for an axis without elements.
    """
    return _max_or_min(input, dim, keepdim, other, (_max, amax, maximum))


@method("min")
def min(input: Tensor, dim: Any = None, keepdim: bool = False, *, other: Any = None) -> Any:
    """The smallest element; along axis `dim` with its index (values, indices); or of two tensors.

    `min(input)` shares its gradient among equal elements, `min(input, dim)` gives it to the
    first, `min(input, other)` is `minimum`. NaN counts as the smallest. Raises OutOfRangeError
    for an axis without elements.
    """
    return _max_or_min(input, dim, keepdim, other, (_min, amin, minimum))


def _max_or_min(input: Tensor, dim: Any, keepdim: bool, other: Any, forms: tuple) -> Any:
    along, of_all, of_two = forms
    check_tensor(along.op.name, "input", input)
    if isinstance(dim, Tensor):
        dim, other = None, dim
    if other is not None:
        return of_two(input, other)
    if dim is not None:
        return Chosen(*along(input, dim, keepdim))
    if not input.array.size:
        raise OutOfRangeError("no elements; name an axis that has some", operator=along.op.name,
                              got=str(input.shape))  # fmt: skip
    return of_all(input)


@method("argmax")
@op(nondiff=True)
def argmax(k: Any, input: Array, dim: int | None = None, keepdim: bool = False) -> Any:
    """Index (int64) of the largest element along `dim`, or in C order of all; the first of ties."""
    return _index_of(k, k.argmax, input, dim, keepdim)


@method("argmin")
@op(nondiff=True)
def argmin(k: Any, input: Array, dim: int | None = None, keepdim: bool = False) -> Any:
    """Index (int64) of the smallest element along `dim`, or in C order of all; first of ties."""
    return _index_of(k, k.argmin, input, dim, keepdim)


def _index_of(k: Any, function: Any, x: Array, dim: int | None, keepdim: bool) -> Any:
    _not_empty(x, dim)
    if dim is None:
        flat_index = k.asarray(function(x))
        return flat_index.reshape((1,) * x.ndim) if keepdim else flat_index
    i = axis(x.ndim, dim)
    if not x.size:
        return k.zeros(kept(x.shape, i) if keepdim else x.shape[:i] + x.shape[i + 1 :], "int64")
    return function(x, axis=i, keepdims=keepdim) if x.ndim else k.zeros((), "int64")


@op
def _median_of_all(k: Any, input: Array) -> Any:
    if not input.size:
        if input.dtype.kind != "f":
            raise OutOfRangeError("no elements to choose from", operator="median",
                                  got=str(input.shape))  # fmt: skip
        return k.full((), np.nan, input.dtype)
    ordered = k.sort(input, axis=None)  # NaN comes last
    half = (ordered.size - 1) // 2
    if k.device == "cpu":
        return ordered[-1] if ordered[-1] != ordered[-1] else ordered[half]
    return k.where(k.isnan(ordered[-1]), ordered[-1], ordered[half])


@_median_of_all.gradient
def _(g: Tensor, input: Tensor, out: Tensor) -> Any:
    return _evenly(g, input, out, None)


@op(outputs=("values", "indices"))
def _median(k: Any, input: Array, dim: int, keepdim: bool) -> Any:
    return _chosen(k, input, dim, keepdim, _middle)


def _middle(k: Any, x: Array, i: int) -> Array:
    order = k.argsort(x, axis=i, kind="stable")
    half = (x.shape[i] - 1) // 2
    middle = order[(slice(None),) * i + (slice(half, half + 1),)]
    missing = k.isnan(x)
    found = k.any(missing, axis=i, keepdims=True)
    return k.where(found, k.argmax(missing, axis=i, keepdims=True), middle)


_median.gradient(_chosen_gradient)


@method("median")
def median(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
    """The middle element, the lower of two; along axis `dim` with its index (values, indices).

    NaN where there is one. Raises OutOfRangeError for an axis without elements.
    """
    return _median_of_all(input) if dim is None else Chosen(*_median(input, dim, keepdim))


# ---------------------------------------------------------------- truth


def _truth(k: Any, function: Any, x: Array, dim: Any, keepdim: bool) -> Array:
    dims = () if isinstance(dim, list | tuple) and not dim else axes(x.ndim, dim)
    found = k.asarray(function(x, axis=dims, keepdims=keepdim))
    return found.astype(np.uint8 if x.dtype == np.uint8 else np.bool_, copy=False)


@method("any")
@op(nondiff=True)
def any(k: Any, input: Array, dim: Any = None, keepdim: bool = False) -> Any:
    """Whether an element over `dim` (None: all axes) is not 0; bool, or uint8 for uint8."""
    return _truth(k, k.any, input, dim, keepdim)


@method("all")
@op(nondiff=True)
def all(k: Any, input: Array, dim: Any = None, keepdim: bool = False) -> Any:
    """Whether no element over `dim` (None: all axes) is 0; bool, or uint8 for uint8."""
    return _truth(k, k.all, input, dim, keepdim)


@method("count_nonzero")
@op(nondiff=True)
def count_nonzero(k: Any, input: Array, dim: Any = None) -> Any:
    """How many elements over `dim` (None: all axes) are not 0; int64."""
    return k.sum(k.ne(input, 0), axis=axes(input.ndim, dim))
