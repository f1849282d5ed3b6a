"""Copies, conversions and views of parts."""

from typing import Any

import numpy as np


def cast(x: np.ndarray, dtype: Any) -> np.ndarray:
    """x in another dtype, rounded as the dtype does; exact between the same bits. Any dtypes.

    The result may have the order of x in memory.
    """
    return x.astype(dtype)


def windows(x: np.ndarray, size: int, axis: int) -> np.ndarray:
    """All runs of `size` neighbours along `axis`, as a view with a new last axis. Any dtype."""
    shape = [n - size + 1 if i == axis % x.ndim else n for i, n in enumerate(x.shape)]
    strides = (*x.strides, x.strides[axis])
    return np.lib.stride_tricks.as_strided(x, (*shape, size), strides)


def copy(x: np.ndarray) -> np.ndarray:
    """x with elements of its own, in C order. Any dtype."""
    return np.array(x, order="C")
