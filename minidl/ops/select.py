"""Choosing and limiting elements: where, masks, clamp, the larger of two; writing elements."""

from __future__ import annotations

from typing import Any

import numpy as np

from minidl.autograd.op import Array, Index, constant, op, writable, write
from minidl.backends import kernels_for
from minidl.dtypes import BOOL, FLOAT, INTEGER, finfo, get_default_dtype, result_type
from minidl.errors import ArgumentError, DTypeError, ShapeError
from minidl.ops.arithmetic import abs
from minidl.ops.compare import (
    eq,
    ge,
    gt,
    isfinite,
    isnan,
    le,
    logical_and,
    logical_or,
    lt,
    signbit,
)
from minidl.ops.convert import cast, clone, number_for
from minidl.ops.method import check_tensor, in_place_methods, method
from minidl.tensor import Tensor

__all__ = [
    "clamp",
    "clamp_max",
    "clamp_min",
    "clip",
    "copysign",
    "fmax",
    "fmin",
    "heaviside",
    "masked_fill",
    "masked_select",
    "maximum",
    "minimum",
    "nan_to_num",
    "where",
]


# ---------------------------------------------------------------- by a condition


@op
def _where(k: Any, condition: Index, input: Array, other: Array) -> Any:
    return k.where(condition, input, other)


@_where.gradient
def _(g: Tensor, condition: Any, needs: Any) -> Any:
    return (
        _where(condition, g, 0.0) if needs[0] else None,
        _where(condition, 0.0, g) if needs[1] else None,
    )


def where(condition: Tensor, input: Any = None, other: Any = None) -> Any:
    """`input` where `condition` (bool) holds, `other` elsewhere; all three broadcast.

    With the condition alone: the indices (int64, one tensor per axis) of its elements that are
    not 0. Raises DTypeError for a condition that is not bool.
    """
    if input is None and other is None:
        check_tensor("where", "condition", condition)
        found = condition.array if condition.ndim else condition.array.reshape(1)
        places = kernels_for(found).nonzero(found.astype(bool))
        return tuple(constant(indices) for indices in places)
    _check_mask("where", "condition", condition)
    if type(input) is not Tensor and type(other) is not Tensor:
        input = constant(np.asarray(input, result_type(input, other).numpy))
    return _where(condition, input, other)


@method("where")
def _where_method(input: Any, condition: Tensor, other: Any) -> Tensor:
    return where(condition, input, other)


def _check_mask(operator: str, name: str, mask: Any) -> None:
    if type(mask) is not Tensor or mask.dtype.kind != BOOL:
        raise DTypeError(f"{name} must be a bool Tensor", operator=operator,
                         got=repr(getattr(mask, "dtype", type(mask).__name__)))  # fmt: skip


def _value_like(operator: str, input: Tensor, value: Any) -> Any:
    """A number or 0-d Tensor that is written into `input`, in its dtype."""
    if type(value) is Tensor:
        if value.ndim:
            raise ShapeError("value must be a number or a 0-d tensor", operator=operator,
                             got=str(value.shape))  # fmt: skip
        return cast(value, input.array.dtype)
    return constant(number_for(operator, input.dtype, value))


@method("masked_fill")
def masked_fill(input: Tensor, mask: Tensor, value: Any) -> Tensor:
    """`value` (a number or 0-d tensor) where `mask` (bool, broadcast) holds, `input` elsewhere.

    The dtype is that of `input`. Raises DTypeError for a mask that is not bool, ArgumentError for
    a value that does not fit.
    """
    check_tensor("masked_fill", "input", input)
    _check_mask("masked_fill", "mask", mask)
    return _where(mask, _value_like("masked_fill", input, value), input)


def _places(k: Any, mask: Array) -> Any:
    """An index of where `mask` holds; on a GPU its positions, whose number is waited for."""
    return mask if k.device == "cpu" else k.nonzero(mask)


@op(promote=None)
def _masked_select(k: Any, input: Array, mask: Index) -> Any:
    shape = np.broadcast_shapes(input.shape, mask.shape) or (1,)
    return k.broadcast_to(input, shape)[_places(k, k.broadcast_to(mask, shape))]


@_masked_select.gradient
def _(g: Tensor, input_shape: tuple[int, ...], mask: Tensor) -> Any:
    return _masked_put(g, mask, np.broadcast_shapes(input_shape, mask.shape))


@op(promote=None)
def _masked_put(k: Any, input: Array, mask: Index, shape: tuple[int, ...]) -> Any:
    out = k.zeros(shape or (1,), input.dtype)
    out[_places(k, k.broadcast_to(mask, out.shape))] = input
    return out.reshape(shape)


@_masked_put.gradient
def _(g: Tensor, mask: Tensor) -> Any:
    return _masked_select(g, mask)


@method("masked_select")
def masked_select(input: Tensor, mask: Tensor) -> Tensor:
    """The elements where `mask` (bool, broadcast) holds, in C order: shape (count,)."""
    _check_mask("masked_select", "mask", mask)
    return _masked_select(input, mask)


@op
def _replace_special(k: Any, input: Array, nan: float, posinf: float, neginf: float) -> Any:
    out = k.where(k.isnan(input), input.dtype.type(nan), input)
    out = k.where(k.eq(input, np.inf), input.dtype.type(posinf), out)
    return k.where(k.eq(input, -np.inf), input.dtype.type(neginf), out)


@_replace_special.gradient
def _(g: Tensor, input: Tensor) -> Any:
    return _where(isfinite(input), g, 0.0)


@method("nan_to_num")
def nan_to_num(
    input: Tensor,
    nan: float | None = None,
    posinf: float | None = None,
    neginf: float | None = None,
) -> Tensor:
    """NaN (by 0) and infinities (by the largest numbers of the dtype) replaced."""
    if input.dtype.kind != FLOAT:
        return clone(input)
    limits = finfo(input.dtype)
    return _replace_special(
        input,
        0.0 if nan is None else nan,
        limits.max if posinf is None else posinf,
        limits.min if neginf is None else neginf,
    )


# ---------------------------------------------------------------- limits


@op
def _clamp(k: Any, input: Array, min: Array | None, max: Array | None) -> Any:
    return k.clip(input, min, max)


def _clamp_slope(g: Tensor, input: Any, min: Any, max: Any) -> Tensor:
    # nothing passes NaN, as in PyTorch
    inside = le(input, max) if min is None else ge(input, min)
    if min is not None and max is not None:
        inside = logical_and(inside, le(input, max))
    return _where(inside, g, 0.0)


@_clamp.gradient
def _(g: Tensor, input: Any, min: Any, max: Any, needs: Any) -> Any:
    dinput = dmin = dmax = None
    if needs[0]:
        dinput = _clamp_slope(g, input, min, max)
    if needs[1]:
        below = lt(input, min)
        dmin = _where(below if max is None else logical_and(below, lt(min, max)), g, 0.0)
    if needs[2]:
        above = gt(input, max)
        dmax = _where(above if min is None else logical_or(above, lt(max, min)), g, 0.0)
    return dinput, dmin, dmax


@op
def _clamp_scalar(k: Any, input: Array, min: float | None, max: float | None) -> Any:
    return k.clip(input, min, max)


@_clamp_scalar.gradient
def _(g: Tensor, input: Any, min: Any, max: Any) -> Any:
    return _clamp_slope(g, input, min, max)


@method("clamp", "clip")
def clamp(input: Tensor, min: Any = None, max: Any = None) -> Tensor:
    """`input` limited to [min, max] (numbers or tensors, broadcast; None: no limit).

    `max` wins where min > max; NaN stays. The gradient passes at the limits. Raises
    ArgumentError without any limit, and for a number that an integer dtype does not hold.
    """
    if min is None and max is None:
        raise ArgumentError("min or max must be given", operator="clamp")
    check_tensor("clamp", "input", input)
    if input.dtype.kind == INTEGER and {type(min), type(max)} <= {int, type(None)}:
        for limit in (min, max):  # it would wrap
            if limit is not None:
                number_for("clamp", input.dtype, limit, wrap=False)
    if input.dtype.kind == FLOAT and {type(min), type(max)} <= {int, float, type(None)}:
        return _clamp_scalar(input, min, max)
    return _clamp(input, min, max)


clip = clamp


@method("clamp_min")
def clamp_min(input: Tensor, min: Any) -> Tensor:
    """`input`, but not less than `min` (a number or a tensor)."""
    return clamp(input, min)


@method("clamp_max")
def clamp_max(input: Tensor, max: Any) -> Tensor:
    """`input`, but not more than `max` (a number or a tensor)."""
    return clamp(input, None, max)


def _shared(g: Tensor, input: Any, other: Any, loses: Any, needs: Any) -> Any:
    """Gradients of a choice of two: to the chosen one, half to each where they are equal."""
    half = _where(eq(input, other), g * 0.5, g)
    return (
        _where(loses(input, other), 0.0, half) if needs[0] else None,
        _where(loses(other, input), 0.0, half) if needs[1] else None,
    )


@method("maximum")
@op
def maximum(k: Any, input: Array, other: Array) -> Any:
    """The larger of both, broadcast; NaN where one is NaN."""
    return k.maximum(input, other)


@maximum.gradient
def _(g: Tensor, input: Any, other: Any, needs: Any) -> Any:
    return _shared(g, input, other, lt, needs)


@method("minimum")
@op
def minimum(k: Any, input: Array, other: Array) -> Any:
    """The smaller of both, broadcast; NaN where one is NaN."""
    return k.minimum(input, other)


@minimum.gradient
def _(g: Tensor, input: Any, other: Any, needs: Any) -> Any:
    return _shared(g, input, other, gt, needs)


@method("fmax")
@op
def fmax(k: Any, input: Array, other: Array) -> Any:
    """The larger of both, broadcast; a number wins over NaN."""
    return k.fmax(input, other)


@fmax.gradient
def _(g: Tensor, input: Any, other: Any) -> Any:
    first = logical_or(ge(input, other), _is_nan(other))
    return _where(first, g, 0.0), _where(first, 0.0, g)


@method("fmin")
@op
def fmin(k: Any, input: Array, other: Array) -> Any:
    """The smaller of both, broadcast; a number wins over NaN."""
    return k.fmin(input, other)


@fmin.gradient
def _(g: Tensor, input: Any, other: Any) -> Any:
    first = logical_or(le(input, other), _is_nan(other))
    return _where(first, g, 0.0), _where(first, 0.0, g)


def _is_nan(x: Any) -> Any:
    return isnan(x) if type(x) is Tensor else x != x


# ---------------------------------------------------------------- writing


@method("copysign")
def copysign(input: Tensor, other: Any) -> Tensor:
    """The size of `input` with the sign of `other` (a number or a tensor, broadcast).

    Integers give the default dtype; the gradient at 0 is 0, and `other` has none.
    """
    check_tensor("copysign", "input", input)
    if type(other) is Tensor and other.dtype.kind == FLOAT:
        input = cast(input, result_type(input, other))
    minus = signbit(other) if type(other) is Tensor else constant(np.array(np.signbit(other)))
    size = abs(cast(input, get_default_dtype()) if input.dtype.kind != FLOAT else input)
    return where(minus, -size, size)  # type: ignore[operator]


@method("heaviside")
def heaviside(input: Tensor, values: Tensor) -> Tensor:
    """0 where `input` is negative, `values` (broadcast, of input's dtype) where it is 0, else 1.

    There is no gradient.
    """
    check_tensor("heaviside", "input", input)
    check_tensor("heaviside", "values", values)
    if input.dtype != values.dtype:
        raise DTypeError("input and values must have one dtype", operator="heaviside",
                         got=f"{input.dtype}, {values.dtype}")  # fmt: skip
    return where(eq(input, 0), values.detach(), cast(gt(input, 0), input.array.dtype))


@method("copy_")
def copy_(input: Tensor, src: Tensor, non_blocking: bool = False) -> Tensor:
    """Write `src` (any dtype, broadcast) into `input`; gradients flow to `src` from then on."""
    if type(src) is not Tensor:
        raise DTypeError(
            "src must be a Tensor; fill_ takes a number", operator="copy_", got=type(src).__name__
        )
    write("copy_", input, cast(src, input.array.dtype), writable("copy_", input), replaces=True)
    return input


@method("fill_")
def fill_(input: Tensor, value: Any) -> Tensor:
    """Write `value` (a number or a 0-d tensor) into all elements."""
    write(
        "fill_", input, _value_like("fill_", input, value), writable("fill_", input), replaces=True
    )
    return input


@method("zero_")
def zero_(input: Tensor) -> Tensor:
    """Write 0 into all elements."""
    return fill_(input, 0)


in_place_methods(
    masked_fill=masked_fill,
    nan_to_num=nan_to_num,
    clamp=clamp,
    clip=clamp,
    clamp_min=clamp_min,
    copysign=copysign,
    heaviside=heaviside,
    clamp_max=clamp_max,
)
