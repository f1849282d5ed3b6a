"""Losses. All take reduction="mean" (the default), "sum" or "none", by name."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np

from minidl.autograd.op import Array, Index, op
from minidl.backends import local
from minidl.dtypes import FLOAT, promote_types
from minidl.errors import ArgumentError, DTypeError, GradientError, OutOfRangeError, ShapeError
from minidl.ops.activation import logsigmoid
from minidl.ops.arithmetic import mul, sign
from minidl.ops.compare import eq, ne
from minidl.ops.convert import cast, widened
from minidl.ops.index import getitem
from minidl.ops.method import check_tensor
from minidl.ops.reduce import mean, sum
from minidl.ops.select import clamp, clamp_min, where
from minidl.ops.softmax import log_softmax
from minidl.ops.transcendental import exp, log, log1p
from minidl.ops.views import expand, permute, reshape
from minidl.tensor import Tensor

__all__ = [
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "cross_entropy",
    "huber_loss",
    "kl_div",
    "l1_loss",
    "mse_loss",
    "nll_loss",
    "smooth_l1_loss",
]


def _check(name: str, input: Any, target: Any, reduction: str, *allowed: str) -> None:
    check_tensor(name, "input", input)
    check_tensor(name, "target", target)
    allowed = ("mean", "sum", "none", *allowed)
    if reduction not in allowed:
        raise ArgumentError(f"reduction is one of {allowed}", operator=name, got=repr(reduction))


def _check_alike(name: str, input: Any, target: Any, reduction: str) -> None:
    _check(name, input, target, reduction)
    if input.shape != target.shape:
        warnings.warn(
            f"[{name}] input {input.shape} and target {target.shape} are broadcast: is that meant?",
            stacklevel=3,
        )


def _constant(name: str, argument: str, weight: Tensor | None) -> None:
    if weight is None:
        return
    check_tensor(name, argument, weight)
    if local.state.recording and weight.requires_grad:
        raise GradientError(f"{argument} has no gradient; pass {argument}.detach()", operator=name)


def _same_shape(name: str, input: Tensor, target: Tensor, **factors: Tensor | None) -> None:
    """target has input's shape, and the factors, which get no gradient, broadcast to it."""
    if input.shape != target.shape:
        raise ShapeError(
            "target must have the shape of input",
            operator=name, got=f"{input.shape}, {target.shape}",
        )  # fmt: skip
    for argument, x in factors.items():
        _constant(name, argument, x)
        if x is not None and not _fits(x.shape, input.shape):
            raise ShapeError(
                f"{argument} must broadcast to input",
                operator=name, got=f"{x.shape}, {input.shape}",
            )  # fmt: skip


def _fits(shape: tuple[int, ...], whole: tuple[int, ...]) -> bool:
    """Whether `shape` broadcasts to `whole`."""
    try:
        return np.broadcast_shapes(shape, whole) == whole
    except ValueError:
        return False


def _floating(*arrays: Any) -> None:
    if any(x.dtype.kind in "biu" for x in arrays):  # bfloat16 is of NumPy's kind V
        raise DTypeError("input and target must be floating point")


def _floating_logits(input: Any) -> None:
    if input.dtype.kind in "biu":
        raise DTypeError("input must be floating point")


def _reduced(k: Any, losses: Any, reduction: str) -> Any:
    """Computed inside the operator, so that half dtypes are summed in float32."""
    if reduction == "none":
        return losses
    total = k.sum(losses)
    return k.div(total, losses.size) if reduction == "mean" else total


def _in(k: Any, x: Any, dtype: Any) -> Any:
    """What an entry that takes 16-bit floats gave in float32, rounded at the end."""
    return x if x.dtype == dtype else k.cast(x, dtype)


def _reduce(losses: Tensor, reduction: str) -> Tensor:
    """The same, of a Tensor."""
    if reduction == "none":
        return losses
    return mean(losses) if reduction == "mean" else sum(losses)


def _shares(g: Tensor, reduction: str, *shapes: tuple[int, ...]) -> Tensor:
    """The gradient of each element's loss, given that of the reduced one."""
    if reduction != "mean":
        return g
    first, *others = shapes
    alike = all([shape == first for shape in others])
    return g / math.prod(first if alike else np.broadcast_shapes(*shapes))


# ---------------------------------------------------------------- distances


def _promoted(input: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Both in their common dtype; a 0-d one counts in full, as in PyTorch, which expands it."""
    if input.array.dtype is target.array.dtype:
        return input, target
    dtype = promote_types(input.dtype, target.dtype)
    return cast(input, dtype), cast(target, dtype)


@op
def _mse_loss(k: Any, input: Array, target: Array, reduction: str) -> Any:
    _floating(input, target)
    d = k.asarray(k.sub(input, target))
    return _reduced(k, k.mul(d, d, out=d), reduction)


@_mse_loss.gradient
def _(g: Tensor, input: Tensor, target: Tensor, reduction: str, needs: Any) -> Any:
    d = (input - target) * (2 * _shares(g, reduction, input.shape, target.shape))
    return d, -d if needs[1] else None


def mse_loss(
    input: Tensor, target: Tensor, *, reduction: str = "mean", weight: Tensor | None = None
) -> Tensor:
    """Squared difference. input, target: shapes that broadcast -> () or, with "none", theirs.

    weight, of input's shape, multiplies each element's; their mean is over the sum of the weights.
    """
    _check_alike("mse_loss", input, target, reduction)
    if weight is not None:
        losses = _mse_loss(*_promoted(input, target), "none")
        return _each_weighted("mse_loss", losses, input, weight, reduction)
    return _mse_loss(*_promoted(input, target), reduction)


def _each_weighted(
    name: str,
    losses: Tensor,
    input: Tensor,
    weight: Any,
    reduction: str,
    over_weights: bool = True,
) -> Tensor:
    """Losses times their weights, reduced; the mean is over the sum of the weights or over all."""
    check_tensor(name, "weight", weight)
    if weight.shape != input.shape:
        raise ShapeError(
            "weight must have the shape of input",
            operator=name, got=f"{weight.shape}, {input.shape}",
        )  # fmt: skip
    losses = losses * weight
    if reduction == "mean" and over_weights:
        return sum(losses) / sum(weight)
    return _reduce(losses, reduction)


@op
def _l1_loss(k: Any, input: Array, target: Array, reduction: str) -> Any:
    _floating(input, target)
    d = k.asarray(k.sub(input, target))
    return _reduced(k, k.abs(d, out=d), reduction)


@_l1_loss.gradient
def _(g: Tensor, input: Tensor, target: Tensor, reduction: str, needs: Any) -> Any:
    d = sign(input - target) * _shares(g, reduction, input.shape, target.shape)
    return d, -d if needs[1] else None


def l1_loss(
    input: Tensor, target: Tensor, *, reduction: str = "mean", weight: Tensor | None = None
) -> Tensor:
    """Absolute difference. Shapes and weight as in `mse_loss`."""
    _check_alike("l1_loss", input, target, reduction)
    if weight is not None:
        losses = _l1_loss(*_promoted(input, target), "none")
        return _each_weighted("l1_loss", losses, input, weight, reduction)
    return _l1_loss(*_promoted(input, target), reduction)


@op
def _huber_loss(
    k: Any, input: Array, target: Array, reduction: str, delta: float, scale: float
) -> Any:
    """scale * (d^2 / 2 where |d| < delta, else delta * (|d| - delta / 2))."""
    _floating(input, target)
    d = k.abs(k.sub(input, target))
    near = k.minimum(d, delta)  # both branches are near * (d - near / 2)
    losses = k.mul(near, k.sub(d, k.mul(near, 0.5)))
    return _reduced(k, losses if scale == 1 else k.mul(losses, scale), reduction)


@_huber_loss.gradient
def _(
    g: Tensor, input: Tensor, target: Tensor, reduction: str, delta: float, scale: float, needs: Any
) -> Any:
    share = _shares(g, reduction, input.shape, target.shape) * scale
    d = clamp(input - target, -delta, delta) * share
    return d, -d if needs[1] else None


def huber_loss(
    input: Tensor,
    target: Tensor,
    reduction: str = "mean",
    delta: float = 1.0,
    weight: Tensor | None = None,
) -> Tensor:
    """`d ** 2 / 2` where |d| < delta, `delta * (|d| - delta / 2)` beyond; d = input - target.

    weight, of input's shape, multiplies each element's; their mean is over all elements.
    """
    _check_alike("huber_loss", input, target, reduction)
    if not delta > 0:
        raise ArgumentError("delta must be positive", operator="huber_loss", got=repr(delta))
    if weight is not None:
        losses = _huber_loss(*_promoted(input, target), "none", delta, 1)
        return _each_weighted("huber_loss", losses, input, weight, reduction, over_weights=False)
    return _huber_loss(*_promoted(input, target), reduction, delta, 1)


def smooth_l1_loss(
    input: Tensor, target: Tensor, *, reduction: str = "mean", beta: float = 1.0
) -> Tensor:
    """`d ** 2 / (2 beta)` where |d| < beta, `|d| - beta / 2` beyond; d = input - target."""
    _check_alike("smooth_l1_loss", input, target, reduction)
    if beta < 0:
        raise ArgumentError("beta must not be negative", operator="smooth_l1_loss", got=repr(beta))
    if beta == 0:
        return l1_loss(input, target, reduction=reduction)
    return _huber_loss(*_promoted(input, target), reduction, beta, 1 / beta)


@op
def _kl_div(k: Any, input: Array, target: Array, reduction: str, log_target: bool) -> Any:
    _floating(input, target)
    if log_target:
        losses = k.mul(k.exp(target), k.sub(target, input))
    else:
        # 0 log 0 is 0, and then target - input must not be NaN either
        logs = k.where(k.eq(target, 0), target, k.mul(target, k.log(target)))
        losses = k.sub(logs, k.mul(target, input))
    return _reduced(k, losses, reduction)


@_kl_div.gradient
def _(
    g: Tensor, input: Tensor, target: Tensor, reduction: str, log_target: bool, needs: Any
) -> Any:
    share = _shares(g, reduction, input.shape, target.shape)
    share = expand(share, np.broadcast_shapes(input.shape, target.shape))
    p = exp(target) if log_target else target
    dtarget = None
    if needs[1]:
        dtarget = share * (p * (target - input + 1) if log_target else log(target) + 1 - input)
    return -p * share if needs[0] else None, dtarget


def kl_div(
    input: Tensor, target: Tensor, *, reduction: str = "mean", log_target: bool = False
) -> Tensor:
    """`target * (log(target) - input)` for log-probabilities `input` and probabilities `target`.

    log_target: target holds log-probabilities too. reduction "batchmean", the sum divided by the
    size of the first axis, is the Kullback-Leibler divergence; "mean" divides by all elements.
    """
    _check("kl_div", input, target, reduction, "batchmean")
    if reduction != "batchmean":
        return _kl_div(input, target, reduction, log_target)
    return _kl_div(input, target, "sum", log_target) / (input.shape[0] if input.ndim else 1)


# ---------------------------------------------------------------- binary cross entropy


def _weighted(k: Any, losses: Any, weight: Any) -> Any:
    return losses if weight is None else k.mul(losses, weight.astype(losses.dtype, copy=False))


def _times(x: Tensor, weight: Tensor | None) -> Tensor:
    return x if weight is None else x * weight


@op(promote="match")
def _binary_cross_entropy(
    k: Any, input: Array, target: Array, weight: Index | None, reduction: str
) -> Any:
    _floating(input, target)
    for x in (input, target):
        inside = k.logical_and(k.ge(x, 0), k.le(x, 1))
        if k.device != "cpu" or not k.all(inside):
            rule = "input and target must lie in [0, 1]"
            hint = " (for logits: binary_cross_entropy_with_logits)"
            k.refuse(k.logical_not(inside), ArgumentError(rule + hint))
    hit = k.maximum(k.log(input), -100)
    miss = k.maximum(k.log1p(k.neg(input)), -100)
    losses = k.neg(k.add(k.mul(target, k.sub(hit, miss)), miss))
    return _reduced(k, _weighted(k, losses, weight), reduction)


@_binary_cross_entropy.gradient
def _(g: Tensor, input: Tensor, target: Tensor, weight: Any, reduction: str, needs: Any) -> Any:
    share = _times(_shares(g, reduction, input.shape), weight)
    dinput = dtarget = None
    if needs[0]:
        dinput = share * (input - target) / clamp_min((1 - input) * input, 1e-12)
    if needs[1]:
        dtarget = share * (log1p(-input) - log(input))
    return dinput, dtarget


def binary_cross_entropy(
    input: Tensor, target: Tensor, weight: Tensor | None = None, *, reduction: str = "mean"
) -> Tensor:
    """`-(target * log(input) + (1 - target) * log(1 - input))` for probabilities `input`.

    input, target: one shape and dtype, weight broadcast to it; logarithms are cut off at -100.
    Raises ShapeError, DTypeError, and ArgumentError for either outside [0, 1].
    """
    _check("binary_cross_entropy", input, target, reduction)
    _same_shape("binary_cross_entropy", input, target, weight=weight)
    return _binary_cross_entropy(input, target, weight, reduction)


@op
def _binary_cross_entropy_with_logits(
    k: Any,
    input: Array,
    target: Array,
    weight: Index | None,
    pos_weight: Index | None,
    reduction: str,
) -> Any:
    _floating(input, target)
    w, p = (None if x is None else x.astype(input.dtype, copy=False) for x in (weight, pos_weight))
    losses = k.binary_cross_entropy_with_logits(input, target, w, p)
    return _in(k, _reduced(k, losses, reduction), input.dtype)


@_binary_cross_entropy_with_logits.gradient
def _(
    g: Tensor, input: Tensor, target: Tensor, weight: Any, pos_weight: Any, reduction: str,
    needs: Any,
) -> Any:  # fmt: skip
    share = _shares(g, reduction, input.shape)
    dinput = dtarget = None
    if needs[0]:
        dinput = _binary_cross_entropy_with_logits_backward(
            share, input, target, weight, pos_weight
        )
    if needs[1]:
        # the loss of target 1 less that of target 0
        dtarget = _times(share, weight) * (
            logsigmoid(-input) - _times(logsigmoid(input), pos_weight)
        )
    return dinput, dtarget


@op(nondiff=True)
def _binary_cross_entropy_with_logits_backward(
    k: Any, grad: Array, x: Array, target: Array, weight: Index | None, pos_weight: Index | None
) -> Any:
    w, p = (None if y is None else y.astype(x.dtype, copy=False) for y in (weight, pos_weight))
    grad = k.broadcast_to(grad, x.shape)
    return k.binary_cross_entropy_with_logits_backward(grad, x, target, w, p)


@_binary_cross_entropy_with_logits.composite
def _(
    input: Tensor, target: Tensor, weight: Tensor | None, pos_weight: Tensor | None, reduction: str
) -> Tensor:
    hit = _times(target, pos_weight) * logsigmoid(input)
    return _reduce(_times((target - 1) * logsigmoid(-input) - hit, weight), reduction)


def binary_cross_entropy_with_logits(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    reduction: str = "mean",
    pos_weight: Tensor | None = None,
) -> Tensor:
    """`binary_cross_entropy` of `sigmoid(input)`, safe from overflow at both ends.

    input, target: one shape; weight (of the loss) and pos_weight (of the target's part) broadcast
    to it. Raises ShapeError, DTypeError.
    """
    name = "binary_cross_entropy_with_logits"
    _check(name, input, target, reduction)
    _same_shape(name, input, target, weight=weight, pos_weight=pos_weight)
    return _binary_cross_entropy_with_logits(input, target, weight, pos_weight, reduction)


# ---------------------------------------------------------------- classes


def _check_classes(k: Any, target: Any, classes: int, ignore_index: int) -> None:
    wrong = (target != ignore_index) & ((target < 0) | (target >= classes))
    rule = f"targets must lie in [0, {classes}) or be ignore_index={ignore_index}"
    if k.device != "cpu":
        k.refuse(wrong, OutOfRangeError(rule))
    elif wrong.any():
        raise OutOfRangeError(rule, got=str(target[wrong][0]))


def _total(k: Any, target: Any, weight: Any, ignore_index: int, dtype: Any) -> Any:
    """What the mean divides by: the weights of the targets that count."""
    used = k.ne(target, ignore_index)
    if weight is None:
        return k.asarray(k.count_nonzero(used), dtype)
    return (
        k.sum(k.mul(weight[k.where(used, target, 0)], used)) if weight.size else k.zeros((), dtype)
    )


def _over(g: Tensor, total: Tensor) -> Tensor:
    """The gradient of a mean; where `total` is on the CPU it is read: a number costs less."""
    array = total.array
    return g / (float(array) if type(array) is np.ndarray else total)


def _reduced_rows(k: Any, losses: Any, total: Any, reduction: str) -> Any:
    if reduction == "none":
        return losses
    return k.div(k.sum(losses), total) if reduction == "mean" else k.sum(losses)


@op(residuals=("lse", "total"))
def _cross_entropy(
    k: Any,
    input: Array,
    target: Index,
    weight: Index | None,
    ignore_index: int,
    label_smoothing: float,
    reduction: str,
) -> Any:
    _floating_logits(input)
    w = None if weight is None else weight.astype(input.dtype, copy=False)
    try:
        losses, lse, total = k.cross_entropy(input, target, w, ignore_index, label_smoothing)
    except ValueError:
        _check_classes(k, target, input.shape[1], ignore_index)
        raise
    return _in(k, _reduced_rows(k, losses, total, reduction), input.dtype), lse, total


@_cross_entropy.gradient
def _(
    g: Tensor,
    input: Tensor,
    target: Tensor,
    weight: Any,
    ignore_index: int,
    label_smoothing: float,
    lse: Tensor,
    total: Any,
    reduction: str,
) -> Any:
    share = _over(g, total) if reduction == "mean" else g
    return _cross_entropy_backward(share, input, target, weight, lse, ignore_index, label_smoothing)


@op(nondiff=True)
def _cross_entropy_backward(
    k: Any,
    grad: Index,
    x: Array,
    target: Index,
    weight: Index | None,
    lse: Index,
    ignore_index: int,
    label_smoothing: float,
) -> Any:
    w = None if weight is None else weight.astype(x.dtype, copy=False)
    grad = _in(k, grad, lse.dtype)
    return k.cross_entropy_backward(grad, x, target, w, ignore_index, label_smoothing, lse)


@_cross_entropy.composite
def _(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None,
    ignore_index: int,
    label_smoothing: float,
    reduction: str,
) -> Tensor:
    logs = log_softmax(widened(input), 1)
    weight = None if weight is None else widened(weight)
    loss = _nll_loss(logs, target, weight, ignore_index, reduction) * (1 - label_smoothing)
    if label_smoothing:
        counts = ne(target, ignore_index)
        used = cast(counts, logs.dtype)
        smooth = -sum(_times(logs, weight), 1) * used * (label_smoothing / input.shape[1])
        if reduction != "none":
            smooth = sum(smooth)
        if reduction == "mean":
            kept = used if weight is None else used * getitem(weight, mul(target, counts))
            total = sum(kept)  # 0: the other part of the loss is NaN, and gradients are 0
            smooth = smooth / where(eq(total, 0), 1.0, total)
        loss = loss + smooth
    return cast(loss, input.dtype)


@op(residuals=("total",))
def _nll_loss(
    k: Any, input: Array, target: Index, weight: Index | None, ignore_index: int, reduction: str
) -> Any:
    _floating(input)
    _check_classes(k, target, input.shape[1], ignore_index)
    w = None if weight is None else weight.astype(input.dtype, copy=False)
    total = _total(k, target, w, ignore_index, input.dtype)
    losses = _picked(k, input, target, w, ignore_index)
    return _reduced_rows(k, losses, total, reduction), total


def _picked(k: Any, input: Any, target: Any, weight: Any, ignore_index: int) -> Any:
    """-w[t] * input[i, t] per row, 0 where t is ignored."""
    if not input.size:
        return k.zeros(len(input), input.dtype)
    used = k.ne(target, ignore_index)
    chosen = k.where(used, target, 0)
    losses = k.neg(input[k.arange(len(input)), chosen])
    return k.where(used, _weighted(k, losses, None if weight is None else weight[chosen]), 0.0)


@_nll_loss.gradient
def _(
    g: Tensor,
    input_shape: tuple[int, ...],
    target: Tensor,
    weight: Any,
    ignore_index: int,
    total: Any,
    reduction: str,
) -> Any:
    share = expand(_over(g, total) if reduction == "mean" else g, target.shape)
    return _nll_loss_backward(share, target, weight, ignore_index, input_shape)


@op
def _nll_loss_backward(
    k: Any, grad: Array, target: Index, weight: Index | None, ignore_index: int, shape: tuple
) -> Any:
    out = k.zeros(shape, grad.dtype)
    if out.size:
        used = k.ne(target, ignore_index)
        chosen = k.where(used, target, 0)
        values = k.where(used, k.neg(grad), 0.0)  # the gradient may be NaN: a mean of nothing
        w = None if weight is None else weight[chosen]
        out[k.arange(len(out)), chosen] = _weighted(k, values, w)
    return out


@_nll_loss_backward.gradient
def _(g: Tensor, target: Tensor, weight: Any, ignore_index: int) -> Any:
    return _nll_loss(g, target, weight, ignore_index, "none")


def _rows(name: str, input: Tensor, target: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
    """Input as (rows, C) and target as (rows,), once the shapes are known to fit."""
    at = 1 if input.ndim > 1 else 0
    shape = input.shape[:at] + input.shape[at + 1 :]
    if not input.ndim or target.shape != shape:
        raise ShapeError(
            "input (C), (N, C) or (N, C, d1, ...) needs target (), (N) or (N, d1, ...)",
            operator=name, got=f"{input.shape}, {target.shape}",
        )  # fmt: skip
    classes = input.shape[at]
    _check_weight(name, input, weight, classes)
    if target.array.dtype.kind not in "iu":
        raise DTypeError("target must hold integers", operator=name, got=repr(target.dtype))
    if input.ndim == 2:
        return input, target
    last = permute(input, [*range(at), *range(at + 1, input.ndim), at])
    return reshape(last, (target.numel(), classes)), reshape(target, (target.numel(),))


def _check_weight(name: str, input: Tensor, weight: Tensor | None, classes: int) -> None:
    _constant(name, "weight", weight)
    if weight is None:
        return
    if weight.shape != (classes,):
        raise ShapeError(
            f"weight needs one element for each of {classes} classes",
            operator=name, got=str(weight.shape),
        )  # fmt: skip
    if weight.dtype is not input.dtype:
        raise DTypeError(
            "weight must have the dtype of input",
            operator=name, got=f"{weight.dtype}, {input.dtype}",
        )  # fmt: skip


def nll_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    """`-weight[t] * input[t]` for log-probabilities and classes t; rows of ignore_index count 0.

    input (C), (N, C) or (N, C, d1, ...), target () / (N) / (N, d1, ...) integers, weight (C).
    The mean divides by the sum of the weights. Raises ShapeError, DTypeError, OutOfRangeError.
    """
    _check("nll_loss", input, target, reduction)
    rows, flat = _rows("nll_loss", input, target, weight)
    out = _nll_loss(rows, flat, weight, ignore_index, reduction)
    return reshape(out, target.shape) if reduction == "none" else out


def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """`nll_loss` of `log_softmax(input)`: logits against classes or class probabilities.

    input (C), (N, C) or (N, C, d1, ...); target () / (N) / (N, d1, ...) integers, or floating
    point of input's shape; weight (C). label_smoothing mixes the target with the uniform
    distribution (Szegedy et al. 2016). Raises ShapeError, DTypeError, OutOfRangeError.
    """
    _check("cross_entropy", input, target, reduction)
    if not 0 <= label_smoothing <= 1:
        raise ArgumentError(
            "label_smoothing must lie in [0, 1]",
            operator="cross_entropy", got=repr(label_smoothing),
        )  # fmt: skip
    if target.dtype.kind == FLOAT:
        if ignore_index >= 0:
            raise ArgumentError("ignore_index goes with class indices", operator="cross_entropy")
        return _soft_cross_entropy(input, target, weight, reduction, label_smoothing)
    rows, flat = _rows("cross_entropy", input, target, weight)
    out = _cross_entropy(rows, flat, weight, ignore_index, label_smoothing, reduction)
    return reshape(out, target.shape) if reduction == "none" else out


def _soft_cross_entropy(
    input: Tensor, target: Tensor, weight: Tensor | None, reduction: str, label_smoothing: float
) -> Tensor:
    if input.shape != target.shape:
        raise ShapeError(
            "a floating point target holds probabilities, of input's shape;"
            " class indices are integers",
            operator="cross_entropy", got=f"{input.shape}, {target.shape} {target.dtype.name}",
        )  # fmt: skip
    at = 1 if input.ndim > 1 else 0
    classes = input.shape[at] if input.ndim else 1
    _check_weight("cross_entropy", input, weight, classes)
    if label_smoothing:
        target = target * (1 - label_smoothing) + label_smoothing / classes
    logs = log_softmax(input, at)
    if weight is not None:
        logs = logs * reshape(weight, (classes,) + (1,) * (input.ndim - 1 - at))
    return _reduce(sum(-target * logs, at), reduction)
