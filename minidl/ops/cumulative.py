"""Products, cumulative sums and cumulative products along an axis."""

from __future__ import annotations

from typing import Any

import numpy as np

from minidl.autograd.op import Array, constant, op
from minidl.backends import kernels_for
from minidl.ops.along import scatter_add
from minidl.ops.convert import cast
from minidl.ops.index import zeros_beside
from minidl.ops.method import in_place_methods, method
from minidl.ops.reduce import Chosen, axes, axis, kept, sum
from minidl.ops.select import where
from minidl.ops.views import expand, reshape
from minidl.tensor import Tensor

__all__ = ["cummax", "cummin", "cumprod", "cumsum", "prod"]


@op
def _prod(k: Any, input: Array, dim: Any, keepdim: bool) -> Any:
    wide = np.int64 if input.dtype.kind in "iub" else np.float64
    out = k.prod(input, axis=axes(input.ndim, dim), keepdims=keepdim, dtype=wide)
    return out if wide is np.int64 else out.astype(input.dtype)


@_prod.gradient
def _(g: Tensor, input: Tensor, dim: Any) -> Any:
    return _prod_backward(g, input, dim)


@op(nondiff=True)
def _prod_backward(k: Any, grad: Array, input: Array, dim: Any) -> Any:
    """The gradient times the product of the others, right where elements are 0 too."""
    grad = grad.reshape(kept(input.shape, dim))
    if not input.ndim or not input.size:
        return k.mul(grad, k.ones(input.shape, input.dtype))
    along = input.reshape(-1) if dim is None else input
    i = 0 if dim is None else axis(input.ndim, dim)
    before, after = _exclusive(k, along, i), k.flip(_exclusive(k, k.flip(along, i), i), i)
    return k.mul(grad, k.mul(before, after).reshape(input.shape)).astype(input.dtype, copy=False)


def _exclusive(k: Any, x: Array, i: int) -> Array:
    """Products along axis `i` of all elements before each, in float64."""
    ones = k.ones((*x.shape[:i], 1, *x.shape[i + 1 :]), np.float64)
    return k.cumprod(k.cat([ones, x[(slice(None),) * i + (slice(0, -1),)]], axis=i), axis=i)


@_prod.composite
def _(input: Tensor, dim: Any, keepdim: bool) -> Tensor:
    """Halves multiplied until one is left: no division, so that zeros do no harm."""
    i = 0 if dim is None else axis(input.ndim, dim)
    x: Any = reshape(input, -1) if dim is None or not input.ndim else input
    rest: Any = sum(x[(slice(None),) * i + (slice(0, 0),)], i, True) + 1
    while (n := x.shape[i]) > 1:
        if n % 2:
            rest = rest * x[(slice(None),) * i + (slice(n - 1, n),)]
        even, odd = slice(0, n - 1, 2), slice(1, None, 2)
        x = x[(slice(None),) * i + (even,)] * x[(slice(None),) * i + (odd,)]
    shape = kept(input.shape, dim)
    if not keepdim:
        shape = () if dim is None else shape[:i] + shape[i + 1 :]
    return reshape(x * rest if x.shape[i] else rest, shape)


@method("prod")
def prod(
    input: Tensor, dim: int | None = None, keepdim: bool = False, *, dtype: Any = None
) -> Tensor:
    """Product of all elements or along one axis; integers and bool give int64."""
    if dim is not None:
        dim = axis(input.ndim, dim, "prod")  # several axes would have no gradient
    if dtype is not None:
        return cast(_prod(cast(input, dtype), dim, keepdim), dtype)
    return _prod(input, dim, keepdim)


@op
def _cumsum(k: Any, input: Array, dim: int, backwards: bool) -> Any:
    return _scan(k, k.cumsum, input, dim, backwards)


def _scan(k: Any, function: Any, x: Array, dim: int, backwards: bool) -> Array:
    """In 64 bits: float32 would lose a digit every few hundred elements."""
    i = axis(x.ndim, dim)
    whole = x.dtype.kind in "iub"
    wide, narrow = (np.int64, np.int64) if whole else (np.float64, x.dtype)
    if not x.ndim:
        return x.astype(narrow)
    if backwards:
        return k.flip(function(k.flip(x, i), axis=i, dtype=wide).astype(narrow, copy=False), i)
    return function(x, axis=i, dtype=wide).astype(narrow, copy=False)


@_cumsum.gradient
def _(g: Tensor, dim: int, backwards: bool) -> Any:
    return _cumsum(g, dim, not backwards)


@method("cumsum")
def cumsum(input: Tensor, dim: int, *, dtype: Any = None) -> Tensor:
    """Sums of the elements up to each one along `dim`; integers and bool give int64."""
    if dtype is not None:
        return cast(_cumsum(cast(input, dtype), dim, False), dtype)
    return _cumsum(input, dim, False)


@op
def _cumprod(k: Any, input: Array, dim: int) -> Any:
    return _scan(k, k.cumprod, input, dim, False)


@_cumprod.gradient
def _(g: Tensor, input: Tensor, dim: int) -> Any:
    return _cumprod_backward(g, input, dim)


@op(nondiff=True)
def _cumprod_backward(k: Any, grad: Array, input: Array, dim: int) -> Any:
    """Element i: (product before i) * r[i], r[i] = g[i] + x[i + 1] * r[i + 1]; no division."""
    if not input.ndim or not input.size:
        return grad.copy()
    i = axis(input.ndim, dim)
    x, rest = k.moveaxis(input, i, 0), k.moveaxis(grad.astype(np.float64), i, 0)
    for j in range(len(x) - 2, -1, -1):
        rest[j] += x[j + 1] * rest[j + 1]
    out = k.mul(_exclusive(k, input, i), k.moveaxis(rest, 0, i))
    return out.astype(input.dtype, copy=False)


@_cumprod.composite
def _(input: Tensor, dim: int) -> Tensor:
    """Row j of a square holds the elements up to j, and ones: the product of each row."""
    if not input.ndim:
        return input * 1
    i = axis(input.ndim, dim)
    before, n, after = input.shape[:i], input.shape[i], input.shape[i + 1 :]
    wide = expand(reshape(input, (*before, 1, n, *after)), (*before, n, n, *after))
    k: Any = kernels_for(input.array)
    lower = k.tril(k.ones((n, n), bool)).reshape(n, n, *(1,) * len(after))
    return _prod(where(constant(lower), wide, 1.0), i + 1, False)


@method("cumprod")
def cumprod(input: Tensor, dim: int, *, dtype: Any = None) -> Tensor:
    """Products of the elements up to each one along `dim`; integers and bool give int64."""
    if dtype is not None:
        return cast(_cumprod(cast(input, dtype), dim), dtype)
    return _cumprod(input, dim)


@op(outputs=("values", "indices"))
def _cumbest(k: Any, input: Array, dim: int, largest: bool) -> Any:
    i = axis(input.ndim, dim)
    if not input.ndim:
        return input.copy(), k.zeros((), np.int64)
    values = (k.cummax if largest else k.cummin)(input, i)  # NaN stays
    steps = k.arange(input.shape[i]).reshape((-1,) + (1,) * (input.ndim - 1 - i))
    places = k.where(k.logical_or(k.eq(input, values), k.ne(input, input)), steps, 0)
    return values, k.cummax(places, i)


@_cumbest.gradient
def _(g: Any, indices: Tensor, input_shape: tuple[int, ...], dim: int) -> Any:
    return scatter_add(zeros_beside(g[0], input_shape), dim, indices, g[0])


@method("cummax")
def cummax(input: Tensor, dim: int) -> Any:
    """The largest element up to each one along `dim`, and the index of its last: NaN stays.

    Returns (values, indices).
    """
    return Chosen(*_cumbest(input, dim, True))


@method("cummin")
def cummin(input: Tensor, dim: int) -> Any:
    """The least element up to each one along `dim`, and the index of its last: NaN stays.

    Returns (values, indices).
    """
    return Chosen(*_cumbest(input, dim, False))


in_place_methods(cumsum=cumsum, cumprod=cumprod)
