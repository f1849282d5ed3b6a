"""Rows of the elementwise arithmetic."""

from __future__ import annotations

from typing import Any

import numpy as np

from minidl.dtypes import ALL, FLOAT, DType, float32, float64
from minidl.ops import arithmetic as ops
from minidl.ops.convert import clone
from minidl.testing.case import Case, Sample, sample
from minidl.testing.draws import NUMBERS, one, two, wide, wrapping


def _with_alpha(d: Any, dtype: DType) -> Sample:
    return sample(*two()(d, dtype).args, alpha=d.number(-2, 2))


def _with_whole_alpha(d: Any, dtype: DType) -> Sample:
    return sample(*two()(d, dtype).args, alpha=d.integer(0, 3))


def _three(low: float, high: float, whole: bool) -> Any:
    """Three arrays that broadcast, the last in [low, high], and a factor."""

    def inputs(d: Any, dtype: DType) -> Sample:
        shape = d.shape(max_dims=3)
        x, y = (d.array(d.broadcastable(shape, within=True), dtype) for _ in range(2))
        z = d.array(shape, dtype, low, high)
        return sample(x, y, z, value=d.integer(0, 3) if whole else d.number(-2, 2))

    return inputs


def _rounding(d: Any, dtype: DType) -> Sample:
    x, y = two(-9, 9, 1, 4, numbers=True)(d, dtype).args
    return sample(x, y, rounding_mode=d.choice(["floor", "trunc"]))


def _rounded_quotient(x: Any, y: Any, rounding_mode: str) -> Any:
    quotient = np.floor_divide(x, y)
    if rounding_mode == "trunc":  # one more where the quotient is negative and not whole
        quotient = quotient + ((quotient < 0) & (quotient * y != x)).astype(quotient.dtype)
    return quotient


def _exact_quotient(torch: Any, x: Any, y: Any, rounding_mode: str) -> Any:
    # torch truncates the quotient that it has rounded to a half dtype, so 2.999 gives 3
    exact = torch.div(x.double(), y, rounding_mode=rounding_mode)
    return exact.to(torch.result_type(x, y))


def _broken_quotients(d: Any, dtype: DType) -> Sample:
    """x and y whose quotient is not near a whole number, where a remainder jumps."""
    shape = d.shape(max_dims=3)
    y, part = d.array(shape, dtype, 1, 2), d.array(shape, dtype, 0.2, 0.8)
    whole = np.trunc(d.array(shape, dtype, 0, 4))
    return sample((y * (whole + part) * d.choice([1, -1])).astype(y.dtype), y)


def _lerp_inputs(d: Any, dtype: DType) -> Sample:
    shape = d.shape(max_dims=3)
    start, end = (d.array(d.broadcastable(shape, within=True), dtype) for _ in range(2))
    weight = d.number(-1, 2) if d.boolean() else d.array(shape, dtype, -1, 2)
    return sample(start, end, weight)


def _reversed(operation: Any) -> Any:
    """`number operation tensor`, which Python gives to the tensor."""
    return lambda x, number: operation(number, x)


def _number_first(low: float, high: float) -> Any:
    def inputs(d: Any, dtype: DType) -> Sample:
        number = d.integer(1, 5) if dtype.kind != FLOAT else d.number(0.5, 3)
        return sample(d.array(d.shape(), dtype, low, high), number)

    return inputs


def _in_place(name: str, oracle: Any, inputs: Any) -> Case:
    """A row of an in-place method, on a copy that has the shape of the result."""

    def function(x: Any, *args: Any) -> Any:
        return getattr(clone(x), name)(*args)

    def torch(torch: Any, x: Any, *args: Any) -> Any:
        return getattr(x.clone(), name)(*args)

    return Case(name, function, oracle, inputs, torch=torch, operators=(name.strip("_"),))


def _same_shape(d: Any, dtype: DType) -> Sample:
    shape = d.shape()
    return sample(d.array(shape, dtype), d.array(d.broadcastable(shape, within=True), dtype, 1, 3))


CASES = [
    *(
        Case(
            name,
            getattr(ops, name),
            getattr(np, name),
            one(),
            dtypes=(float64, float32),
            operators=("mul",),
        )
        for name in ("deg2rad", "rad2deg")
    ),
    Case("add", ops.add, wrapping(np.add), two(numbers=True, extreme=True), dtypes=ALL),
    Case(
        "add_alpha",
        ops.add,
        lambda x, y, alpha: x + alpha * y,
        _with_alpha,
        torch="torch.add",
        operators=("add",),
        scale=8,  # the sum may cancel all but the rounding of the product
    ),
    Case("sub", ops.sub, wrapping(np.subtract), two(numbers=True, extreme=True), dtypes=NUMBERS),
    Case(
        "sub_alpha",
        ops.sub,
        wrapping(lambda x, y, alpha: x - y.dtype.type(alpha) * y),
        _with_whole_alpha,
        torch="torch.sub",
        dtypes=NUMBERS,
        operators=("sub",),
        scale=8,
    ),
    Case("rsub", _reversed(lambda a, b: a - b), lambda x, y: y - x, _number_first(-3, 3)),
    Case("mul", ops.mul, wrapping(np.multiply), two(numbers=True), dtypes=ALL),
    Case(
        "true_divide",
        ops.true_divide,
        wide(np.divide),
        two(-3, 3, 0.5, 3, numbers=True),
        dtypes=NUMBERS,
        operators=("div",),
    ),
    Case(
        "rdiv",
        _reversed(lambda a, b: a / b),
        lambda x, y: y / x,
        _number_first(0.5, 3),
        torch=lambda torch, x, y: y / x,
        operators=("div",),
    ),
    Case(
        "div_rounding_mode",
        ops.div,
        wrapping(_rounded_quotient),
        _rounding,
        torch=_exact_quotient,
        dtypes=NUMBERS,
        operators=("trunc_divide",),
    ),
    Case(
        "floor_divide",
        ops.floor_divide,
        wrapping(np.floor_divide),
        two(-9, 9, 1, 4, numbers=True),
        torch=lambda torch, x, y: torch.div(x, y, rounding_mode="floor"),  # it has gradients
        dtypes=NUMBERS,
    ),
    Case(
        "remainder",
        ops.remainder,
        wrapping(np.remainder),
        two(-9, 9, 1, 4, numbers=True),
        dtypes=NUMBERS,
        grad_inputs=_broken_quotients,
    ),
    Case(
        "fmod",
        ops.fmod,
        wrapping(np.fmod),
        two(-9, 9, 1, 4, numbers=True),
        dtypes=NUMBERS,
        grad_inputs=_broken_quotients,
    ),
    Case("neg", ops.neg, np.negative, one(extreme=True), dtypes=NUMBERS),
    Case("positive", lambda x: +clone(x), np.positive, one(), dtypes=NUMBERS),
    Case("abs", ops.abs, np.abs, one(extreme=True), dtypes=NUMBERS),
    Case(
        "sign",
        ops.sign,
        lambda x: np.where(x != x, 0, x > 0).astype(x.dtype) - (x < 0).astype(x.dtype),
        one(extreme=True),
        dtypes=NUMBERS,
    ),
    Case("reciprocal", ops.reciprocal, wide(np.reciprocal), one(0.5, 4), dtypes=NUMBERS),
    Case("lerp", ops.lerp, lambda x, y, w: x + w * (y - x), _lerp_inputs),
    Case(
        "addcmul",
        ops.addcmul,
        wrapping(lambda x, y, z, value: x + y.dtype.type(value) * y * z),
        _three(-3, 3, True),
        dtypes=NUMBERS,
        scale=8,
    ),
    Case("addcdiv", ops.addcdiv, lambda x, y, z, value: x + value * y / z, _three(0.5, 3, False)),
    _in_place("add_", np.add, _same_shape),
    _in_place("sub_", np.subtract, _same_shape),
    _in_place("mul_", np.multiply, _same_shape),
    _in_place("div_", np.divide, _same_shape),
    _in_place("remainder_", np.remainder, _same_shape),
    _in_place("neg_", np.negative, one()),
    _in_place("abs_", np.abs, one()),
]
