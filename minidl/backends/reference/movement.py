"""Copies and conversions."""

from typing import Any

import numpy as np


def cast(x: np.ndarray, dtype: Any) -> np.ndarray:
    """x in another dtype, rounded as the dtype does; exact between the same bits. Any dtypes.

    The result may have the order of x in memory.
    """
    return x.astype(dtype)


def copy(x: np.ndarray) -> np.ndarray:
    """x with elements of its own, in C order. Any dtype."""
    return np.array(x, order="C")
