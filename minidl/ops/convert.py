"""Copies and conversions: clone, dtype, device, contiguity."""

from __future__ import annotations

from typing import Any

import numpy as np

from minidl.autograd.op import Array, op
from minidl.dtypes import FLOAT, DType, dtype_of
from minidl.ops.method import method
from minidl.tensor import Tensor, as_device

__all__ = ["cast", "clone", "contiguous", "is_same_size", "to"]


@method("clone")
@op(promote=None)
def clone(k: Any, input: Array) -> Any:
    """A copy with its own elements, through which gradients flow."""
    return k.array(input, order="C")


@clone.gradient
def _(g: Tensor) -> Any:
    return g


@op(promote=None)
def _cast(k: Any, input: Array, dtype: Any) -> Any:
    return input.astype(dtype)


@_cast.gradient
def _(g: Tensor) -> Any:
    return g  # the engine casts it back


@op(promote=None, nondiff=True)
def _cast_exact(k: Any, input: Array, dtype: Any) -> Any:
    return input.astype(dtype)


def cast(input: Tensor, dtype: Any) -> Tensor:
    """The tensor in another dtype; itself if it has it already."""
    wanted: np.dtype = dtype if isinstance(dtype, np.dtype) else dtype_of(dtype).numpy
    if input.array.dtype == wanted:
        return input
    return (_cast if dtype_of(wanted).kind == FLOAT else _cast_exact)(input, wanted)


@method("contiguous")
def contiguous(input: Tensor, memory_format: Any = None) -> Tensor:
    """The tensor itself if its elements lie in C order, otherwise a copy that does."""
    return input if input.array.flags.c_contiguous else clone(input)


@method("to")
def to(
    input: Tensor,
    *args: Any,
    dtype: Any = None,
    device: Any = None,
    copy: bool = False,
    non_blocking: bool = False,
) -> Tensor:
    """The tensor in another dtype or on another device: `to(dtype)`, `to(device)`, `to(other)`."""
    for arg in args:
        if isinstance(arg, Tensor):
            dtype, device = arg.dtype, arg.device
        elif isinstance(arg, DType) or arg in (float, int, bool):
            dtype = arg
        elif not isinstance(arg, bool):
            device = arg
    as_device(device)
    result = input if dtype is None else cast(input, dtype)
    return clone(result) if copy and result is input else result


def _conversion(name: str, dtype: str) -> None:
    def convert(input: Tensor) -> Tensor:
        return cast(input, dtype)

    convert.__name__ = convert.__qualname__ = name
    convert.__doc__ = f"The tensor as {dtype}."
    method(name)(convert)


for _name, _dtype in {
    "double": "float64",
    "float": "float32",
    "half": "float16",
    "bfloat16": "bfloat16",
    "long": "int64",
    "int": "int32",
    "short": "int16",
    "char": "int8",
    "byte": "uint8",
    "bool": "bool",
}.items():
    _conversion(_name, _dtype)


_TYPE_NAMES = {
    "float64": "DoubleTensor",
    "float32": "FloatTensor",
    "float16": "HalfTensor",
    "bfloat16": "BFloat16Tensor",
    "int64": "LongTensor",
    "int32": "IntTensor",
    "int16": "ShortTensor",
    "int8": "CharTensor",
    "uint8": "ByteTensor",
    "bool": "BoolTensor",
}
_BY_TYPE_NAME = {name: dtype for dtype, name in _TYPE_NAMES.items()}


@method("type")
def _type(input: Tensor, dtype: Any = None, non_blocking: bool = False) -> Any:
    """The name of the tensor's type (`minidl.FloatTensor`), or the tensor in another dtype."""
    if dtype is None:
        return f"minidl.{_TYPE_NAMES[input.dtype.name]}"
    if isinstance(dtype, str):
        dtype = _BY_TYPE_NAME.get(dtype.removeprefix("minidl."), dtype)
    return cast(input, dtype)


@method("type_as")
def _type_as(input: Tensor, other: Tensor) -> Tensor:
    """The tensor in the dtype of `other`."""
    return cast(input, other.array.dtype)


@method("is_same_size")
def is_same_size(input: Tensor, other: Tensor) -> bool:
    """Whether both have the same shape."""
    return input.shape == other.shape
