"""Comparison, tests for special values, and logic: all without gradient."""

from __future__ import annotations

import math
import numbers
from typing import Any

import numpy as np

from minidl.autograd.op import Array, op
from minidl.backends import kernels_for
from minidl.errors import DTypeError
from minidl.ops.method import check_tensor, in_place_methods, method
from minidl.tensor import Tensor

__all__ = [
    "allclose",
    "bitwise_and",
    "bitwise_left_shift",
    "bitwise_not",
    "bitwise_or",
    "bitwise_right_shift",
    "bitwise_xor",
    "eq",
    "equal",
    "ge",
    "greater",
    "greater_equal",
    "gt",
    "isclose",
    "isfinite",
    "isinf",
    "isnan",
    "isneginf",
    "isposinf",
    "isreal",
    "le",
    "less",
    "less_equal",
    "logical_and",
    "logical_not",
    "logical_or",
    "logical_xor",
    "lt",
    "ne",
    "not_equal",
    "signbit",
]


@method("eq")
@op(nondiff=True)
def eq(k: Any, input: Array, other: Array) -> Any:
    """`input == other`, broadcast; bool."""
    return k.eq(input, other)


@method("ne", "not_equal")
@op(nondiff=True)
def ne(k: Any, input: Array, other: Array) -> Any:
    """`input != other`, broadcast; bool."""
    return k.ne(input, other)


@method("lt", "less", "__lt__")
@op(nondiff=True)
def lt(k: Any, input: Array, other: Array) -> Any:
    """`input < other`, broadcast; bool."""
    return k.lt(input, other)


@method("le", "less_equal", "__le__")
@op(nondiff=True)
def le(k: Any, input: Array, other: Array) -> Any:
    """`input <= other`, broadcast; bool."""
    return k.le(input, other)


@method("gt", "greater", "__gt__")
@op(nondiff=True)
def gt(k: Any, input: Array, other: Array) -> Any:
    """`input > other`, broadcast; bool."""
    return k.gt(input, other)


@method("ge", "greater_equal", "__ge__")
@op(nondiff=True)
def ge(k: Any, input: Array, other: Array) -> Any:
    """`input >= other`, broadcast; bool."""
    return k.ge(input, other)


not_equal, less, less_equal, greater, greater_equal = ne, lt, le, gt, ge


def _comparable(other: Any) -> bool:
    # an ndarray goes on to the operator, whose error says what to do
    return type(other) is Tensor or isinstance(other, numbers.Number | np.generic | np.ndarray)


@method("__eq__")
def _equals(input: Tensor, other: Any) -> Any:
    return eq(input, other) if _comparable(other) else NotImplemented


@method("__ne__")
def _differs(input: Tensor, other: Any) -> Any:
    return ne(input, other) if _comparable(other) else NotImplemented


@method("isnan")
@op(nondiff=True)
def isnan(k: Any, input: Array) -> Any:
    """Whether each element is NaN; bool."""
    return k.isnan(input)


@method("isinf")
@op(nondiff=True)
def isinf(k: Any, input: Array) -> Any:
    """Whether each element is +inf or -inf; bool."""
    return k.isinf(input)


@method("isposinf")
def isposinf(input: Tensor) -> Tensor:
    """Whether each element is +inf; bool."""
    return eq(input, math.inf)


@method("isneginf")
def isneginf(input: Tensor) -> Tensor:
    """Whether each element is -inf; bool."""
    return eq(input, -math.inf)


@method("isreal")
def isreal(input: Tensor) -> Tensor:
    """Whether each element is real, which all are here; bool."""
    return logical_or(eq(input, 0), True)


@method("isfinite")
@op(nondiff=True)
def isfinite(k: Any, input: Array) -> Any:
    """Whether each element is neither infinite nor NaN; bool."""
    return k.isfinite(input)


@method("signbit")
@op(nondiff=True)
def signbit(k: Any, input: Array) -> Any:
    """Whether each element has its sign bit set (-0.0 has); bool."""
    return k.lt(input, 0) if input.dtype.kind in "iub" else k.signbit(input)


@method("isclose")
@op(nondiff=True, promote="match")
def isclose(
    k: Any,
    input: Array,
    other: Array,
    rtol: float = 1e-05,
    atol: float = 1e-08,
    equal_nan: bool = False,
) -> Any:
    """`|input - other| <= atol + rtol * |other|` or equal, broadcast; both of one dtype; bool."""
    close = k.eq(input, other)
    if input.dtype.kind in "iu":
        input, other = input.astype("float64"), other.astype("float64")
    if input.dtype.kind == "f":
        distance = k.abs(k.sub(input, other))
        near = k.le(distance, k.add(k.abs(k.mul(other, rtol)), atol))
        close = k.logical_or(close, k.logical_and(near, k.isfinite(distance)))
    if equal_nan:
        close = k.logical_or(close, k.logical_and(k.isnan(input), k.isnan(other)))
    return close


def _holds(found: Tensor) -> bool:
    holds = found.array.all()
    return bool(holds if type(found.array) is np.ndarray else kernels_for(found.array).host(holds))


@method("allclose")
def allclose(
    input: Tensor,
    other: Tensor,
    rtol: float = 1e-05,
    atol: float = 1e-08,
    equal_nan: bool = False,
) -> bool:
    """Whether `isclose` holds for all elements."""
    return _holds(isclose(input, other, rtol, atol, equal_nan))


@method("equal")
def equal(input: Tensor, other: Tensor) -> bool:
    """Whether both have the same shape and equal elements (NaN differs from NaN)."""
    check_tensor("equal", "input", input)
    check_tensor("equal", "other", other)
    return input.shape == other.shape and _holds(eq(input, other))


@method("logical_and")
@op(nondiff=True)
def logical_and(k: Any, input: Array, other: Array) -> Any:
    """Whether both are not 0, broadcast; bool."""
    return k.logical_and(input, other)


@method("logical_or")
@op(nondiff=True)
def logical_or(k: Any, input: Array, other: Array) -> Any:
    """Whether one of both is not 0, broadcast; bool."""
    return k.logical_or(input, other)


@method("logical_xor")
@op(nondiff=True)
def logical_xor(k: Any, input: Array, other: Array) -> Any:
    """Whether exactly one of both is not 0, broadcast; bool."""
    return k.logical_xor(input, other)


@method("logical_not")
@op(nondiff=True)
def logical_not(k: Any, input: Array) -> Any:
    """Whether each element is 0; bool."""
    return k.logical_not(input)


def _check_bits(*operands: Any, kinds: str = "iub") -> None:
    for x in operands:  # a Python number is left only beside floating point tensors
        if not hasattr(x, "dtype") or x.dtype.kind not in kinds:
            raise DTypeError("takes integers only" if kinds == "iu" else "takes integers and bool")


@method("bitwise_and", "__and__", "__rand__")
@op(nondiff=True)
def bitwise_and(k: Any, input: Array, other: Array) -> Any:
    """`input & other`, broadcast; integers or bool."""
    _check_bits(input, other)
    return k.bitwise_and(input, other)


@method("bitwise_or", "__or__", "__ror__")
@op(nondiff=True)
def bitwise_or(k: Any, input: Array, other: Array) -> Any:
    """`input | other`, broadcast; integers or bool."""
    _check_bits(input, other)
    return k.bitwise_or(input, other)


@method("bitwise_xor", "__xor__", "__rxor__")
@op(nondiff=True)
def bitwise_xor(k: Any, input: Array, other: Array) -> Any:
    """`input ^ other`, broadcast; integers or bool."""
    _check_bits(input, other)
    return k.bitwise_xor(input, other)


@method("bitwise_not", "__invert__")
@op(nondiff=True)
def bitwise_not(k: Any, input: Array) -> Any:
    """`~input`: all bits of integers, or the truth of bool, reversed."""
    _check_bits(input)
    return k.bitwise_not(input)


@method("bitwise_left_shift", "__lshift__")
@op(nondiff=True)
def bitwise_left_shift(k: Any, input: Array, other: Array) -> Any:
    """`input << other`, broadcast; 0 where `other` is negative or not less than the bits."""
    _check_bits(input, other, kinds="iu")
    return k.left_shift(input, other)


@method("bitwise_right_shift", "__rshift__")
@op(nondiff=True)
def bitwise_right_shift(k: Any, input: Array, other: Array) -> Any:
    """`input >> other`, broadcast; 0 or -1 where `other` is negative or not less than the bits."""
    _check_bits(input, other, kinds="iu")
    return k.right_shift(input, other)


@method("__rlshift__")
def _rlshift(input: Any, other: Any) -> Tensor:
    return bitwise_left_shift(other, input)


@method("__rrshift__")
def _rrshift(input: Any, other: Any) -> Tensor:
    return bitwise_right_shift(other, input)


in_place_methods(
    eq=eq,
    ne=ne,
    not_equal=ne,
    lt=lt,
    less=lt,
    le=le,
    less_equal=le,
    gt=gt,
    greater=gt,
    ge=ge,
    greater_equal=ge,
    logical_and=logical_and,
    logical_or=logical_or,
    logical_xor=logical_xor,
    logical_not=logical_not,
    bitwise_and=bitwise_and,
    bitwise_or=bitwise_or,
    bitwise_xor=bitwise_xor,
    bitwise_not=bitwise_not,
    bitwise_left_shift=bitwise_left_shift,
    bitwise_right_shift=bitwise_right_shift,
)
for _dunder, _name in {
    "__iand__": "bitwise_and_",
    "__ior__": "bitwise_or_",
    "__ixor__": "bitwise_xor_",
    "__ilshift__": "bitwise_left_shift_",
    "__irshift__": "bitwise_right_shift_",
}.items():
    method(_dunder)(getattr(Tensor, _name))
