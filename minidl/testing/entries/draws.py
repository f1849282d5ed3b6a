"""Shapes for kernels: around the widths of vectors and of unrolled loops, and odd ones."""

from __future__ import annotations

from typing import Any

import numpy as np

from minidl.dtypes import DType

SIDES = (3, 1, 2, 5, 7, 8, 9, 15, 16, 17, 31, 33, 63, 64, 65, 100, 129, 0)
FEW = (2, 1, 3, 5, 0)


def side(d: Any, empty: bool = True) -> int:
    """The length of an axis that kernels run along."""
    return d.choice(SIDES if empty else SIDES[:-1])


def shape(d: Any, least: int = 0, empty: bool = True) -> tuple[int, ...]:
    """Up to three axes, one of them, mostly the last, as long as `side` draws."""
    ndim = max(least, d.integer(0, 3))
    sides = [d.choice(FEW if empty else FEW[:-1]) for _ in range(ndim)]
    if ndim:
        sides[-1 if d.integer(0, 3) else 0] = side(d, empty)
    return tuple(sides)


def array(
    d: Any, shape: Any, dtype: DType, low: float = -3, high: float = 3, extreme: bool = False
) -> np.ndarray:
    """`Draw.array`, one in three times with extreme values if `extreme` allows them."""
    return d.array(shape, dtype, low, high, extreme=extreme and d.integer(0, 2) == 2)
