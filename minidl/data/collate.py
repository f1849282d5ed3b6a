"""Collating: a list of samples becomes one batch of the same structure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

import minidl.ops as ops
from minidl.dtypes import float64
from minidl.errors import ArgumentError, DTypeError, ShapeError
from minidl.tensor import Tensor


def default_collate(batch: Sequence[Any]) -> Any:
    """Stack tensors, arrays and numbers along a new first axis, through tuples, lists and dicts.

    Python floats become float64, integers int64; strings and bytes stay as they are; tuples
    become lists and named tuples keep their type. Raises DTypeError (a TypeError) for other types,
    ArgumentError if there is no sample or samples differ in length or keys, ShapeError if they
    differ in shape.
    """
    if not batch:
        raise ArgumentError("there is no sample in the batch", operator="default_collate")
    first = batch[0]
    if isinstance(first, Tensor):
        return ops.stack(list(batch))
    if isinstance(first, np.ndarray | np.generic):
        if first.dtype.kind in "OSU":
            raise DTypeError(
                "arrays must be numeric", operator="default_collate", got=str(first.dtype)
            )
        arrays = [np.asarray(sample) for sample in batch]
        shapes = sorted({array.shape for array in arrays})
        if len(shapes) > 1:
            raise ShapeError(
                "all arrays must have the same shape; pass a collate_fn that pads them",
                operator="default_collate",
                got=", ".join(map(str, shapes)),
            )
        return ops.from_numpy(np.stack(arrays))
    if isinstance(first, float):
        return ops.tensor(list(batch), dtype=float64)
    if isinstance(first, int):
        return ops.tensor(list(batch))
    if isinstance(first, str | bytes):
        return batch
    if isinstance(first, Mapping | Sequence):
        _same_structure(first, batch)
    if isinstance(first, Mapping):
        merged = {key: default_collate([sample[key] for sample in batch]) for key in first}
        return merged if type(first) is dict else _like(first, merged)
    if isinstance(first, Sequence):
        columns = [default_collate(column) for column in zip(*batch, strict=True)]
        return type(first)(*columns) if hasattr(first, "_fields") else columns
    raise DTypeError(
        "samples must be tensors, arrays, numbers, strings, dicts, tuples or lists",
        operator="default_collate",
        got=type(first).__name__,
    )


def _same_structure(first: Any, batch: Sequence[Any]) -> None:
    """Refuse samples that are not all mappings with the keys of `first`, or all of its length."""
    mapping = isinstance(first, Mapping)
    for sample in batch:
        if not isinstance(sample, Mapping if mapping else Sequence):
            raise DTypeError(
                "all samples must have the same structure",
                operator="default_collate",
                got=f"{type(first).__name__} and {type(sample).__name__}",
            )
    if mapping:
        missing = [key for sample in batch for key in first if key not in sample]
        if missing:
            raise ArgumentError(
                f"all samples must have the key {missing[0]!r} of the first",
                operator="default_collate",
            )
        return
    lengths = sorted({len(sample) for sample in batch})
    if len(lengths) > 1:
        raise ArgumentError(
            "all samples must have the same length; pass a collate_fn that pads them",
            operator="default_collate",
            got=str(lengths),
        )


def default_convert(data: Any) -> Any:
    """Turn the NumPy arrays and scalars in a structure into tensors and keep everything else."""
    return _each(data, _as_tensor)


def pinned(data: Any) -> Any:
    """Copy the tensors in a structure to pinned memory, from which copies to a GPU are faster."""
    return _each(data, lambda x: x.pin_memory() if isinstance(x, Tensor) else x)


def _as_tensor(data: Any) -> Any:
    if isinstance(data, np.ndarray | np.generic) and data.dtype.kind not in "OSU":
        return ops.from_numpy(np.asarray(data))
    return data


def _each(data: Any, convert: Callable[[Any], Any]) -> Any:
    """`convert` of everything in a structure of mappings, tuples and lists."""
    if isinstance(data, Mapping):
        converted = {key: _each(value, convert) for key, value in data.items()}
        return converted if type(data) is dict else _like(data, converted)
    if isinstance(data, tuple) and hasattr(data, "_fields"):
        return type(data)(*(_each(value, convert) for value in data))
    if isinstance(data, tuple | list):
        return [_each(value, convert) for value in data]
    return convert(data)


def _like(mapping: Any, values: dict[Any, Any]) -> Any:
    """Build the type of `mapping` where it can be built from a dict, else a dict."""
    try:
        return type(mapping)(values)
    except TypeError:
        return values
