"""Reading and writing along an axis, where a tensor of positions says."""

from __future__ import annotations

from typing import Any

import numpy as np

from minidl.autograd.op import Array, Index, constant, in_place, op, writable, write
from minidl.backends import kernels_for
from minidl.dtypes import BOOL, FLOAT
from minidl.errors import ArgumentError, DTypeError, OutOfRangeError, ShapeError, UnsupportedError
from minidl.ops.compare import eq
from minidl.ops.convert import cast
from minidl.ops.index import (
    getitem,
    getitem_back,
    index_at,
    kept_index,
    match_dtype,
    placed_index,
    put,
    store,
    values_for,
    zeros_beside,
)
from minidl.ops.method import check_tensor, method
from minidl.ops.select import where
from minidl.ops.views import axis, broadcast_shapes, expand, flatten, reshape
from minidl.tensor import Tensor

__all__ = [
    "gather",
    "index_add",
    "index_copy",
    "index_fill",
    "index_select",
    "masked_scatter",
    "scatter",
    "scatter_add",
    "scatter_reduce",
    "take",
    "take_along_dim",
]


def _check_positions(k: Any, index: Any, size: int, dim: int, wrap: bool = False) -> None:
    """Indices are integers in [0, size), or in [-size, size) with `wrap`."""
    if index.dtype.kind not in "iu":
        raise DTypeError("index must be integers")
    first = -size if wrap else 0
    if k.device != "cpu":
        rule = f"an index is out of bounds for axis {dim} with size {size}"
        k.refuse(k.logical_or(index < first, index >= size), OutOfRangeError(rule))
    elif index.size:
        least, most = int(index.min()), int(index.max())
        if least < first or most >= size:
            bad = most if most >= size else least
            raise OutOfRangeError(f"index {bad} is out of bounds for axis {dim} with size {size}")


def _with_axis(x: Any) -> Any:
    """An array with one axis at least."""
    return x if x.ndim else x.reshape(1)


def _check_along(k: Any, shape: tuple, dim: int, index: Any, src: tuple | None = None) -> None:
    """`index` has as many axes as the input, and is no longer except along `dim`."""
    if len(shape) != index.ndim or (src is not None and len(src) != index.ndim):
        raise ShapeError("index must have as many axes as the input (and src)")
    for i, n in enumerate(index.shape):
        if (i != dim and n > shape[i]) or (src is not None and n > src[i]):
            rule = f"index must not be longer than the input (except along axis {dim}) nor src"
            raise ShapeError(rule)
    _check_positions(k, index, shape[dim], dim)


def _mesh(k: Any, index: Any, dim: int) -> tuple:
    """The index whose element i, j, ... is (i, index[i, j, ...], ...) with `dim` replaced."""
    n = index.ndim
    return tuple(
        index if i == dim else k.arange(size).reshape((-1,) + (1,) * (n - i - 1))
        for i, size in enumerate(index.shape)
    )


@op(promote=None)
def put_along(k: Any, grad: Array, indices: Index, shape: tuple[int, ...], dim: int) -> Any:
    """Zeros of `shape` with `grad` at `indices`, all different, along `dim`."""
    if not shape:
        return grad.copy()
    out = k.zeros(shape, grad.dtype)
    k.put_along_axis(out, indices, grad, axis(len(shape), dim))
    return out


@put_along.gradient
def _(g: Tensor, indices: Tensor, dim: int) -> Any:
    return take_along(g, indices, dim)


@op(promote=None)
def take_along(k: Any, input: Array, indices: Index, dim: int) -> Any:
    """The elements at `indices`, all different, along `dim`."""
    return k.take_along_axis(input, indices, axis=dim) if input.ndim else input.copy()


@take_along.gradient
def _(g: Tensor, indices: Tensor, input_shape: tuple[int, ...], dim: int) -> Any:
    return put_along(g, indices, input_shape, dim)


@method("gather")
@op(promote=None)
def gather(k: Any, input: Array, dim: int, index: Index) -> Any:
    """`out[i][j] = input[index[i][j]][j]` for dim 0, and so on for every axis.

    index: integers, as many axes as input and no longer except along dim -> index's shape.
    """
    dim = axis(input.ndim, dim)
    x, places = _with_axis(input), _with_axis(index)
    _check_along(k, x.shape, dim, places)
    x = x[tuple([slice(None) if i == dim else slice(n) for i, n in enumerate(places.shape)])]
    return k.take_along_axis(x, places, axis=dim).reshape(index.shape)


@gather.gradient
def _(g: Tensor, dim: int, index: Any, input_shape: tuple[int, ...]) -> Any:
    if len(input_shape) == g.ndim:
        return scatter_add(zeros_beside(g, input_shape), dim, index, g)
    # one of them has no axis
    target = zeros_beside(g, input_shape or (1,))
    return reshape(scatter_add(target, dim, reshape(index, -1), reshape(g, -1)), input_shape)


@method("scatter_add")
@op(promote="match")
def scatter_add(k: Any, input: Array, dim: int, index: Index, src: Array) -> Any:
    """A copy of `input` with each element of `src` added where `index` says along `dim`.

    index: integers, no longer than src, nor than input except along dim; src: of input's dtype.
    """
    dim = axis(input.ndim, dim)
    x, places = _with_axis(input), _with_axis(index)
    _check_along(k, x.shape, dim, places, _with_axis(src).shape)
    return k.scatter_add(input, dim, index, src)


@scatter_add.gradient
def _(g: Tensor, dim: int, index: Any, src_shape: tuple[int, ...], needs: Any) -> Any:
    return g, _back_to(gather(g, dim, index), src_shape) if needs[1] else None


def _back_to(g: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The gradient of a `src` of which the leading part only was used."""
    if len(shape) != g.ndim:
        return reshape(g, shape)
    corner = tuple([slice(n) for n in g.shape])
    return g if g.shape == shape else getitem_back(g, (*corner, Ellipsis), shape)


def _scatter_parts(
    input: Tensor, dim: int, index: Any, src: Any, name: str
) -> tuple[Tensor, tuple, Tensor]:
    """Target with axes, index of arrays and values of a `scatter`."""
    check_tensor(name, "input", input)
    check_tensor(name, "index", index)
    dim = axis(input.ndim, dim, name)
    k, places = kernels_for(input.array), _with_axis(index.array)
    values = match_dtype(input, src, name) if type(src) is Tensor else values_for(input, src, name)
    target = input if input.ndim else reshape(input, (1,))
    try:
        shape = _with_axis(values.array).shape if type(src) is Tensor else None
        _check_along(k, target.shape, dim, places, shape)
    except (DTypeError, OutOfRangeError, ShapeError) as error:
        error.operator = name
        error.got = ", ".join(str(x.shape) for x in (input, index, values))
        raise
    if type(src) is Tensor:
        values = getitem(values, (*[slice(n) for n in places.shape][: values.ndim], Ellipsis))
    return target, _mesh(k, places, dim), values


def _source(src: Any, value: Any, reduce: str | None, name: str) -> Any:
    if reduce not in (None, "add"):
        raise UnsupportedError(f"[{name}] reduce={reduce!r}: only 'add' is there")
    if (src is None) == (value is None):
        raise DTypeError("needs either src or value", operator=name)
    return value if src is None else src


def _added(input: Tensor, dim: int, index: Tensor, src: Any, name: str) -> Tensor:
    if type(src) is not Tensor:
        src = expand(values_for(input, src, name), index.shape)
    return scatter_add(input, dim, index, src)


@method("scatter")
def scatter(
    input: Tensor,
    dim: int,
    index: Tensor,
    src: Any = None,
    *,
    value: Any = None,
    reduce: str | None = None,
) -> Tensor:
    """A copy of `input` with `src` (a tensor, or one number) where `index` says along `dim`.

    Shapes as in `scatter_add`, which is reduce="add". The last of repeated places wins.
    """
    src = _source(src, value, reduce, "scatter")
    if reduce == "add":
        return _added(input, dim, index, src, "scatter")
    target, places, values = _scatter_parts(input, dim, index, src, "scatter")
    return reshape(put(target, values, kept_index(places, input, values)), input.shape)


@method("scatter_")
def scatter_(
    input: Tensor,
    dim: int,
    index: Tensor,
    src: Any = None,
    *,
    value: Any = None,
    reduce: str | None = None,
) -> Tensor:
    """In-place form of `scatter`."""
    src = _source(src, value, reduce, "scatter_")
    if reduce == "add":
        recording = writable("scatter_", input)
        write("scatter_", input, _added(input, dim, index, src, "scatter_"), recording)
    else:
        store("scatter_", *_scatter_parts(input, dim, index, src, "scatter_"))
    return input


@op(promote=None)
def _scatter_best(
    k: Any, input: Array, dim: int, index: Index, src: Array, largest: bool, own: bool
) -> Any:
    """The largest (or smallest) of what meets at each place; `own`: with what `input` has there."""
    return k.scatter_reduce(input, dim, index, src, "amax" if largest else "amin", own)


@_scatter_best.gradient
def _(
    g: Tensor, input: Tensor, dim: int, index: Tensor, src: Tensor, out: Tensor, own: bool
) -> Any:
    """Shared by all that are equal to the result."""
    used = _corner(src, index.shape)
    mine = cast(eq(input, out), g.dtype)
    if not own:
        mine = mine * _untouched(input, dim, index)  # type: ignore[operator]
    theirs = cast(eq(used, gather(out, dim, index)), g.dtype)
    each = g / scatter_add(mine, dim, index, theirs)  # type: ignore[operator]
    return each * mine, _back_to(gather(each, dim, index) * theirs, src.shape)  # type: ignore[operator]


@op(promote=None)
def _scatter_prod(k: Any, input: Array, dim: int, index: Index, src: Array, own: bool) -> Any:
    return k.scatter_reduce(input, dim, index, src, "prod", own)


@_scatter_prod.gradient
def _(g: Tensor, input: Tensor, dim: int, index: Tensor, src: Tensor, own: bool) -> Any:
    """The products of the others: where one factor is 0, all of the gradient is that one's."""
    used = _corner(src, index.shape)
    zero, zeros_used = eq(input, 0), eq(used, 0)
    there = 1 if own else _untouched(input, dim, index)
    count = scatter_add(cast(zero, g.dtype) * there, dim, index, cast(zeros_used, g.dtype))  # type: ignore[operator]
    filled, filled_used = where(zero, 1, input), where(zeros_used, 1, used)
    scaled = g * _scatter_prod(filled, dim, index, filled_used, own)  # type: ignore[operator]

    def share(scaled: Tensor, factor: Tensor, is_zero: Tensor, count: Tensor) -> Tensor:
        return where(eq(count, cast(is_zero, count.dtype)), scaled / factor, 0)  # type: ignore[operator]

    theirs = share(gather(scaled, dim, index), filled_used, zeros_used, gather(count, dim, index))
    return share(scaled, filled, zero, count) * there, _back_to(theirs, src.shape)  # type: ignore[operator]


def _corner(src: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The part of `src` that an index of `shape` uses."""
    return src if src.shape == shape else getitem(src, (*[slice(n) for n in shape], Ellipsis))


def _untouched(input: Tensor, dim: int, index: Tensor) -> Tensor:
    """1 where `index` does not point along `dim`, 0 where it does."""
    k: Any = kernels_for(input.array)
    left = k.ones(input.shape, input.array.dtype)
    left[_mesh(k, index.array, dim)] = 0
    return constant(left)


_REDUCTIONS = ("sum", "prod", "mean", "amax", "amin")


@method("scatter_reduce")
def scatter_reduce(
    input: Tensor, dim: int, index: Tensor, src: Tensor, reduce: str, *, include_self: bool = True
) -> Tensor:
    """A copy of `input`, each element reduced with those of `src` that `index` sends there.

    Shapes as in `scatter_add`. reduce: "sum", "prod", "mean" (rounded down for integers), "amax" or
    "amin", whose equal elements share the gradient. With `include_self` False elements of `input`
    that are met do not count.
    """
    name = "scatter_reduce"
    for label, value in (("input", input), ("index", index), ("src", src)):
        check_tensor(name, label, value)
    if reduce not in _REDUCTIONS:
        rule = f"reduce must be one of {', '.join(_REDUCTIONS)}"
        raise ArgumentError(rule, operator=name, got=repr(reduce))
    if input.dtype != src.dtype:
        raise DTypeError("input and src must have one dtype", operator=name,
                         got=f"{input.dtype}, {src.dtype}")  # fmt: skip
    if not input.ndim:
        whole = [reshape(x, (1,)) for x in (input, index, src)]
        return reshape(scatter_reduce(whole[0], 0, *whole[1:], reduce, include_self=include_self),
                       ())  # fmt: skip
    dim, k = axis(input.ndim, dim, name), kernels_for(input.array)
    try:
        _check_along(k, input.shape, dim, index.array, src.shape)
    except (DTypeError, OutOfRangeError, ShapeError) as error:
        error.operator, error.got = name, f"{input.shape}, {index.shape}, {src.shape}"
        raise
    if reduce in ("amax", "amin"):
        return _scatter_best(input, dim, index, src, reduce == "amax", include_self)
    if reduce == "prod":
        return _scatter_prod(input, dim, index, src, include_self)
    start = input if include_self else input * _untouched(input, dim, index)  # type: ignore[operator]
    total = scatter_add(start, dim, index, src)
    if reduce == "sum":
        return total
    count = (k.ones if include_self else k.zeros)(input.shape, np.int64)
    if k.device == "cpu":
        np.add.at(count, _mesh(k, index.array, dim), 1)
    else:
        count = k.scatter_add(count, dim, index.array, k.ones(index.shape, np.int64))
    count = constant(k.maximum(count, 1))
    return total / count if input.dtype.kind == FLOAT else total // count  # type: ignore[operator]


method("scatter_reduce_")(in_place("scatter_reduce_", scatter_reduce))


def _in_place_sum(name: str, functional: Any) -> Any:
    """In-place form of an operator that adds: its gradient needs no value of the input."""

    def function(input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        recording = writable(name, input)
        write(name, input, functional(input, *args, **kwargs), recording)
        return input

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"In-place form of `{functional.__name__}`."
    return method(name)(function)


scatter_add_ = _in_place_sum("scatter_add_", scatter_add)


def _vector(k: Any, index: Any, size: int, dim: int, wrap: bool = False) -> Any:
    if index.ndim > 1:
        raise ShapeError("index must have one axis")
    _check_positions(k, index, size, dim, wrap)
    return index.reshape(-1)


@method("index_select")
@op(promote=None)
def index_select(k: Any, input: Array, dim: int, index: Index) -> Any:
    """The slices `index` of axis `dim`. index: (n,) integers -> input's shape, n along dim."""
    dim, x = axis(input.ndim, dim), _with_axis(input)
    places = _vector(k, index, x.shape[dim], dim)
    return k.take(x, places, axis=dim) if input.ndim else input[None][places].reshape(())


@index_select.gradient
def _(g: Tensor, dim: int, index: Any, input_shape: tuple[int, ...]) -> Any:
    return index_add(zeros_beside(g, input_shape), dim, index, g)


@method("index_add")
@op(promote="match")
def index_add(
    k: Any, input: Array, dim: int, index: Index, source: Array, *, alpha: float = 1
) -> Any:
    """A copy of `input` with `alpha * source[i]` added to slice `index[i]` of axis `dim`.

    index: (n,) integers; source: input's shape with n along dim, of its dtype.
    """
    dim, shape = axis(input.ndim, dim), _with_axis(input).shape
    places = _vector(k, index, shape[dim], dim)
    if _with_axis(source).shape != (*shape[:dim], places.size, *shape[dim + 1 :]):
        raise ShapeError("source must have the input's shape, with index's size along dim")
    return k.index_add(input, dim, places, source, alpha)


@index_add.gradient
def _(g: Tensor, dim: int, index: Any, alpha: float, source_shape: Any, needs: Any) -> Any:
    if not needs[1]:
        return g, None
    taken = reshape(index_select(g, dim, index), source_shape)
    return g, taken if alpha == 1 else taken * alpha  # type: ignore[operator]


index_add_ = _in_place_sum("index_add_", index_add)


def _copy_parts(
    input: Tensor, dim: int, index: Any, source: Any, name: str
) -> tuple[Tensor, tuple, Tensor]:
    """Target with axes, index of arrays and values of `index_copy` and `index_fill`."""
    check_tensor(name, "input", input)
    check_tensor(name, "index", index)
    fill = name.startswith("index_fill")
    dim = axis(input.ndim, dim, name)
    target = input if input.ndim else reshape(input, (1,))
    k: Any = kernels_for(input.array)
    try:
        places = _vector(k, index.array, target.shape[dim], dim, wrap=fill)
    except (DTypeError, OutOfRangeError, ShapeError) as error:
        error.operator = name
        raise
    if fill:
        places = k.unique(places)  # a place filled twice has no second share in the gradient
        values = values_for(input, source, name)
        fits = not values.ndim
    else:
        values = match_dtype(input, source, name)
        wanted = (*target.shape[:dim], places.size, *target.shape[dim + 1 :])
        fits = _with_axis(values.array).shape == wanted
    if not fits:
        rule = "value must be one number" if fill else "source must have index's size along dim"
        got = ", ".join(str(x.shape) for x in (input, index, values))
        raise ShapeError(rule, operator=name, got=got)
    return target, (*(slice(None),) * dim, places), values


@method("index_copy")
def index_copy(input: Tensor, dim: int, index: Tensor, source: Tensor) -> Tensor:
    """A copy of `input` with `source[i]` as slice `index[i]` of axis `dim`.

    index: (n,) integers; source: input's shape with n along dim, of its dtype.
    """
    target, places, values = _copy_parts(input, dim, index, source, "index_copy")
    return reshape(put(target, values, kept_index(places, input, values)), input.shape)


@method("index_copy_")
def index_copy_(input: Tensor, dim: int, index: Tensor, source: Tensor) -> Tensor:
    """In-place form of `index_copy`."""
    store("index_copy_", *_copy_parts(input, dim, index, source, "index_copy_"))
    return input


@method("index_fill")
def index_fill(input: Tensor, dim: int, index: Tensor, value: Any) -> Tensor:
    """A copy of `input` with the slices `index` of axis `dim` filled with one number.

    index: (n,) integers, which may count from the end; value: a number or a tensor of one.
    """
    target, places, values = _copy_parts(input, dim, index, value, "index_fill")
    return reshape(put(target, values, kept_index(places, input, values)), input.shape)


@method("index_fill_")
def index_fill_(input: Tensor, dim: int, index: Tensor, value: Any) -> Tensor:
    """In-place form of `index_fill`."""
    store("index_fill_", *_copy_parts(input, dim, index, value, "index_fill_"))
    return input


@method("take")
def take(input: Tensor, index: Tensor) -> Tensor:
    """The elements at the positions `index` in C order, which may count from the end.

    index: integers of any shape -> its shape.
    """
    if type(index) is not Tensor or index.array.dtype.kind not in "iu":
        raise DTypeError("index must be an integer Tensor", operator="take")
    flat = flatten(input)
    return index_at(flat, kept_index(placed_index(flat, (index.array,)), input))


@method("take_along_dim")
def take_along_dim(input: Tensor, indices: Tensor, dim: int | None = None) -> Tensor:
    """`gather` with broadcasting and indices that may count from the end.

    Without `dim`, positions in C order.
    """
    check_tensor("take_along_dim", "input", input)
    check_tensor("take_along_dim", "indices", indices)
    if indices.array.dtype.kind not in "iu":
        raise DTypeError("indices must be integers", operator="take_along_dim",
                         got=repr(indices.dtype))  # fmt: skip
    if dim is None:
        input, indices, dim = flatten(input), flatten(indices), 0
    dim = axis(input.ndim, dim, "take_along_dim")
    if not input.ndim or input.ndim != indices.ndim:
        got = f"{input.shape}, {indices.shape}"
        raise ShapeError("needs as many axes as indices", operator="take_along_dim", got=got)
    size = input.shape[dim]
    one = [(*x.shape[:dim], 1, *x.shape[dim + 1 :]) for x in (input, indices)]
    common = broadcast_shapes(*one)
    wide = [expand(x, (*common[:dim], x.shape[dim], *common[dim + 1 :])) for x in (input, indices)]
    places = wide[1].array
    places = kernels_for(places).where(places < 0, places + size, places)
    return gather(wide[0], dim, constant(places))


# ---------------------------------------------------------------- by a mask


def _scattered(input: Tensor, mask: Any, source: Any, name: str) -> tuple[Tensor, tuple, Tensor]:
    """Target with axes, index of where `mask` holds there, and the elements of `source` for it."""
    if type(mask) is not Tensor or mask.dtype.kind != BOOL:
        raise DTypeError("mask must be a bool Tensor", operator=name)
    target = input if input.ndim else reshape(input, (1,))
    held = expand(mask, target.shape).array
    source, index = match_dtype(input, source, name), placed_index(target, (held,))
    count = np.count_nonzero(held) if isinstance(held, np.ndarray) else len(index[0])
    if source.numel() < count:
        got = f"{source.shape}, {count} places"
        raise ShapeError("source has fewer elements than there are places", operator=name, got=got)
    return target, index, getitem(flatten(source), (slice(count), Ellipsis))


@method("masked_scatter")
def masked_scatter(input: Tensor, mask: Tensor, source: Tensor) -> Tensor:
    """A copy of `input` with the elements of `source`, in C order, where `mask` holds.

    input and mask broadcast; source: of input's dtype, with enough elements.
    """
    check_tensor("masked_scatter", "input", input)
    check_tensor("masked_scatter", "mask", mask)
    wide = broadcast_shapes(input.shape, mask.shape)
    target, index, values = _scattered(expand(input, wide), mask, source, "masked_scatter")
    return reshape(put(target, values, kept_index(index, input, source)), wide)


@method("masked_scatter_")
def masked_scatter_(input: Tensor, mask: Tensor, source: Tensor) -> Tensor:
    """In-place form of `masked_scatter`."""
    store("masked_scatter_", *_scattered(input, mask, source, "masked_scatter_"))
    return input
