"""Rows of `minidl.ops.linear`."""

from __future__ import annotations

from typing import Any

import numpy as np

from minidl.dtypes import DType
from minidl.ops.linear import linear, linear_activation
from minidl.testing.case import Case, Sample, sample
from minidl.testing.cases.activation import gelu_oracle, logistic

_ACTIVATIONS = {
    "relu": lambda x: np.maximum(x, 0),
    "gelu": gelu_oracle,
    "gelu_tanh": lambda x: gelu_oracle(x, "tanh"),
    "silu": lambda x: x * logistic(x),
    "tanh": np.tanh,
    "sigmoid": logistic,
}


def _inputs(d: Any, dtype: DType, limit: float = 3) -> Sample:
    outer, inner = d.integer(1, 4), d.integer(1, 4)
    shapes = [(*d.shape(max_dims=3, max_side=3), inner), (outer, inner)]
    shapes += [(outer,)] if d.boolean() else []
    return sample(*(d.array(shape, dtype, -limit, limit) for shape in shapes))


def _linear(x: Any, weight: Any, bias: Any = None) -> Any:
    return (x[..., None, :] * weight).sum(-1) + (0.0 if bias is None else bias)


def _with(*names: str) -> Any:
    def inputs(d: Any, dtype: DType) -> Sample:
        # sums above -3.4: from there on the oracle of gelu is a rounding error
        x, weight, *bias = _inputs(d, dtype, limit=0.8).args
        return sample(x, weight, bias[0] if bias else None, d.choice(names))

    return inputs


def _torch(torch: Any, x: Any, weight: Any, bias: Any, activation: str) -> Any:
    name, _, approximate = activation.partition("_")
    function = getattr(torch.nn.functional, name)
    options = {"approximate": approximate} if approximate else {}
    return function(torch.nn.functional.linear(x, weight, bias), **options)


CASES = [
    Case("linear", linear, _linear, _inputs,
         operators=("linear", "linear_backward", "product_of_rows")),
    # scale: the derivatives of gelu cancel, as in its own row
    Case("linear_activation", linear_activation,
         lambda x, weight, bias, activation: _ACTIVATIONS[activation](_linear(x, weight, bias)),
         _with(*_ACTIVATIONS), _torch,
         grad_inputs=_with(*(name for name in _ACTIVATIONS if name != "relu")),
         operators=("linear_activation", "linear_gated", "linear_activation_backward"), scale=8),
]  # fmt: skip
