"""Rows of `minidl.ops.loss`."""

from __future__ import annotations

from typing import Any

import numpy as np

from minidl.dtypes import DType, float32, float64
from minidl.ops.linear_cross_entropy import linear_cross_entropy
from minidl.ops.loss import (
    binary_cross_entropy,
    binary_cross_entropy_with_logits,
    cross_entropy,
    huber_loss,
    kl_div,
    l1_loss,
    mse_loss,
    nll_loss,
    smooth_l1_loss,
)
from minidl.testing.case import Case, Sample, sample
from minidl.testing.draws import alike

WIDE = (float64, float32)  # compositions round half dtypes more than once
REDUCTIONS = ("mean", "sum", "none")


def _reduced(losses: Any, reduction: str) -> Any:
    if reduction == "none":
        return losses
    if reduction == "batchmean":
        return losses.sum() / len(losses)
    return losses.sum() / (losses.size if reduction == "mean" else 1)


# ---------------------------------------------------------------- distances and divergences


def _pair(low: float = -3, high: float = 3, **attributes: Any) -> Any:
    """Input and target, a reduction, and the attributes that the functions of a Draw give."""

    def inputs(d: Any, dtype: DType) -> Sample:
        shape = d.shape(max_dims=3, min_side=1)
        x, y = d.array(shape, dtype), d.array(d.broadcastable(shape), dtype, low, high)
        drawn = {name: draw(d) for name, draw in attributes.items()}
        return sample(x, y, reduction=d.choice(REDUCTIONS), **drawn)

    return inputs


def _huber_inputs(d: Any, dtype: DType) -> Sample:
    x, y = alike(*_pair()(d, dtype).args)  # torch's gradient for mixed dtypes is an error
    return sample(x, y, d.choice(REDUCTIONS), d.choice([1.0, 0.3, 2.0]))


def _mse(x: Any, y: Any, reduction: str) -> Any:
    return _reduced((x - y) ** 2, reduction)


def _l1(x: Any, y: Any, reduction: str) -> Any:
    return _reduced(np.abs(x - y), reduction)


def _smooth_l1(x: Any, y: Any, reduction: str, beta: float) -> Any:
    return _l1(x, y, reduction) if not beta else _huber(x, y, reduction, beta) / beta


def _huber(x: Any, y: Any, reduction: str, delta: float) -> Any:
    d = np.abs(x - y)
    return _reduced(np.where(d < delta, d * d / 2, delta * (d - delta / 2)), reduction)


def _kl_inputs(log_target: bool) -> Any:
    def inputs(d: Any, dtype: DType) -> Sample:
        y, x = _pair(-6, -3)(d, dtype).args  # so low that no sum of gradients cancels
        low, high = (-3, 0) if log_target else (0.05, 1)
        y = d.array(y.shape, dtype, low, high)
        reduction = d.choice(("mean", "sum", "none") + ("batchmean",) * bool(x.ndim))
        return sample(x, y, reduction=reduction, log_target=log_target)

    return inputs


def _kl(x: Any, y: Any, reduction: str, log_target: bool) -> Any:
    losses = np.exp(y) * (y - x) if log_target else y * (np.log(y) - x)
    return losses.sum() / len(x) if reduction == "batchmean" else _reduced(losses, reduction)


# ---------------------------------------------------------------- binary cross entropy


def _binary_inputs(logits: bool) -> Any:
    def inputs(d: Any, dtype: DType) -> Sample:
        shape = d.shape(max_dims=3, min_side=1)
        x = d.array(shape, dtype, *((-8, 8) if logits else (0.05, 0.95)))
        x, target = alike(x, d.array(shape, dtype, 0, 1))
        options: dict[str, Any] = {"reduction": d.choice(REDUCTIONS)}
        for name in ("weight", "pos_weight")[: 1 + logits]:
            if d.boolean():
                factor = d.array(d.broadcastable(shape, within=True), dtype, 0.25, 2)
                options[name] = d.constant(factor.astype(x.dtype, copy=False))
        return sample(x, target, **options)

    return inputs


def _binary(x: Any, t: Any, reduction: str, weight: Any = 1.0) -> Any:
    return _reduced(-(t * np.log(x) + (1 - t) * np.log(1 - x)) * weight, reduction)


def _binary_logits(x: Any, t: Any, reduction: str, weight: Any = 1.0, pos_weight: Any = 1.0) -> Any:
    losses = pos_weight * t * np.logaddexp(0, -x) + (1 - t) * np.logaddexp(0, x)
    return _reduced(losses * weight, reduction)


# ---------------------------------------------------------------- classes


def _shape(d: Any, classes: int) -> tuple[int, ...]:
    n = d.integer(1, 3)
    return d.choice([(n, classes), (classes,), (n, classes, 2), (n, classes, 1, 2)])


def _class_inputs(smoothing: bool) -> Any:
    def inputs(d: Any, dtype: DType) -> Sample:
        classes = d.integer(2, 4)
        shape = _shape(d, classes)
        rows = shape[:1] + shape[2:] if len(shape) > 1 else ()
        target = d.index(classes, rows)
        options: dict[str, Any] = {"reduction": d.choice(REDUCTIONS)}
        if rows and d.boolean():  # the first row counts, so that a mean is no 0 / 0
            options["ignore_index"] = ignored = d.choice([-100, -1, classes])
            target = np.where(d.mask(rows), ignored, target)
            target.flat[0] = 0  # not reshape: what np.where gives need not be contiguous
        if smoothing and d.boolean():
            options["label_smoothing"] = d.choice([0.1, 0.5, 1.0])
        x = d.array(shape, dtype, -1, 1)
        if d.boolean():
            weight = d.array((classes,), dtype, 0.25, 2).astype(x.dtype, copy=False)
            options["weight"] = d.constant(weight)
        return sample(x, target, **options)

    return inputs


def _rows(x: Any, classes_at: int) -> Any:
    return np.moveaxis(x, classes_at, -1).reshape(-1, x.shape[classes_at])


def _nll(
    x: Any, target: Any, reduction: str, weight: Any = None, ignore_index: int = -100,
    label_smoothing: float = 0.0,
) -> Any:  # fmt: skip
    """Row by row: the loss of its class, mixed with the mean over all classes."""
    rows = _rows(x, min(1, x.ndim - 1))
    weight = np.ones(rows.shape[1]) if weight is None else weight
    losses, total = np.zeros(len(rows)), 0.0
    for i, t in enumerate(target.reshape(-1)):
        if t != ignore_index:
            mean = -(rows[i] * weight).sum() / len(weight)
            losses[i] = -weight[t] * rows[i, t] * (1 - label_smoothing) + mean * label_smoothing
            total += weight[t]
    if reduction == "none":
        return losses.reshape(target.shape)
    return losses.sum() / (total if reduction == "mean" else 1)


def _log_softmax(x: Any) -> Any:
    at = min(1, x.ndim - 1)
    e = np.exp(x)
    return np.log(e / e.sum(at, keepdims=True))


def _cross_entropy(x: Any, target: Any, **options: Any) -> Any:
    return _nll(_log_softmax(x), target, **options)


def _linear_inputs(d: Any, dtype: DType) -> Sample:
    n, features, classes = d.integer(1, 4), d.integer(1, 3), d.integer(2, 4)
    rows, places = d.choice([((), ()), ((n,), ()), ((n,), (2,))])
    target = d.index(classes, (*rows, *places))
    options: dict[str, Any] = {"reduction": d.choice(REDUCTIONS)}
    if rows and d.boolean():
        options["ignore_index"] = ignored = d.choice([-1, classes])
        target = np.where(d.mask(target.shape), ignored, target)
        target.flat[0] = 0
    if d.boolean():
        options["label_smoothing"] = d.choice([0.1, 1.0])
    shapes = (*rows, features), (classes, *places, features), (classes, *places), (classes,)
    x, linear_weight, bias, weight = alike(*[d.array(s, dtype, 0.25, 1) for s in shapes])
    if d.boolean():
        options["linear_bias"] = bias
    if d.boolean():
        options["weight"] = d.constant(weight)
    return sample(x, linear_weight, target, **options)


def _linear_cross_entropy(
    x: Any, linear_weight: Any, target: Any, linear_bias: Any = 0.0, **options: Any
) -> Any:
    logits = np.tensordot(x, linear_weight, (-1, -1)) + linear_bias
    return _cross_entropy(logits, target, **options)


def _soft_inputs(d: Any, dtype: DType) -> Sample:
    classes = d.integer(2, 4)
    shape = _shape(d, classes)
    x, target = alike(d.array(shape, dtype, -1, 1), d.array(shape, dtype, 0, 1))
    options: dict[str, Any] = {"reduction": d.choice(REDUCTIONS)}
    if d.boolean():
        options["label_smoothing"] = d.choice([0.1, 0.5])
    if d.boolean():
        weight = d.array((classes,), dtype, 0.25, 2).astype(x.dtype, copy=False)
        options["weight"] = d.constant(weight)
    return sample(x, target, **options)


def _soft_cross_entropy(
    x: Any, target: Any, reduction: str, weight: Any = None, label_smoothing: float = 0.0
) -> Any:
    at = min(1, x.ndim - 1)
    logs, p = _rows(_log_softmax(x), at), _rows(target, at)
    p = p * (1 - label_smoothing) + label_smoothing / logs.shape[1]
    losses = -(logs * p * (1.0 if weight is None else weight)).sum(1)
    if reduction == "none":
        return losses.reshape(x.shape[:at] + x.shape[at + 1 :])
    return losses.sum() / (len(losses) if reduction == "mean" else 1)


def _row(function: Any, oracle: Any, inputs: Any, name: str = "", **options: Any) -> Case:
    torch = f"torch.nn.functional.{function.__name__}"
    return Case(name or function.__name__, function, oracle, inputs, torch=torch, **options)


CASES = [
    _row(mse_loss, _mse, _pair()),
    _row(l1_loss, _l1, _pair()),
    _row(smooth_l1_loss, _smooth_l1, _pair(beta=lambda d: d.choice([1.0, 0.3, 2.0, 0.0])),
         operators=("huber_loss", "l1_loss")),
    _row(huber_loss, _huber, _huber_inputs),
    _row(kl_div, _kl, _kl_inputs(False)),
    _row(kl_div, _kl, _kl_inputs(True), "kl_div_log", operators=("kl_div",)),
    _row(binary_cross_entropy, _binary, _binary_inputs(False)),
    _row(binary_cross_entropy_with_logits, _binary_logits, _binary_inputs(True),
         operators=("binary_cross_entropy_with_logits",
                    "binary_cross_entropy_with_logits_backward")),
    _row(nll_loss, _nll, _class_inputs(False), operators=("nll_loss", "nll_loss_backward")),
    _row(cross_entropy, _cross_entropy, _class_inputs(True),
         operators=("cross_entropy", "cross_entropy_backward")),
    _row(linear_cross_entropy, _linear_cross_entropy, _linear_inputs, dtypes=WIDE,
         operators=("linear_cross_entropy",)),
    _row(cross_entropy, _soft_cross_entropy, _soft_inputs, "cross_entropy_soft", dtypes=WIDE),
]  # fmt: skip
