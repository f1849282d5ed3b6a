"""Layer and root-mean-square normalisation over the last `ndim` axes.

Inputs may have any strides; results are fresh and C-contiguous; statistics have the shape of the
leading axes and the input's dtype. With n values per row, floor: n * eps * |x - mean| * rstd, plus
4 * eps * |mean| * rstd for the rounding of the mean.
Sources: Ba, Kiros, Hinton, "Layer Normalization", 2016; Zhang, Sennrich, "Root Mean Square Layer
Normalization", 2019.
"""

import math

import numpy as np

from minidl.backends.reference.blocks import as_rows, flat, spans, sum_rows


def split_axes(x: np.ndarray, ndim: int) -> tuple[tuple[int, ...], int, int]:
    """Leading shape, rows and width of `x` normalised over its last `ndim` axes."""
    lead = x.shape[: x.ndim - ndim]
    return lead, math.prod(lead), math.prod(x.shape[x.ndim - ndim :])


def layer_norm(
    x: np.ndarray, ndim: int, weight: np.ndarray | None, bias: np.ndarray | None, eps: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(x - mean) * rstd * weight + bias with rstd = 1 / sqrt(var + eps), var in a second pass.

    x: (*lead, *normalised), weight, bias: (*normalised) or None
    -> out (*lead, *normalised), mean (*lead), rstd (*lead).
    """
    lead, rows, width = split_axes(x, ndim)
    out, mean, rstd = (np.empty(s, x.dtype) for s in (x.shape, lead, lead))
    if not out.size:
        mean.fill(np.nan)
        rstd.fill(np.nan)
        return out, mean, rstd
    x2, out2, mean1, rstd1 = (
        as_rows(x, rows, width),
        out.reshape(rows, width),
        mean.reshape(-1),
        rstd.reshape(-1),
    )
    ones = np.ones(width, x.dtype)
    scale, shift = (None if p is None else flat(p) for p in (weight, bias))
    for start, stop in spans(rows, width):
        o, m, r = out2[start:stop], mean1[start:stop], rstd1[start:stop]
        np.matmul(x2[start:stop], ones, out=m)
        m /= width
        np.subtract(x2[start:stop], m[:, None], out=o)
        # the rounding of the mean: equal elements must give zeros, however small eps is
        rest = np.matmul(o, ones) / width
        o -= rest[:, None]
        m += rest
        np.vecdot(o, o, out=r)
        r /= width
        r += eps
        np.sqrt(r, out=r)
        np.reciprocal(r, out=r)
        o *= r[:, None]
        if scale is not None:
            o *= scale
        if shift is not None:
            o += shift
    return out, mean, rstd


def add_layer_norm(
    x: np.ndarray,
    y: np.ndarray,
    ndim: int,
    weight: np.ndarray | None,
    bias: np.ndarray | None,
    eps: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """`layer_norm` of x + y, of one shape -> out, the sum, mean, rstd."""
    total = np.asarray(np.add(x, y), order="C")
    out, mean, rstd = layer_norm(total, ndim, weight, bias, eps)
    return out, total, mean, rstd


def rms_norm(
    x: np.ndarray, ndim: int, weight: np.ndarray | None, eps: float
) -> tuple[np.ndarray, np.ndarray]:
    """x * rstd * weight with rstd = 1 / sqrt(mean(x^2) + eps).

    x: (*lead, *normalised), weight: (*normalised) or None -> out of x's shape, rstd (*lead).
    """
    lead, rows, width = split_axes(x, ndim)
    out, rstd = np.empty(x.shape, x.dtype), np.empty(lead, x.dtype)
    if not out.size:
        rstd.fill(np.nan)
        return out, rstd
    x2, out2, rstd1 = as_rows(x, rows, width), out.reshape(rows, width), rstd.reshape(-1)
    scale = None if weight is None else flat(weight)
    for start, stop in spans(rows, width):
        o, r = out2[start:stop], rstd1[start:stop]
        np.vecdot(x2[start:stop], x2[start:stop], out=r)
        r /= width
        r += eps
        np.sqrt(r, out=r)
        np.reciprocal(r, out=r)
        np.multiply(x2[start:stop], r[:, None], out=o)
        if scale is not None:
            o *= scale
    return out, rstd


def _backward(
    g: np.ndarray,
    x: np.ndarray,
    ndim: int,
    weight: np.ndarray | None,
    mean: np.ndarray | None,
    rstd: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """dx and the row sums of g * xhat and g; without a mean, the mean's part of dx is absent."""
    _, rows, width = split_axes(x, ndim)
    dx = np.empty(x.shape, x.dtype)
    dweight = np.zeros(x.shape[x.ndim - ndim :], x.dtype)
    dbias = np.zeros_like(dweight)
    if not dx.size:
        return dx, dweight, dbias
    x2, g2, dx2 = as_rows(x, rows, width), as_rows(g, rows, width), dx.reshape(rows, width)
    scale = np.ones(width, x.dtype) if weight is None else flat(weight)
    center, rate = None if mean is None else flat(mean)[:, None], flat(rstd)[:, None]
    dscale, dshift = dweight.reshape(-1), dbias.reshape(-1)
    for start, stop in spans(rows, width):
        g, d, r = g2[start:stop], dx2[start:stop], rate[start:stop]
        if center is None:
            xhat = x2[start:stop] * r
        else:
            xhat = x2[start:stop] - center[start:stop]
            xhat *= r
        np.multiply(g, xhat, out=d)
        dscale += sum_rows(d)
        dshift += sum_rows(g)
        xhat *= (np.matmul(d, scale) / width)[:, None]
        if weight is None:
            np.subtract(g, xhat, out=d)
        else:
            np.multiply(g, scale, out=d)
            d -= xhat
        if center is not None:
            d -= (np.matmul(g, scale) / width)[:, None]
        d *= r
    return dx, dweight, dbias


def layer_norm_backward(
    g: np.ndarray,
    x: np.ndarray,
    ndim: int,
    weight: np.ndarray | None,
    mean: np.ndarray,
    rstd: np.ndarray,
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
    """Gradients of `layer_norm`, from its statistics.

    g, x: (*lead, *normalised), mean, rstd: (*lead) -> dx of x's shape, dweight (*normalised) or
    None without weight, dbias (*normalised) always.
    """
    dx, dweight, dbias = _backward(g, x, ndim, weight, mean, rstd)
    return dx, None if weight is None else dweight, dbias


def rms_norm_backward(
    g: np.ndarray, x: np.ndarray, ndim: int, weight: np.ndarray | None, rstd: np.ndarray
) -> tuple[np.ndarray, np.ndarray | None]:
    """Gradients of `rms_norm`, from its statistic.

    g, x: (*lead, *normalised), rstd: (*lead) -> dx of x's shape, dweight (*normalised) or None
    without weight.
    """
    dx, dweight, _ = _backward(g, x, ndim, weight, None, rstd)
    return dx, None if weight is None else dweight
