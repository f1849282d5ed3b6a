"""Rows of powers, exponentials, trigonometric, hyperbolic and error functions, rounding."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from minidl.dtypes import ALL, FLOAT, DType
from minidl.ops import transcendental as ops
from minidl.ops.convert import clone
from minidl.testing.case import Case, Sample, sample
from minidl.testing.draws import NUMBERS, Inputs, one, two, wide, wrapping


def _unary(
    function: Callable, oracle: Any, low: float = -3, high: float = 3, **options: Any
) -> Case:
    """A row of a function of one argument that is smooth in [low, high]."""
    extreme = options.pop("extreme", False)
    inputs = one(low, high, extreme=extreme)
    return Case(function.__name__, function, wide(oracle), inputs, dtypes=ALL, **options)


def _rounding(function: Callable, oracle: Any) -> Case:
    return Case(function.__name__, function, oracle, one(-9, 9, extreme=True), dtypes=NUMBERS)


def _each(function: Callable[[float], float]) -> Any:
    """An oracle from a function of Python floats."""
    return lambda x: np.array([function(v) for v in x.ravel()], np.float64).reshape(x.shape)


def _erfinv(y: float) -> float:
    """The inverse of math.erf by bisection."""
    low, high = -6.0, 6.0
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if math.erf(middle) < y else (low, middle)
    return (low + high) / 2


def _powers(exponents: Any, low: float, high: float) -> Inputs:
    return lambda d, dtype: sample(d.array(d.shape(), dtype, low, high), d.choice(exponents))


def _whole_powers(d: Any, dtype: DType) -> Sample:
    shape = d.shape()
    x = d.array(shape, dtype, -2, 2)
    return sample(x, d.array(d.broadcastable(shape), dtype, -3, 5))


def _whole_power(x: Any, n: Any) -> Any:
    """Integers to integers; a negative power of an integer other than 1 and -1 is 0."""
    dtype = np.result_type(x, n)
    x, n = np.broadcast_arrays(x.astype(dtype), n.astype(dtype))
    out = np.empty(x.shape, dtype)
    for i in np.ndindex(x.shape):
        a, b = int(x[i]), int(n[i])
        whole = a**b if b >= 0 else a ** (b % 2) if a in (1, -1) else 0
        out[i] = np.asarray(whole).astype(dtype)
    return out


def _base_first(d: Any, dtype: DType) -> Sample:
    return sample(d.array(d.shape(), dtype, -2, 3), d.number(0.5, 3))


def _decimals(d: Any, dtype: DType) -> Sample:
    return sample(d.array(d.shape(), dtype, -99, 99), decimals=d.integer(-1, 2))


def _nonzero(d: Any, dtype: DType) -> Sample:
    """Two arrays that broadcast, both away from 0."""
    low, high = d.choice([(0.5, 3), (-3, -0.5)])
    return two(low, high, 0.5, 3)(d, dtype)


CASES = [
    Case(
        "pow",
        ops.pow,
        np.power,
        two(0.25, 3, -2, 3),
        grad_inputs=two(0.5, 2, -2, 3),
    ),
    Case(
        "pow_integers",
        ops.pow,
        wrapping(_whole_power),
        _whole_powers,
        torch="torch.pow",
        dtypes=tuple(d for d in NUMBERS if d.kind != FLOAT),
        grad=False,
        operators=("pow",),
    ),
    Case(
        "pow_number",
        ops.pow,
        wide(np.power),
        _powers([2.0, 3.0, 0.5, -0.5, -1.0, -2.0, 1.0, 0.0, 2.5, -1.5], 0.5, 2),
        torch="torch.pow",
        dtypes=NUMBERS,
        operators=("pow_scalar",),
    ),
    Case(
        "pow_whole_number",
        ops.pow,
        np.power,
        _powers([2, 3, 1, 0, 5], -3, 3),
        torch="torch.pow",
        dtypes=NUMBERS,
        operators=("pow_scalar",),
    ),
    Case(
        "rpow",
        lambda x, base: base**x,
        lambda x, base: base**x,
        _base_first,
        torch=lambda torch, x, base: base**x,
        operators=("pow",),
    ),
    Case("square", ops.square, np.square, one(), dtypes=NUMBERS, operators=("pow_scalar",)),
    _unary(ops.sqrt, np.sqrt, 0.25, 4),
    _unary(ops.rsqrt, lambda x: 1 / np.sqrt(x), 0.25, 4),
    _unary(ops.exp, np.exp, extreme=True),
    _unary(ops.exp2, np.exp2),
    _unary(ops.expm1, np.expm1),
    _unary(ops.log, np.log, 0.25, 4, extreme=True),
    _unary(ops.log2, np.log2, 0.25, 4),
    _unary(ops.log10, np.log10, 0.25, 4),
    _unary(ops.log1p, np.log1p, -0.75, 4),
    Case("logaddexp", ops.logaddexp, np.logaddexp, two()),
    _unary(ops.sin, np.sin),
    _unary(ops.cos, np.cos),
    _unary(ops.tan, np.tan, -1, 1),
    _unary(ops.asin, np.arcsin, -0.9, 0.9),
    _unary(ops.acos, np.arccos, -0.9, 0.9),
    _unary(ops.atan, np.arctan, extreme=True),
    Case("atan2", ops.atan2, np.arctan2, _nonzero),
    Case("hypot", ops.hypot, np.hypot, _nonzero),
    _unary(ops.sinh, np.sinh),
    _unary(ops.cosh, np.cosh),
    _unary(ops.tanh, np.tanh, extreme=True, operators=("tanh", "tanh_backward")),
    _unary(ops.asinh, np.arcsinh),
    _unary(ops.acosh, np.arccosh, 1.25, 4),
    _unary(ops.atanh, np.arctanh, -0.9, 0.9),
    _unary(ops.erf, _each(math.erf)),
    _unary(ops.erfc, _each(math.erfc)),
    Case("erfinv", ops.erfinv, _each(_erfinv), one(-0.95, 0.95)),
    _rounding(ops.floor, np.floor),
    _rounding(ops.ceil, np.ceil),
    _rounding(ops.trunc, np.trunc),
    Case("round", ops.round, lambda x: np.rint(x).astype(x.dtype), one(-9, 9), dtypes=NUMBERS),
    Case("round_decimals", ops.round, np.round, _decimals, operators=("round",)),
    Case("frac", ops.frac, lambda x: x - np.trunc(x), one(-9, 9)),
    Case(
        "exp_",
        lambda x: clone(x).exp_(),
        np.exp,
        one(),
        torch=lambda torch, x: x.clone().exp_(),
        operators=("exp",),
    ),
    Case(
        "pow_",
        lambda x, n: clone(x).pow_(n),
        np.power,
        _powers([2.0, 0.5, 1.5], 0.5, 2),
        torch=lambda torch, x, n: x.clone().pow_(n),
        operators=("pow_scalar",),
    ),
]
