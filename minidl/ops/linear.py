"""Linear maps, alone and with the activation that follows."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from minidl.autograd.op import Array, op
from minidl.backends import local
from minidl.errors import ShapeError, UnsupportedError
from minidl.ops.activation import gelu, relu, sigmoid, silu
from minidl.ops.matmul import matmul
from minidl.ops.transcendental import tanh
from minidl.ops.views import expand
from minidl.tensor import Tensor

__all__ = ["linear"]


def _check(input: Any, weight: Any, bias: Any) -> None:
    """Say what does not fit; asked only when something does not, since it takes 0.5 us."""
    if weight.ndim != 2 or input.shape[-1:] != weight.shape[1:]:  # also where input has no axis
        if weight.ndim == 1:
            raise UnsupportedError("weight needs two axes; use matmul(input, weight) for a vector")
        raise ShapeError("last axis of input must equal the last axis of weight")
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ShapeError("bias must have one element per output")


@op(promote="match", needed_by={"input": "weight", "weight": "input"})
def linear(k: Any, input: Array, weight: Array, bias: Array | None = None) -> Any:
    """`input @ weight.T + bias`. input (..., in), weight (out, in), bias (out,) -> (..., out)."""
    try:
        return k.linear(input, weight, bias)[0]
    except ValueError:
        _check(input, weight, bias)
        raise


@linear.gradient
def _(g: Tensor, input: Tensor, weight: Tensor, needs: Any) -> Any:
    return _needed(_linear_backward(g, input, weight, needs), needs)


def _needed(gradients: tuple, needs: tuple[bool, bool, bool]) -> Any:
    return tuple([x if needed else None for x, needed in zip(gradients, needs, strict=True)])


@op(outputs=3, promote="match")
def _linear_backward(
    k: Any, grad: Array, input: Array | None, weight: Array | None, wanted: tuple[bool, bool, bool]
) -> Any:
    """All gradients of a linear map at once; one that is not wanted is `grad` itself."""
    found = k.linear_backward(grad, input, weight, wanted)
    return tuple([grad if x is None else x for x in found])


@_linear_backward.gradient
def _(
    g: tuple[Tensor, Tensor, Tensor],
    grad: Tensor,
    input: Tensor,
    weight: Tensor,
    wanted: tuple[bool, bool, bool],
    needs: Any,
) -> Any:
    of_input, of_weight, of_bias = _needed(g, wanted)
    parts = []
    if of_input is not None:
        parts.append(linear(of_input, weight))
    if of_weight is not None:
        parts.append(linear(input, of_weight))
    if of_bias is not None:
        parts.append(expand(of_bias, grad.shape))
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return (
        total if needs[0] else None,
        matmul(grad, of_weight) if needs[1] and of_weight is not None else None,
        _product_of_rows(grad, of_input) if needs[2] and of_input is not None else None,
    )


def _matrix(x: Array) -> Array:
    """The array with all but the last axis as one."""
    return x if x.ndim == 2 else x.reshape(math.prod(x.shape[:-1]), x.shape[-1])


@op(promote="match")
def _product_of_rows(k: Any, input: Array, other: Array) -> Any:
    return k.matmul(_matrix(input).T, _matrix(other))


@_product_of_rows.gradient
def _(g: Tensor, input: Tensor, other: Tensor, needs: Any) -> Any:
    return linear(other, g) if needs[0] else None, matmul(input, g) if needs[1] else None


# ---------------------------------------------------------------- with an activation

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": relu,
    "gelu": gelu,
    "gelu_tanh": lambda x: gelu(x, "tanh"),
    "silu": silu,
    "tanh": tanh,
    "sigmoid": sigmoid,
}
_GATED = frozenset(("gelu", "gelu_tanh", "silu"))


def _activated(
    k: Any,
    input: Array,
    weight: Array,
    bias: Array | None,
    activation: str,
    keep: bool = False,
) -> tuple[Array, Array | None]:
    try:
        return k.linear(input, weight, bias, activation, keep)
    except ValueError:
        _check(input, weight, bias)
        raise


# Two operators, so that a node guards the result against writes only where its gradient needs it.
@op(promote="match", needed_by={"input": "weight", "weight": "input"})
def _linear_activation(
    k: Any, input: Array, weight: Array, bias: Array | None, activation: str
) -> Any:
    """For activations whose derivative is a function of their result."""
    return _activated(k, input, weight, bias, activation)[0]


@_linear_activation.gradient
def _(g: Tensor, input: Any, weight: Any, activation: str, out: Tensor, needs: Any) -> Any:
    return _needed(_linear_activation_backward(g, input, weight, out, activation, needs), needs)


@op(residuals=("pre",), promote="match", needed_by={"input": "weight", "weight": "input"})
def _linear_gated(
    k: Any, input: Array, weight: Array, bias: Array | None, activation: str, keep: bool
) -> Any:
    """For gelu and silu, whose derivative is a function of their input."""
    return _activated(k, input, weight, bias, activation, keep)


@_linear_gated.gradient
def _(g: Tensor, input: Any, weight: Any, activation: str, pre: Any, needs: Any) -> Any:
    return _needed(_linear_activation_backward(g, input, weight, pre, activation, needs), needs)


@op(outputs=3, nondiff=True)
def _linear_activation_backward(
    k: Any,
    grad: Array,
    input: Array | None,
    weight: Array | None,
    kept: Array,
    activation: str,
    wanted: tuple[bool, bool, bool],
) -> Any:
    found = k.linear_backward(grad, input, weight, wanted, activation, kept)
    return tuple([grad if x is None else x for x in found])


@_linear_activation.composite
def _(input: Tensor, weight: Tensor, bias: Tensor | None, activation: str) -> Tensor:
    return _ACTIVATIONS[activation](linear(input, weight, bias))


@_linear_gated.composite
def _(input: Tensor, weight: Tensor, bias: Tensor | None, activation: str, keep: bool) -> Tensor:
    return _ACTIVATIONS[activation](linear(input, weight, bias))


def linear_activation(
    input: Tensor, weight: Tensor, bias: Tensor | None, activation: str
) -> Tensor:
    """The activation of `linear(input, weight, bias)`, taken while the sums are in the caches.

    activation: "relu", "gelu", "gelu_tanh", "silu", "tanh" or "sigmoid".
    """
    if activation in _GATED:
        keep = local.state.recording is not False
        return _linear_gated(input, weight, bias, activation, keep)
    return _linear_activation(input, weight, bias, activation)
