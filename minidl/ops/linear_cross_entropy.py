"""A linear map and the cross entropy of its results, which never exist as a whole."""

from __future__ import annotations

import math
from typing import Any

from minidl.autograd.op import Array, Index, op
from minidl.backends import local
from minidl.dtypes import FLOAT
from minidl.errors import ArgumentError, DTypeError, ShapeError, UnsupportedError
from minidl.ops.compare import eq
from minidl.ops.linear import linear
from minidl.ops.loss import (
    _check,
    _check_classes,
    _check_weight,
    _floating_logits,
    _in,
    _over,
    cross_entropy,
)
from minidl.ops.method import check_tensor
from minidl.ops.select import where
from minidl.ops.views import reshape
from minidl.tensor import Tensor

__all__ = ["linear_cross_entropy"]

# logits that exist at a time: what the last cache of a processor holds, and what lets a GPU's
# matrix products run at full speed
_LOGITS = {"cpu": 1 << 22, "cuda": 1 << 26}


def _spans(k: Any, rows: int, classes: int) -> list[slice]:
    """The rows, in chunks; of a GPU's, in multiples of the height of its tiles."""
    step = max(1, _LOGITS["cpu" if k.device == "cpu" else "cuda"] // max(1, classes))
    step = step // 128 * 128 or step
    return [slice(start, min(rows, start + step)) for start in range(0, rows, step)]


@op(residuals=("total", "dinput", "dweight", "dbias"), promote="match")
def _linear_cross_entropy(
    k: Any,
    input: Array,
    linear_weight: Array,
    target: Index,
    linear_bias: Array | None,
    weight: Index | None,
    ignore_index: int,
    label_smoothing: float,
    reduction: str,
    wanted: tuple[bool, bool, bool],
) -> Any:
    """The residuals are gradients of the sum, as far as they are `wanted`."""
    _floating_logits(input)
    if k.device == "cpu":  # elsewhere the entry notes wrong targets
        _check_classes(k, target, len(linear_weight), ignore_index)
    w = None if weight is None else weight.astype(input.dtype, copy=False)
    entry = k.cross_entropy_in_place if any(wanted) else k.cross_entropy
    sums: list[Any] = [None, None, None, None]  # of losses, of targets' weights, dweight, dbias
    dinput = k.zeros(input.shape, input.dtype) if wanted[0] else None
    # where there are no rows there is one chunk of none, for the sums' sake
    for part in _spans(k, len(input), len(linear_weight)) or [slice(0, 0)]:
        logits = k.linear(input[part], linear_weight, linear_bias)[0]
        losses, _, total = entry(logits, target[part], w, ignore_index, label_smoothing)
        found = _gradients(k, logits, input[part], linear_weight, wanted)
        if dinput is not None:
            dinput[part] = found[0]
        for i, new in enumerate((k.sum(losses), total, *found[1:])):
            sums[i] = _added(k, sums[i], new, total.dtype)
    out = k.div(sums[0], sums[1]) if reduction == "mean" else sums[0]
    return _in(k, k.asarray(out), input.dtype), sums[1], dinput, *sums[2:]


def _gradients(k: Any, slope: Any, input: Any, weight: Any, wanted: tuple) -> tuple:
    return k.linear_backward(slope, input, weight, wanted) if any(wanted) else (None, None, None)


def _added(k: Any, total: Any, new: Any, dtype: Any) -> Any:
    """A running sum, in the dtype that losses have."""
    if new is None:
        return None
    new = _in(k, k.asarray(new), dtype)
    return new if total is None else k.add(total, new, out=total)


@_linear_cross_entropy.gradient
def _(
    g: Tensor, total: Tensor, dinput: Any, dweight: Any, dbias: Any, reduction: str, needs: Any
) -> Any:
    if reduction == "mean":  # of nothing it is NaN, and the gradients are 0
        none = eq(total, 0)
        g = where(none, 0.0, _over(g, where(none, 1.0, total)))
    return tuple(
        d * g if needed else None for d, needed in zip((dinput, dweight, dbias), needs, strict=True)
    )


@_linear_cross_entropy.composite
def _(
    input: Tensor,
    linear_weight: Tensor,
    target: Tensor,
    linear_bias: Tensor | None,
    weight: Tensor | None,
    ignore_index: int,
    label_smoothing: float,
    reduction: str,
    wanted: tuple[bool, bool, bool],
) -> Tensor:
    return cross_entropy(
        linear(input, linear_weight, linear_bias),
        target,
        weight,
        ignore_index=ignore_index,
        reduction=reduction,
        label_smoothing=label_smoothing,
    )


def _logits_shape(name: str, input: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[int, ...]:
    """That of the logits, with the classes' axis behind the rows'."""
    shapes = f"{input.shape}, {weight.shape}"
    if input.ndim not in (1, 2) or weight.ndim < 2 or input.shape[-1] != weight.shape[-1]:
        raise ShapeError(
            "input (in) or (N, in) needs linear_weight (C, in) or (C, d1, ..., in)",
            operator=name, got=shapes,
        )  # fmt: skip
    if input.ndim == 1 and weight.ndim > 2:
        raise ShapeError("linear_weight (C, d1, ..., in) needs input (N, in)",
                         operator=name, got=shapes)  # fmt: skip
    if bias is not None:
        check_tensor(name, "linear_bias", bias)
        if bias.shape != weight.shape[:-1]:
            raise ShapeError("linear_bias needs linear_weight's shape without its last axis",
                             operator=name, got=str(bias.shape))  # fmt: skip
    return (*input.shape[:-1], *weight.shape[:-1])


def _check_rows(name: str, input: Tensor, target: Tensor, label_smoothing: float) -> None:
    if target.shape != input.shape[:-1]:
        raise ShapeError(
            "target needs one class for each row of input",
            operator=name, got=f"{target.shape}, {input.shape}",
        )  # fmt: skip
    if target.array.dtype.kind not in "iu":
        raise DTypeError("target must hold integers", operator=name, got=repr(target.dtype))
    if not 0 <= label_smoothing <= 1:
        raise ArgumentError(
            "label_smoothing must lie in [0, 1]", operator=name, got=repr(label_smoothing)
        )


def linear_cross_entropy(
    input: Tensor,
    linear_weight: Tensor,
    target: Tensor,
    *,
    linear_bias: Tensor | None = None,
    weight: Tensor | None = None,
    reduction: str = "mean",
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    options: None = None,
) -> Tensor:
    """`cross_entropy(linear(input, linear_weight, linear_bias), target)`, in less memory.

    input (in) or (N, in), linear_weight (C, in) or (C, d1, ..., in), linear_bias (C) or (C, d1,
    ...); target, weight and label_smoothing as of `cross_entropy` for logits (C), (N, C) or (N, C,
    d1, ...); ignore_index None is -100. For classes of a linear_weight of two axes and "mean" or
    "sum", the logits are made, and replaced by their gradients, some rows at a time; the gradients
    of all arguments that ask for them are computed with the loss and kept. Raises ShapeError,
    DTypeError, OutOfRangeError, ArgumentError; UnsupportedError for `options`.
    """
    name = "linear_cross_entropy"
    _check(name, input, target, reduction)
    check_tensor(name, "linear_weight", linear_weight)
    if options is not None:
        raise UnsupportedError(
            "options are left out: chunks are chosen by the sizes; use options=None", operator=name
        )
    shape = _logits_shape(name, input, linear_weight, linear_bias)
    soft = target.dtype.kind == FLOAT
    if soft and ignore_index is not None:
        raise ArgumentError("ignore_index goes with class indices", operator=name)
    ignored = -100 if ignore_index is None else ignore_index
    if soft or linear_weight.ndim > 2 or reduction == "none":
        count = math.prod(linear_weight.shape[:-1])
        flat = reshape(linear_weight, (count, linear_weight.shape[-1]))
        bias = None if linear_bias is None else reshape(linear_bias, (count,))
        return cross_entropy(
            reshape(linear(input, flat, bias), shape),
            target,
            weight,
            ignore_index=ignored,
            reduction=reduction,
            label_smoothing=label_smoothing,
        )
    _check_rows(name, input, target, label_smoothing)
    _check_weight(name, input, weight, len(linear_weight))
    if input.ndim == 1:
        input, target = reshape(input, (1, -1)), reshape(target, (1,))
    recording = local.state.recording is not False
    wanted = tuple(
        recording and x is not None and x.requires_grad for x in (input, linear_weight, linear_bias)
    )
    return _linear_cross_entropy(
        input, linear_weight, target, linear_bias, weight, ignored, label_smoothing, reduction,
        wanted,
    )  # fmt: skip
