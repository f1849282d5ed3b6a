"""Elementwise arithmetic with broadcasting, in functional and in-place form."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minidl.autograd.op import Array, constant, op
from minidl.backends import kernels_for
from minidl.dtypes import FLOAT
from minidl.errors import ArgumentError, DTypeError
from minidl.ops.method import check_tensor, in_place_methods, method
from minidl.ops.views import expand
from minidl.tensor import Tensor

__all__ = [
    "abs",
    "absolute",
    "add",
    "addcdiv",
    "addcmul",
    "deg2rad",
    "div",
    "divide",
    "floor_divide",
    "fmod",
    "lerp",
    "mul",
    "multiply",
    "neg",
    "negative",
    "positive",
    "rad2deg",
    "reciprocal",
    "remainder",
    "rsub",
    "sgn",
    "sign",
    "sub",
    "subtract",
    "true_divide",
]


def flat(g: Tensor) -> Tensor:
    """The gradient of a function that is constant between its steps: zeros, without a buffer."""
    return expand(constant(kernels_for(g.array).zeros((), g.array.dtype)), g.shape)


@method("add", "__add__", "__radd__")
@op
def add(k: Any, input: Array, other: Array, *, alpha: float = 1) -> Any:
    """`input + alpha * other`, broadcast; bool tensors are joined by `or`."""
    return k.add(input, other if alpha == 1 else _scaled(k, other, alpha))


@add.gradient
def _(g: Tensor, alpha: float) -> Any:
    return g, g if alpha == 1 else g * alpha


def _scaled(k: Any, x: Array, factor: Any) -> Any:
    """`x * factor` in the dtype of `x`, which may be a Python number."""
    if not hasattr(x, "dtype"):
        return x * factor  # a NumPy float64 would not be weak
    if x.dtype.kind in "iub":
        if isinstance(factor, float):
            raise ArgumentError(
                "the factor must be an integer for integer tensors", got=str(factor)
            )
        factor = np.asarray(factor).astype(x.dtype)[()]
    elif x.dtype.itemsize == 2:
        x = x.astype(np.float32)  # rounded with the sum, not before it
    return k.mul(x, factor)


@method("add_", "__iadd__")
@op(inplace_of=add)
def add_(k: Any, input: Array, other: Array, *, alpha: float = 1) -> Any:
    k.add(input, other if alpha == 1 else _scaled(k, other, alpha), out=input)


@method("sub", "subtract", "__sub__")
@op
def sub(k: Any, input: Array, other: Array, *, alpha: float = 1) -> Any:
    """`input - alpha * other`, broadcast; refused for two bool tensors."""
    return k.sub(input, other if alpha == 1 else _scaled(k, other, alpha))


@sub.gradient
def _(g: Tensor, alpha: float, needs: Any) -> Any:
    return g, g * -alpha if needs[1] else None


@method("sub_", "subtract_", "__isub__")
@op(inplace_of=sub)
def sub_(k: Any, input: Array, other: Array, *, alpha: float = 1) -> Any:
    k.sub(input, other if alpha == 1 else _scaled(k, other, alpha), out=input)


@method("__rsub__")
def rsub(input: Any, other: Any, *, alpha: float = 1) -> Tensor:
    """`other - alpha * input`."""
    return sub(other, input, alpha=alpha)


@method("mul", "multiply", "__mul__", "__rmul__")
@op(needed_by={"input": "other", "other": "input"})
def mul(k: Any, input: Array, other: Array) -> Any:
    """`input * other`, broadcast."""
    return k.mul(input, other)


@mul.gradient
def _(g: Tensor, input: Any, other: Any, needs: Any) -> Any:
    return g * other if needs[0] else None, g * input if needs[1] else None


@method("mul_", "multiply_", "__imul__")
@op(inplace_of=mul)
def mul_(k: Any, input: Array, other: Array) -> Any:
    k.mul(input, other, out=input)


@method("__truediv__", "true_divide")
@op(promote="float", needed_by={"input": "other"})
def _div(k: Any, input: Array, other: Array) -> Any:
    """`input / other`, broadcast; integers give the default dtype."""
    return k.div(input, other)


@_div.gradient
def _(g: Tensor, input: Any, other: Any, needs: Any) -> Any:
    scaled = g / other
    return scaled if needs[0] else None, -scaled * (input / other) if needs[1] else None


@method("true_divide_", "__itruediv__")
@op(inplace_of=_div)
def true_divide_(k: Any, input: Array, other: Array) -> Any:
    k.div(input, other, out=input)


@method("__rtruediv__")
def _rdiv(input: Any, other: Any) -> Tensor:
    return _div(other, input)


true_divide = _div


def _whole_quotient(k: Any, input: Array, other: Array, towards_zero: bool) -> Any:
    kind = _divisible(k, input, other)
    if not towards_zero:
        return k.floor_divide(input, other)
    if kind == "f":
        return k.trunc(k.div(input, other))
    # what is left after fmod divides without remainder, so that floor and trunc agree
    return k.floor_divide(k.sub(input, k.fmod(input, other)), other)


def _divisible(k: Any, input: Array, other: Array) -> str:
    """The kind of dtype of both; at least one is an array, and integers are arrays."""
    kind = (input if hasattr(input, "dtype") else other).dtype.kind
    if kind == "b":
        raise DTypeError("not for bool tensors")
    if kind in "iu" and k.device != "cpu":
        k.refuse(k.eq(other, 0), ArgumentError("integer division by zero"))
    elif kind in "iu" and not other.all():
        raise ArgumentError("integer division by zero")
    return kind


@op
def _trunc_divide(k: Any, input: Array, other: Array) -> Any:
    return _whole_quotient(k, input, other, True)


@_trunc_divide.gradient
def _(g: Tensor) -> Any:
    return flat(g), flat(g)


@method("floor_divide", "__floordiv__")
@op
def floor_divide(k: Any, input: Array, other: Array) -> Any:
    """The largest integer <= `input / other`, broadcast; its gradients are 0."""
    return _whole_quotient(k, input, other, False)


@floor_divide.gradient
def _(g: Tensor) -> Any:
    return flat(g), flat(g)


@method("div", "divide")
def div(input: Any, other: Any, *, rounding_mode: str | None = None) -> Tensor:
    """`input / other`, broadcast; integers give the default dtype.

    rounding_mode "trunc" (as C) and "floor" (as Python) keep integers. Raises
    ArgumentError for an integer division by zero.
    """
    if rounding_mode is None:
        return _div(input, other)
    if rounding_mode not in ("trunc", "floor"):
        raise ArgumentError(
            "rounding_mode must be None, 'trunc' or 'floor'",
            operator="div",
            got=repr(rounding_mode),
        )
    return (floor_divide if rounding_mode == "floor" else _trunc_divide)(input, other)


divide = div


@method("__rfloordiv__")
def _rfloordiv(input: Any, other: Any) -> Tensor:
    return floor_divide(other, input)


@method("remainder", "__mod__")
@op
def remainder(k: Any, input: Array, other: Array) -> Any:
    """`input - other * floor(input / other)`: has the sign of `other`, as Python's `%`."""
    _divisible(k, input, other)
    return k.remainder(input, other)


@remainder.gradient
def _(g: Tensor, input: Any, other: Any, needs: Any) -> Any:
    return g, -g * floor_divide(input, other) if needs[1] else None


@method("__rmod__")
def _rmod(input: Any, other: Any) -> Tensor:
    return remainder(other, input)


@method("fmod")
@op
def fmod(k: Any, input: Array, other: Array) -> Any:
    """`input - other * trunc(input / other)`: has the sign of `input`, as C's fmod."""
    _divisible(k, input, other)
    return k.fmod(input, other)


@fmod.gradient
def _(g: Tensor, input: Any, other: Any, needs: Any) -> Any:
    return g, -g * _trunc_divide(input, other) if needs[1] else None


@method("neg", "negative", "__neg__")
@op
def neg(k: Any, input: Array) -> Any:
    """`-input`; refused for bool."""
    return k.neg(input)


@neg.gradient
def _(g: Tensor) -> Any:
    return -g


negative = neg


@method("positive", "__pos__")
def positive(input: Tensor) -> Tensor:
    """The tensor itself; refused for bool, as `-` is."""
    check_tensor("positive", "input", input)
    if input.array.dtype.kind == "b":
        raise DTypeError("not for bool tensors", operator="positive", got=repr(input.dtype))
    return input


@method("abs", "absolute", "__abs__")
@op
def abs(k: Any, input: Array) -> Any:
    """The absolute value; its gradient at 0 is 0."""
    if input.dtype.kind == "b":
        raise DTypeError("not for bool tensors")
    return k.abs(input)


@abs.gradient
def _(g: Tensor, input: Tensor) -> Any:
    return g * sign(input)


absolute = abs


@method("sign", "sgn")
@op
def sign(k: Any, input: Array) -> Any:
    """-1, 0 or 1 by the sign of `input`; 0 for NaN."""
    if input.dtype.kind != "f":
        return k.sign(input) if input.dtype.kind != "b" else input.copy()
    return k.sub(k.gt(input, 0), k.lt(input, 0), dtype=input.dtype)


@sign.gradient
def _(g: Tensor) -> Any:
    return flat(g)


sgn = sign


@method("reciprocal")
@op(promote="float")
def reciprocal(k: Any, input: Array) -> Any:
    """`1 / input`."""
    return k.reciprocal(input)


@reciprocal.gradient
def _(g: Tensor, out: Tensor) -> Any:
    return -g * (out * out)


def _arrays(*operands: Any) -> None:
    """Refuse Python numbers: two of them would be computed in float64."""
    if not all(hasattr(x, "dtype") for x in operands):
        raise DTypeError("needs Tensors where PyTorch does")


@op
def _lerp(k: Any, input: Array, end: Array, weight: Array) -> Any:
    way = k.sub(end, input)
    near, far = k.add(input, k.mul(way, weight)), k.sub(end, k.mul(way, 1 - weight))
    return k.where(k.lt(k.abs(weight), 0.5), near, far)


@_lerp.gradient
def _(g: Tensor, input: Any, end: Any, weight: Any, needs: Any) -> Any:
    return (
        g * (1 - weight) if needs[0] else None,
        g * weight if needs[1] else None,
        g * (end - input) if needs[2] else None,
    )


@method("lerp")
def lerp(input: Tensor, end: Tensor, weight: Any) -> Tensor:
    """`input + weight * (end - input)`, broadcast; exactly `end` where weight is 1.

    weight: a number or a tensor. Raises DTypeError unless all tensors have one dtype, of floating
    point.
    """
    dtypes = [x.dtype for x in (input, end, weight) if type(x) is Tensor]
    if len(set(dtypes)) != 1 or dtypes[0].kind != FLOAT or type(end) is not Tensor:
        raise DTypeError("needs tensors of one floating point dtype", operator="lerp",
                         got=", ".join(map(repr, dtypes)))  # fmt: skip
    return _lerp(input, end, weight)


@method("addcmul")
@op
def addcmul(k: Any, input: Array, tensor1: Array, tensor2: Array, *, value: float = 1) -> Any:
    """`input + value * tensor1 * tensor2`, broadcast."""
    _arrays(tensor1, tensor2)
    return k.add(input, k.mul(tensor1 if value == 1 else _scaled(k, tensor1, value), tensor2))


@addcmul.gradient
def _(g: Tensor, tensor1: Any, tensor2: Any, value: float, needs: Any) -> Any:
    scaled = g if value == 1 else g * value
    return g, scaled * tensor2 if needs[1] else None, scaled * tensor1 if needs[2] else None


@method("addcdiv")
@op
def addcdiv(k: Any, input: Array, tensor1: Array, tensor2: Array, *, value: float = 1) -> Any:
    """`input + value * tensor1 / tensor2`, broadcast; floating point tensors."""
    _arrays(tensor1, tensor2)
    if tensor1.dtype.kind != "f":
        raise DTypeError("needs a floating point tensor among its inputs; use div for integers")
    return k.add(input, k.div(tensor1 if value == 1 else _scaled(k, tensor1, value), tensor2))


@addcdiv.gradient
def _(g: Tensor, tensor1: Any, tensor2: Any, value: float, needs: Any) -> Any:
    scaled = (g if value == 1 else g * value) / tensor2
    return g, scaled, -scaled * (tensor1 / tensor2) if needs[2] else None


@method("deg2rad")
def deg2rad(input: Tensor) -> Tensor:
    """Radians of degrees."""
    return mul(input, math.pi / 180)


@method("rad2deg")
def rad2deg(input: Tensor) -> Tensor:
    """Degrees of radians."""
    return mul(input, 180 / math.pi)


subtract, multiply = sub, mul
in_place_methods(
    div=div,
    divide=div,
    floor_divide=floor_divide,
    remainder=remainder,
    fmod=fmod,
    neg=neg,
    negative=neg,
    abs=abs,
    absolute=abs,
    sign=sign,
    sgn=sign,
    reciprocal=reciprocal,
    lerp=lerp,
    addcmul=addcmul,
    addcdiv=addcdiv,
    deg2rad=deg2rad,
    rad2deg=rad2deg,
)
method("__ifloordiv__")(getattr(Tensor, "floor_divide_"))  # noqa: B009 - attached just above
method("__imod__")(getattr(Tensor, "remainder_"))  # noqa: B009
