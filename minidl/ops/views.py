"""Views: other shapes over the same elements."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minidl.autograd.op import Array, op
from minidl.errors import OutOfRangeError, ShapeError
from minidl.ops.convert import clone
from minidl.ops.method import method
from minidl.tensor import Tensor


def sizes(args: tuple[Any, ...]) -> tuple[int, ...]:
    """Sizes given one by one or as one sequence."""
    if len(args) == 1 and isinstance(args[0], list | tuple):
        args = tuple(args[0])
    return tuple(a.__index__() for a in args)


def _resolve(shape: tuple[int, ...], count: int) -> tuple[int, ...]:
    """`shape` with its -1 replaced by the size that fits."""
    unknown = [i for i, n in enumerate(shape) if n == -1]
    known = math.prod(n for n in shape if n != -1)
    fits = len(unknown) <= 1 and all(n >= -1 for n in shape)
    if unknown and fits and known and count % known == 0:
        i = unknown[0]
        shape = (*shape[:i], count // known, *shape[i + 1 :])
    if not fits or math.prod(shape) != count:
        raise ShapeError(f"{count} elements do not fit shape {shape}")
    return shape


@op(view=True)
def _view(k: Any, input: Array, shape: tuple[int, ...]) -> Any:
    try:
        return np.reshape(input, shape, copy=False)
    except ValueError:
        raise ShapeError(
            f"a view of shape {shape} does not exist for these strides; use reshape"
        ) from None


@_view.gradient
def _(g: Tensor, input_shape: tuple[int, ...]) -> Any:
    return reshape(g, input_shape)


@method("view")
def view(input: Tensor, *shape: Any) -> Tensor:
    """The same elements in another shape; an error where that needs a copy."""
    return _view(input, _resolve(sizes(shape), input.array.size))


def reshape(input: Tensor, *shape: Any) -> Tensor:
    """The same elements in another shape, as a view where the strides allow it."""
    wanted = sizes(shape)
    array = input.array
    if -1 in wanted or math.prod(wanted) != array.size:
        wanted = _resolve(wanted, array.size)
    if not array.flags.c_contiguous:
        try:
            np.reshape(array, wanted, copy=False)
        except ValueError:
            input = clone(input)
    return _view(input, wanted)


method("reshape")(reshape)


@op(view=True)
def _expand(k: Any, input: Array, shape: tuple[int, ...]) -> Any:
    return k.broadcast_to(input, shape)


@_expand.gradient
def _(g: Tensor) -> Any:
    return g  # the engine sums it down


@method("expand")
def expand(input: Tensor, *shape: Any) -> Tensor:
    """Axes of size 1 seen with another size (-1 keeps a size); the result is read-only."""
    wanted = sizes(shape)
    extra = len(wanted) - input.ndim
    own = (1,) * extra + input.shape
    wanted = tuple(o if n == -1 else n for n, o in zip(wanted, own, strict=False))
    return input if wanted == input.shape else _expand(input, wanted)


@op(view=True)
def _permute(k: Any, input: Array, dims: tuple[int, ...]) -> Any:
    return input.transpose(dims)


@_permute.gradient
def _(g: Tensor, dims: tuple[int, ...]) -> Any:
    return _permute(g, tuple(int(i) for i in np.argsort(dims)))


@method("permute")
def permute(input: Tensor, *dims: Any) -> Tensor:
    """The axes in the order `dims`."""
    n = input.ndim
    order = tuple(d % n if n else d for d in sizes(dims))
    if sorted(order) != list(range(n)):
        raise ShapeError(f"[permute] dims must name each of {n} axes once", got=str(dims))
    return _permute(input, order)


@method("transpose", "swapaxes", "swapdims")
def transpose(input: Tensor, dim0: int, dim1: int) -> Tensor:
    """Two axes exchanged."""
    n = input.ndim
    size = max(n, 1)
    if not (-size <= dim0 < size and -size <= dim1 < size):
        raise OutOfRangeError(f"[transpose] axes {dim0} and {dim1} of a tensor with {n} axes")
    if not n:
        return input
    order = list(range(n))
    order[dim0], order[dim1] = order[dim1], order[dim0]
    return _permute(input, tuple(order))
