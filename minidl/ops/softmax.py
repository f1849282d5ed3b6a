"""Softmax and its logarithm."""

from __future__ import annotations

from typing import Any

from minidl.autograd.op import Array, op
from minidl.ops.convert import cast
from minidl.ops.method import method
from minidl.ops.reduce import axis, sum
from minidl.tensor import Tensor


@op(promote="float")
def _softmax(k: Any, input: Array, dim: int) -> Any:
    return k.softmax(input, axis(input.ndim, dim)) if input.ndim else k.exp(input - input)


@_softmax.gradient
def _(g: Tensor, out: Tensor, dim: int) -> Any:
    return _softmax_backward(g, out, dim)


@op
def _softmax_backward(k: Any, grad: Array, out: Array, dim: int) -> Any:
    return k.softmax_backward(grad, out, axis(out.ndim, dim)) if out.ndim else grad * 0


@_softmax_backward.gradient
def _(g: Tensor, grad: Tensor, out: Tensor, dim: int, needs: Any) -> Any:
    dgrad = _softmax_backward(g, out, dim) if needs[0] else None
    if not needs[1]:
        return dgrad, None
    return dgrad, g * (grad - sum(grad * out, dim, True)) - grad * sum(g * out, dim, True)


@method("softmax")
def softmax(input: Tensor, dim: int, dtype: Any = None) -> Tensor:
    """exp(x) / sum(exp(x)) along `dim`, shifted by the maximum so that nothing overflows."""
    return _softmax(input if dtype is None else cast(input, dtype), dim)
