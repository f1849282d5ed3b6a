"""Rows of `minidl.ops.activation`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minidl.dtypes import FLOATS, DType, float32, float64, int64
from minidl.ops.activation import (
    celu,
    elu,
    gelu,
    glu,
    hardshrink,
    hardsigmoid,
    hardswish,
    hardtanh,
    leaky_relu,
    logsigmoid,
    mish,
    prelu,
    relu,
    relu6,
    selu,
    sigmoid,
    silu,
    softplus,
    softshrink,
    softsign,
    tanhshrink,
    threshold,
)
from minidl.testing.case import Case, Sample, sample
from minidl.testing.draws import alike, one

WIDE = (float64, float32)  # compositions round half dtypes more than once
ANY = one(-8, 8, extreme=True)
_erf = np.vectorize(math.erf, otypes=[np.float64])


def _with(**attributes: Any) -> Any:
    """One array and the attributes that the functions of a Draw give."""

    def inputs(d: Any, dtype: DType) -> Sample:
        x = d.array(d.shape(), dtype, -8, 8, extreme=True)
        return sample(x, **{name: draw(d) for name, draw in attributes.items()})

    return inputs


def _number(low: float, high: float) -> Any:
    return lambda d: d.number(low, high)


def _elu(x: Any, alpha: float, scale: float = 1.0, rate: float = 1.0) -> Any:
    with np.errstate(all="ignore"):
        return scale * np.where(x > 0, x, alpha * np.expm1(x * rate))


def logistic(x: Any) -> Any:
    """1 / (1 + exp(-x)), without overflow."""
    return np.exp(-np.logaddexp(0, -np.asarray(x, np.float64)))


def _log_sigmoid(x: Any) -> Any:
    return np.where(x == np.inf, 0.0, -np.logaddexp(0, -x))


def _softplus(x: Any, beta: float = 1.0, threshold: float = 20.0) -> Any:
    return np.where(beta * x > threshold, x, np.logaddexp(0, beta * x) / beta)


def gelu_oracle(x: Any, approximate: str = "none") -> Any:
    """`gelu` by the functions of its definition."""
    if approximate == "tanh":
        return x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2
    return x * (1 + _erf(x / math.sqrt(2))) / 2


def _gelu_inputs(d: Any, dtype: DType) -> Sample:
    return sample(d.array(d.shape(), dtype, -3, 8), approximate=d.choice(["none", "tanh"]))


def _glu_inputs(d: Any, dtype: DType) -> Sample:
    shape = list(d.shape(min_dims=1, max_dims=3, max_side=3))
    axis = d.axis(len(shape))
    shape[axis] *= 2
    return sample(d.array(shape, dtype), axis)


def _glu(x: Any, dim: int) -> Any:
    first, second = np.split(x, 2, axis=dim)
    return first * logistic(second)


def _torch_celu(torch: Any, x: Any, alpha: float) -> Any:
    # torch's own takes 1 / alpha in float32
    return torch.where(x > 0, x, alpha * torch.expm1(x / alpha))


def _prelu_inputs(d: Any, dtype: DType) -> Sample:
    shape = d.shape(min_side=1)
    channels = shape[1] if len(shape) > 1 else 1
    return sample(*alike(d.array(shape, dtype), d.array((d.choice([1, channels]),), dtype)))


def _prelu(x: Any, weight: Any) -> Any:
    if weight.size > 1:
        weight = weight.reshape((-1,) + (1,) * (x.ndim - 2))
    return np.where(x > 0, x, (x * weight).reshape(x.shape))


CASES = [
    Case("relu", relu, lambda x: np.maximum(x, 0), ANY, dtypes=(*FLOATS, int64),
         operators=("relu", "relu_backward")),
    Case("relu6", relu6, lambda x: np.clip(x, 0, 6), ANY, dtypes=(*FLOATS, int64)),
    Case("hardtanh", hardtanh, lambda x, min_val, max_val: np.clip(x, min_val, max_val),
         _with(min_val=_number(-3, 0), max_val=_number(0, 3))),
    Case("leaky_relu", leaky_relu,
         lambda x, negative_slope: np.where(x > 0, x, x * negative_slope),
         _with(negative_slope=lambda d: d.choice([0.01, 0.25, 1.5, -0.5, 0.0])),
         operators=("leaky_relu", "leaky_relu_backward")),
    Case("elu", elu, _elu, _with(alpha=lambda d: d.choice([1.0, 0.5, 2.0])),
         operators=("elu", "elu_backward")),
    Case("celu", celu, lambda x, alpha: _elu(x, alpha, rate=1 / alpha),
         _with(alpha=_number(0.25, 2)), torch=_torch_celu),
    Case("selu", selu, lambda x: _elu(x, 1.6732632423543772, 1.0507009873554805), ANY),
    Case("sigmoid", sigmoid, logistic, ANY, dtypes=(*FLOATS, int64),
         operators=("sigmoid", "sigmoid_backward")),
    Case("logsigmoid", logsigmoid, _log_sigmoid, ANY),
    Case("softplus", softplus, _softplus,
         _with(beta=_number(0.25, 2), threshold=lambda d: d.choice([20.0, 2.0]))),
    Case("silu", silu, lambda x: x * logistic(x), one(-8, 8), operators=("silu", "silu_backward")),
    # for negative inputs 1 + tanh(...) cancels, here as in torch
    Case("gelu", gelu, gelu_oracle, _gelu_inputs, operators=("gelu", "gelu_backward"), scale=8),
    Case("mish", mish, lambda x: x * np.tanh(_softplus(x)), one(-8, 8), dtypes=WIDE),
    Case("hardsigmoid", hardsigmoid, lambda x: np.clip(x + 3, 0, 6) / 6, ANY, dtypes=WIDE,
         torch=lambda torch, x: torch.nn.functional.relu6(x + 3) / 6),  # its 1 / 6 is a float32
    Case("hardswish", hardswish, lambda x: x * np.clip(x + 3, 0, 6) / 6, one(-8, 8), dtypes=WIDE),
    Case("softsign", softsign, lambda x: x / (1 + np.abs(x)), one(-8, 8), dtypes=WIDE),
    Case("tanhshrink", tanhshrink, lambda x: x - np.tanh(x), one(0.5, 8), dtypes=WIDE),
    Case("prelu", prelu, _prelu, _prelu_inputs, dtypes=WIDE, torch="torch.nn.functional.prelu"),
    Case("threshold", threshold,
         lambda x, threshold, value: np.where(x <= threshold, np.asarray(value, x.dtype), x),
         _with(threshold=lambda d: d.choice([0.0, 1.0, -2.0]),
               value=lambda d: d.choice([0.0, 3.0])), dtypes=FLOATS),
    Case("hardshrink", hardshrink, lambda x, lambd: np.where(np.abs(x) <= lambd, 0, x),
         _with(lambd=_number(0, 3)), dtypes=WIDE),
    Case("softshrink", softshrink,
         lambda x, lambd: np.where(np.isnan(x), x, np.sign(x) * np.maximum(np.abs(x) - lambd, 0)),
         lambda d, dtype: sample(d.array(d.shape(), dtype, -8, 8), lambd=d.number(0, 3)),
         dtypes=WIDE),
    Case("glu", glu, _glu, _glu_inputs, dtypes=WIDE),
]  # fmt: skip
