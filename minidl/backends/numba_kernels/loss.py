"""Cross-entropy of logits, forward and backward, a row at a time.

Limits per element, float32: 4 bytes read (4 and 4 written backward) and one exponential.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from minidl.backends.numba_kernels.compiled import In1, In2, Index1, Kernel, Out1, Out2, split
from minidl.backends.numba_kernels.elementary import decay, largest, like, widest
from minidl.backends.reference.blocks import as_rows, flat
from minidl.backends.reference.loss import check_targets


@Kernel
def _forward(
    start: int,
    stop: int,
    x: In2,
    index: Index1,
    weight: In1,
    smoothing: float,
    losses: Out1,
    lse: Out1,
) -> None:
    widest()
    classes = x.shape[1]
    for i in range(start, stop):
        row, t = x[i], index[i]
        top = largest(row)
        total = like(top, 0.0)
        for j in range(classes):
            total += decay(row[j] - top)
        log = math.log(total)
        lse[i] = log + top
        if t < 0:
            losses[i] = like(top, 0.0)
            continue
        loss = (log - (row[t] - top)) * weight[t]
        if smoothing != 0:
            # log >= 0 >= x - top, so this sum of all classes' losses does not cancel
            smooth = like(top, 0.0)
            for j in range(classes):
                smooth += (log - (row[j] - top)) * weight[j]
            loss = like(top, 1 - smoothing) * loss + like(top, smoothing / classes) * smooth
        losses[i] = loss


@Kernel
def _backward(
    start: int,
    stop: int,
    g: In1,
    x: In2,
    index: Index1,
    weight: In1,
    smoothing: float,
    lse: In1,
    dx: Out2,
) -> None:
    widest()
    classes = x.shape[1]
    each = like(g[0], smoothing / classes)
    shared = like(g[0], 0.0)
    if smoothing != 0:
        for j in range(classes):
            shared += each * weight[j]
    for i in range(start, stop):
        row, d, t = x[i], dx[i], index[i]
        if t < 0:
            for j in range(classes):
                d[j] = like(each, 0.0)
            continue
        direct = like(each, 1 - smoothing) * weight[t] * g[i]
        scale = direct + shared * g[i]
        shift = lse[i]
        for j in range(classes):
            d[j] = decay(row[j] - shift) * scale
        d[t] -= direct
        if smoothing != 0:
            part = each * g[i]
            for j in range(classes):
                d[j] -= part * weight[j]


def _classes(
    target: np.ndarray, weight: np.ndarray | None, ignore_index: int, logits: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The classes of the rows, -1 where they are ignored, and the weights of the classes."""
    index = np.where(target != ignore_index, target.astype(np.int64, copy=False), -1)
    return index, np.ones(logits.shape[1], logits.dtype) if weight is None else flat(weight)


def cross_entropy(
    logits: np.ndarray,
    target: np.ndarray,
    weight: np.ndarray | None,
    ignore_index: int,
    label_smoothing: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """As specified in reference/loss.py."""
    rows, classes = logits.shape
    losses, lse = np.zeros(rows, logits.dtype), np.full(rows, -np.inf, logits.dtype)
    check_targets(target, classes, ignore_index)
    if not logits.size:
        return losses, lse, np.zeros((), logits.dtype)
    index, scale = _classes(target, weight, ignore_index, logits)
    total = np.array(scale[index].sum(where=index >= 0, dtype=np.float64), logits.dtype)
    inputs = as_rows(logits, rows, classes), index, scale, float(label_smoothing)
    split(_forward[logits.dtype], rows, logits.size, *inputs, losses, lse)
    return losses, lse, total


def cross_entropy_backward(
    g: np.ndarray,
    logits: np.ndarray,
    target: np.ndarray,
    weight: np.ndarray | None,
    ignore_index: int,
    label_smoothing: float,
    lse: np.ndarray,
) -> np.ndarray:
    """As specified in reference/loss.py."""
    rows, classes = logits.shape
    dx = np.empty(logits.shape, logits.dtype)
    if not dx.size:
        return dx
    index, scale = _classes(target, weight, ignore_index, logits)
    each = flat(np.broadcast_to(g, lse.shape))
    inputs = each, as_rows(logits, rows, classes), index, scale, float(label_smoothing), flat(lse)
    split(_backward[logits.dtype], rows, logits.size, *inputs, dx)
    return dx


ENTRIES: dict[str, Callable] = {
    function.__name__: function for function in (cross_entropy, cross_entropy_backward)
}
