"""Layer and root-mean-square normalisation, a row at a time while it is in the first-level cache.

Limits per element, float32: 4 bytes read and 4 written (8 and 4 backward) and under 10 operations
in vectors: memory. Sums over rows (the gradients of weight and bias) are taken in blocks of ROWS
rows, whatever the number of threads, so results do not depend on it.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from minidl.backends.numba_kernels.compiled import In1, In2, Kernel, Out1, Out2, helper, split
from minidl.backends.numba_kernels.elementary import like
from minidl.backends.reference.blocks import as_rows, flat
from minidl.backends.reference.norm import split_axes

ROWS = 64


@helper
def _normalise(x, out, weight, bias, eps):
    """One row of layer_norm; returns mean and rstd."""
    width = x.size
    count = like(x[0], width)
    total = like(x[0], 0.0)
    for j in range(width):
        total += x[j]
    mean = total / count
    # the rounding of the mean: equal elements must give zeros, however small eps is
    rest = like(mean, 0.0)
    for j in range(width):
        out[j] = x[j] - mean
        rest += out[j]
    rest /= count
    square = like(mean, 0.0)
    for j in range(width):
        d = out[j] - rest
        out[j] = d
        square += d * d
    rstd = like(mean, 1.0) / math.sqrt(square / count + like(mean, eps))
    for j in range(width):
        out[j] = out[j] * rstd * weight[j] + bias[j]
    return mean + rest, rstd


@Kernel
def _layer_norm(
    start: int,
    stop: int,
    x: In2,
    weight: In1,
    bias: In1,
    eps: float,
    out: Out2,
    mean: Out1,
    rstd: Out1,
) -> None:
    for i in range(start, stop):
        mean[i], rstd[i] = _normalise(x[i], out[i], weight, bias, eps)


@Kernel
def _add_layer_norm(
    start: int,
    stop: int,
    x: In2,
    y: In2,
    weight: In1,
    bias: In1,
    eps: float,
    out: Out2,
    total: Out2,
    mean: Out1,
    rstd: Out1,
) -> None:
    for i in range(start, stop):
        xi, yi, t = x[i], y[i], total[i]
        for j in range(xi.size):
            t[j] = xi[j] + yi[j]
        mean[i], rstd[i] = _normalise(t, out[i], weight, bias, eps)


@Kernel
def _rms_norm(
    start: int, stop: int, x: In2, weight: In1, eps: float, out: Out2, rstd: Out1
) -> None:
    width = x.shape[1]
    for i in range(start, stop):
        row, o = x[i], out[i]
        square = like(row[0], 0.0)
        for j in range(width):
            square += row[j] * row[j]
        r = like(square, 1.0) / math.sqrt(square / like(square, width) + like(square, eps))
        for j in range(width):
            o[j] = row[j] * r * weight[j]
        rstd[i] = r


@Kernel
def _backward(
    start: int,
    stop: int,
    g: In2,
    x: In2,
    weight: In1,
    mean: In1,
    rstd: In1,
    centered: bool,
    dx: Out2,
    dweight: Out2,
    dbias: Out2,
) -> None:
    """Blocks of ROWS rows: dx, and a row per block of the sums of g xhat and g."""
    rows, width = x.shape
    count = like(x[0, 0], width)
    for block in range(start, stop):
        dw, db = dweight[block], dbias[block]
        for j in range(width):
            dw[j] = db[j] = like(count, 0.0)
        for i in range(block * ROWS, min(rows, (block + 1) * ROWS)):
            gi, xi, d, m, r = g[i], x[i], dx[i], mean[i], rstd[i]
            along = like(count, 0.0)
            total = like(count, 0.0)
            for j in range(width):
                h = (xi[j] - m) * r
                d[j] = gi[j] * weight[j]
                along += d[j] * h
                total += d[j]
                dw[j] += gi[j] * h
                db[j] += gi[j]
            along /= count
            total = total / count if centered else like(count, 0.0)
            for j in range(width):
                h = (xi[j] - m) * r
                d[j] = (d[j] - h * along - total) * r


def _affine(
    weight: np.ndarray | None, bias: np.ndarray | None, x: np.ndarray, width: int
) -> tuple[np.ndarray, np.ndarray]:
    scale = np.ones(width, x.dtype) if weight is None else flat(weight)
    return scale, np.zeros(width, x.dtype) if bias is None else flat(bias)


def layer_norm(
    x: np.ndarray, ndim: int, weight: np.ndarray | None, bias: np.ndarray | None, eps: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """As specified in reference/norm.py."""
    lead, rows, width = split_axes(x, ndim)
    out, mean, rstd = (np.empty(s, x.dtype) for s in (x.shape, lead, lead))
    if not out.size:
        mean.fill(np.nan)
        rstd.fill(np.nan)
        return out, mean, rstd
    affine = _affine(weight, bias, x, width)
    results = out.reshape(rows, width), mean.reshape(-1), rstd.reshape(-1)
    split(
        _layer_norm[x.dtype], rows, x.size, as_rows(x, rows, width), *affine, float(eps), *results
    )
    return out, mean, rstd


def add_layer_norm(
    x: np.ndarray,
    y: np.ndarray,
    ndim: int,
    weight: np.ndarray | None,
    bias: np.ndarray | None,
    eps: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """As specified in reference/norm.py."""
    lead, rows, width = split_axes(x, ndim)
    out, total, mean, rstd = (np.empty(s, x.dtype) for s in (x.shape, x.shape, lead, lead))
    if not out.size:
        mean.fill(np.nan)
        rstd.fill(np.nan)
        return out, total, mean, rstd
    inputs = as_rows(x, rows, width), as_rows(y, rows, width), *_affine(weight, bias, x, width)
    results = out.reshape(rows, width), total.reshape(rows, width)
    statistics = mean.reshape(-1), rstd.reshape(-1)
    split(_add_layer_norm[x.dtype], rows, x.size, *inputs, float(eps), *results, *statistics)
    return out, total, mean, rstd


def rms_norm(
    x: np.ndarray, ndim: int, weight: np.ndarray | None, eps: float
) -> tuple[np.ndarray, np.ndarray]:
    """As specified in reference/norm.py."""
    lead, rows, width = split_axes(x, ndim)
    out, rstd = np.empty(x.shape, x.dtype), np.empty(lead, x.dtype)
    if not out.size:
        rstd.fill(np.nan)
        return out, rstd
    scale, _ = _affine(weight, weight, x, width)
    results = out.reshape(rows, width), rstd.reshape(-1)
    split(_rms_norm[x.dtype], rows, x.size, as_rows(x, rows, width), scale, float(eps), *results)
    return out, rstd


def _gradients(
    g: np.ndarray,
    x: np.ndarray,
    ndim: int,
    weight: np.ndarray | None,
    mean: np.ndarray | None,
    rstd: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    _, rows, width = split_axes(x, ndim)
    shape = x.shape[x.ndim - ndim :]
    dx = np.empty(x.shape, x.dtype)
    if not dx.size:
        return dx, np.zeros(shape, x.dtype), np.zeros(shape, x.dtype)
    blocks = -(-rows // ROWS)
    dweight, dbias = np.empty((2, blocks, width), x.dtype)
    center = np.zeros(rows, x.dtype) if mean is None else flat(mean)
    inputs = as_rows(g, rows, width), as_rows(x, rows, width), _affine(weight, None, x, width)[0]
    statistics = center, flat(rstd), mean is not None
    results = dx.reshape(rows, width), dweight, dbias
    split(_backward[x.dtype], blocks, 2 * x.size, *inputs, *statistics, *results)
    return dx, dweight.sum(0).reshape(shape), dbias.sum(0).reshape(shape)


def layer_norm_backward(
    g: np.ndarray,
    x: np.ndarray,
    ndim: int,
    weight: np.ndarray | None,
    mean: np.ndarray,
    rstd: np.ndarray,
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
    """As specified in reference/norm.py."""
    dx, dweight, dbias = _gradients(g, x, ndim, weight, mean, rstd)
    return dx, None if weight is None else dweight, dbias


def rms_norm_backward(
    g: np.ndarray, x: np.ndarray, ndim: int, weight: np.ndarray | None, rstd: np.ndarray
) -> tuple[np.ndarray, np.ndarray | None]:
    """As specified in reference/norm.py."""
    dx, dweight, _ = _gradients(g, x, ndim, weight, None, rstd)
    return dx, None if weight is None else dweight


ENTRIES: dict[str, Callable] = {
    function.__name__: function
    for function in (layer_norm, add_layer_norm, layer_norm_backward, rms_norm, rms_norm_backward)
}
