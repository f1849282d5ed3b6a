"""Reductions over axes."""

from __future__ import annotations

from typing import Any

from minidl.autograd.op import Array, op
from minidl.errors import OutOfRangeError
from minidl.ops.convert import cast
from minidl.ops.method import method
from minidl.ops.views import expand, reshape
from minidl.tensor import Tensor


def axes(ndim: int, dim: Any) -> tuple[int, ...]:
    """The axes that `dim` (None or (): all, an int, several) names, counted from the front."""
    if dim is None or (isinstance(dim, list | tuple) and not dim):
        return tuple(range(ndim))
    given = dim if isinstance(dim, list | tuple) else (dim,)
    found = []
    for d in given:
        axis(ndim, d)
        found.append(int(d) % max(ndim, 1))
    if len(set(found)) != len(found):
        raise OutOfRangeError(f"axis named twice in dim={dim}")
    return tuple(found)


def axis(ndim: int, dim: int) -> int:
    """One axis counted from the front; a 0-d tensor has the axes 0 and -1, as in PyTorch."""
    size = max(ndim, 1)
    if not -size <= dim < size:
        raise OutOfRangeError(f"axis {dim} of a tensor with {ndim} axes")
    return dim % size


def kept(shape: tuple[int, ...], dim: Any) -> tuple[int, ...]:
    """`shape` with the axes of `dim` at size 1."""
    gone = axes(len(shape), dim)
    return tuple(1 if i in gone else n for i, n in enumerate(shape))


def spread(g: Tensor, shape: tuple[int, ...], dim: Any) -> Tensor:
    """A reduced gradient seen in the shape before the reduction."""
    return expand(reshape(g, kept(shape, dim)), shape)


@op
def _sum(k: Any, input: Array, dim: Any, keepdim: bool) -> Any:
    if not input.ndim:
        return k.sum(input)
    return k.sum(input, axis=axes(input.ndim, dim), keepdims=keepdim)


@_sum.gradient
def _(g: Tensor, input_shape: tuple, dim: Any) -> Any:
    return spread(g, input_shape, dim)


@method("sum")
def sum(input: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """Sum over `dim` (all axes by default). Integers and bool give int64."""
    if dtype is not None:
        input = cast(input, dtype)
    return _sum(input, dim, keepdim)


def sum_to(g: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Sum a gradient down to the shape that was broadcast: what the engine does to all of them."""
    extra = g.ndim - len(shape)
    wide = [i for i in range(g.ndim) if i < extra or (shape[i - extra] == 1 != g.shape[i])]
    return reshape(_sum(g, tuple(wide), False) if wide else g, shape)


@method("argmax")
@op(nondiff=True)
def argmax(k: Any, input: Array, dim: int | None = None, keepdim: bool = False) -> Any:
    """Index (int64) of the largest element along `dim`, or in C order of all; the first of ties."""
    if dim is None:
        flat = k.argmax(input)
        return flat.reshape((1,) * input.ndim) if keepdim else flat
    if not input.ndim:
        axis(0, dim)
        return k.zeros((), "int64")
    return k.argmax(input, axis=axis(input.ndim, dim), keepdims=keepdim)
