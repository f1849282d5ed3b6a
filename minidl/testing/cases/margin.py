"""Rows of `minidl.ops.margin`, `likelihood` and `ctc`."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np

from minidl.dtypes import DType, float32, float64
from minidl.ops import margin as ops
from minidl.ops.ctc import ctc_loss
from minidl.ops.likelihood import gaussian_nll_loss, poisson_nll_loss
from minidl.testing.case import Case, Sample, sample
from minidl.testing.draws import alike

WIDE = (float64, float32)  # compositions round half dtypes more than once
REDUCTIONS = ("mean", "sum", "none")


def _reduced(losses: Any, reduction: str) -> Any:
    losses = np.asarray(losses)
    if reduction == "none":
        return losses
    return losses.sum() / (losses.size if reduction == "mean" else 1)


def _sides(d: Any, shape: tuple[int, ...], like: np.ndarray) -> np.ndarray:
    """1 and -1 in the dtype of `like`, which get no gradient."""
    return d.constant(np.where(d.mask(shape), 1, -1).astype(like.dtype))


def _spread(d: Any, dtype: DType, *shapes: tuple[int, ...]) -> tuple[np.ndarray, ...]:
    """Arrays of values between those at which a margin of 0.5 or 1 has its kink."""
    return alike(*(d.array(shape, dtype, distinct=True) for shape in shapes))


def _ranking_inputs(d: Any, dtype: DType) -> Sample:
    shape = d.shape(min_dims=1, min_side=1)
    x, y = _spread(d, dtype, shape, shape)
    return sample(x, y + 0.3, _sides(d, shape, x), 0.0, reduction=d.choice(REDUCTIONS))


def _ranking(x: Any, y: Any, side: Any, margin: float, reduction: str) -> Any:
    return _reduced(np.maximum(-side * (x - y) + margin, 0), reduction)


def _hinge_inputs(d: Any, dtype: DType) -> Sample:
    shape = d.shape(min_side=1)
    x = d.array(shape, dtype, 0.1, 0.9)
    return sample(x, _sides(d, shape, x), d.choice([1.0, 0.05]), reduction=d.choice(REDUCTIONS))


def _hinge(x: Any, side: Any, margin: float, reduction: str) -> Any:
    return _reduced(np.where(side == 1, x, np.maximum(margin - x, 0)), reduction)


def _soft_inputs(d: Any, dtype: DType) -> Sample:
    shape = d.shape(min_side=1)
    x = d.array(shape, dtype)
    return sample(x, _sides(d, shape, x), reduction=d.choice(REDUCTIONS))


def _cosine_inputs(d: Any, dtype: DType) -> Sample:
    lead = d.shape(max_dims=1, min_side=1)
    x, y = (d.array((*lead, 3), dtype, 0.5, 3) for _ in range(2))  # cosines above the margin
    x, y = alike(x, y)
    return sample(x, y, _sides(d, lead, x), d.choice([0.0, 0.1]), reduction=d.choice(REDUCTIONS))


def _cosine(x: Any, y: Any, side: Any, margin: float, reduction: str) -> Any:
    sizes = [(v * v).sum(-1) + 1e-12 for v in (x, y)]
    cosine = (x * y).sum(-1) / np.sqrt(sizes[0] * sizes[1])
    return _reduced(np.where(side == 1, 1 - cosine, np.maximum(cosine - margin, 0)), reduction)


def _triplet_inputs(d: Any, dtype: DType) -> Sample:
    shape = (*d.shape(max_dims=1, min_side=1), 3)
    bounds = ((-3, -2), (2, 3), (6, 8))  # distances well apart, so that no kink is near
    anchor, positive, negative = alike(*(d.array(shape, dtype, *bound) for bound in bounds))
    options = {"swap": d.boolean(), "reduction": d.choice(REDUCTIONS)}
    return sample(anchor, positive, negative, d.choice([1.0, 25.0]), 2.0, **options)


def _distance(x: Any, y: Any, p: float) -> Any:
    return (np.abs(x - y + 1e-6) ** p).sum(-1) ** (1 / p)


def _triplet(
    anchor: Any, positive: Any, negative: Any, margin: float, p: float, swap: bool, reduction: str
) -> Any:
    near, far = _distance(anchor, positive, p), _distance(anchor, negative, p)
    if swap:
        far = np.minimum(far, _distance(positive, negative, p))
    return _reduced(np.maximum(near - far + margin, 0), reduction)


def _own_distance(x: Any, y: Any) -> Any:
    return ((x - y) ** 2).sum(-1)


def _own_inputs(d: Any, dtype: DType) -> Sample:
    args, kwargs = _triplet_inputs(d, dtype)
    return sample(*args[:3], distance_function=_own_distance, margin=args[3], **kwargs)


def _own_triplet(
    anchor: Any,
    positive: Any,
    negative: Any,
    distance_function: Any,
    margin: float,
    swap: bool,
    reduction: str,
) -> Any:
    near, far = distance_function(anchor, positive), distance_function(anchor, negative)
    if swap:
        far = np.minimum(far, distance_function(positive, negative))
    return _reduced(np.maximum(near - far + margin, 0), reduction)


def _class_inputs(d: Any, dtype: DType) -> Sample:
    lead, classes = d.shape(max_dims=1, min_side=1), d.integer(2, 4)
    (x,) = _spread(d, dtype, (*lead, classes))
    weight = d.constant(d.array((classes,), dtype, 0.5, 2)) if d.boolean() else None
    if weight is not None:
        weight = d.constant(weight.astype(x.dtype))
    args = (d.index(classes, lead), d.choice([1, 2]), 0.93, weight)
    return sample(x, *args, reduction=d.choice(REDUCTIONS))


def _multi_margin(x: Any, target: Any, p: int, margin: float, weight: Any, reduction: str) -> Any:
    losses = np.zeros(x.shape[:-1])
    for row in np.ndindex(losses.shape):
        y = int(target[row])
        gaps = [max(margin - x[row][y] + v, 0) ** p for i, v in enumerate(x[row]) if i != y]
        losses[row] = sum(gaps) * (1 if weight is None else weight[y]) / x.shape[-1]
    return _reduced(losses, reduction)


def _label_inputs(d: Any, dtype: DType) -> Sample:
    lead, classes = d.shape(max_dims=1, min_side=1), d.integer(2, 4)
    (x,) = _spread(d, dtype, (*lead, classes))
    target = np.full(x.shape, -1)
    for row in np.ndindex(lead):
        chosen = d.rng.permutation(classes)[: d.integer(0, classes)]
        target[row][: len(chosen)] = chosen
        target[row][len(chosen) + 1 :] = 0  # ignored, behind the first -1
    return sample(x * 0.37, target, reduction=d.choice(REDUCTIONS))


def _label_margin(x: Any, target: Any, reduction: str) -> Any:
    losses = np.zeros(x.shape[:-1])
    for row in np.ndindex(losses.shape):
        own = list(itertools.takewhile(lambda y: y >= 0, target[row].tolist()))
        for y, i in itertools.product(own, range(x.shape[-1])):
            losses[row] += 0 if i in own else max(1 - x[row][y] + x[row][i], 0) / x.shape[-1]
    return _reduced(losses, reduction)


def _label_soft_inputs(d: Any, dtype: DType) -> Sample:
    shape = d.shape(min_dims=1, min_side=1, max_dims=2)
    x = d.array(shape, dtype)
    weight = d.constant(d.array(shape[-1:], dtype, 0.5, 2).astype(x.dtype))
    target = d.constant(d.mask(shape).astype(x.dtype))
    reduction = d.choice(REDUCTIONS)
    return sample(x, target, weight if d.boolean() else None, reduction=reduction)


def _label_soft(x: Any, target: Any, weight: Any, reduction: str) -> Any:
    losses = target * np.logaddexp(0, -x) + (1 - target) * np.logaddexp(0, x)
    return _reduced((losses * (1 if weight is None else weight)).mean(-1), reduction)


# ---------------------------------------------------------------- likelihoods


def _poisson_inputs(d: Any, dtype: DType) -> Sample:
    shape = d.shape(min_side=1)
    x = d.array(shape, dtype, 0.5, 3)
    target = d.constant(d.rng.integers(0, 6, shape).astype(x.dtype))
    return sample(x, target, d.boolean(), d.boolean(), reduction=d.choice(REDUCTIONS))


def _poisson(x: Any, target: Any, log_input: bool, full: bool, reduction: str) -> Any:
    losses = np.exp(x) - target * x if log_input else x - target * np.log(x + 1e-8)
    if full:
        y = np.where(target > 1, target, 1)
        stirling = y * np.log(y) - y + 0.5 * np.log(2 * math.pi * y)
        losses = losses + np.where(target > 1, stirling, 0)
    return _reduced(losses, reduction)


def _gaussian_inputs(d: Any, dtype: DType) -> Sample:
    shape = d.shape(min_dims=1, min_side=1)
    x, target = alike(d.array(shape, dtype), d.array(shape, dtype))
    form = d.choice([shape, (*shape[:-1], 1)])
    var = d.array(form, dtype, 0.5, 3).astype(x.dtype)
    return sample(x, target, var, d.boolean(), reduction=d.choice(REDUCTIONS))


def _gaussian(x: Any, target: Any, var: Any, full: bool, reduction: str) -> Any:
    losses = (np.log(var) + (x - target) ** 2 / var) / 2
    return _reduced(losses + (0.5 * math.log(2 * math.pi) if full else 0), reduction)


# ---------------------------------------------------------------- alignments


def _ctc_inputs(d: Any, dtype: DType) -> Sample:
    steps, count, classes = d.integer(3, 5), d.integer(1, 2), d.integer(2, 3)
    x = d.array((steps, count, classes), dtype, -3, 0)
    lengths = tuple(d.integer(0, 2) for _ in range(count))
    labels = 1 + d.rng.integers(0, classes - 1, (count, max(*lengths, 1)))
    used = tuple(steps - d.integer(0, 1) if max(lengths) < 2 else steps for _ in range(count))
    return sample(x, labels, used, lengths, reduction=d.choice(REDUCTIONS))


def _ctc(x: Any, targets: Any, steps: Any, lengths: Any, reduction: str) -> Any:
    """The sum over all ways to emit a class at each step that read as the target."""
    losses = []
    for n, (count, length) in enumerate(zip(steps, lengths, strict=True)):
        wanted, total = targets[n, :length].tolist(), 0.0
        for way in itertools.product(range(x.shape[2]), repeat=count):
            if [c for c, _ in itertools.groupby(way) if c] == wanted:
                total += math.exp(sum(x[t, n, c] for t, c in enumerate(way)))
        losses.append(-math.log(total) if total else math.inf)
    if reduction == "mean":
        return np.mean(np.array(losses) / np.maximum(lengths, 1))
    return _reduced(losses, reduction)


CASES = [
    Case("margin_ranking_loss", ops.margin_ranking_loss, _ranking, _ranking_inputs, dtypes=WIDE,
         torch="torch.nn.functional.margin_ranking_loss"),
    Case("hinge_embedding_loss", ops.hinge_embedding_loss, _hinge, _hinge_inputs, dtypes=WIDE,
         torch="torch.nn.functional.hinge_embedding_loss"),
    Case("soft_margin_loss", ops.soft_margin_loss,
         lambda x, side, reduction: _reduced(np.logaddexp(0, -side * x), reduction),
         _soft_inputs, dtypes=WIDE, torch="torch.nn.functional.soft_margin_loss"),
    # 1 - cosine cancels
    Case("cosine_embedding_loss", ops.cosine_embedding_loss, _cosine, _cosine_inputs, dtypes=WIDE,
         scale=32, torch="torch.nn.functional.cosine_embedding_loss"),
    Case("triplet_margin_loss", ops.triplet_margin_loss, _triplet, _triplet_inputs, dtypes=WIDE,
         scale=16, torch="torch.nn.functional.triplet_margin_loss"),
    Case("triplet_margin_with_distance_loss", ops.triplet_margin_with_distance_loss, _own_triplet,
         _own_inputs, dtypes=WIDE, scale=64,
         torch="torch.nn.functional.triplet_margin_with_distance_loss"),
    Case("multi_margin_loss", ops.multi_margin_loss, _multi_margin, _class_inputs, dtypes=WIDE,
         scale=4, torch="torch.nn.functional.multi_margin_loss"),
    Case("multilabel_margin_loss", ops.multilabel_margin_loss, _label_margin, _label_inputs,
         dtypes=WIDE, scale=4, torch="torch.nn.functional.multilabel_margin_loss"),
    Case("multilabel_soft_margin_loss", ops.multilabel_soft_margin_loss, _label_soft,
         _label_soft_inputs, dtypes=WIDE, scale=4,
         torch="torch.nn.functional.multilabel_soft_margin_loss"),
    Case("poisson_nll_loss", poisson_nll_loss, _poisson, _poisson_inputs, dtypes=WIDE, scale=16,
         torch="torch.nn.functional.poisson_nll_loss"),
    Case("gaussian_nll_loss", gaussian_nll_loss, _gaussian, _gaussian_inputs, dtypes=WIDE, scale=16,
         torch="torch.nn.functional.gaussian_nll_loss"),
    # torch's gradient by log_probs is another: compared behind log_softmax in a test of its own
    Case("ctc_loss", ctc_loss, _ctc, _ctc_inputs, dtypes=WIDE, scale=16, torch=None, gradgrad=False,
         operators=("ctc_loss", "ctc_backward")),
]  # fmt: skip
