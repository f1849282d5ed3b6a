"""Softmax family along one axis, shifted by the maximum so that no finite input overflows.

Rows are contiguous after the axis has been moved last. All results are fresh, C-contiguous and
of the input's shape and dtype; inputs may have any strides, may be broadcast, empty or 0-d. An
axis is counted from either end.
"""

import math
from collections.abc import Callable

import numpy as np

from minidl.backends.reference.blocks import as_rows, spans


def along(run: Callable[..., None], axis: int, *inputs: np.ndarray) -> np.ndarray:
    """`run(*inputs, out)` on (rows, width) arrays with `axis` as the width."""
    first = inputs[0]
    out = np.empty(first.shape, first.dtype)
    if not out.size:
        return out
    last = first.ndim == 0 or axis in (-1, first.ndim - 1)
    if last:
        width = first.shape[-1] if first.ndim else 1
        sources, target = inputs, out
    else:
        width = first.shape[axis]
        sources = [np.moveaxis(x, axis, -1) for x in inputs]
        target = np.empty(sources[0].shape, first.dtype)
    rows = out.size // width
    run(*[as_rows(x, rows, width) for x in sources], target.reshape(rows, width))
    if not last:
        out[...] = np.moveaxis(target, -1, axis)
    return out


def _along(kernel: Callable[..., None], axis: int, *inputs: np.ndarray) -> np.ndarray:
    """`kernel(out, *inputs, ones)` on (rows, width) pieces with `axis` as the width."""

    def run(*arrays: np.ndarray) -> None:
        *sources, target = arrays
        rows, width = target.shape
        ones = np.ones(width, target.dtype)
        for start, stop in spans(rows, width):
            kernel(target[start:stop], *[x[start:stop] for x in sources], ones)

    return along(run, axis, *inputs)


def fold_sum(
    x: np.ndarray, axis: tuple[int, ...], keepdim: bool
) -> tuple[np.ndarray, np.ndarray | None]:
    """What a reduction of `x` fills, and `x` as (rows, width) with the axes as the width.

    None in place of the rows where there is nothing to reduce, or nothing to fill.
    """
    axes = {a % x.ndim for a in axis} if x.ndim else set()
    kept = [a for a in range(x.ndim) if a not in axes]
    shape = [x.shape[a] for a in kept]
    full = [1 if a in axes else n for a, n in enumerate(x.shape)]
    out = np.empty(full if keepdim else shape, x.dtype)
    rows, width = math.prod(shape), math.prod(x.shape[a] for a in axes)
    if not rows or not width:
        return out, None
    return out, as_rows(x.transpose(*kept, *sorted(axes)), rows, width)


def _softmax(out: np.ndarray, x: np.ndarray, ones: np.ndarray) -> None:
    np.subtract(x, x.max(axis=1, keepdims=True), out=out)
    np.exp(out, out=out)
    out /= np.matmul(out, ones)[:, None]


def _softmax_backward(dx: np.ndarray, g: np.ndarray, out: np.ndarray, ones: np.ndarray) -> None:
    np.subtract(g, np.vecdot(g, out)[:, None], out=dx)
    dx *= out


def _log_softmax(out: np.ndarray, x: np.ndarray, ones: np.ndarray) -> None:
    np.subtract(x, x.max(axis=1, keepdims=True), out=out)
    out -= np.log(np.matmul(np.exp(out), ones))[:, None]


def _log_softmax_backward(dx: np.ndarray, g: np.ndarray, out: np.ndarray, ones: np.ndarray) -> None:
    np.exp(out, out=dx)
    dx *= np.matmul(g, ones)[:, None]
    np.subtract(g, dx, out=dx)


def softmax(x: np.ndarray, axis: int) -> np.ndarray:
    """exp(x) / sum(exp(x)) along `axis`; a row that is -inf throughout or has +inf or NaN is NaN.

    Floor: (|x - max| + 4) ULP.
    """
    return _along(_softmax, axis, x)


def softmax_backward(g: np.ndarray, out: np.ndarray, axis: int) -> np.ndarray:
    """out * (g - sum(g * out)), where `out` is the result of `softmax`.

    Floor: width * eps * sum|g * out| per row.
    """
    return _along(_softmax_backward, axis, g, out)


def log_softmax(x: np.ndarray, axis: int) -> np.ndarray:
    """x - log(sum(exp(x))) along `axis`; a row that is -inf throughout or has +inf or NaN is NaN.

    Floor: 4 * eps * (|x - max| + log(width)).
    """
    return _along(_log_softmax, axis, x)


def log_softmax_backward(g: np.ndarray, out: np.ndarray, axis: int) -> np.ndarray:
    """g - exp(out) * sum(g), where `out` is the result of `log_softmax`.

    Floor: width * eps * sum|g| per row.
    """
    return _along(_log_softmax_backward, axis, g, out)


def logsumexp(x: np.ndarray, axis: tuple[int, ...], keepdim: bool) -> np.ndarray:
    """log(sum(exp(x))) over the axes; all -inf (or nothing at all) gives -inf, any +inf gives +inf.

    x: any shape -> the other axes, those of `axis` kept as 1 if `keepdim`.

    Floor: 4 * eps * (|max| + log(count)).
    """
    out, x2 = fold_sum(x, axis, keepdim)
    if x2 is None:
        out.fill(-np.inf)
        return out
    rows, width = x2.shape
    target, ones = out.reshape(-1), np.ones(width, x.dtype)
    for start, stop in spans(rows, width):
        piece = x2[start:stop]
        shift = piece.max(axis=1)
        np.copyto(
            shift, 0, where=np.isinf(shift)
        )  # -inf - -inf would be NaN; exp(+inf) is the right +inf
        total = np.matmul(np.exp(piece - shift[:, None]), ones)
        np.add(np.log(total), shift, out=target[start:stop])
    return out
