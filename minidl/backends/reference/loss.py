"""Losses, before any reduction. Inputs may have any strides; results are fresh and C-contiguous."""

import numpy as np

from minidl.backends.reference.blocks import as_rows, pointwise, spans
from minidl.backends.reference.host import refuse
from minidl.errors import OutOfRangeError


class NoClass(OutOfRangeError, ValueError):
    """A target that is neither a class nor ignored, as users are told of it on a GPU."""

    def __init__(self, classes: int, ignore_index: int) -> None:
        super().__init__(f"targets must lie in [0, {classes}) or be ignore_index={ignore_index}")


def cross_entropy(
    logits: np.ndarray,
    target: np.ndarray,
    weight: np.ndarray | None,
    ignore_index: int,
    label_smoothing: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Per-row loss (1 - s) w[t] nll[t] + s / C sum_c w[c] nll[c], nll = lse - logits; 0 if ignored.

    logits: (N, C), target: (N,) of any integer dtype with 0 <= t < C or t == ignore_index, weight:
    (C,) or None for ones -> losses (N,), lse (N,), the log-sum-exp, and total (), the sum of w[t]
    over the rows that are not ignored.

    ValueError for another target. Floor of the losses: C * eps * (|max| + log C) * w, no
    cancellation beyond that of x - max.
    """
    rows, classes = logits.shape
    losses, lse = np.zeros(rows, logits.dtype), np.full(rows, -np.inf, logits.dtype)
    check_targets(target, classes, ignore_index)
    if not logits.size:
        return losses, lse, np.zeros((), logits.dtype)
    x = as_rows(logits, rows, classes)
    ones = np.ones(classes, logits.dtype)
    used, index, picked = _targets(target, weight, ignore_index, logits.dtype)
    total = np.array(np.where(used, picked, 0).sum(dtype=np.float64), logits.dtype)
    for start, stop in spans(rows, classes):
        part = slice(start, stop)
        top = x[part].max(axis=1)
        shifted = x[part] - top[:, None]
        log = np.log(np.matmul(np.exp(shifted), ones))
        np.add(log, top, out=lse[part])
        loss = (log - shifted[np.arange(stop - start), index[part]]) * picked[part]
        if label_smoothing:
            # log >= 0 >= shifted, so this sum of all classes' losses does not cancel
            each = ones if weight is None else np.ascontiguousarray(weight)
            smooth = np.matmul(np.subtract(log[:, None], shifted, out=shifted), each)
            loss = (1 - label_smoothing) * loss + (label_smoothing / classes) * smooth
        np.copyto(losses[part], loss, where=used[part])
    return losses, lse, total


def check_targets(target: np.ndarray, classes: int, ignore_index: int) -> None:
    """Refuse a target that is neither a class nor ignored."""
    bad = (target != ignore_index) & ((target < 0) | (target >= classes))
    refuse(bad, NoClass(classes, ignore_index))


def _targets(
    target: np.ndarray, weight: np.ndarray | None, ignore_index: int, dtype: np.dtype
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which rows count, their classes (0 where ignored) and the weights of those classes."""
    used = target != ignore_index
    index = np.where(used, target, 0).astype(np.intp)
    picked = np.ones(len(index), dtype) if weight is None else weight[index]
    return used, index, picked


def cross_entropy_backward(
    g: np.ndarray,
    logits: np.ndarray,
    target: np.ndarray,
    weight: np.ndarray | None,
    ignore_index: int,
    label_smoothing: float,
    lse: np.ndarray,
) -> np.ndarray:
    """Gradient of `cross_entropy` with respect to the logits; ignored rows are 0.

    g: (N,), one per row, or () for all, lse: (N,) as returned -> (N, C).

    Floor: 4 * eps * |g| * (w[t] + mean(w)), and |lse| * eps relative to the probabilities.
    """
    rows, classes = logits.shape
    dx = np.empty(logits.shape, logits.dtype)
    if not dx.size:
        return dx
    x = as_rows(logits, rows, classes)
    g = np.broadcast_to(g, lse.shape)
    used, index, picked = _targets(target, weight, ignore_index, logits.dtype)
    share = np.full(classes, label_smoothing / classes, logits.dtype)
    if weight is not None and label_smoothing:  # else an infinite weight would become NaN
        share *= weight
    direct = (1 - label_smoothing) * picked * g
    for start, stop in spans(rows, classes):
        part, d = slice(start, stop), dx[start:stop]
        np.subtract(x[part], lse[part, None], out=d)
        np.exp(d, out=d)
        d *= (direct[part] + share.sum() * g[part])[:, None]
        d[np.arange(stop - start), index[part]] -= direct[part]
        if label_smoothing:
            d -= np.multiply.outer(g[part], share)
        np.copyto(d, 0, where=~used[part, None])
    return dx


def cross_entropy_in_place(
    logits: np.ndarray,
    target: np.ndarray,
    weight: np.ndarray | None,
    ignore_index: int,
    label_smoothing: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`cross_entropy`, which overwrites the logits by the gradient of each row's own loss.

    logits: (N, C), written: then what `cross_entropy_backward` gives for g = 1; other arguments and
    results as of `cross_entropy` -> losses (N,), lse (N,), total ().

    ValueError for another target, before anything is written where values are looked at at once.
    Floors as of the two.
    """
    rest = target, weight, ignore_index, label_smoothing
    losses, lse, total = cross_entropy(logits, *rest)
    logits[...] = cross_entropy_backward(np.ones((), logits.dtype), logits, *rest, lse)
    return losses, lse, total


def _spread(like: np.ndarray, *operands: np.ndarray | None) -> list[np.ndarray]:
    ones = np.ones((), like.dtype)
    return [np.broadcast_to(ones if p is None else p, like.shape) for p in operands]


def binary_cross_entropy_with_logits(
    x: np.ndarray, target: np.ndarray, weight: np.ndarray | None, pos_weight: np.ndarray | None
) -> np.ndarray:
    """w (p t softplus(-x) + (1 - t) softplus(x)), elementwise.

    x, target: one shape; weight w, pos_weight p: broadcastable to it, None for 1 -> x's shape.

    Floor: 8 ULP for targets in [0, 1], plus the smallest normal number. An infinite logit gives
    NaN where its term has weight 0, as in PyTorch.
    """

    def kernel(out, x, t, p, s, u) -> None:
        np.abs(x, out=s)
        np.negative(s, out=s)
        np.exp(s, out=s)
        np.log1p(s, out=s)
        np.maximum(x, 0, out=out)
        out += s  # softplus(x)
        np.subtract(1, t, out=u)
        out *= u
        np.minimum(x, 0, out=u)
        s -= u  # softplus(-x)
        s *= t
        if pos_weight is not None:
            s *= p
        out += s

    losses = pointwise(kernel, 2, x, target, *_spread(x, pos_weight))
    if weight is not None:
        losses *= weight
    return losses


def binary_cross_entropy_with_logits_backward(
    g: np.ndarray,
    x: np.ndarray,
    target: np.ndarray,
    weight: np.ndarray | None,
    pos_weight: np.ndarray | None,
) -> np.ndarray:
    """g w ((1 - t) sigmoid(x) - p t sigmoid(-x)), elementwise: no cancellation at t = 0 or 1.

    g, x, target: one shape; weight w, pos_weight p: broadcastable to it, None for 1 -> x's shape.

    Floor: 8 * eps * |g w| * ((1 - t) sigmoid(x) + p t sigmoid(-x)), plus the smallest normal.
    """

    def kernel(dx, g, x, t, p, e, u) -> None:
        np.abs(x, out=e)
        np.negative(e, out=e)
        np.exp(e, out=e)  # sigmoid(|x|) = 1 / (1 + e), sigmoid(-|x|) = e / (1 + e)
        positive = x > 0
        np.multiply(p, t, out=dx)
        np.subtract(1, t, out=u)
        dx *= np.where(positive, e, 1)
        u *= np.where(positive, 1, e)
        np.subtract(u, dx, out=dx)
        e += 1
        dx /= e
        dx *= g

    dx = pointwise(kernel, 2, g, x, target, *_spread(x, pos_weight))
    if weight is not None:
        dx *= weight
    return dx
