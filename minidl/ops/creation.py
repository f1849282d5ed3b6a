"""Tensors from data, sizes and ranges. Nothing here is differentiated; values are NumPy's.

The interface is PyTorch's (`torch.tensor`, `torch.zeros`, ...) without `out`, `layout` and
`pin_memory`. All functions take `dtype`, `device` and `requires_grad`.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from minidl.autograd.op import constant
from minidl.backends import local, moved, on_device
from minidl.dtypes import (
    BOOL,
    FLOAT,
    FROM_NUMPY,
    INTEGER,
    DType,
    bool_,
    dtype_of,
    float64,
    get_default_dtype,
    iinfo,
    int64,
    promote_types,
)
from minidl.errors import ArgumentError, DTypeError, OutOfMemoryError, ShapeError
from minidl.ops.convert import converted, number_for
from minidl.ops.method import method
from minidl.tensor import Tensor, as_device

__all__ = [
    "arange",
    "as_tensor",
    "empty",
    "empty_like",
    "eye",
    "from_numpy",
    "full",
    "full_like",
    "linspace",
    "logspace",
    "ones",
    "ones_like",
    "scalar_tensor",
    "tensor",
    "tril_indices",
    "triu_indices",
    "zeros",
    "zeros_like",
]

_MAX_AXES = 64  # NumPy's limit


def sizes(args: Any, name: str | None = None) -> tuple[int, ...]:
    """Integers given one by one or as one sequence; `name` is the operator of the error."""
    if len(args) == 1 and isinstance(args[0], list | tuple):
        args = args[0]
    try:
        return tuple(map(operator.index, args))
    except TypeError:
        raise DTypeError("sizes must be integers", operator=name, got=repr(tuple(args))) from None


def named(args: Any, value: Any, name: str) -> tuple[int, ...]:
    """`sizes` of what is given by position, or as `value` by its name."""
    if value is None:
        return sizes(args, name)
    if args:
        raise ArgumentError("sizes or axes are given twice", operator=name, got=f"{args}, {value}")
    return sizes((value,), name)


def _number(value: Any, name: str) -> bool | int | float:
    """A Python number for a number or a tensor of one element."""
    if type(value) is Tensor or isinstance(value, np.generic):
        value = value.item()
    if not isinstance(value, bool | int | float):
        raise DTypeError("needs a real number", operator=name, got=repr(value))
    return value


def _finished(array: np.ndarray, requires_grad: bool) -> Tensor:
    result = constant(array)
    return result.requires_grad_() if requires_grad else result


# ---------------------------------------------------------------- from data


def _leaf(value: Any) -> DType:
    """The dtype of one element of nested lists."""
    if isinstance(value, bool | np.bool_):
        return bool_
    if isinstance(value, np.generic | np.ndarray):
        return _supported(value.dtype, "tensor")
    if type(value) is Tensor:
        if value.array.size != 1:
            raise ShapeError(
                "tensors inside lists must have one element each; use stack or cat",
                operator="tensor",
                got=str(value.shape),
            )
        return value.dtype
    if isinstance(value, int):
        return int64
    if isinstance(value, float):
        return get_default_dtype()
    raise DTypeError("elements must be real numbers or bool", operator="tensor", got=repr(value))


def _leaves(data: Any, found: set[DType]) -> bool:
    """Collect the dtypes of the elements of nested lists; say whether there are tensors."""
    tensors = False
    for kind in set(map(type, data)):
        if kind is int:
            found.add(int64)
        elif kind is float:
            found.add(get_default_dtype())
        elif issubclass(kind, list | tuple):
            for part in data:
                if type(part) is kind:
                    tensors |= _leaves(part, found)
        else:
            tensors |= kind is Tensor
            found.update(_leaf(part) for part in data if type(part) is kind)
    return tensors


def _plain(data: Any) -> Any:
    """Nested lists with tensors replaced by their numbers."""
    if isinstance(data, list | tuple):
        return [_plain(part) for part in data]
    return data.item() if type(data) is Tensor else data


def _ragged(data: Any) -> str:
    """Which part of nested lists does not fit the first one beside it."""
    level = [data]
    for axis in range(_MAX_AXES):
        lengths = [len(part) if hasattr(part, "__len__") else None for part in level]
        for length in lengths:
            if length != lengths[0]:
                return f"expected {_told(lengths[0])} at axis {axis}, got {_told(length)}"
        if lengths[0] is None:
            break
        level = [item for part in level for item in part]
    return "nested lists do not form a regular shape"


def _told(length: int | None) -> str:
    return "a number" if length is None else f"a sequence of length {length}"


def _check_range(array: np.ndarray, dtype: DType, name: str) -> None:
    """Refuse numbers that an integer dtype does not hold."""
    if dtype.kind != INTEGER or not array.size or array.dtype.kind == "b":
        return
    info, least, most = iinfo(dtype), array.min(), array.max()
    if not (info.min - 1 < least and most < info.max + 1):
        worst = least if not least > info.min - 1 else most
        raise ArgumentError(f"{worst} is outside the range of {dtype.name}", operator=name)


def _from_lists(data: Any, dtype: DType | None) -> np.ndarray:
    found: set[DType] = set()
    if _leaves([data], found):
        data = _plain(data)
    own = functools.reduce(promote_types, found) if found else get_default_dtype()
    wide = {FLOAT: float64, INTEGER: int64, BOOL: bool_}[own.kind]
    try:
        array = np.array(data, wide.numpy)
    except OverflowError:
        raise ArgumentError("an integer is outside the range of int64", operator="tensor") from None
    except (TypeError, ValueError):
        raise ShapeError(_ragged(data), operator="tensor") from None
    if dtype is not None:
        _check_range(array, dtype, "tensor")
    return converted(array, dtype or own)


def _supported(dtype: np.dtype, name: str) -> DType:
    """The DType of a NumPy dtype of either byte order."""
    found = FROM_NUMPY.get(dtype) or FROM_NUMPY.get(dtype.newbyteorder("="))
    if found is None:
        names = ", ".join(d.name for d in FROM_NUMPY.values())
        raise DTypeError(
            f"arrays must have one of the dtypes {names}", operator=name, got=str(dtype)
        )
    return found


def tensor(
    data: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """A new tensor with a copy of `data`: a number, nested lists, an array, a tensor.

    Python floats get the default dtype, integers int64, bool stays; arrays and NumPy scalars keep
    their dtype (integers of NumPy that minidl lacks need `dtype`). Raises ShapeError for ragged
    lists, DTypeError for strings, None and complex numbers, ArgumentError for integers that do not
    fit.
    """
    wanted = None if dtype is None else dtype_of(dtype)
    if type(data) is Tensor:
        if data.is_cuda or device is not None:
            copy = data.detach().to(dtype=wanted, device=device, copy=True)  # type: ignore[attr-defined]
            return copy.requires_grad_() if requires_grad else copy
        data = data.array
    elif isinstance(data, range):
        data = list(data)
    elif not isinstance(data, list | tuple | np.ndarray) and hasattr(data, "__array__"):
        data = np.asarray(data)
    if isinstance(data, np.ndarray):
        if wanted is None or data.dtype.kind not in "iuf":
            own = _supported(data.dtype, "tensor")
            wanted = wanted or own
        try:
            array = local.state.run(np.array, data, wanted.numpy, order="C", subok=False)
        except MemoryError as error:
            raise _too_large("tensor", error, f"{data.shape} {wanted.name}") from None
    else:
        array = _from_lists(data, wanted)
    return _finished(moved(array, as_device(device)), requires_grad)


def from_numpy(ndarray: np.ndarray) -> Tensor:
    """A tensor that shares the array's memory, with any strides (negative ones too).

    A read-only array gives a tensor that refuses in-place writes. Raises DTypeError for a dtype
    that minidl lacks or a foreign byte order (`array.astype(array.dtype.newbyteorder("="))`).
    """
    if not isinstance(ndarray, np.ndarray):
        raise DTypeError("needs a NumPy array", operator="from_numpy", got=type(ndarray).__name__)
    array = np.asarray(ndarray)
    dtype = _supported(array.dtype, "from_numpy")
    if not array.dtype.isnative:
        raise DTypeError(
            "the array's byte order is not this machine's;"
            ' use array.astype(array.dtype.newbyteorder("="))',
            operator="from_numpy",
            got=str(array.dtype),
        )
    if not array.flags.aligned:
        raise ArgumentError("the array is not aligned; use array.copy()", operator="from_numpy")
    # one dtype object for all tensors: operators compare by identity first
    return constant(array if array.dtype is dtype.numpy else array.view(dtype.numpy))


def as_tensor(data: Any, dtype: Any = None, device: Any = None) -> Tensor:
    """`data` as a tensor, without a copy where it is one or an array of the right dtype."""
    if isinstance(data, np.ndarray) and data.dtype in FROM_NUMPY and data.flags.aligned:
        data = from_numpy(data)
    elif type(data) is not Tensor:
        return tensor(data, dtype=dtype, device=device)
    shared: Tensor = data
    return shared.to(dtype=dtype, device=device)  # type: ignore[attr-defined]


def scalar_tensor(
    s: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """A 0-d tensor of the number `s`, of the default dtype unless one is given."""
    return full((), s, dtype=dtype or get_default_dtype(), device=device,
                requires_grad=requires_grad)  # fmt: skip


# ---------------------------------------------------------------- of given sizes


def _too_large(name: str, error: MemoryError, got: str) -> OutOfMemoryError:
    return OutOfMemoryError(f"out of memory: {error}", operator=name, got=got)


# Bytes up to which new tensors lie in the memory of operators' results; larger zeros are the
# system's, which takes no memory for them until they are written to.
_RECYCLED = 64 << 20


def _allocated(
    name: str,
    make: str | Callable[[tuple[int, ...], np.dtype], np.ndarray],
    size: Any,
    dtype: Any,
    device: Any,
    requires_grad: bool,
) -> Tensor:
    """`make` is a kernel-table entry, or a function that gives a NumPy array to move."""
    where = as_device(device)
    wanted = get_default_dtype() if dtype is None else dtype_of(dtype)
    if min(size, default=0) < 0 or len(size) > _MAX_AXES:
        rule = f"sizes must not be negative and at most {_MAX_AXES}"
        raise ShapeError(rule, operator=name, got=str(size))
    count = math.prod(size) * wanted.itemsize
    build = getattr(on_device(where), make) if isinstance(make, str) else make
    try:
        if count <= _RECYCLED:
            array = local.state.run(build, size, wanted.numpy)
        else:
            array = build(size, wanted.numpy)
    except (MemoryError, ValueError):
        raise OutOfMemoryError(
            f"{count:,} bytes do not fit into memory", operator=name, got=f"{size} {wanted.name}"
        ) from None
    return _finished(moved(array, where), requires_grad)


def _given(args: tuple[Any, ...], size: Any, name: str) -> tuple[int, ...]:
    if size is None and not args:
        raise ShapeError("needs the sizes, e.g. (2, 3) or 2, 3", operator=name)
    return named(args, size, name)


def zeros(
    *args: Any,
    size: Any = None,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """Zeros of the sizes `args` (or `size`).

    Raises ShapeError for negative sizes, OutOfMemoryError for more than memory holds.
    """
    shape = _given(args, size, "zeros")
    return _allocated("zeros", "zeros", shape, dtype, device, requires_grad)


def ones(
    *args: Any,
    size: Any = None,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """Ones of the sizes `args` (or `size`); errors as `zeros`."""
    shape = _given(args, size, "ones")
    return _allocated("ones", "ones", shape, dtype, device, requires_grad)


def empty(
    *args: Any,
    size: Any = None,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """A tensor of the sizes `args` (or `size`) with whatever is in memory; errors as `zeros`."""
    shape = _given(args, size, "empty")
    return _allocated("empty", "empty", shape, dtype, device, requires_grad)


def full(
    size: Any,
    fill_value: Any,
    *,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """A tensor of `size` filled with a number, whose type gives the dtype; errors as `zeros`."""
    value = _number(fill_value, "full")
    own = {bool: bool_, int: int64}.get(type(value), get_default_dtype())
    wanted = own if dtype is None else dtype_of(dtype)
    scalar = number_for("full", wanted, value)[()]
    table = on_device(as_device(device))

    def make(shape: tuple[int, ...], dtype: np.dtype) -> Any:
        return table.full(shape, scalar, dtype)

    return _allocated("full", make, sizes((size,), "full"), wanted, device, requires_grad)


def _like(input: Any, dtype: Any, device: Any, name: str) -> tuple[tuple[int, ...], Any, Any]:
    if type(input) is not Tensor:
        raise DTypeError("input must be a Tensor", operator=name, got=type(input).__name__)
    own = input.dtype if dtype is None else dtype
    return input.array.shape, own, input.device if device is None else device


def zeros_like(
    input: Tensor, *, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """Zeros of `input`'s shape and dtype."""
    shape, dtype, device = _like(input, dtype, device, "zeros_like")
    return _allocated("zeros_like", "zeros", shape, dtype, device, requires_grad)


def ones_like(
    input: Tensor, *, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """Ones of `input`'s shape and dtype."""
    shape, dtype, device = _like(input, dtype, device, "ones_like")
    return _allocated("ones_like", "ones", shape, dtype, device, requires_grad)


def empty_like(
    input: Tensor, *, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """A tensor of `input`'s shape and dtype with whatever is in memory."""
    shape, dtype, device = _like(input, dtype, device, "empty_like")
    return _allocated("empty_like", "empty", shape, dtype, device, requires_grad)


def full_like(
    input: Tensor,
    fill_value: Any,
    *,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """A tensor of `input`'s shape and dtype filled with a number."""
    shape, dtype, device = _like(input, dtype, device, "full_like")
    return full(shape, fill_value, dtype=dtype, device=device, requires_grad=requires_grad)


def _there(input: Tensor, options: dict[str, Any]) -> dict[str, Any]:
    """The options, the device being that of `input` unless they name one."""
    return options if options.get("device") is not None else {**options, "device": input.device}


@method("new_zeros")
def _new_zeros(input: Tensor, *args: Any, dtype: Any = None, **options: Any) -> Tensor:
    """Zeros of the given sizes in the tensor's dtype; the options are those of `zeros`."""
    return zeros(*args, dtype=dtype or input.dtype, **_there(input, options))


@method("new_ones")
def _new_ones(input: Tensor, *args: Any, dtype: Any = None, **options: Any) -> Tensor:
    """Ones of the given sizes in the tensor's dtype; the options are those of `ones`."""
    return ones(*args, dtype=dtype or input.dtype, **_there(input, options))


@method("new_empty")
def _new_empty(input: Tensor, *args: Any, dtype: Any = None, **options: Any) -> Tensor:
    """An unwritten tensor of the given sizes in the tensor's dtype; options as `empty`."""
    return empty(*args, dtype=dtype or input.dtype, **_there(input, options))


@method("new_full")
def _new_full(
    input: Tensor, size: Any, fill_value: Any, *, dtype: Any = None, **options: Any
) -> Tensor:
    """A tensor of `size` filled with a number, in the tensor's dtype; options as `full`."""
    return full(size, fill_value, dtype=dtype or input.dtype, **_there(input, options))


@method("new_tensor")
def _new_tensor(input: Tensor, data: Any, *, dtype: Any = None, **options: Any) -> Tensor:
    """A copy of `data` in the tensor's dtype; the options are those of `tensor`."""
    return tensor(data, dtype=dtype or input.dtype, **_there(input, options))


# ---------------------------------------------------------------- ranges and patterns


def arange(
    start: Any = None,
    end: Any = None,
    step: Any = 1,
    *,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """`start + i * step` below `end` (`arange(end)` starts at 0); int64 if all are integers.

    Raises ArgumentError for a step of 0 or one that leads away from `end`.
    """
    if end is None:
        start, end = None, start
    start = 0 if start is None else start
    first, last, by = (_number(v, "arange") for v in (start, end, step))
    whole = not any(isinstance(v, float) for v in (first, last, by))
    wanted = dtype_of(dtype) if dtype is not None else int64 if whole else get_default_dtype()
    if not by or not all(map(math.isfinite, (first, last, by))):
        raise ArgumentError(
            "step must not be 0 and all must be finite", operator="arange", got=f"{first, last, by}"
        )
    if (last - first) * by < 0:
        raise ArgumentError("step leads away from end", operator="arange", got=f"{first, last, by}")
    count = -((first - last) // by) if whole else math.ceil((last - first) / by)

    k = on_device(as_device(device))  # where it is made: a graph takes no copy from the CPU

    def make(size: tuple[int, ...], dtype: np.dtype) -> Any:
        index = k.arange(*size, dtype=np.int64 if whole else np.float64)
        return converted(first + index * by, wanted)

    return _allocated("arange", make, (count,), wanted, device, requires_grad)


def linspace(
    start: Any,
    end: Any,
    steps: int,
    *,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """`steps` evenly spaced numbers from `start` to `end`, both included."""
    first, last = _number(start, "linspace"), _number(end, "linspace")
    wanted = get_default_dtype() if dtype is None else dtype_of(dtype)

    def make(size: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        return converted(np.linspace(first, last, size[0]), wanted)

    return _allocated("linspace", make, sizes((steps,), "linspace"), wanted, device, requires_grad)


def logspace(
    start: Any,
    end: Any,
    steps: int,
    base: float = 10.0,
    *,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """`base` to the power of `steps` evenly spaced exponents from `start` to `end`."""
    first, last = _number(start, "logspace"), _number(end, "logspace")
    wanted = get_default_dtype() if dtype is None else dtype_of(dtype)

    def make(size: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        return converted(np.float64(base) ** np.linspace(first, last, size[0]), wanted)

    return _allocated("logspace", make, sizes((steps,), "logspace"), wanted, device, requires_grad)


def eye(
    n: int,
    m: int | None = None,
    *,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """An (n, m) matrix (m = n by default) with ones on the diagonal, zeros elsewhere."""

    def make(size: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        return np.eye(*size, dtype=dtype)

    size = sizes((n, n if m is None else m), "eye")
    return _allocated("eye", make, size, dtype, device, requires_grad)


def tril_indices(
    row: int, col: int, offset: int = 0, *, dtype: Any = int64, device: Any = None
) -> Tensor:
    """Rows and columns (2, count) of the elements on and below diagonal `offset`."""
    return _triangle("tril_indices", np.tril_indices, row, col, offset, dtype, device)


def triu_indices(
    row: int, col: int, offset: int = 0, *, dtype: Any = int64, device: Any = None
) -> Tensor:
    """Rows and columns (2, count) of the elements on and above diagonal `offset`."""
    return _triangle("triu_indices", np.triu_indices, row, col, offset, dtype, device)


def _triangle(
    name: str, indices: Callable, row: int, col: int, offset: int, dtype: Any, device: Any
) -> Tensor:
    where = as_device(device)
    if min(row, col) < 0:
        raise ShapeError("sizes must not be negative", operator=name, got=f"{row}, {col}")
    try:
        return constant(moved(np.array(indices(row, offset, col), dtype_of(dtype).numpy), where))
    except MemoryError as error:
        raise _too_large(name, error, f"{row}, {col}") from None
