"""Collating: a list of samples becomes one batch of the same structure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

import minidl.ops as ops
from minidl.dtypes import float64
from minidl.errors import ArgumentError, DTypeError
from minidl.tensor import Tensor


def default_collate(batch: Sequence[Any]) -> Any:
    """Stack tensors, arrays and numbers along a new first axis, through tuples, lists and dicts.

    Python floats become float64, integers int64; strings and bytes stay a list; tuples become
    lists and named tuples keep their type. Raises DTypeError (a TypeError) for other types,
    ArgumentError if samples differ in length.
    """
    first = batch[0]
    if isinstance(first, Tensor):
        return ops.stack(list(batch))
    if isinstance(first, np.ndarray | np.generic):
        if first.dtype.kind in "OSU":
            raise DTypeError(
                "arrays must be numeric", operator="default_collate", got=str(first.dtype)
            )
        return ops.from_numpy(np.stack([np.asarray(sample) for sample in batch]))
    if isinstance(first, float):
        return ops.tensor(list(batch), dtype=float64)
    if isinstance(first, int):
        return ops.tensor(list(batch))
    if isinstance(first, str | bytes):
        return list(batch)
    if isinstance(first, Mapping):
        merged = {key: default_collate([sample[key] for sample in batch]) for key in first}
        return merged if type(first) is dict else _like(first, merged)
    if isinstance(first, tuple | list):
        lengths = sorted({len(sample) for sample in batch})
        if len(lengths) > 1:
            raise ArgumentError(
                "all samples must have the same length; pass a collate_fn that pads them",
                operator="default_collate",
                got=str(lengths),
            )
        columns = [default_collate(column) for column in zip(*batch, strict=True)]
        return type(first)(*columns) if hasattr(first, "_fields") else columns
    raise DTypeError(
        "samples must be tensors, arrays, numbers, strings, dicts, tuples or lists",
        operator="default_collate",
        got=type(first).__name__,
    )


def default_convert(data: Any) -> Any:
    """Turn the NumPy arrays and scalars in a structure into tensors and keep everything else."""
    if isinstance(data, np.ndarray | np.generic) and data.dtype.kind not in "OSU":
        return ops.from_numpy(np.asarray(data))
    if isinstance(data, Mapping):
        converted = {key: default_convert(value) for key, value in data.items()}
        return converted if type(data) is dict else _like(data, converted)
    if isinstance(data, tuple) and hasattr(data, "_fields"):
        return type(data)(*(default_convert(value) for value in data))
    if isinstance(data, tuple | list):
        return [default_convert(value) for value in data]
    return data


def _like(mapping: Any, values: dict[Any, Any]) -> Any:
    """Build the type of `mapping` where it can be built from a dict, else a dict."""
    try:
        return type(mapping)(values)
    except TypeError:
        return values
