"""Softmax family on contiguous rows; the axis is moved last first, as in the specification.

Limits per element, float32: 4 bytes read and 4 written (16 and 4 backward), and about 20
operations of the exponential in vectors of 8: memory is the limit for arrays beyond the caches.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from minidl.backends.numba_kernels.compiled import In2, Kernel, Out1, Out2, split
from minidl.backends.numba_kernels.elementary import decay, exp, largest, like, widest
from minidl.backends.reference.softmax import along, fold_sum


@Kernel
def _softmax(start: int, stop: int, x: In2, out: Out2) -> None:
    widest()
    width = x.shape[1]
    for i in range(start, stop):
        row, o = x[i], out[i]
        top = largest(row)
        total = like(top, 0.0)
        for j in range(width):
            e = decay(row[j] - top)
            o[j] = e
            total += e
        scale = like(top, 1.0) / total
        for j in range(width):
            o[j] *= scale


@Kernel
def _softmax_backward(start: int, stop: int, g: In2, y: In2, out: Out2) -> None:
    width = g.shape[1]
    for i in range(start, stop):
        gi, yi, o = g[i], y[i], out[i]
        total = like(gi[0], 0.0)
        for j in range(width):
            total += gi[j] * yi[j]
        for j in range(width):
            o[j] = yi[j] * (gi[j] - total)


@Kernel
def _log_softmax(start: int, stop: int, x: In2, out: Out2) -> None:
    widest()
    width = x.shape[1]
    for i in range(start, stop):
        row, o = x[i], out[i]
        top = largest(row)
        total = like(top, 0.0)
        for j in range(width):
            total += decay(row[j] - top)
        log = math.log(total)
        for j in range(width):
            o[j] = (row[j] - top) - log


@Kernel
def _log_softmax_backward(start: int, stop: int, g: In2, y: In2, out: Out2) -> None:
    widest()
    width = g.shape[1]
    for i in range(start, stop):
        gi, yi, o = g[i], y[i], out[i]
        total = like(gi[0], 0.0)
        for j in range(width):
            total += gi[j]
        for j in range(width):
            o[j] = gi[j] - decay(yi[j]) * total


@Kernel
def _logsumexp(start: int, stop: int, x: In2, out: Out1) -> None:
    widest()
    width = x.shape[1]
    for i in range(start, stop):
        row = x[i]
        top = largest(row)
        if math.isinf(top):  # -inf - -inf would be NaN; exp(+inf) is the right +inf
            top = like(top, 0.0)
        total = like(top, 0.0)
        for j in range(width):
            total += exp(row[j] - top)
        out[i] = math.log(total) + top


def _along(kernel: Kernel, axis: int, *inputs: np.ndarray) -> np.ndarray:
    """Run a kernel (inputs, out) on (rows, width) with `axis` as the width."""

    def run(*arrays: np.ndarray) -> None:
        out = arrays[-1]
        split(kernel[out.dtype], len(out), out.size, *arrays)

    return along(run, axis, *inputs)


def softmax(x: np.ndarray, axis: int) -> np.ndarray:
    """As specified in reference/softmax.py."""
    return _along(_softmax, axis, x)


def softmax_backward(g: np.ndarray, out: np.ndarray, axis: int) -> np.ndarray:
    """As specified in reference/softmax.py."""
    return _along(_softmax_backward, axis, g, out)


def log_softmax(x: np.ndarray, axis: int) -> np.ndarray:
    """As specified in reference/softmax.py."""
    return _along(_log_softmax, axis, x)


def log_softmax_backward(g: np.ndarray, out: np.ndarray, axis: int) -> np.ndarray:
    """As specified in reference/softmax.py."""
    return _along(_log_softmax_backward, axis, g, out)


def logsumexp(x: np.ndarray, axis: tuple[int, ...], keepdim: bool) -> np.ndarray:
    """As specified in reference/softmax.py."""
    out, x2 = fold_sum(x, axis, keepdim)
    if x2 is None:
        out.fill(-np.inf)
    else:
        split(_logsumexp[x.dtype], len(x2), x.size, x2, out.reshape(-1))
    return out


ENTRIES: dict[str, Callable] = {
    function.__name__: function
    for function in (softmax, softmax_backward, log_softmax, log_softmax_backward, logsumexp)
}
