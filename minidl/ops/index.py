"""Indexing of every kind, assignment, and look-ups along an axis."""

from __future__ import annotations

from typing import Any

import numpy as np

from minidl.autograd.op import Array, Index, constant, explain, op, writable, write
from minidl.backends import local
from minidl.dtypes import BOOL
from minidl.errors import DTypeError, OutOfRangeError, ShapeError, UnsupportedError
from minidl.ops.convert import cast
from minidl.ops.creation import zeros
from minidl.ops.method import method
from minidl.ops.views import axis, broadcast_shapes, expand, flatten, reshape
from minidl.tensor import Tensor

__all__ = [
    "argwhere",
    "gather",
    "getitem",
    "index_add",
    "index_copy",
    "index_fill",
    "index_put",
    "index_select",
    "masked_scatter",
    "narrow",
    "nonzero",
    "scatter",
    "scatter_add",
    "select",
    "take",
    "take_along_dim",
]

# ---------------------------------------------------------------- what an index says


def plain_index(index: Any) -> tuple[tuple, bool]:
    """The index as a tuple for raw arrays, and whether it selects a view.

    Takes integers, slices, None, Ellipsis, bool or integer tensors, arrays and lists; uint8 is a
    mask, as in PyTorch. An Ellipsis is appended to the index of a view, so that NumPy returns a
    0-d array (a view) instead of a scalar.
    """
    parts, is_view, ellipsis = [], True, False
    for part in index if type(index) is tuple else (index,):
        kind = type(part)
        if kind is int or part is None:
            pass
        elif part is Ellipsis:
            ellipsis = True
        elif kind is slice:
            if not (part.start is part.stop is part.step is None):
                ends = (part.start, part.stop, part.step)
                part = slice(*[None if v is None else _position(v) for v in ends])
        elif isinstance(part, Tensor | list | tuple | range | np.ndarray):
            part = part.array if isinstance(part, Tensor) else _listed(part)
            if part.dtype.kind not in "iub":
                raise DTypeError(
                    "indices must be integers or bool", operator="getitem", got=str(part.dtype)
                )
            if part.dtype == np.uint8:
                part = part.astype(np.bool_)
            if part.ndim or part.dtype.kind == "b":
                is_view = False
            else:
                part = int(part)
        elif kind is bool or kind is np.bool_:
            is_view, part = False, np.asarray(part)
        else:
            part = _position(part)
        parts.append(part)
    if is_view and not ellipsis:
        parts.append(Ellipsis)
    return tuple(parts), is_view


def _position(value: Any) -> int:
    try:
        return value.__index__()
    except AttributeError:
        raise DTypeError(
            "indices are integers, slices, None, ..., tensors or lists",
            operator="getitem",
            got=type(value).__name__,
        ) from None


def _listed(values: Any) -> np.ndarray:
    if isinstance(values, list | tuple):
        values = [int(v) if type(v) is Tensor else v for v in values]
    try:
        array = np.asarray(values)
    except ValueError:
        raise ShapeError("a list of indices must be regular", operator="getitem") from None
    return array if array.size or array.dtype.kind in "iub" else array.astype(np.int64)


def _parsed(index: Any) -> tuple[tuple, bool]:
    """`plain_index` of what stands between the brackets."""
    if type(index) is int:
        return (index, Ellipsis), True
    if type(index) is list and any(isinstance(v, list | tuple | slice) for v in index):
        raise UnsupportedError(
            "[getitem] a list of lists as the whole index means different things to NumPy and"
            " PyTorch; pass a tuple, or minidl.tensor(...)"
        )
    return plain_index(index)


def _resolved(input: Tensor, index: tuple) -> tuple[Tensor, tuple]:
    """The view that the integers of a mixed index select, and the index of what remains.

    PyTorch applies integers first; to NumPy they are index arrays too, which moves axes.
    """
    if not any(type(part) is int for part in index):
        return input, index
    basic, rest = [], []
    for part in index:
        if not isinstance(part, np.ndarray):
            basic.append(part)
            if type(part) is not int:
                rest.append(Ellipsis if part is Ellipsis else slice(None))
        elif part.ndim or part.dtype.kind != "b":
            basic += [slice(None)] * (part.ndim if part.dtype.kind == "b" else 1)
            rest.append(part)
        else:  # a single truth value is a mask over a new axis
            basic.append(None)
            rest.append(part.reshape(1))
    return _getitem(input, tuple(basic)), tuple(rest)


def _kept(index: tuple, *operands: Tensor) -> tuple:
    """The index with its arrays copied if a gradient will need them: users may write theirs."""
    if local.state.recording is False or not any(x.requires_grad for x in operands):
        return index
    return tuple([p.copy() if isinstance(p, np.ndarray) else p for p in index])


# ---------------------------------------------------------------- reading


@op(view=True)
def _getitem(k: Any, input: Array, index: tuple) -> Any:
    return input[index]


@_getitem.gradient
def _(g: Tensor, index: tuple, input_shape: tuple[int, ...]) -> Any:
    return _getitem_back(g, index, input_shape)


@op(promote=None)
def _getitem_back(k: Any, grad: Array, index: tuple, shape: tuple[int, ...]) -> Any:
    out = k.zeros(shape, grad.dtype)
    out[index] = grad
    return out


@_getitem_back.gradient
def _(g: Tensor, index: tuple) -> Any:
    return _getitem(g, index)


@op(promote=None)
def _index(k: Any, input: Array, index: tuple) -> Any:
    return input[index]


@_index.gradient
def _(g: Tensor, index: tuple, input_shape: tuple[int, ...]) -> Any:
    return _index_back(g, index, input_shape)


@op
def _index_back(k: Any, grad: Array, index: tuple, shape: tuple[int, ...]) -> Any:
    # a mask selects no place twice: what it selects is assigned, not added
    repeats = any(isinstance(p, np.ndarray) and p.dtype.kind != "b" for p in index)
    return k.index_put(k.zeros(shape, grad.dtype), index, grad, repeats)


@_index_back.gradient
def _(g: Tensor, index: tuple) -> Any:
    return _index(g, index)


@method("__getitem__")
def getitem(input: Tensor, index: Any) -> Tensor:
    """`input[index]`: a view for integers, slices, None and ...; a copy for tensors and lists.

    Slices may have negative steps. Raises OutOfRangeError for indices outside their axis, or of
    too many axes, DTypeError for indices that are neither integers nor bool.
    """
    plain, is_view = _parsed(index)
    if is_view:
        return _getitem(input, plain)
    input, plain = _resolved(input, plain)
    return _index(input, _kept(plain, input))


@method("select")
def select(input: Tensor, dim: int, index: int) -> Tensor:
    """The slice `index` of axis `dim`, which is removed (a view)."""
    dim = axis(input.ndim, dim, "select")
    return _getitem(input, (*(slice(None),) * dim, _position(index), Ellipsis))


@method("narrow")
def narrow(input: Tensor, dim: int, start: Any, length: int) -> Tensor:
    """`length` slices of axis `dim` from `start` on, which may count from the end (a view)."""
    dim = axis(input.ndim, dim, "narrow")
    size = input.shape[dim] if input.ndim else 0
    first = _position(start) + (size if start < 0 else 0)
    if not (first >= 0 and 0 <= length <= size - first):
        got = f"start {first}, length {length}"
        raise OutOfRangeError(f"axis {dim} has size {size}", operator="narrow", got=got)
    return _getitem(input, (*(slice(None),) * dim, slice(first, first + length), Ellipsis))


# ---------------------------------------------------------------- writing


@op(promote=None)
def _put(k: Any, input: Array, values: Array, index: tuple) -> Any:
    return k.index_put(input, index, values, False)


@_put.gradient
def _(g: Tensor, index: tuple, needs: Any) -> Any:
    return (
        _put(g, zeros((), dtype=g.dtype), index) if needs[0] else None,
        _index(g, index) if needs[1] else None,
    )


@op(promote="match")
def _put_add(k: Any, input: Array, values: Array, index: tuple) -> Any:
    return k.index_put(input, index, values, True)


@_put_add.gradient
def _(g: Tensor, index: tuple, needs: Any) -> Any:
    return g, _index(g, index) if needs[1] else None


def _values_for(input: Tensor, value: Any, name: str) -> Tensor:
    """What is to be written, in `input`'s dtype and without leading axes of size 1."""
    if type(value) is not Tensor:
        if not isinstance(value, bool | int | float | np.generic):
            got = type(value).__name__
            raise DTypeError("the value must be a number or a Tensor", operator=name, got=got)
        return constant(local.state.run(np.asarray(value).astype, input.array.dtype))
    while value.array.shape[:1] == (1,):
        value = reshape(value, value.array.shape[1:])
    return cast(value, input.array.dtype)


def _store(name: str, input: Tensor, index: tuple, values: Tensor) -> Tensor:
    """Write `values` to `input[index]`, an index with arrays."""
    recording = writable(name, input)
    if recording and (input.requires_grad or values.requires_grad):
        write(name, input, _put(input, values, _kept(index, input, values)), True)
        return input
    try:
        input.array[index] = values.array
    except (IndexError, ValueError) as error:
        error = explain(_put.op, error, input, values)
        error.operator = name  # type: ignore[attr-defined]
        raise error from None
    input.storage.version += 1
    return input


@method("__setitem__")
def _setitem(input: Tensor, index: Any, value: Any) -> None:
    """`input[index] = value`: the value broadcasts and is converted to the tensor's dtype.

    Where the index holds tensors, a value of several elements must have that dtype already.
    """
    plain, is_view = _parsed(index)
    if not is_view and type(value) is Tensor and value.array.size != 1:
        _match(input, value, "setitem")
    value = _values_for(input, value, "setitem")
    if is_view:
        target = _getitem(input, plain)
        write("setitem", target, value, writable("setitem", target))
    else:
        _store("setitem", *_resolved(input, plain), value)


def _match(input: Tensor, values: Any, name: str) -> Tensor:
    if type(values) is not Tensor or values.array.dtype != input.array.dtype:
        got = f"{input.dtype.name}, {getattr(values, 'dtype', type(values).__name__)}"
        raise DTypeError("values must be a Tensor of the same dtype", operator=name, got=got)
    return values


def _put_index(indices: Any, name: str) -> tuple:
    if not isinstance(indices, list | tuple):
        raise DTypeError("indices must be a tuple of Tensors", operator=name)
    parts = tuple([slice(None) if i is None else i for i in indices])
    if not all(type(i) is Tensor or type(i) is slice for i in parts):
        raise DTypeError("indices must be a tuple of Tensors", operator=name)
    plain = plain_index(parts)[0]
    return tuple([np.asarray(p) if type(p) is int else p for p in plain])


@method("index_put")
def index_put(input: Tensor, indices: Any, values: Tensor, accumulate: bool = False) -> Tensor:
    """A copy with `values` at `input[indices]`, or added there, each repeat counted.

    indices: tuple of integer or bool tensors (None: the whole axis); values: broadcastable to
    input[indices], of its dtype.
    """
    index = _put_index(indices, "index_put")
    values = _values_for(input, _match(input, values, "index_put"), "index_put")
    return (_put_add if accumulate else _put)(input, values, _kept(index, input, values))


@method("index_put_")
def index_put_(input: Tensor, indices: Any, values: Tensor, accumulate: bool = False) -> Tensor:
    """In-place form of `index_put`."""
    if accumulate:
        recording = writable("index_put_", input)
        write("index_put_", input, index_put(input, indices, values, True), recording)
        return input
    values = _values_for(input, _match(input, values, "index_put_"), "index_put_")
    return _store("index_put_", input, _put_index(indices, "index_put_"), values)


# ---------------------------------------------------------------- along an axis


def _check_positions(index: Any, size: int, dim: int, wrap: bool = False) -> None:
    """Indices are integers in [0, size), or in [-size, size) with `wrap`."""
    if index.dtype.kind not in "iu":
        raise DTypeError("index must be integers")
    if index.size:
        least, most = int(index.min()), int(index.max())
        if least < (-size if wrap else 0) or most >= size:
            bad = most if most >= size else least
            raise OutOfRangeError(f"index {bad} is out of bounds for axis {dim} with size {size}")


def _check_along(shape: tuple, dim: int, index: Any, src: tuple | None = None) -> None:
    """`index` has as many axes as the input, and is no longer except along `dim`."""
    if len(shape) != index.ndim or (src is not None and len(src) != index.ndim):
        raise ShapeError("index must have as many axes as the input (and src)")
    for i, n in enumerate(index.shape):
        if (i != dim and n > shape[i]) or (src is not None and n > src[i]):
            rule = f"index must not be longer than the input (except along axis {dim}) nor src"
            raise ShapeError(rule)
    _check_positions(index, shape[dim], dim)


def _mesh(index: Any, dim: int) -> tuple:
    """The index whose element i, j, ... is (i, index[i, j, ...], ...) with `dim` replaced."""
    n = index.ndim
    return tuple(
        index if i == dim else np.arange(size).reshape((-1,) + (1,) * (n - i - 1))
        for i, size in enumerate(index.shape)
    )


@method("gather")
@op(promote=None)
def gather(k: Any, input: Array, dim: int, index: Index) -> Any:
    """`out[i][j] = input[index[i][j]][j]` for dim 0, and so on for every axis.

    index: integers, as many axes as input and no longer except along dim -> index's shape.
    """
    dim = axis(input.ndim, dim)
    x, places = np.atleast_1d(input), np.atleast_1d(index)
    _check_along(x.shape, dim, places)
    x = x[tuple([slice(None) if i == dim else slice(n) for i, n in enumerate(places.shape)])]
    return k.take_along_axis(x, places, axis=dim).reshape(index.shape)


@gather.gradient
def _(g: Tensor, dim: int, index: Any, input_shape: tuple[int, ...]) -> Any:
    if len(input_shape) != g.ndim:  # one of them has no axis
        g, index = reshape(g, input_shape), reshape(index, input_shape)
    return scatter_add(zeros(input_shape, dtype=g.dtype), dim, index, g)


@method("scatter_add")
@op(promote="match")
def scatter_add(k: Any, input: Array, dim: int, index: Index, src: Array) -> Any:
    """A copy of `input` with each element of `src` added where `index` says along `dim`.

    index: integers, no longer than src, nor than input except along dim; src: of input's dtype.
    """
    dim = axis(input.ndim, dim)
    _check_along(np.atleast_1d(input).shape, dim, np.atleast_1d(index), np.atleast_1d(src).shape)
    return k.scatter_add(input, dim, index, src)


@scatter_add.gradient
def _(g: Tensor, dim: int, index: Any, src_shape: tuple[int, ...], needs: Any) -> Any:
    return g, _back_to(gather(g, dim, index), src_shape) if needs[1] else None


def _back_to(g: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The gradient of a `src` of which the leading part only was used."""
    if len(shape) != g.ndim:
        return reshape(g, shape)
    corner = tuple([slice(n) for n in g.shape])
    return g if g.shape == shape else _getitem_back(g, (*corner, Ellipsis), shape)


def _scatter_parts(
    input: Tensor, dim: int, index: Any, src: Any, name: str
) -> tuple[Tensor, tuple, Tensor]:
    """Target with axes, NumPy index and values of a `scatter`."""
    if type(index) is not Tensor:
        raise DTypeError("index must be a Tensor", operator=name, got=type(index).__name__)
    dim = axis(input.ndim, dim, name)
    places = np.atleast_1d(index.array)
    values = _match(input, src, name) if type(src) is Tensor else _values_for(input, src, name)
    target = input if input.ndim else reshape(input, (1,))
    try:
        shape = np.atleast_1d(values.array).shape if type(src) is Tensor else None
        _check_along(target.shape, dim, places, shape)
    except (DTypeError, OutOfRangeError, ShapeError) as error:
        error.operator = name
        error.got = ", ".join(str(x.shape) for x in (input, index, values))
        raise
    if type(src) is Tensor:
        values = _getitem(values, (*[slice(n) for n in places.shape][: values.ndim], Ellipsis))
    return target, _mesh(places, dim), values


def _source(src: Any, value: Any, reduce: str | None, name: str) -> Any:
    if reduce not in (None, "add"):
        raise UnsupportedError(f"[{name}] reduce={reduce!r}: only 'add' is there")
    if (src is None) == (value is None):
        raise DTypeError("needs either src or value", operator=name)
    return value if src is None else src


def _added(input: Tensor, dim: int, index: Tensor, src: Any, name: str) -> Tensor:
    if type(src) is not Tensor:
        src = expand(_values_for(input, src, name), index.shape)
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
    return reshape(_put(target, values, _kept(places, input, values)), input.shape)


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
        _store("scatter_", *_scatter_parts(input, dim, index, src, "scatter_"))
    return input


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


def _vector(index: Any, size: int, dim: int, wrap: bool = False) -> Any:
    if index.ndim > 1:
        raise ShapeError("index must have one axis")
    _check_positions(index, size, dim, wrap)
    return index.reshape(-1)


@method("index_select")
@op(promote=None)
def index_select(k: Any, input: Array, dim: int, index: Index) -> Any:
    """The slices `index` of axis `dim`. index: (n,) integers -> input's shape, n along dim."""
    dim, x = axis(input.ndim, dim), np.atleast_1d(input)
    places = _vector(index, x.shape[dim], dim)
    return k.take(x, places, axis=dim) if input.ndim else input[None][places].reshape(())


@index_select.gradient
def _(g: Tensor, dim: int, index: Any, input_shape: tuple[int, ...]) -> Any:
    return index_add(zeros(input_shape, dtype=g.dtype), dim, index, g)


@method("index_add")
@op(promote="match")
def index_add(
    k: Any, input: Array, dim: int, index: Index, source: Array, *, alpha: float = 1
) -> Any:
    """A copy of `input` with `alpha * source[i]` added to slice `index[i]` of axis `dim`.

    index: (n,) integers; source: input's shape with n along dim, of its dtype.
    """
    dim, shape = axis(input.ndim, dim), np.atleast_1d(input).shape
    places = _vector(index, shape[dim], dim)
    if np.atleast_1d(source).shape != (*shape[:dim], places.size, *shape[dim + 1 :]):
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
    """Target with axes, NumPy index and values of `index_copy` and `index_fill`."""
    if type(index) is not Tensor:
        raise DTypeError("index must be a Tensor", operator=name, got=type(index).__name__)
    fill = name.startswith("index_fill")
    dim = axis(input.ndim, dim, name)
    target = input if input.ndim else reshape(input, (1,))
    try:
        places = _vector(index.array, target.shape[dim], dim, wrap=fill)
    except (DTypeError, OutOfRangeError, ShapeError) as error:
        error.operator = name
        raise
    if fill:
        places = np.unique(places)  # a place filled twice has no second share in the gradient
        values = _values_for(input, source, name)
        fits = not values.ndim
    else:
        values = _match(input, source, name)
        wanted = (*target.shape[:dim], places.size, *target.shape[dim + 1 :])
        fits = np.atleast_1d(values.array).shape == wanted
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
    return reshape(_put(target, values, _kept(places, input, values)), input.shape)


@method("index_copy_")
def index_copy_(input: Tensor, dim: int, index: Tensor, source: Tensor) -> Tensor:
    """In-place form of `index_copy`."""
    _store("index_copy_", *_copy_parts(input, dim, index, source, "index_copy_"))
    return input


@method("index_fill")
def index_fill(input: Tensor, dim: int, index: Tensor, value: Any) -> Tensor:
    """A copy of `input` with the slices `index` of axis `dim` filled with one number.

    index: (n,) integers, which may count from the end; value: a number or a tensor of one.
    """
    target, places, values = _copy_parts(input, dim, index, value, "index_fill")
    return reshape(_put(target, values, _kept(places, input, values)), input.shape)


@method("index_fill_")
def index_fill_(input: Tensor, dim: int, index: Tensor, value: Any) -> Tensor:
    """In-place form of `index_fill`."""
    _store("index_fill_", *_copy_parts(input, dim, index, value, "index_fill_"))
    return input


@method("take")
def take(input: Tensor, index: Tensor) -> Tensor:
    """The elements at the positions `index` in C order, which may count from the end.

    index: integers of any shape -> its shape.
    """
    if type(index) is not Tensor or index.array.dtype.kind not in "iu":
        raise DTypeError("index must be an integer Tensor", operator="take")
    return _index(flatten(input), _kept((index.array,), input))


@method("take_along_dim")
def take_along_dim(input: Tensor, indices: Tensor, dim: int | None = None) -> Tensor:
    """`gather` with broadcasting and indices that may count from the end.

    Without `dim`, positions in C order.
    """
    if dim is None:
        input, indices, dim = flatten(input), flatten(indices), 0
    dim = axis(input.ndim, dim, "take_along_dim")
    if input.ndim != indices.ndim:
        got = f"{input.shape}, {indices.shape}"
        raise ShapeError("needs as many axes as indices", operator="take_along_dim", got=got)
    size = input.shape[dim]
    one = [(*x.shape[:dim], 1, *x.shape[dim + 1 :]) for x in (input, indices)]
    common = broadcast_shapes(*one)
    wide = [expand(x, (*common[:dim], x.shape[dim], *common[dim + 1 :])) for x in (input, indices)]
    places = np.where(wide[1].array < 0, wide[1].array + size, wide[1].array)
    return gather(wide[0], dim, constant(places))


# ---------------------------------------------------------------- by a condition


@op(nondiff=True, promote=None)
def _nonzero(k: Any, input: Array) -> Any:
    found = np.array(k.nonzero(np.atleast_1d(input))).T
    return np.ascontiguousarray(found[:, : input.ndim])


@method("nonzero")
def nonzero(input: Tensor, *, as_tuple: bool = False) -> Any:
    """The indices (int64) of the elements that are not 0: (count, axes), or one per axis."""
    if not as_tuple:
        return _nonzero(input)
    found = _nonzero(input if input.ndim else reshape(input, (1,)))
    return tuple([select(found, 1, i) for i in range(found.shape[1])])


@method("argwhere")
def argwhere(input: Tensor) -> Tensor:
    """The indices (int64) of the elements that are not 0, one row (count, axes) each."""
    return _nonzero(input)


def _scattered(input: Tensor, mask: Any, source: Any, name: str) -> tuple[Tensor, Tensor]:
    """A mask of `input`'s shape and the elements of `source` that go there."""
    if type(mask) is not Tensor or mask.dtype.kind != BOOL:
        raise DTypeError("mask must be a bool Tensor", operator=name)
    mask = expand(mask, input.shape)
    source, count = _match(input, source, name), np.count_nonzero(mask.array)
    if source.numel() < count:
        got = f"{source.shape}, {count} places"
        raise ShapeError("source has fewer elements than there are places", operator=name, got=got)
    return mask, _getitem(flatten(source), (slice(count), Ellipsis))


@method("masked_scatter")
def masked_scatter(input: Tensor, mask: Tensor, source: Tensor) -> Tensor:
    """A copy of `input` with the elements of `source`, in C order, where `mask` holds.

    input and mask broadcast; source: of input's dtype, with enough elements.
    """
    wide = broadcast_shapes(input.shape, mask.shape)
    target = expand(input, wide)
    mask, values = _scattered(target, mask, source, "masked_scatter")
    return _put(target, values, _kept((mask.array,), input, source))


@method("masked_scatter_")
def masked_scatter_(input: Tensor, mask: Tensor, source: Tensor) -> Tensor:
    """In-place form of `masked_scatter`."""
    mask, values = _scattered(input, mask, source, "masked_scatter_")
    return _store("masked_scatter_", input, (mask.array,), values)
