"""Elementwise arithmetic with broadcasting, in functional and in-place form."""

from __future__ import annotations

from typing import Any

from minidl.autograd.op import Array, in_place, op
from minidl.errors import ArgumentError
from minidl.ops.method import method
from minidl.tensor import Tensor


@method("add", "__add__", "__radd__")
@op
def add(k: Any, input: Array, other: Array, *, alpha: float = 1) -> Any:
    """`input + alpha * other`, broadcast. input, other: (...) any shapes that broadcast."""
    return k.add(input, other if alpha == 1 else _scaled(k, other, alpha))


@add.gradient
def _(g: Tensor, alpha: float) -> Any:
    return g, g if alpha == 1 else g * alpha


def _scaled(k: Any, other: Array, alpha: Any) -> Any:
    if isinstance(alpha, float) and getattr(other, "dtype", None) is not None:
        if other.dtype.kind in "iub":
            raise ArgumentError("alpha must be an integer for integer tensors", got=repr(alpha))
    return k.mul(other, alpha)


@method("add_", "__iadd__")
@op(inplace_of=add)
def add_(k: Any, input: Array, other: Array, *, alpha: float = 1) -> Any:
    k.add(input, other if alpha == 1 else _scaled(k, other, alpha), out=input)


@method("sub", "subtract", "__sub__")
@op
def sub(k: Any, input: Array, other: Array, *, alpha: float = 1) -> Any:
    """`input - alpha * other`, broadcast."""
    return k.sub(input, other if alpha == 1 else _scaled(k, other, alpha))


@sub.gradient
def _(g: Tensor, alpha: float) -> Any:
    return g, g * -alpha


@method("sub_", "__isub__")
@op(inplace_of=sub)
def sub_(k: Any, input: Array, other: Array, *, alpha: float = 1) -> Any:
    k.sub(input, other if alpha == 1 else _scaled(k, other, alpha), out=input)


@method("__rsub__")
def rsub(input: Any, other: Any) -> Tensor:
    """`other - input`."""
    return sub(other, input)


@method("mul", "multiply", "__mul__", "__rmul__")
@op
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


@method("div", "divide", "true_divide", "__truediv__")
@op(promote="float")
def div(k: Any, input: Array, other: Array) -> Any:
    """`input / other`, broadcast; integers give the default dtype."""
    return k.div(input, other)


@div.gradient
def _(g: Tensor, input: Any, other: Any, needs: Any) -> Any:
    scaled = g / other
    return scaled if needs[0] else None, -scaled * (input / other) if needs[1] else None


@method("__rtruediv__")
def rdiv(input: Any, other: Any) -> Tensor:
    """`other / input`."""
    return div(other, input)


@method("neg", "negative", "__neg__")
@op
def neg(k: Any, input: Array) -> Any:
    """`-input`."""
    return k.neg(input)


@neg.gradient
def _(g: Tensor) -> Any:
    return -g


neg_ = method("neg_")(in_place("neg_", neg))
