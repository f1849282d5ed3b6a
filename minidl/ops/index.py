"""Indexing of every kind, and assignment."""

from __future__ import annotations

from typing import Any

import numpy as np

from minidl.autograd.op import Array, constant, explain, op, writable, write
from minidl.backends import kernels_for, local
from minidl.errors import DeviceError, DTypeError, OutOfRangeError, ShapeError, UnsupportedError
from minidl.ops.convert import cast, number_for
from minidl.ops.method import method
from minidl.ops.views import axis, reshape
from minidl.tensor import Tensor

__all__ = [
    "argwhere",
    "index_put",
    "narrow",
    "nonzero",
    "select",
]

# ---------------------------------------------------------------- what an index says


def plain_index(index: Any) -> tuple[tuple, bool]:
    """The index as a tuple for raw arrays, and whether it selects a view.

    Its arrays are where their tensors are; `placed_index` moves them to the tensor that is indexed.
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
                part = slice(*[None if v is None else position(v) for v in ends])
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
                part = int(kernels_for(part).host(part))
        elif kind is bool or kind is np.bool_:
            is_view, part = False, np.asarray(part)
        else:
            part = position(part)
        parts.append(part)
    if is_view and not ellipsis:
        parts.append(Ellipsis)
    return tuple(parts), is_view


def position(value: Any) -> int:
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


def _is_array(part: Any) -> bool:
    """Whether a part of an index is an array: the others are int, slice, None and Ellipsis."""
    return hasattr(part, "ndim")


def _is_mask(part: Any) -> bool:
    return _is_array(part) and part.dtype.kind == "b"


def placed_index(input: Tensor, index: tuple) -> tuple:
    """The index with its arrays where `input` is.

    On a GPU, where nobody else does: masks become the positions where they hold, which waits for
    their number, and positions are checked. Those out of range wrap around; the error is noted.
    """
    if type(input.array) is np.ndarray:
        if any([_is_array(part) and type(part) is not np.ndarray for part in index]):
            raise DeviceError("an index of a tensor on the CPU must be there, too; use .cpu()")
        return index
    k: Any = kernels_for(input.array)
    taken = [p.ndim if _is_mask(p) else 1 for p in index if p is not None and p is not Ellipsis]
    parts, axis = [], 0
    for part in index:
        if part is Ellipsis:
            axis += input.ndim - sum(taken)
        elif _is_mask(part):
            if not part.ndim:
                raise UnsupportedError("[index_put] masks need axes on a GPU; reshape both to (1,)")
            for i, n in enumerate(part.shape, axis):
                if input.shape[i : i + 1] != (n,):
                    rule = f"a mask must have the shape of the axes from {axis} on"
                    raise OutOfRangeError(rule, operator="getitem",
                                          got=f"{part.shape} of {input.shape}")  # fmt: skip
            parts += k.nonzero(k.asarray(part))
            axis += part.ndim
            continue
        elif _is_array(part) and axis < input.ndim:
            part, size = k.asarray(part), input.shape[axis]
            rule = f"an index is out of bounds for axis {axis} with size {size}"
            k.refuse(k.logical_or(part < -size, part >= size), OutOfRangeError(rule))
            axis += 1
        elif part is not None:
            axis += 1
        parts.append(part)
    return tuple(parts)


def _parsed(index: Any) -> tuple[tuple, bool]:
    """`plain_index` of what stands between the brackets."""
    if type(index) is int:
        return (index, Ellipsis), True
    if type(index) is list and any(isinstance(v, list | tuple | slice | Tensor) for v in index):
        raise UnsupportedError(
            "[getitem] a list that holds lists, slices or tensors as the whole index means"
            " different things to NumPy and PyTorch; pass a tuple, or minidl.tensor(...)"
        )
    return plain_index(index)


def _resolved(input: Tensor, index: tuple) -> tuple[Tensor, tuple]:
    """The view that the integers of a mixed index select, and the index of what remains.

    PyTorch applies integers first; to NumPy they are index arrays too, which moves axes.
    """
    if not any(type(part) is int for part in index):
        on_gpu = type(input.array) is not np.ndarray
        if not (on_gpu and any(_is_mask(part) and not part.ndim for part in index)):
            return input, index
    basic, rest = [], []
    for part in index:
        if not _is_array(part):
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


def kept_index(index: tuple, *operands: Tensor) -> tuple:
    """The index with its arrays copied if a gradient will need them: users may write theirs."""
    if local.state.recording is False or not any(x.requires_grad for x in operands):
        return index
    return tuple([p.copy() if _is_array(p) else p for p in index])


# ---------------------------------------------------------------- reading


@op(view=True)
def _getitem(k: Any, input: Array, index: tuple) -> Any:
    return input[index]


@_getitem.gradient
def _(g: Tensor, index: tuple, input_shape: tuple[int, ...]) -> Any:
    return getitem_back(g, index, input_shape)


@op(promote=None)
def getitem_back(k: Any, grad: Array, index: tuple, shape: tuple[int, ...]) -> Any:
    out = k.zeros(shape, grad.dtype)
    out[index] = grad
    return out


@getitem_back.gradient
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
    repeats = any(_is_array(p) and p.dtype.kind != "b" for p in index)
    return k.index_put(k.zeros(shape, grad.dtype), index, grad, repeats)


@_index_back.gradient
def _(g: Tensor, index: tuple) -> Any:
    return _index(g, index)


def zeros_beside(g: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Zeros of `shape` with the dtype of a gradient, on its device."""
    return constant(kernels_for(g.array).zeros(shape, g.array.dtype))


index_at = _index  # where an argument has that name


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
    return _index(input, kept_index(placed_index(input, plain), input))


@method("select")
def select(input: Tensor, dim: int, index: int) -> Tensor:
    """The slice `index` of axis `dim`, which is removed (a view)."""
    dim = axis(input.ndim, dim, "select")
    return _getitem(input, (*(slice(None),) * dim, position(index), Ellipsis))


@method("narrow")
def narrow(input: Tensor, dim: int, start: Any, length: int) -> Tensor:
    """`length` slices of axis `dim` from `start` on, which may count from the end (a view)."""
    dim = axis(input.ndim, dim, "narrow")
    size = input.shape[dim] if input.ndim else 0
    first = position(start) + (size if start < 0 else 0)
    if not (first >= 0 and 0 <= length <= size - first):
        got = f"start {first}, length {length}"
        raise OutOfRangeError(f"axis {dim} has size {size}", operator="narrow", got=got)
    return _getitem(input, (*(slice(None),) * dim, slice(first, first + length), Ellipsis))


# ---------------------------------------------------------------- writing


@op(promote=None)
def _index_put(k: Any, input: Array, values: Array, index: tuple) -> Any:
    return k.index_put(input, index, values, False)


@_index_put.gradient
def _(g: Tensor, index: tuple, needs: Any) -> Any:
    return (
        put(g, zeros_beside(g, ()), index) if needs[0] else None,
        _index(g, index) if needs[1] else None,
    )


put = _index_put


@op(promote="match")
def _index_put_add(k: Any, input: Array, values: Array, index: tuple) -> Any:
    return k.index_put(input, index, values, True)


@_index_put_add.gradient
def _(g: Tensor, index: tuple, needs: Any) -> Any:
    return g, _index(g, index) if needs[1] else None


def values_for(input: Tensor, value: Any, name: str) -> Tensor:
    """What is to be written, in `input`'s dtype and without leading axes of size 1."""
    if type(value) is not Tensor:
        return constant(number_for(name, input.dtype, value, infinite=name == "setitem"))
    while value.array.shape[:1] == (1,):
        value = reshape(value, value.array.shape[1:])
    return cast(value, input.array.dtype)


def _beside(input: Tensor, values: Tensor) -> Tensor:
    """One number where `input` is: arrays of a GPU take none of the CPU."""
    if type(values.array) is type(input.array):
        return values
    if values.ndim or values.is_cuda:
        raise DeviceError("the values must be where the tensor is; move them with .to(device)",
                          operator="setitem", got=f"{values.device}, {input.device}")  # fmt: skip
    number = values.array
    return constant(kernels_for(input.array).full((), number[()], number.dtype))


def store(name: str, input: Tensor, index: tuple, values: Tensor) -> Tensor:
    """Write `values` to `input[index]`, an index with arrays."""
    recording = writable(name, input)
    if recording and (input.requires_grad or values.requires_grad):
        write(name, input, put(input, values, kept_index(index, input, values)), True)
        return input
    try:
        input.array[index] = _beside(input, values).array
    except (IndexError, ValueError) as error:
        error = explain(_index_put.op, error, input, values)
        error.operator = name  # type: ignore[attr-defined]
        raise error from None
    input.storage.version += 1
    return input


@method("__setitem__")
def _setitem(input: Tensor, index: Any, value: Any) -> None:
    """`input[index] = value`: the value broadcasts and is converted to the tensor's dtype.

    Where the index holds tensors, a value must have that dtype already (but for one number where
    a mask holds).
    """
    plain, is_view = _parsed(index)
    if not is_view and type(value) is Tensor:
        _check_put(input, plain, value, "setitem")
    value = values_for(input, value, "setitem")
    if is_view:
        target = _getitem(input, plain)
        write("setitem", target, value, writable("setitem", target))
    else:
        target, plain = _resolved(input, plain)
        store("setitem", target, placed_index(target, plain), value)


def match_dtype(input: Tensor, values: Any, name: str) -> Tensor:
    if type(values) is not Tensor or values.array.dtype != input.array.dtype:
        got = f"{input.dtype.name}, {getattr(values, 'dtype', type(values).__name__)}"
        raise DTypeError("values must be a Tensor of the same dtype", operator=name, got=got)
    return values


def _check_put(input: Tensor, index: tuple, values: Any, name: str) -> None:
    """Values have the input's dtype; one number that fills a mask may have any."""
    masks = all(p.dtype.kind == "b" for p in index if _is_array(p))
    if not (masks and type(values) is Tensor and values.array.size == 1):
        match_dtype(input, values, name)


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
    _check_put(input, index, values, "index_put")
    index = placed_index(input, index)
    values = values_for(input, values, "index_put")
    return (_index_put_add if accumulate else put)(input, values, kept_index(index, input, values))


@method("index_put_")
def index_put_(input: Tensor, indices: Any, values: Tensor, accumulate: bool = False) -> Tensor:
    """In-place form of `index_put`."""
    if accumulate:
        recording = writable("index_put_", input)
        write("index_put_", input, index_put(input, indices, values, True), recording)
        return input
    index = _put_index(indices, "index_put_")
    _check_put(input, index, values, "index_put_")
    index = placed_index(input, index)
    return store("index_put_", input, index, values_for(input, values, "index_put_"))


# ---------------------------------------------------------------- by a condition


@op(nondiff=True, promote=None)
def _nonzero(k: Any, input: Array) -> Any:
    found = k.array(k.nonzero(input if input.ndim else input.reshape(1))).T
    return k.ascontiguousarray(found[:, : input.ndim])


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
