"""Activations: elementwise, and gated by half of the channels."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minidl.autograd.op import Array, in_place, op
from minidl.dtypes import BOOL, FLOAT, HALF_NUMPY
from minidl.errors import ArgumentError, DTypeError, ShapeError
from minidl.ops.arithmetic import abs, mul
from minidl.ops.compare import ge, gt, le, logical_and, lt
from minidl.ops.index import getitem
from minidl.ops.method import check_tensor, method
from minidl.ops.reduce import axis
from minidl.ops.select import where
from minidl.ops.transcendental import erf, exp, tanh
from minidl.ops.views import reshape
from minidl.tensor import Tensor

__all__ = [
    "celu",
    "celu_",
    "elu",
    "elu_",
    "gelu",
    "glu",
    "hardshrink",
    "hardsigmoid",
    "hardswish",
    "hardtanh",
    "hardtanh_",
    "leaky_relu",
    "leaky_relu_",
    "logsigmoid",
    "mish",
    "prelu",
    "relu",
    "relu6",
    "relu_",
    "selu",
    "selu_",
    "sigmoid",
    "silu",
    "softplus",
    "softshrink",
    "softsign",
    "tanhshrink",
    "threshold",
    "threshold_",
]


def _floating(x: Any) -> None:
    if x.dtype.kind != "f" and x.dtype not in HALF_NUMPY:
        raise DTypeError("input must be floating point")


# ---------------------------------------------------------------- piecewise linear


@op
def _relu(k: Any, input: Array) -> Any:
    if input.dtype.kind == "b":
        raise DTypeError("not for bool tensors")
    return k.relu(input) if input.dtype.kind == "f" else k.maximum(input, 0)


@_relu.gradient
def _(g: Tensor, out: Tensor) -> Any:
    return _relu_backward(g, out)


@op
def _relu_backward(k: Any, grad: Array, out: Array) -> Any:
    return k.relu_backward(grad, out)


@_relu_backward.gradient
def _(g: Tensor, out: Tensor, needs: Any) -> Any:
    return _relu_backward(g, out) if needs[0] else None, None


@method("relu_")
@op(inplace_of=_relu)
def relu_(k: Any, input: Array, other: None = None) -> Any:
    """`relu`, written into `input`."""
    k.clip(input, 0, math.inf, out=input)


@method("relu")
def relu(input: Tensor, inplace: bool = False) -> Tensor:
    """`max(input, 0)`; its gradient at 0 is 0."""
    return relu_(input) if inplace else _relu(input)


@op
def _hardtanh(k: Any, input: Array, min_val: float, max_val: float) -> Any:
    kind = input.dtype.kind
    if kind == "f":
        return k.clip(input, min_val, max_val)
    if kind == "b" or (kind == "u" and min_val < 0):
        raise DTypeError("not for bool tensors, nor for unsigned ones with a negative limit")
    low, high = (np.asarray(int(v)).astype(input.dtype)[()] for v in (min_val, max_val))
    return k.clip(input, low, high)  # integers stay integers


@_hardtanh.gradient
def _(g: Tensor, input: Tensor, min_val: float, max_val: float) -> Any:
    return where(logical_and(gt(input, min_val), lt(input, max_val)), g, 0)


def hardtanh(
    input: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False
) -> Tensor:
    """`input` cut off below `min_val` and above `max_val`; gradient 0 from the bounds on."""
    if not min_val <= max_val:
        got = f"{min_val}, {max_val}"
        raise ArgumentError("min_val must not exceed max_val", operator="hardtanh", got=got)
    return (_hardtanh_ if inplace else _hardtanh)(input, min_val, max_val)


_hardtanh_ = in_place("hardtanh_", _hardtanh)
hardtanh_ = in_place("hardtanh_", hardtanh)


def relu6(input: Tensor, inplace: bool = False) -> Tensor:
    """`min(max(input, 0), 6)`."""
    return (_hardtanh_ if inplace else _hardtanh)(input, 0, 6)


@op
def _leaky_relu(k: Any, input: Array, negative_slope: float) -> Any:
    _floating(input)
    if 0 < negative_slope <= 1:
        return k.maximum(input, k.mul(input, negative_slope))
    return k.where(k.gt(input, 0), input, k.mul(input, negative_slope))


@_leaky_relu.gradient
def _(g: Tensor, input: Tensor, negative_slope: float) -> Any:
    return _leaky_relu_backward(g, input, negative_slope)


@op
def _leaky_relu_backward(k: Any, grad: Array, x: Array, negative_slope: float) -> Any:
    right = k.gt(x, 0)
    if 0 <= negative_slope <= 1:  # without branches
        return k.mul(grad, k.maximum(right.astype(grad.dtype), negative_slope))
    return k.where(right, grad, k.mul(grad, negative_slope))


@_leaky_relu_backward.gradient
def _(g: Tensor, x: Tensor, negative_slope: float, needs: Any) -> Any:
    return _leaky_relu_backward(g, x, negative_slope) if needs[0] else None, None


def leaky_relu(input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    """`input` where positive, `negative_slope * input` elsewhere."""
    return (_leaky_relu_ if inplace else _leaky_relu)(input, negative_slope)


_leaky_relu_ = in_place("leaky_relu_", _leaky_relu)
leaky_relu_ = in_place("leaky_relu_", leaky_relu)


# ---------------------------------------------------------------- exponential linear units


@op
def _elu(k: Any, input: Array, alpha: float, scale: float, rate: float) -> Any:
    _floating(input)
    low = k.minimum(input, 0)
    out = k.expm1(low if rate == 1 else k.mul(low, rate))
    out = k.add(out if alpha == 1 else k.mul(out, alpha), k.maximum(input, 0))
    return out if scale == 1 else k.mul(out, scale)


@_elu.gradient
def _(g: Tensor, input: Tensor, alpha: float, scale: float, rate: float) -> Any:
    return _elu_backward(g, input, alpha, scale, rate)


@op
def _elu_backward(k: Any, grad: Array, x: Array, alpha: float, scale: float, rate: float) -> Any:
    low = k.minimum(x, 0)
    slope = k.exp(low if rate == 1 else k.mul(low, rate))
    if alpha * rate != 1:
        slope = k.where(k.gt(x, 0), 1.0, k.mul(slope, alpha * rate)).astype(grad.dtype, copy=False)
    return k.mul(grad, slope if scale == 1 else k.mul(slope, scale))


@_elu_backward.gradient
def _(
    g: Tensor, grad: Tensor, x: Tensor, alpha: float, scale: float, rate: float, needs: Any
) -> Any:
    curve = None
    if needs[1]:
        below = lt(x, 0)
        second = exp(where(below, x, 0.0) * rate) * (alpha * scale * rate * rate)
        curve = where(below, g * grad * second, 0.0)
    return _elu_backward(g, x, alpha, scale, rate) if needs[0] else None, curve


_elu_ = in_place("elu_", _elu)

# Klambauer et al., "Self-normalizing neural networks", 2017
_SELU_ALPHA, _SELU_SCALE = 1.6732632423543772848170429916717, 1.0507009873554804934193349852946


def elu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """`input` where positive, `alpha * (exp(input) - 1)` elsewhere.

    Source: Clevert, Unterthiner, Hochreiter, "Exponential linear units", 2016.
    """
    return (_elu_ if inplace else _elu)(input, alpha, 1, 1)


def celu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """`input` where positive, `alpha * (exp(input / alpha) - 1)` elsewhere."""
    if not alpha:
        raise ArgumentError("alpha must not be 0", operator="celu")
    return (_elu_ if inplace else _elu)(input, alpha, 1, 1 / alpha)


def selu(input: Tensor, inplace: bool = False) -> Tensor:
    """`elu` with the constants that keep mean 0 and variance 1 (Klambauer et al. 2017)."""
    return (_elu_ if inplace else _elu)(input, _SELU_ALPHA, _SELU_SCALE, 1)


elu_, celu_, selu_ = (in_place(f"{f.__name__}_", f) for f in (elu, celu, selu))

# ---------------------------------------------------------------- sigmoid and its relatives


@method("sigmoid")
@op(promote="float")
def sigmoid(k: Any, input: Array) -> Any:
    """`1 / (1 + exp(-input))`; integers give the default dtype."""
    return k.sigmoid(input)


@sigmoid.gradient
def _(g: Tensor, out: Tensor) -> Any:
    return _sigmoid_backward(g, out)


sigmoid_ = method("sigmoid_")(in_place("sigmoid_", sigmoid))


@op
def _sigmoid_backward(k: Any, grad: Array, out: Array) -> Any:
    return k.sigmoid_backward(grad, out)


@_sigmoid_backward.gradient
def _(g: Tensor, grad: Tensor, out: Tensor, needs: Any) -> Any:
    return (
        _sigmoid_backward(g, out) if needs[0] else None,
        g * grad * (1 - 2 * out) if needs[1] else None,
    )


@op
def logsigmoid(k: Any, input: Array) -> Any:
    """`log(sigmoid(input))` without overflow."""
    _floating(input)
    return k.log_sigmoid(input)


@logsigmoid.gradient
def _(g: Tensor, input: Tensor) -> Any:
    return g * sigmoid(-input)


@op
def softplus(k: Any, input: Array, beta: float = 1.0, threshold: float = 20.0) -> Any:
    """`log(1 + exp(beta * input)) / beta`, and `input` itself where beta * input > threshold."""
    _floating(input)
    return k.softplus(input, beta, threshold)


@softplus.gradient
def _(g: Tensor, input: Tensor, beta: float, threshold: float) -> Any:
    scaled = input if beta == 1 else input * beta
    return where(gt(scaled, threshold), g, g * sigmoid(scaled))


@op
def _silu(k: Any, input: Array) -> Any:
    _floating(input)
    return k.silu(input)


@_silu.gradient
def _(g: Tensor, input: Tensor) -> Any:
    return _silu_backward(g, input)


@op(nondiff=True)
def _silu_backward(k: Any, grad: Array, x: Array) -> Any:
    return k.silu_backward(grad, x)


@_silu.composite
def _(input: Tensor) -> Tensor:
    return input * sigmoid(input)


_silu_ = in_place("silu_", _silu)


def silu(input: Tensor, inplace: bool = False) -> Tensor:
    """`input * sigmoid(input)`, also called swish (Elfwing et al. 2017)."""
    return (_silu_ if inplace else _silu)(input)


@op
def gelu(k: Any, input: Array, approximate: str = "none") -> Any:
    """`input * Phi(input)`, Phi the normal distribution function, or "tanh", its approximation.

    Source: Hendrycks, Gimpel, "Gaussian Error Linear Units", 2016.
    """
    if approximate not in ("none", "tanh"):
        raise ArgumentError("approximate must be 'none' or 'tanh'", got=repr(approximate))
    _floating(input)
    return k.gelu(input, approximate)


@gelu.gradient
def _(g: Tensor, input: Tensor, approximate: str) -> Any:
    return _gelu_backward(g, input, approximate)


@op(nondiff=True)
def _gelu_backward(k: Any, grad: Array, x: Array, approximate: str) -> Any:
    return k.gelu_backward(grad, x, approximate)


@gelu.composite
def _(input: Tensor, approximate: str) -> Tensor:
    if approximate == "tanh":
        cubic = input * (1 + 0.044715 * input * input)
        return 0.5 * input * (1 + tanh(math.sqrt(2 / math.pi) * cubic))
    return 0.5 * input * (1 + erf(input * math.sqrt(0.5)))


# ---------------------------------------------------------------- compositions


def _check_real(name: str, input: Tensor) -> None:
    check_tensor(name, "input", input)
    if input.dtype.kind != FLOAT:  # integers would wrap on the way
        raise DTypeError("input must be floating point", operator=name, got=repr(input.dtype))


def mish(input: Tensor, inplace: bool = False) -> Tensor:
    """`input * tanh(softplus(input))` (Misra 2019)."""
    return _mish_(input) if inplace else input * tanh(softplus(input))


_mish_ = in_place("mish_", mish)


def hardsigmoid(input: Tensor, inplace: bool = False) -> Tensor:
    """`relu6(input + 3) / 6`."""
    _check_real("hardsigmoid", input)
    return _hardsigmoid_(input) if inplace else relu6(input + 3) / 6


_hardsigmoid_ = in_place("hardsigmoid_", hardsigmoid)


def hardswish(input: Tensor, inplace: bool = False) -> Tensor:
    """`input * relu6(input + 3) / 6` (Howard et al. 2019)."""
    _check_real("hardswish", input)
    return _hardswish_(input) if inplace else input * hardsigmoid(input)


_hardswish_ = in_place("hardswish_", hardswish)


def softsign(input: Tensor) -> Tensor:
    """`input / (1 + |input|)`."""
    return input / (1 + abs(input))


def tanhshrink(input: Tensor) -> Tensor:
    """`input - tanh(input)`."""
    return input - tanh(input)


def glu(input: Tensor, dim: int = -1) -> Tensor:
    """First half of axis `dim` times the sigmoid of the second (Dauphin et al. 2017)."""
    check_tensor("glu", "input", input)
    dim = axis(input.ndim, dim, "glu")
    if not input.ndim or input.shape[dim] % 2:
        raise ShapeError("axis dim needs an even size", operator="glu", got=f"{input.shape}, {dim}")
    half, front = input.shape[dim] // 2, (slice(None),) * dim
    values, gate = (getitem(input, (*front, s)) for s in (slice(half), slice(half, None)))
    return mul(values, sigmoid(gate))


@method("prelu")
def prelu(input: Tensor, weight: Tensor) -> Tensor:
    """`input` where positive, `weight * input` elsewhere; its gradient at 0 is that of the rest.

    weight: one number (1,) or (), or one per channel (C,) for input (N, C, ...). Source:
    He et al., arXiv:1502.01852.
    """
    _check_real("prelu", input)
    check_tensor("prelu", "weight", weight)
    channels = input.shape[1] if input.ndim > 1 else 1
    if weight.ndim > 1 or weight.numel() not in (1, channels):
        raise ShapeError(f"weight must have 1 element, or one per channel ({channels})",
                         operator="prelu", got=f"{input.shape}, {weight.shape}")  # fmt: skip
    if weight.numel() > 1:
        weight = reshape(weight, (-1,) + (1,) * (input.ndim - 2))
    return where(gt(input, 0), input, reshape(input * weight, input.shape))


def threshold(input: Tensor, threshold: float, value: float, inplace: bool = False) -> Tensor:
    """`input` where it exceeds `threshold`, `value` elsewhere; NaN stays."""
    check_tensor("threshold", "input", input)
    if input.dtype.kind == BOOL:
        raise DTypeError("not for bool tensors", operator="threshold")
    if inplace:
        return _threshold_(input, threshold, value)
    return where(le(input, threshold), _like(input, value), input)


def _like(input: Tensor, value: float) -> float | int:
    """A number that leaves the dtype of `input` as it is."""
    return value if input.dtype.kind == FLOAT else int(value)


_threshold_ = threshold_ = in_place("threshold_", threshold)


@method("hardshrink")
def hardshrink(input: Tensor, lambd: float = 0.5) -> Tensor:
    """`input` where its size exceeds `lambd`, 0 elsewhere."""
    _check_real("hardshrink", input)
    return where(logical_and(ge(input, -lambd), le(input, lambd)), 0.0, input)


def softshrink(input: Tensor, lambd: float = 0.5) -> Tensor:
    """`input` moved by `lambd` towards 0, where it stays. Raises ArgumentError for lambd < 0."""
    _check_real("softshrink", input)
    if lambd < 0:
        raise ArgumentError("lambd must not be negative", operator="softshrink", got=repr(lambd))
    inside = where(lt(input, -lambd), input + lambd, input * 0)
    return where(gt(input, lambd), input - lambd, inside)
