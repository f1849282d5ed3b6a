"""Extremes and products of what meets: along an axis so far, and at places that an index names.

Of any real dtype; NaN is the largest and the smallest value. Results are fresh and C-contiguous.
"""

import numpy as np


def cummax(x: np.ndarray, axis: int) -> np.ndarray:
    """The largest of the elements up to each one along `axis`. (...) -> (...)."""
    return np.asarray(np.maximum.accumulate(x, axis=axis), order="C")


def cummin(x: np.ndarray, axis: int) -> np.ndarray:
    """The smallest of the elements up to each one along `axis`. (...) -> (...)."""
    return np.asarray(np.minimum.accumulate(x, axis=axis), order="C")


_MEETING = {"amax": np.maximum, "amin": np.minimum, "prod": np.multiply}


def scatter_reduce(
    x: np.ndarray, dim: int, index: np.ndarray, src: np.ndarray, reduce: str, include_self: bool
) -> np.ndarray:
    """A copy of x in which all that `index` sends to a place along `dim` meets there.

    Arguments as those of `scatter_add`, with one axis at least. reduce: "amax", "amin" or "prod".
    Without `include_self` what x has at a place that is met does not count.
    """
    out = np.array(x, order="C")
    src = src[tuple(slice(n) for n in index.shape)]
    places = [
        index
        if axis == dim % x.ndim
        else np.arange(length).reshape(-1, *(1,) * (x.ndim - axis - 1))
        for axis, length in enumerate(index.shape)
    ]
    if not include_self:
        out[tuple(places)] = 1 if reduce == "prod" else src
    _MEETING[reduce].at(out, tuple(places), src)
    return out
