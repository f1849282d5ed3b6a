"""Normalisation over the last axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from minidl.autograd.op import Array, Index, op
from minidl.dtypes import FLOAT, HALVES, finfo, float32
from minidl.errors import ArgumentError, DTypeError, ShapeError
from minidl.ops import reduce
from minidl.ops.convert import cast, widened
from minidl.ops.creation import sizes
from minidl.ops.method import check_tensor
from minidl.ops.select import clamp_min
from minidl.ops.transcendental import rsqrt
from minidl.ops.views import reshape
from minidl.tensor import Tensor

__all__ = ["group_norm", "layer_norm", "normalize", "rms_norm"]


def _axes(
    name: str, input: Tensor, normalized_shape: int | Sequence[int], *factors: Tensor | None
) -> int:
    """How many last axes normalized_shape covers, once all shapes are known to fit."""
    check_tensor(name, "input", input)
    shape = sizes((normalized_shape,), name)
    if not shape or input.shape[-len(shape) :] != shape:
        raise ShapeError(
            f"the last axes of input must be normalized_shape {shape}",
            operator=name, got=str(input.shape),
        )  # fmt: skip
    for factor in factors:
        if factor is not None and factor.shape != shape:
            raise ShapeError(
                f"weight and bias must have normalized_shape {shape}",
                operator=name, got=str(factor.shape),
            )  # fmt: skip
    if input.dtype.kind != FLOAT:
        raise DTypeError("input must be floating point", operator=name, got=repr(input.dtype))
    return len(shape)


def _mean(x: Tensor, ndim: int) -> Tensor:
    return reduce.mean(x, tuple(range(-ndim, 0)), True)


@op(residuals=("mean", "rstd"), promote="match")
def _layer_norm(
    k: Any, input: Array, weight: Array | None, bias: Array | None, ndim: int, eps: float
) -> Any:
    return k.layer_norm(input, ndim, weight, bias, eps)


@_layer_norm.gradient
def _(
    g: Tensor, input: Tensor, weight: Any, ndim: int, mean: Tensor, rstd: Tensor, needs: Any
) -> Any:
    dx, dweight, dbias = _layer_norm_backward(g, input, weight, mean, rstd, ndim)
    return dx, dweight if needs[1] else None, dbias if needs[2] else None


@op(outputs=3, nondiff=True)
def _layer_norm_backward(
    k: Any, grad: Array, x: Array, weight: Array | None, mean: Index, rstd: Index, ndim: int
) -> Any:
    dx, dweight, dbias = k.layer_norm_backward(grad, x, ndim, weight, mean, rstd)
    return dx, dbias if dweight is None else dweight, dbias


@_layer_norm.composite
def _(input: Tensor, weight: Tensor | None, bias: Tensor | None, ndim: int, eps: float) -> Tensor:
    x = widened(input)
    centered = x - _mean(x, ndim)
    out = centered * rsqrt(_mean(centered * centered, ndim) + eps)
    out = out if weight is None else out * weight
    return cast(out if bias is None else out + bias, input.dtype)


def layer_norm(
    input: Tensor,
    normalized_shape: int | Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """`(input - mean) / sqrt(var + eps) * weight + bias` over the last axes.

    input (..., *normalized_shape), weight and bias of normalized_shape, one dtype. Raises
    ShapeError, DTypeError. Source: Ba, Kiros, Hinton, "Layer Normalization", 2016.
    """
    ndim = _axes("layer_norm", input, normalized_shape, weight, bias)
    return _layer_norm(input, weight, bias, ndim, eps)


@op(residuals=("total", "mean", "rstd"), promote="match")
def _add_layer_norm(
    k: Any,
    input: Array,
    other: Array,
    weight: Array | None,
    bias: Array | None,
    ndim: int,
    eps: float,
) -> Any:
    return k.add_layer_norm(input, other, ndim, weight, bias, eps)


@_add_layer_norm.gradient
def _(
    g: Tensor, weight: Any, ndim: int, total: Tensor, mean: Tensor, rstd: Tensor, needs: Any
) -> Any:
    dx, dweight, dbias = _layer_norm_backward(g, total, weight, mean, rstd, ndim)
    return (
        dx if needs[0] else None,
        dx if needs[1] else None,
        dweight if needs[2] else None,
        dbias if needs[3] else None,
    )


@_add_layer_norm.composite
def _(
    input: Tensor,
    other: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    ndim: int,
    eps: float,
) -> Tensor:
    return _layer_norm(input + other, weight, bias, ndim, eps)


def add_layer_norm(
    input: Tensor,
    other: Tensor,
    normalized_shape: int | Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """`layer_norm(input + other, ...)` in one pass, for two tensors of one shape."""
    ndim = _axes("add_layer_norm", input, normalized_shape, weight, bias)
    if other.shape != input.shape:
        raise ShapeError(
            "input and other must have one shape",
            operator="add_layer_norm", got=f"{input.shape}, {other.shape}",
        )  # fmt: skip
    return _add_layer_norm(input, other, weight, bias, ndim, eps)


@op(residuals=("rstd",), promote="match")
def _rms_norm(k: Any, input: Array, weight: Array | None, ndim: int, eps: float) -> Any:
    return k.rms_norm(input, ndim, weight, eps)


@_rms_norm.gradient
def _(g: Tensor, input: Tensor, weight: Any, ndim: int, rstd: Tensor, needs: Any) -> Any:
    dx, dweight = _rms_norm_backward(g, input, weight, rstd, ndim)
    return dx, dweight if needs[1] else None


@op(outputs=2, nondiff=True)
def _rms_norm_backward(
    k: Any, grad: Array, x: Array, weight: Array | None, rstd: Index, ndim: int
) -> Any:
    dx, dweight = k.rms_norm_backward(grad, x, ndim, weight, rstd)
    return dx, rstd if dweight is None else dweight


@_rms_norm.composite
def _(input: Tensor, weight: Tensor | None, ndim: int, eps: float) -> Tensor:
    x = widened(input)
    out = x * rsqrt(_mean(x * x, ndim) + eps)
    return cast(out if weight is None else out * weight, input.dtype)


def rms_norm(
    input: Tensor,
    normalized_shape: int | Sequence[int],
    weight: Tensor | None = None,
    eps: float | None = None,
) -> Tensor:
    """`input / sqrt(mean(input ** 2) + eps) * weight` over the last axes.

    input (..., *normalized_shape), weight of normalized_shape, one dtype; eps defaults to the
    machine epsilon of the dtype that is computed in. Raises ShapeError, DTypeError. Source:
    Zhang, Sennrich, "Root Mean Square Layer Normalization", 2019.
    """
    ndim = _axes("rms_norm", input, normalized_shape, weight)
    if eps is None:
        eps = finfo(float32 if input.dtype in HALVES else input.dtype).eps
    return _rms_norm(input, weight, ndim, eps)


def normalize(input: Tensor, p: float = 2.0, dim: Any = 1, eps: float = 1e-12) -> Tensor:
    """`input / max(norm(input), eps)`, with the p-norm over axis (or axes) `dim`."""
    return input / clamp_min(reduce.norm(input, p, dim, True), eps)


def group_norm(
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Channels in `num_groups` groups, each normalised with its positions, then scaled and shifted.

    input: (N, C, ...) floating point; weight, bias: (C,). Source: Wu and He, arXiv:1803.08494.
    """
    check_tensor("group_norm", "input", input)
    got = str(input.shape)
    if input.ndim < 2:
        raise ShapeError("input needs at least 2 axes (N, C, ...)", operator="group_norm", got=got)
    batch, channels, *rest = input.shape
    if num_groups < 1 or channels % num_groups:
        raise ArgumentError(
            f"num_groups must divide the {channels} channels",
            operator="group_norm", got=repr(num_groups),
        )  # fmt: skip
    for factor in (weight, bias):
        if factor is not None and factor.shape != (channels,):
            raise ShapeError(f"weight and bias must have shape {(channels,)}",
                             operator="group_norm", got=str(factor.shape))  # fmt: skip
    size = channels // num_groups
    for n in rest:
        size *= n
    rows = reshape(input, (batch * num_groups, size))
    out = reshape(layer_norm(rows, (size,), eps=eps) if size else rows, input.shape)
    place = (channels,) + (1,) * len(rest)
    out = out if weight is None else out * reshape(weight, place)
    return out if bias is None else out + reshape(bias, place)
