"""Inputs that many rows share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from minidl.dtypes import ALL, FLOAT, FLOATS, DType
from minidl.testing.case import Sample, sample

NUMBERS = tuple(dtype for dtype in ALL if dtype.name != "bool")
INTEGRAL = tuple(dtype for dtype in ALL if dtype not in FLOATS)

Inputs = Callable[[Any, DType], Sample]


def one(low: float = -3, high: float = 3, **options: Any) -> Inputs:
    """One array of any shape; options are those of `Draw.array`."""
    return lambda d, dtype: sample(d.array(d.shape(), dtype, low, high, **options))


def two(
    low: float = -3,
    high: float = 3,
    low2: float | None = None,
    high2: float | None = None,
    numbers: bool = False,
    **options: Any,
) -> Inputs:
    """Two arrays that broadcast; the second has bounds of its own, or is sometimes a number."""
    low2 = low if low2 is None else low2
    high2 = high if high2 is None else high2

    def inputs(d: Any, dtype: DType) -> Sample:
        shape = d.shape()
        first = d.array(shape, dtype, low, high, **options)
        if numbers and d.integer(0, 3) == 3:
            whole = dtype.kind != FLOAT or d.boolean()
            least = 1 if low2 > 0 else 0
            return sample(first, d.integer(least, int(high2)) if whole else d.number(low2, high2))
        return sample(first, d.array(d.broadcastable(shape), dtype, low2, high2, **options))

    return inputs


def alike(*arrays: np.ndarray) -> tuple[np.ndarray, ...]:
    """The arrays in the dtype of the first, where torch's rules for mixed ones are not ours."""
    return tuple(array.astype(arrays[0].dtype, copy=False) for array in arrays)


def wide(function: Callable[..., Any]) -> Callable[..., Any]:
    """An oracle that computes in float64 where NumPy would take a small float for an integer."""

    def oracle(*args: Any, **kwargs: Any) -> Any:
        return function(*[_wide(a) for a in args], **kwargs)

    return oracle


def _wide(x: Any) -> Any:
    return x.astype(np.float64) if isinstance(x, np.ndarray) else x


def wrapping(function: Callable[..., Any]) -> Callable[..., Any]:
    """An oracle in which integers wrap in the dtype of the arrays with axes, as 0-d ones are weak.

    NumPy's own promotion takes the dtype of a 0-d array for as good as any other.
    """

    def oracle(*args: Any, **kwargs: Any) -> Any:
        strong = [a.dtype for a in args if isinstance(a, np.ndarray) and a.ndim]
        if strong and (dtype := np.result_type(*strong)).kind in "iu":
            args = tuple(
                a.astype(dtype) if isinstance(a, np.ndarray) and a.dtype.kind in "iu" else a
                for a in args
            )
        return function(*args, **kwargs)

    return oracle
