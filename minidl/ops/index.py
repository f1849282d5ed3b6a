"""Indexing of every kind, and assignment."""

from __future__ import annotations

from typing import Any

import numpy as np

from minidl.autograd.op import Array, constant, in_place, op, write, writable
from minidl.dtypes import BOOL, FLOAT
from minidl.errors import DTypeError
from minidl.ops.method import method
from minidl.tensor import Tensor


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
    return k.index_put(k.zeros(shape, grad.dtype), index, grad, True)


@_index_back.gradient
def _(g: Tensor, index: tuple) -> Any:
    return _index(g, index)


def plain_index(index: Any) -> tuple[tuple, bool]:
    """The index as a tuple for raw arrays, and whether it selects a view.

    Takes integers, slices, None, Ellipsis, bool or integer tensors, arrays and lists. An Ellipsis
    is appended, so that NumPy returns a 0-d array (a view) instead of a scalar.
    """
    parts, is_view, ellipsis = [], True, False
    for part in index if type(index) is tuple else (index,):
        kind = type(part)
        if part is Ellipsis:
            ellipsis = True
        elif kind is Tensor or kind is list or isinstance(part, np.ndarray):
            part = part.array if kind is Tensor else _listed(part)
            if part.dtype.kind not in "iub":
                raise DTypeError("indices must be integers or bool", operator="getitem",
                                 got=str(part.dtype))
            if part.ndim or part.dtype.kind == "b":
                is_view = False
            else:
                part = int(part)
        elif kind is bool or kind is np.bool_:
            is_view = False
        elif kind is slice:
            part = slice(*(None if v is None else v.__index__()
                           for v in (part.start, part.stop, part.step)))
        elif part is not None:
            try:
                part = part.__index__()
            except AttributeError:
                raise DTypeError(
                    "indices are integers, slices, None, ..., tensors or lists",
                    operator="getitem", got=kind.__name__,
                ) from None
        parts.append(part)
    if is_view and not ellipsis:
        parts.append(Ellipsis)
    return tuple(parts), is_view


def _listed(values: Any) -> np.ndarray:
    array = np.array([int(v) if type(v) is Tensor else v for v in values]
                     if type(values) is list and any(type(v) is Tensor for v in values) else values)
    return array.astype(np.int64) if not array.size else array


@method("__getitem__")
def getitem(input: Tensor, index: Any) -> Tensor:
    """`input[index]`: a view for integers, slices, None and ...; a copy for tensors and lists."""
    plain, is_view = plain_index(index)
    return (_getitem if is_view else _index)(input, plain)
