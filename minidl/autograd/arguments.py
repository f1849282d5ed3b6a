"""Arguments off the fast path: what is refused, promotion, and the text of errors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from minidl.backends import ARRAY_TYPES, Kernels, device_of, kernels_for, local
from minidl.dtypes import FLOAT, FROM_NUMPY, HALVES, float32, get_default_dtype, result_type
from minidl.errors import (
    DeviceError,
    DTypeError,
    MinidlError,
    OutOfMemoryError,
    OutOfRangeError,
    ShapeError,
)
from minidl.tensor import Tensor


class Diverted(Exception):
    """An argument that takes the operator over: its class has `__minidl_function__`."""


def operand(op: Any, name: str, value: Any) -> Any:
    """An argument as the operator takes it: a Tensor, None, a Python scalar; refuse the rest."""
    kind = type(value)
    if kind is Tensor or (value is None and op.kinds[name] != "array"):
        return value
    if op.scalars and op.kinds[name] != "index":
        if isinstance(value, np.generic):
            value = value.item()
        for scalar in (bool, int, float):  # of subclasses, too
            if isinstance(value, scalar):
                return scalar(value)
    refuse(op, name, value)


def refuse(op: Any, name: str, value: Any) -> None:
    """Raise the error for an argument that is not a Tensor, or hand the call over to it."""
    kind = type(value)
    if hasattr(kind, "__minidl_function__"):
        raise Diverted(kind.__minidl_function__)
    hint = "; wrap it with minidl.tensor(...)" if isinstance(value, np.ndarray | list) else ""
    shown = repr(value) if kind in (bool, int, float) else f"{kind.__module__}.{kind.__name__}"
    raise DTypeError(f"{name} must be a Tensor{hint}", operator=op.name, got=shown)


def sequence(op: Any, name: str, values: Any) -> tuple[Tensor, ...]:
    """A sequence of Tensors as a tuple."""
    if type(values) is Tensor or not isinstance(values, list | tuple):
        raise DTypeError(
            f"{name} must be a sequence of Tensors", operator=op.name, got=type(values).__name__
        )
    for value in values:
        if type(value) is not Tensor:
            refuse(op, f"every item of {name}", value)
    return tuple(values)


def prepare(op: Any, *operands: Any) -> list[Any]:
    """Raw arrays in the dtype that the forward computes in, and the dtype to round the result to.

    Promotes by the operator's rule; float16 and bfloat16 are widened to float32 unless the table
    has an entry of the operator's name that takes them.
    """
    values = [x.array if type(x) is Tensor else x for x in operands]
    given = [v for v in values if v is not None]
    arrays = [v for v in given if type(v) in ARRAY_TYPES]
    if not arrays:
        raise DTypeError("needs at least one Tensor", operator=op.name)
    if op.promote is None:
        return [*values, None]
    dtype = result_type(*given)
    if op.promote == "float" and dtype.kind != FLOAT:
        dtype = get_default_dtype()
    elif op.promote == "match":
        for v in given:
            if type(v) not in ARRAY_TYPES or v.dtype != dtype.numpy:
                raise DTypeError(
                    "all tensors must have the same dtype", operator=op.name, got=_described(given)
                )
    target, finish = dtype.numpy, None
    if dtype in HALVES and op.name not in half_entries(*arrays):
        target, finish = float32.numpy, dtype.numpy
    for i, v in enumerate(values):
        if type(v) in ARRAY_TYPES:
            if v.dtype != target:
                values[i] = local.state.run(kernels_for(v).cast, v, target)
        elif v is not None:
            # a Python float is weak in NumPy too; an integer must wrap instead of overflowing
            values[i] = float(v) if dtype.kind == FLOAT else np.asarray(v).astype(target)
    return [*values, finish]


def rounded(out: Any, dtype: Any, outputs: int) -> Any:
    """The outputs (not the residuals) rounded once from float32 to `dtype`."""
    if type(out) is tuple:
        return tuple(_rounded(o, dtype) if i < outputs else o for i, o in enumerate(out))
    return _rounded(out, dtype)


def _rounded(out: Any, dtype: Any) -> Any:
    if out.dtype != np.float32:
        return out
    table = kernels_for(out) if type(out) in ARRAY_TYPES else local.state.cpu
    return local.state.run(table.cast, out, dtype)  # there NumPy does not warn of overflow


def _table(arrays: Sequence[Any]) -> Kernels:
    """The table of the GPU if any array is there."""
    for array in arrays:
        if type(array) is not np.ndarray and type(array) in ARRAY_TYPES:
            return kernels_for(array)
    return local.state.cpu


def half_entries(*arrays: Any) -> frozenset[str]:
    """The entries that take 16-bit floats on the device of the arrays."""
    return _table(arrays).half


def placed(op: Any, operands: Sequence[Any], arrays: Sequence[Any]) -> list[Any]:
    """The arrays on one device, and its table.

    Beside arrays of a GPU, single numbers and indices of the CPU follow them, as in PyTorch.
    """
    table = _table(arrays)
    found = list(arrays)
    kinds = [kind for kind in op.kinds.values() if kind != "attribute"]
    for i, (x, array) in enumerate(zip(operands, arrays, strict=True)):
        if table.device == "cpu" or type(array) is not np.ndarray:
            continue
        tracked = type(x) is Tensor and local.state.recording and x.requires_grad
        if not array.ndim and not tracked:
            # as an argument of a kernel: nothing is copied, so that it may be captured in a graph
            found[i] = table.full((), array[()], array.dtype)
        elif not op.sequence and kinds[i] == "index":
            found[i] = table.asarray(array)
        else:
            where = ", ".join(str(device_of(a)) for a in arrays if type(a) in ARRAY_TYPES)
            raise DeviceError(
                "all tensors must be on one device; move them with .to(device)",
                operator=op.name,
                got=where,
            )
    return [*found, table]


def _described(values: Sequence[Any], dtypes: bool = True) -> str:
    parts = []
    for v in values:
        if type(v) is Tensor:
            v = v.array
        if type(v) in ARRAY_TYPES:
            parts.append(f"{v.shape} {FROM_NUMPY[v.dtype].name}" if dtypes else str(v.shape))
        elif isinstance(v, tuple | list):
            parts.append("[" + _described(v, dtypes) + "]")
        elif v is not None:
            parts.append(repr(v))
    return ", ".join(parts)


def explain(op: Any, error: Exception, *operands: Any) -> Exception:
    """The error that users see for one raised by a forward."""
    shown = _explained(op, error, operands)
    if shown is not error:
        shown.__cause__ = error  # `raise shown from error` would make a cycle of the others
    return shown


def _explained(op: Any, error: Exception, operands: Sequence[Any]) -> Exception:
    if isinstance(error, MinidlError):
        if error.operator is None:
            error.operator = op.name
            if error.got is None:
                error.got = _described(operands, isinstance(error, DTypeError))
        return error
    got = _described(operands)
    text = str(error)
    if isinstance(error, MemoryError):
        return OutOfMemoryError(f"out of memory: {text}", operator=op.name, got=got)
    if isinstance(error, IndexError) or "out of bounds" in text:
        return OutOfRangeError(text, operator=op.name, got=got)
    if isinstance(error, ValueError):
        if "broadcast" in text:
            text = "shapes must broadcast"
        return ShapeError(text, operator=op.name, got=_described(operands, False))
    if isinstance(error, TypeError):
        return DTypeError(text, operator=op.name, got=got)
    return error
