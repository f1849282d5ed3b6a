"""Copies and conversions: clone, dtype, device, contiguity."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minidl.autograd.op import Array, constant, op
from minidl.backends import cuda, local, moved
from minidl.dtypes import (
    FLOAT,
    FLOATS,
    HALVES,
    INTEGER,
    INTEGERS,
    DType,
    bool_,
    dtype_of,
    finfo,
    float64,
    iinfo,
)
from minidl.errors import ArgumentError, DeviceError, DTypeError, UnsupportedError
from minidl.ops.method import check_tensor, method
from minidl.tensor import Tensor, as_device

__all__ = [
    "clone",
    "is_complex",
    "is_floating_point",
    "is_nonzero",
    "is_same_size",
    "is_signed",
    "is_tensor",
    "numel",
    "resolve_conj",
    "resolve_neg",
]


def is_tensor(obj: Any) -> bool:
    """Whether `obj` is a Tensor."""
    return isinstance(obj, Tensor)


@method("nelement")
def numel(input: Tensor) -> int:
    """Number of elements."""
    check_tensor("numel", "input", input)
    return input.numel()


def widened(x: Tensor) -> Tensor:
    """Half types as float32: what a kernel computes in float32 a composite must, too."""
    return cast(x, np.dtype(np.float32)) if x.dtype in HALVES else x


def is_floating_point(input: Tensor) -> bool:
    """Whether the dtype is a floating point one."""
    check_tensor("is_floating_point", "input", input)
    return input.is_floating_point()


@method("is_complex", "is_conj", "is_neg")
def is_complex(input: Tensor) -> bool:
    """False: all dtypes are real."""
    check_tensor("is_complex", "input", input)
    return False


@method("is_signed")
def is_signed(input: Tensor) -> bool:
    """Whether the dtype has negative numbers."""
    check_tensor("is_signed", "input", input)
    return input.array.dtype.kind not in "ub"


@method("is_nonzero")
def is_nonzero(input: Tensor) -> bool:
    """Whether the one element is not 0."""
    return bool(input)


@method("conj", "resolve_conj", "resolve_neg")
def resolve_conj(input: Tensor) -> Tensor:
    """The tensor itself, all dtypes being real."""
    check_tensor("resolve_conj", "input", input)
    return input


resolve_neg = resolve_conj
setattr(Tensor, "real", property(resolve_conj))  # noqa: B010 - not one that Tensor declares


@method("ndimension")
def _ndimension(input: Tensor) -> int:
    """The number of axes."""
    return input.ndim


@method("get_device")
def _get_device(input: Tensor) -> int:
    """The number of its GPU; -1: the CPU."""
    return -1 if input.device.index is None else input.device.index


setattr(Tensor, "is_cpu", property(lambda input: not input.is_cuda))  # noqa: B010


@method("clone")
@op(promote=None)
def clone(k: Any, input: Array) -> Any:
    """A copy with its own elements, through which gradients flow."""
    return k.copy(input)


@clone.gradient
def _(g: Tensor) -> Any:
    return g


@op(promote=None)
def _cast(k: Any, input: Array, dtype: Any) -> Any:
    return k.cast(input, dtype)


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


@op(promote=None)
def _to_device(k: Any, input: Array, target: Any, source: Any) -> Any:
    return moved(input, target)


@_to_device.gradient
def _(g: Tensor, target: Any, source: Any) -> Any:
    return _to_device(g, source, target)


@method("contiguous")
def contiguous(input: Tensor, memory_format: Any = None) -> Tensor:
    """The tensor itself if its elements lie in C order, otherwise a copy that does."""
    check_tensor("contiguous", "input", input)
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
    """The tensor in another dtype or on another device: `to(dtype)`, `to(device)`, `to(other)`.

    Gradients flow back to where it was. non_blocking changes nothing: copies to a GPU are queued
    behind its kernels anyway, copies from it wait. Raises DeviceError where there is no such GPU.
    """
    for arg in args:
        if isinstance(arg, Tensor):
            dtype, device = arg.dtype, arg.device
        elif isinstance(arg, DType) or arg in (float, int, bool):
            dtype = arg
        elif not isinstance(arg, bool):
            device = arg
    check_tensor("to", "input", input)
    result = input if dtype is None else cast(input, dtype)
    where = input.device if device is None else as_device(device)
    if where.index not in (None, result.device.index) and result.is_cuda and where.type == "cuda":
        raise UnsupportedError(
            "tensors are not moved from one GPU to another; go by .cpu()",
            operator="to",
            got=f"{result.device} to {where}",
        )
    if where.type != result.device.type:
        result = _to_device(result, where, input.device)
    return clone(result) if copy and result is input else result


@method("cpu")
def _cpu(input: Tensor, memory_format: Any = None) -> Tensor:
    """The tensor on the CPU: itself if it is there."""
    return to(input, device="cpu")


@method("cuda")
def _cuda(input: Tensor, device: Any = None, non_blocking: bool = False) -> Tensor:
    """The tensor on a GPU; raises DeviceError where this build has none."""
    return to(input, device="cuda" if device is None else device)


@method("pin_memory")
def _pin_memory(input: Tensor, device: Any = None) -> Tensor:
    """A copy in memory that the system does not move, from which copies to a GPU are faster.

    The tensor itself if it is there. Raises DeviceError without a GPU and for a tensor on one.
    """
    if input.is_cuda:
        raise DeviceError("needs a tensor on the CPU", operator="pin_memory", got=str(input.device))
    return input if _is_pinned(input) else constant(cuda.pinned_copy(input.array))


@method("is_pinned")
def _is_pinned(input: Tensor, device: Any = None) -> bool:
    """Whether the elements are in memory of `pin_memory`."""
    return not input.is_cuda and cuda.is_pinned(input.array)


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


# the numbers that may be written; negative ones wrap in unsigned dtypes, as in PyTorch
_LIMITS: dict[DType, tuple[float, float]] = {
    **{d: (iinfo(d).min or -iinfo(d).max, iinfo(d).max) for d in INTEGERS},
    **{d: (finfo(d).min, finfo(d).max) for d in FLOATS},
    bool_: (-math.inf, math.inf),
}


def converted(array: np.ndarray, dtype: DType) -> np.ndarray:
    """`array`, freshly made, in `dtype`; half dtypes round from float32."""
    if dtype in HALVES:
        array = local.state.run(array.astype, np.float32)
    return local.state.run(array.astype, dtype.numpy, copy=False)


def number_for(
    name: str, dtype: DType, value: Any, *, infinite: bool = False, wrap: bool = True
) -> np.ndarray:
    """A number that operator `name` writes, as a 0-d array of `dtype`, which must hold it.

    infinite: what is too large for a floating point dtype becomes infinite; wrap: unsigned dtypes
    take negative numbers.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if not isinstance(value, bool | int | float):
        got = type(value).__name__
        raise DTypeError("value must be a number or a Tensor", operator=name, got=got)
    least, most = _LIMITS[float64 if infinite and dtype.kind == FLOAT else dtype]
    least = least if wrap or dtype.is_signed else 0
    special = dtype.kind != INTEGER and not abs(value) < math.inf
    if not (least <= value <= most or special):
        raise ArgumentError(f"the value does not fit into {dtype.name}", operator=name,
                            got=repr(value))  # fmt: skip
    return converted(np.asarray(int(value) if dtype.kind == INTEGER else value), dtype)
