"""Matrix products."""

from __future__ import annotations

from typing import Any

from minidl.autograd.op import Array, op
from minidl.errors import ShapeError
from minidl.ops.method import method
from minidl.ops.reduce import sum, sum_to
from minidl.ops.views import reshape, transpose
from minidl.tensor import Tensor


@method("matmul", "__matmul__")
@op(promote="match")
def matmul(k: Any, input: Array, other: Array) -> Any:
    """Matrix product. input (..., n, m) or (m,), other (..., m, p) or (m,); batches broadcast."""
    if not input.ndim or not other.ndim:
        raise ShapeError("both tensors need at least one axis")
    if input.shape[-1] != other.shape[-2 if other.ndim > 1 else 0]:
        raise ShapeError("inner sizes must agree")
    return k.matmul(input, other)


@matmul.gradient
def _(g: Tensor, input: Tensor, other: Tensor, needs: Any) -> Any:
    x = input if input.ndim > 1 else reshape(input, (1, -1))
    y = other if other.ndim > 1 else reshape(other, (-1, 1))
    if input.ndim == 1:
        g = reshape(g, (*g.shape[: g.ndim - (other.ndim > 1)], 1, *g.shape[g.ndim - 1 :])
                    if other.ndim > 1 else (1,))
    if other.ndim == 1:
        g = reshape(g, (*g.shape, 1))
    dx = dy = None
    if needs[0]:
        dx = matmul(g, transpose(y, -1, -2))
        dx = reshape(sum_to(dx, x.shape), input.shape)
    if needs[1]:
        if other.ndim == 2 and g.ndim > 2:
            # one product over all batches instead of a product per batch and their sum
            dy = matmul(transpose(reshape(x, (-1, x.shape[-1])), 0, 1),
                        reshape(g, (-1, g.shape[-1])))
        else:
            dy = sum_to(matmul(transpose(x, -1, -2), g), y.shape)
        dy = reshape(dy, other.shape)
    return dx, dy


@op(promote="match")
def linear(k: Any, input: Array, weight: Array, bias: Array | None = None) -> Any:
    """`input @ weight.T + bias`. input (..., in), weight (out, in), bias (out,)."""
    if not input.ndim or weight.ndim != 2 or input.shape[-1] != weight.shape[-1]:
        raise ShapeError("last axis of input must equal the last axis of weight")
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ShapeError("bias must have one element per output")
    return k.linear(input, weight, bias)[0]


@linear.gradient
def _(g: Tensor, input: Tensor, weight: Tensor, needs: Any) -> Any:
    rows = reshape(g, (-1, g.shape[-1]))
    flat = reshape(input, (-1, input.shape[-1]))
    return (
        matmul(g, weight) if needs[0] else None,
        matmul(transpose(rows, 0, 1), flat) if needs[1] else None,
        sum(rows, 0) if needs[2] else None,
    )
