"""Powers, exponentials, logarithms, trigonometric, hyperbolic and error functions, rounding."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minidl.autograd.op import Array, constant, op
from minidl.dtypes import BOOL, FLOAT, get_default_dtype
from minidl.errors import ArgumentError, DTypeError
from minidl.ops.arithmetic import flat
from minidl.ops.compare import eq, ge, logical_and
from minidl.ops.convert import cast
from minidl.ops.method import in_place_methods, method
from minidl.ops.select import where
from minidl.tensor import Tensor

__all__ = [
    "acos",
    "acosh",
    "arccos",
    "arccosh",
    "arcsin",
    "arcsinh",
    "arctan",
    "arctan2",
    "arctanh",
    "asin",
    "asinh",
    "atan",
    "atan2",
    "atanh",
    "ceil",
    "cos",
    "cosh",
    "erf",
    "erfc",
    "erfinv",
    "exp",
    "exp2",
    "expm1",
    "fix",
    "floor",
    "frac",
    "hypot",
    "log",
    "log10",
    "log1p",
    "log2",
    "logaddexp",
    "pow",
    "round",
    "rsqrt",
    "sin",
    "sinh",
    "sqrt",
    "square",
    "tan",
    "tanh",
    "trunc",
]


# ---------------------------------------------------------------- powers


@op
def _pow(k: Any, input: Array, exponent: Array) -> Any:
    kind = (input if hasattr(input, "dtype") else exponent).dtype.kind
    if kind == "f":
        return k.pow(input, exponent)
    if kind == "b":
        raise DTypeError("not for two bool tensors")
    out = k.pow(input, k.maximum(exponent, 0))
    # 1 / n as an integer: 0 but for 1 and -1
    sign = k.where(k.bitwise_and(exponent, 1), input, k.mul(input, input))
    inverse = k.where(k.eq(k.mul(input, input), 1), sign, 0).astype(out.dtype)
    return k.where(k.lt(exponent, 0), inverse, out)


@_pow.gradient
def _(g: Tensor, input: Any, exponent: Any, out: Tensor, needs: Any) -> Any:
    dinput = dexponent = None
    if needs[0]:
        dinput = where(eq(exponent, 0), 0.0, g * exponent * pow(input, exponent - 1))
    if needs[1]:
        base = input if type(input) is Tensor else constant(np.asarray(input, g.array.dtype))
        still = logical_and(eq(base, 0), ge(exponent, 0))
        dexponent = where(still, 0.0, g * out * log(base))
    return dinput, dexponent


@op
def _pow_scalar(k: Any, input: Array, exponent: float) -> Any:
    if input.dtype.kind not in "iub":
        return k.pow_scalar(input, exponent)
    if exponent == 2:
        return k.square(input)
    # the exponent may not fit into the dtype; the low bits of the wide result are right
    return k.pow(input, exponent, dtype=np.int64).astype(input.dtype)


@_pow_scalar.gradient
def _(g: Tensor, input: Tensor, exponent: float) -> Any:
    if exponent == 0:
        return flat(g)
    return g * ((input if exponent == 2 else pow(input, exponent - 1)) * exponent)


@method("pow", "__pow__")
def pow(input: Any, exponent: Any) -> Tensor:
    """`input ** exponent`, broadcast; one of both may be a number.

    Integers stay integers. Raises ArgumentError for integers to a negative integer number,
    DTypeError for two bool tensors.
    """
    if (type(exponent) is Tensor or type(input) is not Tensor) and (
        isinstance(exponent, Tensor) or not isinstance(input, Tensor)
    ):
        return _pow(input, exponent)
    if isinstance(exponent, np.generic):
        exponent = exponent.item()
    if not isinstance(exponent, int | float):
        raise DTypeError("exponent must be a Tensor or a number", operator="pow",
                         got=type(exponent).__name__)  # fmt: skip
    if input.dtype.kind != FLOAT:
        if isinstance(exponent, float):
            input = cast(input, get_default_dtype())
        elif exponent < 0:
            raise ArgumentError("integers to a negative integer power; convert to floating point",
                                operator="pow", got=f"{input.dtype}, {exponent}")  # fmt: skip
        elif input.dtype.kind == BOOL and not isinstance(exponent, bool):
            input = cast(input, "int64")
    return _pow_scalar(input, exponent)


@method("__rpow__")
def _rpow(input: Tensor, other: Any) -> Tensor:
    return _pow(other, input)


@method("square")
def square(input: Tensor) -> Tensor:
    """`input * input`; bool gives int64."""
    return pow(input, 2)


@method("sqrt")
@op(promote="float")
def sqrt(k: Any, input: Array) -> Any:
    """The square root; NaN for negative numbers."""
    return k.sqrt(input)


@sqrt.gradient
def _(g: Tensor, out: Tensor) -> Any:
    return g / (out * 2)


@method("rsqrt")
@op(promote="float")
def rsqrt(k: Any, input: Array) -> Any:
    """`1 / sqrt(input)`."""
    return k.rsqrt(input)


@rsqrt.gradient
def _(g: Tensor, out: Tensor) -> Any:
    return g * (pow(out, 3) * -0.5)


# ---------------------------------------------------------------- exponentials, logarithms


@method("exp")
@op(promote="float")
def exp(k: Any, input: Array) -> Any:
    """e ** input."""
    return k.exp(input)


@exp.gradient
def _(g: Tensor, out: Tensor) -> Any:
    return g * out


@method("exp2")
@op(promote="float")
def exp2(k: Any, input: Array) -> Any:
    """2 ** input."""
    return k.exp2(input)


@exp2.gradient
def _(g: Tensor, out: Tensor) -> Any:
    return g * (out * math.log(2))


@method("expm1")
@op(promote="float")
def expm1(k: Any, input: Array) -> Any:
    """e ** input - 1, exact near 0."""
    return k.expm1(input)


@expm1.gradient
def _(g: Tensor, out: Tensor) -> Any:
    return g * (out + 1)


@method("log")
@op(promote="float")
def log(k: Any, input: Array) -> Any:
    """The natural logarithm; -inf for 0, NaN for negative numbers."""
    return k.log(input)


@log.gradient
def _(g: Tensor, input: Tensor) -> Any:
    return g / input


@method("log2")
@op(promote="float")
def log2(k: Any, input: Array) -> Any:
    """The logarithm to base 2."""
    return k.log2(input)


@log2.gradient
def _(g: Tensor, input: Tensor) -> Any:
    return g / (input * math.log(2))


@method("log10")
@op(promote="float")
def log10(k: Any, input: Array) -> Any:
    """The logarithm to base 10."""
    return k.log10(input)


@log10.gradient
def _(g: Tensor, input: Tensor) -> Any:
    return g / (input * math.log(10))


@method("log1p")
@op(promote="float")
def log1p(k: Any, input: Array) -> Any:
    """log(1 + input), exact near 0."""
    return k.log1p(input)


@log1p.gradient
def _(g: Tensor, input: Tensor) -> Any:
    return g / (input + 1)


@method("logaddexp")
@op(promote="float")
def logaddexp(k: Any, input: Array, other: Array) -> Any:
    """log(exp(input) + exp(other)) without overflow, broadcast."""
    return k.logaddexp(input, other)


@logaddexp.gradient
def _(g: Tensor, input: Any, other: Any) -> Any:
    return g / (exp(other - input) + 1), g / (exp(input - other) + 1)


# ---------------------------------------------------------------- trigonometric


@method("sin")
@op(promote="float")
def sin(k: Any, input: Array) -> Any:
    """The sine of radians."""
    return k.sin(input)


@sin.gradient
def _(g: Tensor, input: Tensor) -> Any:
    return g * cos(input)


@method("cos")
@op(promote="float")
def cos(k: Any, input: Array) -> Any:
    """The cosine of radians."""
    return k.cos(input)


@cos.gradient
def _(g: Tensor, input: Tensor) -> Any:
    return -g * sin(input)


@method("tan")
@op(promote="float")
def tan(k: Any, input: Array) -> Any:
    """The tangent of radians."""
    return k.tan(input)


@tan.gradient
def _(g: Tensor, out: Tensor) -> Any:
    return g * (out * out + 1)


@method("asin", "arcsin")
@op(promote="float")
def asin(k: Any, input: Array) -> Any:
    """The arcsine, in [-pi/2, pi/2]; NaN outside [-1, 1]."""
    return k.asin(input)


@asin.gradient
def _(g: Tensor, input: Tensor) -> Any:
    return g * rsqrt(1 - input * input)


@method("acos", "arccos")
@op(promote="float")
def acos(k: Any, input: Array) -> Any:
    """The arccosine, in [0, pi]; NaN outside [-1, 1]."""
    return k.acos(input)


@acos.gradient
def _(g: Tensor, input: Tensor) -> Any:
    return -g * rsqrt(1 - input * input)


@method("atan", "arctan")
@op(promote="float")
def atan(k: Any, input: Array) -> Any:
    """The arctangent, in [-pi/2, pi/2]."""
    return k.atan(input)


@atan.gradient
def _(g: Tensor, input: Tensor) -> Any:
    return g / (input * input + 1)


@method("atan2", "arctan2")
@op(promote="float")
def atan2(k: Any, input: Array, other: Array) -> Any:
    """The angle of the point (other, input), in [-pi, pi], broadcast."""
    return k.atan2(input, other)


@atan2.gradient
def _(g: Tensor, input: Any, other: Any) -> Any:
    square = input * input + other * other
    scaled = where(eq(square, 0), 0.0, g / square)  # no direction at the origin, as in PyTorch
    return scaled * other, -scaled * input


@method("hypot")
@op(promote="float")
def hypot(k: Any, input: Array, other: Array) -> Any:
    """sqrt(input ** 2 + other ** 2) without overflow, broadcast."""
    return k.hypot(input, other)


@hypot.gradient
def _(g: Tensor, input: Any, other: Any, out: Tensor) -> Any:
    return g * (input / out), g * (other / out)


# ---------------------------------------------------------------- hyperbolic


@method("sinh")
@op(promote="float")
def sinh(k: Any, input: Array) -> Any:
    """The hyperbolic sine."""
    return k.sinh(input)


@sinh.gradient
def _(g: Tensor, input: Tensor) -> Any:
    return g * cosh(input)


@method("cosh")
@op(promote="float")
def cosh(k: Any, input: Array) -> Any:
    """The hyperbolic cosine."""
    return k.cosh(input)


@cosh.gradient
def _(g: Tensor, input: Tensor) -> Any:
    return g * sinh(input)


@method("tanh")
@op(promote="float")
def tanh(k: Any, input: Array) -> Any:
    """The hyperbolic tangent."""
    return k.tanh(input)


@tanh.gradient
def _(g: Tensor, out: Tensor) -> Any:
    return _tanh_backward(g, out)


@op
def _tanh_backward(k: Any, grad: Array, out: Array) -> Any:
    return k.tanh_backward(grad, out)


@_tanh_backward.gradient
def _(g: Tensor, grad: Tensor, out: Tensor, needs: Any) -> Any:
    return _tanh_backward(g, out), g * grad * out * -2 if needs[1] else None


@method("asinh", "arcsinh")
@op(promote="float")
def asinh(k: Any, input: Array) -> Any:
    """The inverse hyperbolic sine."""
    return k.asinh(input)


@asinh.gradient
def _(g: Tensor, input: Tensor) -> Any:
    return g * rsqrt(input * input + 1)


@method("acosh", "arccosh")
@op(promote="float")
def acosh(k: Any, input: Array) -> Any:
    """The inverse hyperbolic cosine, >= 0; NaN below 1."""
    return k.acosh(input)


@acosh.gradient
def _(g: Tensor, input: Tensor) -> Any:
    return g * rsqrt(input * input - 1)


@method("atanh", "arctanh")
@op(promote="float")
def atanh(k: Any, input: Array) -> Any:
    """The inverse hyperbolic tangent; infinite at -1 and 1, NaN outside."""
    return k.atanh(input)


@atanh.gradient
def _(g: Tensor, input: Tensor) -> Any:
    return g / (1 - input * input)


# ---------------------------------------------------------------- error function


@method("erf")
@op(promote="float")
def erf(k: Any, input: Array) -> Any:
    """The error function: 2 / sqrt(pi) times the integral of exp(-t * t) from 0 to `input`."""
    return k.erf(input)


@erf.gradient
def _(g: Tensor, input: Tensor) -> Any:
    return g * (exp(-(input * input)) * (2 / math.sqrt(math.pi)))


@method("erfc")
@op(promote="float")
def erfc(k: Any, input: Array) -> Any:
    """1 - erf(input), exact where that is small."""
    return k.erfc(input)


@erfc.gradient
def _(g: Tensor, input: Tensor) -> Any:
    return g * (exp(-(input * input)) * (-2 / math.sqrt(math.pi)))


@method("erfinv")
@op(promote="float")
def erfinv(k: Any, input: Array) -> Any:
    """The inverse of `erf`; infinite at -1 and 1, NaN outside."""
    return k.erfinv(input)


@erfinv.gradient
def _(g: Tensor, out: Tensor) -> Any:
    return g * (exp(out * out) * (math.sqrt(math.pi) / 2))


# ---------------------------------------------------------------- rounding


def _whole(function: Any, x: Array) -> Any:
    """`function(x)`; integers are whole already."""
    kind = x.dtype.kind
    if kind == "b":
        raise DTypeError("not for bool tensors")
    return function(x) if kind == "f" else x.copy()


@method("floor")
@op
def floor(k: Any, input: Array) -> Any:
    """The largest integer <= input, in the dtype of `input`."""
    return _whole(k.floor, input)


@floor.gradient
def _(g: Tensor) -> Any:
    return flat(g)


@method("ceil")
@op
def ceil(k: Any, input: Array) -> Any:
    """The smallest integer >= input, in the dtype of `input`."""
    return _whole(k.ceil, input)


@ceil.gradient
def _(g: Tensor) -> Any:
    return flat(g)


@method("trunc", "fix")
@op
def trunc(k: Any, input: Array) -> Any:
    """The integer next to `input` towards 0, in its dtype."""
    return _whole(k.trunc, input)


@trunc.gradient
def _(g: Tensor) -> Any:
    return flat(g)


@method("frac")
@op
def frac(k: Any, input: Array) -> Any:
    """input - trunc(input), for floating point tensors."""
    if input.dtype.kind != "f":
        raise DTypeError("needs a floating point tensor")
    return k.sub(input, k.trunc(input))


@frac.gradient
def _(g: Tensor) -> Any:
    return g


@method("round")
@op
def round(k: Any, input: Array, *, decimals: int = 0) -> Any:
    """The nearest number with `decimals` decimals; halves go to the even neighbour."""
    if not decimals:
        return _whole(k.round, input)
    if input.dtype.kind != "f":
        raise DTypeError("decimals need a floating point tensor")
    scale = 10.0 ** (decimals if decimals > 0 else -decimals)
    if decimals > 0:
        return k.div(k.round(k.mul(input, scale)), scale)
    return k.mul(k.round(k.div(input, scale)), scale)


@round.gradient
def _(g: Tensor) -> Any:
    return flat(g)


arcsin, arccos, arctan, arctan2 = asin, acos, atan, atan2
arcsinh, arccosh, arctanh, fix = asinh, acosh, atanh, trunc
in_place_methods(
    pow=pow,
    square=square,
    sqrt=sqrt,
    rsqrt=rsqrt,
    exp=exp,
    exp2=exp2,
    expm1=expm1,
    log=log,
    log2=log2,
    log10=log10,
    log1p=log1p,
    sin=sin,
    cos=cos,
    tan=tan,
    asin=asin,
    arcsin=asin,
    acos=acos,
    arccos=acos,
    atan=atan,
    arctan=atan,
    atan2=atan2,
    arctan2=atan2,
    hypot=hypot,
    sinh=sinh,
    cosh=cosh,
    tanh=tanh,
    asinh=asinh,
    arcsinh=asinh,
    acosh=acosh,
    arccosh=acosh,
    atanh=atanh,
    arctanh=atanh,
    erf=erf,
    erfc=erfc,
    erfinv=erfinv,
    floor=floor,
    ceil=ceil,
    trunc=trunc,
    fix=trunc,
    frac=frac,
    round=round,
)
method("__ipow__")(getattr(Tensor, "pow_"))  # noqa: B009 - attached just above
