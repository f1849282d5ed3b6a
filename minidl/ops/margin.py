"""Losses of margins between scores, distances and labels. All take reduction by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from minidl.autograd.op import constant
from minidl.backends import kernels_for
from minidl.dtypes import FLOAT
from minidl.errors import ArgumentError, DTypeError, OutOfRangeError, ShapeError
from minidl.ops.activation import logsigmoid, softplus
from minidl.ops.along import gather, index_select
from minidl.ops.compare import eq, gt
from minidl.ops.distance import pairwise_distance
from minidl.ops.method import check_tensor
from minidl.ops.reduce import mean, sum
from minidl.ops.select import clamp_min, minimum, where
from minidl.ops.transcendental import sqrt
from minidl.ops.views import reshape, unsqueeze
from minidl.tensor import Tensor

__all__ = [
    "cosine_embedding_loss",
    "hinge_embedding_loss",
    "margin_ranking_loss",
    "multi_margin_loss",
    "multilabel_margin_loss",
    "multilabel_soft_margin_loss",
    "soft_margin_loss",
    "triplet_margin_loss",
    "triplet_margin_with_distance_loss",
]


def _check(name: str, reduction: str, **given: Any) -> None:
    for argument, x in given.items():
        check_tensor(name, argument, x)
    first, x = next(iter(given.items()))
    if x.dtype.kind != FLOAT:
        raise DTypeError(f"{first} must be floating point", operator=name, got=repr(x.dtype))
    allowed = ("mean", "sum", "none")
    if reduction not in allowed:
        raise ArgumentError(f"reduction is one of {allowed}", operator=name, got=repr(reduction))


def _same_shape(name: str, rule: str, *tensors: Tensor) -> None:
    if len({x.shape for x in tensors}) > 1:
        raise ShapeError(rule, operator=name, got=", ".join(str(x.shape) for x in tensors))


def _reduced(losses: Tensor, reduction: str) -> Tensor:
    if reduction == "none":
        return losses
    return mean(losses) if reduction == "mean" else sum(losses)


# ---------------------------------------------------------------- two scores, or one and its side


def margin_ranking_loss(
    input1: Tensor, input2: Tensor, target: Tensor, margin: float = 0, *, reduction: str = "mean"
) -> Tensor:
    """`max(0, -target * (input1 - input2) + margin)`; target 1: the first ranks higher, -1: lower.

    All of one number of axes; shapes broadcast.
    """
    name = "margin_ranking_loss"
    _check(name, reduction, input1=input1, input2=input2, target=target)
    if len({input1.ndim, input2.ndim, target.ndim}) > 1:
        raise ShapeError("all need as many axes", operator=name,
                         got=f"{input1.shape}, {input2.shape}, {target.shape}")  # fmt: skip
    return _reduced(clamp_min(-target * (input1 - input2) + margin, 0), reduction)


def hinge_embedding_loss(
    input: Tensor, target: Tensor, margin: float = 1.0, *, reduction: str = "mean"
) -> Tensor:
    """`input` where target is 1, `max(0, margin - input)` where it is -1; input: a distance."""
    _check("hinge_embedding_loss", reduction, input=input, target=target)
    apart = where(eq(target, 1), 0.0, clamp_min(margin - input, 0))
    return _reduced(apart + where(eq(target, -1), 0.0, input), reduction)


def soft_margin_loss(input: Tensor, target: Tensor, *, reduction: str = "mean") -> Tensor:
    """`log(1 + exp(-target * input))` for targets of 1 and -1, broadcast, without overflow."""
    _check("soft_margin_loss", reduction, input=input, target=target)
    return _reduced(softplus(-target * input), reduction)


# ---------------------------------------------------------------- vectors


def cosine_embedding_loss(
    input1: Tensor, input2: Tensor, target: Tensor, margin: float = 0, *, reduction: str = "mean"
) -> Tensor:
    """`1 - cos` of two vectors where target is 1, `max(0, cos - margin)` where it is -1.

    input1, input2: (N, D) with target (N,), or (D,) with target ().
    """
    name = "cosine_embedding_loss"
    _check(name, reduction, input1=input1, input2=input2, target=target)
    _same_shape(name, "input1 and input2 must have one shape", input1, input2)
    if input1.ndim not in (1, 2) or target.shape != input1.shape[:-1]:
        raise ShapeError("needs (N, D) with target (N,), or (D,) with target ()",
                         operator=name, got=f"{input1.shape}, {target.shape}")  # fmt: skip
    sizes = [sum(x * x, -1) + 1e-12 for x in (input1, input2)]
    cosine = sum(input1 * input2, -1) / sqrt(sizes[0] * sizes[1])
    alike = where(eq(target, 1), 1 - cosine, 0.0)
    return _reduced(alike + where(eq(target, -1), clamp_min(cosine - margin, 0), 0.0), reduction)


def triplet_margin_loss(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    margin: float = 1.0,
    p: float = 2,
    eps: float = 1e-6,
    swap: bool = False,
    *,
    reduction: str = "mean",
) -> Tensor:
    """`max(0, margin + d(anchor, positive) - d(anchor, negative))`, d the p-norm distance.

    (N, D) or (D,) each. swap: the negative's distance from the positive counts where it is less.
    Source: Balntas et al., "Learning local feature descriptors with triplets", BMVC 2016.
    """

    def distance(x: Tensor, y: Tensor) -> Tensor:
        return pairwise_distance(x, y, p, eps)

    name, given = "triplet_margin_loss", (anchor, positive, negative)
    return _triplet(name, *given, distance, margin, swap, reduction)


def triplet_margin_with_distance_loss(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    *,
    distance_function: Callable[[Tensor, Tensor], Tensor] | None = None,
    margin: float = 1.0,
    swap: bool = False,
    reduction: str = "mean",
) -> Tensor:
    """`triplet_margin_loss` with a distance of one's own, `pairwise_distance` by default."""
    name, given = "triplet_margin_with_distance_loss", (anchor, positive, negative)
    return _triplet(name, *given, distance_function or pairwise_distance, margin, swap, reduction)


def _triplet(
    name: str,
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    distance: Callable[[Tensor, Tensor], Tensor],
    margin: float,
    swap: bool,
    reduction: str,
) -> Tensor:
    _check(name, reduction, anchor=anchor, positive=positive, negative=negative)
    if margin <= 0:
        raise ArgumentError("margin must be positive", operator=name, got=repr(margin))
    if len({anchor.ndim, positive.ndim, negative.ndim}) > 1:
        raise ShapeError("all need as many axes", operator=name,
                         got=f"{anchor.shape}, {positive.shape}, {negative.shape}")  # fmt: skip
    near, far = distance(anchor, positive), distance(anchor, negative)
    if swap:
        far = minimum(far, distance(positive, negative))
    return _reduced(clamp_min(near - far + margin, 0), reduction)


# ---------------------------------------------------------------- classes


def _rows(name: str, input: Tensor, target: Tensor, target_axes: int) -> tuple[Tensor, Any]:
    """Scores (N, C) and targets as arrays, (N,) or (N, C), for batches and for one sample."""
    if input.ndim not in (1, 2):
        raise ShapeError("needs (N, C) or (C,)", operator=name, got=str(input.shape))
    single = input.ndim == 1
    wanted = (1 if single else input.shape[0],) + input.shape[-1:] * (target_axes - 1)
    fits = target.shape in (wanted, wanted[1:]) if single else target.shape == wanted
    if not fits:
        raise ShapeError("needs (N, C) or (C,) and a target for each sample",
                         operator=name, got=f"{input.shape}, {target.shape}")  # fmt: skip
    if target.array.dtype.kind not in "iu":
        raise DTypeError("target must be integers", operator=name, got=repr(target.dtype))
    classes = target.array.reshape(wanted)
    least, most = -1 if target_axes == 2 else 0, input.shape[-1]
    k: Any = kernels_for(classes)
    if k.device != "cpu":
        outside = k.logical_or(classes < least, classes >= most)
        rule = f"target must lie in [{least}, {most})"
        k.refuse(outside, OutOfRangeError(rule, operator=name))
        classes = k.clip(classes, least, most - 1)
    elif classes.size and (classes.min() < least or classes.max() >= most):
        raise OutOfRangeError(f"target must lie in [{least}, {most})", operator=name,
                              got=f"{classes.min()} to {classes.max()}")  # fmt: skip
    return reshape(input, (1, -1)) if single else input, classes


def multi_margin_loss(
    input: Tensor,
    target: Tensor,
    p: int = 1,
    margin: float = 1.0,
    weight: Tensor | None = None,
    *,
    reduction: str = "mean",
) -> Tensor:
    """Mean over classes i of `max(0, margin - input[target] + input[i]) ** p`, i not the target.

    input: (N, C) or (C,); target: (N,) or () integers; p: 1 or 2; weight: (C,), of the target's
    class.
    """
    name = "multi_margin_loss"
    _check(name, reduction, input=input, target=target)
    if p not in (1, 2):
        raise ArgumentError("p must be 1 or 2", operator=name, got=repr(p))
    if weight is not None and weight.shape != input.shape[-1:]:
        raise ShapeError("weight must have one number per class", operator=name,
                         got=f"{weight.shape}, {input.shape}")  # fmt: skip
    x, classes = _rows(name, input, target, 1)
    place = constant(classes[:, None].astype(np.int64))
    gap = margin - gather(x, 1, place) + x
    k: Any = kernels_for(classes)
    other = constant(k.arange(x.shape[1]) != classes[:, None])
    gap = where(gt(gap, 0) & other, gap, 0.0)
    gap = gap if p == 1 else gap * gap
    if weight is not None:
        gap = gap * reshape(index_select(weight, 0, reshape(place, -1)), (-1, 1))
    losses = mean(gap, 1)
    return _reduced(reshape(losses, input.shape[:-1]), reduction)


def multilabel_margin_loss(input: Tensor, target: Tensor, *, reduction: str = "mean") -> Tensor:
    """Mean over classes of `max(0, 1 - input[y] + input[i])` for all labels y and other classes i.

    input: (N, C) or (C,); target: of its shape, integers: a row's labels, then -1.
    """
    name = "multilabel_margin_loss"
    _check(name, reduction, input=input, target=target)
    x, labels = _rows(name, input, target, 2)
    k: Any = kernels_for(labels)
    given = k.cumprod(labels >= 0, axis=1, dtype=np.int64) > 0  # up to the first -1
    places = k.where(given, labels, 0).astype(np.int64)
    count = k.scatter_add(k.zeros(labels.shape, np.int64), 1, places, given.astype(np.int64))
    own = count > 0  # the classes that are labels
    score = gather(x, 1, constant(places))
    gap = 1 - unsqueeze(score, 2) + unsqueeze(x, 1)  # (N, label, class)
    counted = constant(given[:, :, None] & ~own[:, None, :])
    losses = sum(where(gt(gap, 0) & counted, gap, 0.0), (1, 2)) / max(x.shape[1], 1)
    return _reduced(reshape(losses, input.shape[:-1]), reduction)


def multilabel_soft_margin_loss(
    input: Tensor, target: Tensor, weight: Tensor | None = None, *, reduction: str = "mean"
) -> Tensor:
    """Mean over classes of the binary cross entropy of logits `input` against targets 0 and 1.

    input, target: (..., C); weight: (C,).
    """
    name = "multilabel_soft_margin_loss"
    _check(name, reduction, input=input, target=target)
    _same_shape(name, "target must have the shape of input", input, target)
    losses = -(target * logsigmoid(input) + (1 - target) * logsigmoid(-input))
    return _reduced(mean(losses if weight is None else losses * weight, -1), reduction)
