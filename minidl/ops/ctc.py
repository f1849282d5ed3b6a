"""Connectionist temporal classification: the likelihood of labels under all their alignments.

Graves et al., "Connectionist Temporal Classification", ICML 2006. The labels of a sample are spread
with blanks between them and at both ends, (N, S) with S = 2 * longest + 1; `alpha[t, n, s]` is the
log likelihood of all ways to be at place s after step t, `beta` that of all ways on from there.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minidl.autograd.op import Array, Index, constant, op
from minidl.backends import kernels_for
from minidl.dtypes import FLOAT
from minidl.errors import ArgumentError, DTypeError, GradientError, OutOfRangeError, ShapeError
from minidl.ops.compare import eq
from minidl.ops.method import check_tensor
from minidl.ops.reduce import mean, sum
from minidl.ops.select import where
from minidl.ops.views import reshape, unsqueeze
from minidl.tensor import Tensor

__all__ = ["ctc_loss"]


class _Places:
    """What the recursions need to know of the labels: places, jumps over a blank, and lengths."""

    def __init__(self, k: Any, targets: Array, lengths: Array, steps: Array, blank: int) -> None:
        count, longest = targets.shape
        self.k = k
        self.labels = k.full((count, 2 * longest + 1), blank, np.int64)
        self.labels[:, 1::2] = targets
        self.jumps = k.zeros(self.labels.shape, bool)
        self.jumps[:, 2:] = self.labels[:, 2:] != self.labels[:, :-2]
        self.jumps[:, ::2] = False
        self.last = steps - 1  # of each sample's steps
        self.end = 2 * lengths  # the place after its last label
        self.samples = k.arange(count)

    def read(self, log_probs: Array) -> Array:
        """The log probability of each place's label at each step: (T, N, S), in float64."""
        places = self.k.broadcast_to(self.labels, (len(log_probs), *self.labels.shape))
        return self.k.take_along_axis(log_probs, places, axis=2).astype(np.float64)

    def forwards(self, emitted: Array) -> Array:
        """alpha (T, N, S)."""
        k = self.k
        alpha = k.full(emitted.shape, -np.inf, np.float64)
        alpha[0, :, :2] = emitted[0, :, :2]
        for t in range(1, len(alpha)):
            before = alpha[t - 1]
            total = before.copy()
            k.logaddexp(total[:, 1:], before[:, :-1], out=total[:, 1:])
            jumped = k.where(self.jumps[:, 2:], before[:, :-2], -np.inf)
            k.logaddexp(total[:, 2:], jumped, out=total[:, 2:])
            alpha[t] = total + emitted[t]
        return alpha

    def backwards(self, emitted: Array) -> Array:
        """beta (T, N, S), with the step's own emission left out."""
        k = self.k
        beta = k.full(emitted.shape, -np.inf, np.float64)
        ends = k.full(self.labels.shape, -np.inf, np.float64)
        ends[self.samples, self.end] = 0
        ends[self.samples, self.k.maximum(self.end - 1, 0)] = 0
        for t in range(len(beta) - 1, -1, -1):
            if t + 1 < len(beta):
                after = beta[t + 1] + emitted[t + 1]
                total = after.copy()
                k.logaddexp(total[:, :-1], after[:, 1:], out=total[:, :-1])
                jumped = k.where(self.jumps[:, 2:], after[:, 2:], -np.inf)
                k.logaddexp(total[:, :-2], jumped, out=total[:, :-2])
                beta[t] = total
            beta[t] = k.where((t == self.last)[:, None], ends, beta[t])
        return beta

    def losses(self, alpha: Array) -> Array:
        """Minus the log likelihood of each sample: both ways to end, after its last step."""
        final = alpha[self.last, self.samples]
        blank = final[self.samples, self.end]
        label = final[self.samples, self.k.maximum(self.end - 1, 0)]
        return -self.k.where(self.end > 0, self.k.logaddexp(blank, label), blank)


@op(residuals=("alpha",), promote=None)
def _ctc_loss(
    k: Any, log_probs: Array, targets: Index, lengths: Index, steps: Index, blank: int
) -> Any:
    places = _Places(k, targets, lengths, steps, blank)
    alpha = places.forwards(places.read(log_probs))
    return places.losses(alpha).astype(log_probs.dtype), alpha


@_ctc_loss.gradient
def _(
    g: Tensor,
    log_probs: Tensor,
    alpha: Tensor,
    targets: Any,
    lengths: Any,
    steps: Any,
    blank: int,
) -> Any:
    return _ctc_backward(g, log_probs, alpha, targets, lengths, steps, blank)


@op(promote=None)
def _ctc_backward(
    k: Any,
    grad: Array,
    log_probs: Array,
    alpha: Array,
    targets: Index,
    lengths: Index,
    steps: Index,
    blank: int,
) -> Any:
    """Minus the share of all alignments that emit each label at each step."""
    places = _Places(k, targets, lengths, steps, blank)
    through = alpha + places.backwards(places.read(log_probs)) + places.losses(alpha)[:, None]
    share = k.where(through > -np.inf, k.exp(through), 0.0)
    share = k.where(k.isnan(places.losses(alpha))[:, None], np.nan, share)
    labels = k.broadcast_to(places.labels, share.shape)
    out = k.scatter_add(k.zeros(log_probs.shape, np.float64), 2, labels, -share)
    # nothing arrives where nothing is asked for: an infinite loss has no shares
    wanted = grad[:, None] * k.ones(out.shape[2], np.float64)
    return k.where(wanted == 0, 0.0, out * wanted).astype(log_probs.dtype)


@_ctc_backward.gradient
def _(g: Tensor) -> Any:
    raise GradientError("there is no second derivative", operator="ctc_loss")


def ctc_loss(
    log_probs: Tensor,
    targets: Tensor,
    input_lengths: Any,
    target_lengths: Any,
    blank: int = 0,
    reduction: str = "mean",
    zero_infinity: bool = False,
) -> Tensor:
    """Minus the log likelihood of label sequences, summed over their alignments with the steps.

    log_probs: (T, N, C) or (T, C), from log_softmax; targets: (N, S) padded, or one after the other
    (sum of target_lengths,), integers in [0, C) other than `blank`; lengths: (N,) integers, as a
    tensor, list or tuple, or one for (T, C). "mean" divides each loss by its target's length
    (at least 1) before. A sample with too few steps is infinite; zero_infinity makes it, and its
    gradient, 0. The gradient is the derivative by `log_probs`; PyTorch's has exp(log_probs) added,
    which log_softmax takes out again. There is no second derivative. Lengths and targets are
    prepared on the CPU.
    """
    name = "ctc_loss"
    check_tensor(name, "log_probs", log_probs)
    check_tensor(name, "targets", targets)
    if log_probs.dtype.kind != FLOAT:
        raise DTypeError("log_probs must be floating point", operator=name,
                         got=repr(log_probs.dtype))  # fmt: skip
    if reduction not in ("mean", "sum", "none"):
        raise ArgumentError("reduction is one of ('mean', 'sum', 'none')", operator=name,
                            got=repr(reduction))  # fmt: skip
    if log_probs.ndim not in (2, 3):
        raise ShapeError("log_probs must be (T, N, C) or (T, C)", operator=name,
                         got=str(log_probs.shape))  # fmt: skip
    single = log_probs.ndim == 2
    x = unsqueeze(log_probs, 1) if single else log_probs
    most, count, classes = x.shape
    steps = _lengths(name, "input_lengths", input_lengths, count, most)
    lengths = _lengths(name, "target_lengths", target_lengths, count, None)
    if count and steps.min() < 1:
        raise ArgumentError("input_lengths must be positive", operator=name, got=str(steps))
    if not 0 <= blank < classes:
        raise OutOfRangeError(f"blank must lie in [0, {classes})", operator=name, got=repr(blank))
    labels = _padded(name, targets, lengths, classes, blank)
    given = (constant(a) for a in (labels, lengths, steps))
    losses = _ctc_loss(x, *given, blank)
    if zero_infinity:
        losses = where(eq(losses, np.inf), 0.0, losses)
    if reduction == "mean":
        sizes = np.maximum(lengths, 1).astype(losses.array.dtype)
        return mean(losses / constant(kernels_for(losses.array).asarray(sizes)))
    if reduction == "sum":
        return sum(losses)
    return reshape(losses, ()) if single else losses


def _lengths(name: str, argument: str, value: Any, count: int, most: int | None) -> np.ndarray:
    array: Any = _host(value) if type(value) is Tensor else np.asarray(value)
    if array.dtype.kind not in "iu" or array.size != count or array.ndim > 1:
        raise ShapeError(f"{argument} must be {count} integers", operator=name,
                         got=f"{array.shape} {array.dtype}")  # fmt: skip
    array = array.reshape(-1).astype(np.int64)
    if array.size and (array.min() < 0 or (most is not None and array.max() > most)):
        limit = "not be negative" if most is None else f"lie in [0, {most}]"
        raise OutOfRangeError(f"{argument} must {limit}", operator=name, got=str(array.tolist()))
    return array


def _host(x: Tensor) -> Any:
    return kernels_for(x.array).host(x.array)


def _padded(
    name: str, targets: Tensor, lengths: np.ndarray, classes: int, blank: int
) -> np.ndarray:
    """The labels as (N, longest), blanks behind the end of each."""
    if targets.array.dtype.kind not in "iu":
        raise DTypeError("targets must be integers", operator=name, got=repr(targets.dtype))
    count, longest = len(lengths), int(lengths.max()) if len(lengths) else 0
    within = np.arange(longest) < lengths[:, None]
    labels = np.full((count, longest), blank, np.int64)
    array = _host(targets)
    if array.ndim == 2 and array.shape[0] == count and array.shape[1] >= longest:
        labels[within] = array[:, :longest][within]
    elif array.ndim == 1 and array.size == lengths.sum():
        labels[within] = array
    else:
        raise ShapeError(
            "targets must be (N, S) with S at least the longest target, or hold all of them",
            operator=name, got=f"{targets.shape}, lengths {lengths.tolist()}",
        )  # fmt: skip
    used = labels[within]
    if used.size and (used.min() < 0 or used.max() >= classes or (used == blank).any()):
        raise OutOfRangeError(
            f"targets must lie in [0, {classes}) and not be the blank {blank}",
            operator=name, got=str(sorted(set(used.tolist()))),
        )  # fmt: skip
    return labels
