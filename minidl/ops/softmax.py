"""Softmax and its logarithm."""

from __future__ import annotations

from typing import Any

from minidl.autograd.op import Array, op
from minidl.errors import ArgumentError
from minidl.ops.convert import cast
from minidl.ops.method import method
from minidl.ops.reduce import axis, sum
from minidl.ops.transcendental import exp
from minidl.tensor import Tensor

__all__ = ["log_softmax", "softmax", "softmin"]


def _chosen(input: Tensor, dim: int | None, dtype: Any, name: str) -> Tensor:
    if dim is None:
        raise ArgumentError("say which axis: dim=-1 for the last", operator=name)
    return input if dtype is None else cast(input, dtype)


@op(promote="float")
def _softmax(k: Any, input: Array, dim: int) -> Any:
    return k.softmax(input, axis(input.ndim, dim))


@_softmax.gradient
def _(g: Tensor, out: Tensor, dim: int) -> Any:
    return _softmax_backward(g, out, dim)


@op
def _softmax_backward(k: Any, grad: Array, out: Array, dim: int) -> Any:
    return k.softmax_backward(grad, out, axis(out.ndim, dim))


@_softmax_backward.gradient
def _(g: Tensor, grad: Tensor, out: Tensor, dim: int, needs: Any) -> Any:
    dgrad = _softmax_backward(g, out, dim) if needs[0] else None
    if not needs[1]:
        return dgrad, None
    return dgrad, g * (grad - sum(grad * out, dim, True)) - grad * sum(g * out, dim, True)


@method("softmax")
def softmax(input: Tensor, dim: int | None = None, dtype: Any = None) -> Tensor:
    """`exp(input) / sum(exp(input))` along `dim`, shifted so that nothing overflows.

    input: any shape, integers become the default dtype; dtype: cast to it first. Raises
    ArgumentError without `dim`, OutOfRangeError for an axis that is not there.
    """
    return _softmax(_chosen(input, dim, dtype, "softmax"), dim)


@op(promote="float")
def _log_softmax(k: Any, input: Array, dim: int) -> Any:
    return k.log_softmax(input, axis(input.ndim, dim))


@_log_softmax.gradient
def _(g: Tensor, out: Tensor, dim: int) -> Any:
    return _log_softmax_backward(g, out, dim)


@op
def _log_softmax_backward(k: Any, grad: Array, out: Array, dim: int) -> Any:
    return k.log_softmax_backward(grad, out, axis(out.ndim, dim))


@_log_softmax_backward.gradient
def _(g: Tensor, grad: Tensor, out: Tensor, dim: int, needs: Any) -> Any:
    weighted = g * exp(out)
    return (
        g - sum(weighted, dim, True) if needs[0] else None,
        -weighted * sum(grad, dim, True) if needs[1] else None,
    )


@method("log_softmax")
def log_softmax(input: Tensor, dim: int | None = None, dtype: Any = None) -> Tensor:
    """`log(softmax(input))` along `dim`, without forming the softmax; arguments as there."""
    return _log_softmax(_chosen(input, dim, dtype, "log_softmax"), dim)


def softmin(input: Tensor, dim: int | None = None, dtype: Any = None) -> Tensor:
    """`softmax(-input)` along `dim`."""
    return softmax(-_chosen(input, dim, dtype, "softmin"), dim)
