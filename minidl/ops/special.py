"""Special functions: the gamma function's family, logarithms that meet zeros, entropy terms."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minidl.autograd.op import Array, constant, op
from minidl.dtypes import result_type
from minidl.errors import ArgumentError, DTypeError, GradientError
from minidl.ops.compare import eq, ge, le, logical_and
from minidl.ops.convert import cast
from minidl.ops.method import check_tensor, in_place_methods, method
from minidl.ops.select import where
from minidl.ops.transcendental import exp, log, log1p, sin
from minidl.tensor import Tensor

__all__ = [
    "digamma",
    "igamma",
    "igammac",
    "lgamma",
    "logit",
    "mvlgamma",
    "polygamma",
    "sinc",
    "xlogy",
]


# ---------------------------------------------------------------- gamma function


@method("lgamma")
@op(promote="float")
def lgamma(k: Any, input: Array) -> Any:
    """log |gamma(input)|; infinite at 0, -1, -2 ..."""
    return k.lgamma(input)


@lgamma.gradient
def _(g: Tensor, input: Tensor) -> Any:
    return g * digamma(input)


@method("digamma")
@op(promote="float")
def digamma(k: Any, input: Array) -> Any:
    """The derivative of `lgamma`; -inf at 0, NaN at negative integers."""
    return k.digamma(input)


@digamma.gradient
def _(g: Tensor, input: Tensor) -> Any:
    return g * _polygamma(input, 1)


@op(promote="float")
def _polygamma(k: Any, input: Array, n: int) -> Any:
    # Abramowitz and Stegun 6.4.10
    order = k.asarray(n + 1, dtype=input.dtype)
    return k.mul(k.zeta(order, input), math.copysign(math.gamma(n + 1), n % 2 - 0.5))


@_polygamma.gradient
def _(g: Tensor, input: Tensor, n: int) -> Any:
    return g * _polygamma(input, n + 1)


def polygamma(n: int, input: Tensor) -> Tensor:
    """The derivative of order `n` (0 to 170) of `digamma`."""
    if not isinstance(n, int) or not 0 <= n <= 170:
        raise ArgumentError("n must be an integer from 0 to 170", operator="polygamma", got=repr(n))
    return _polygamma(input, n) if n else digamma(input)


@method("polygamma")
def _polygamma_method(input: Tensor, n: int) -> Tensor:
    return polygamma(n, input)


def _tensors(name: str, *values: Any) -> list[Tensor]:
    """Numbers as 0-d tensors of the dtype that they have beside the tensors among `values`."""
    arrays = [v.array if type(v) is Tensor else v for v in values]
    if all(a is v for a, v in zip(arrays, values, strict=True)):
        raise DTypeError("needs at least one Tensor", operator=name)
    if not all(type(v) in (Tensor, int, float, bool) for v in values):
        got = ", ".join(type(v).__name__ for v in values)
        raise DTypeError("needs Tensors or numbers", operator=name, got=got)
    dtype = result_type(*arrays).numpy
    return [v if type(v) is Tensor else constant(np.asarray(v, dtype)) for v in values]


@op(promote="float")
def _zeta(k: Any, input: Array, other: Array) -> Any:
    return k.zeta(input, other)


@_zeta.gradient
def _(g: Tensor, input: Tensor, other: Tensor, needs: Any) -> Any:
    if needs[0]:
        raise GradientError("has a gradient for `other` only", operator="zeta")
    return None, g * -input * _zeta(input + 1, other)


def zeta(input: Any, other: Any) -> Tensor:
    """Hurwitz' zeta function, the sum of (other + n) ** -input over n >= 0; broadcast.

    One of both may be a number. NaN for input < 1. Its derivative is that by `other`; asking for
    the one by `input` raises GradientError.
    """
    return _zeta(*_tensors("zeta", input, other))


@method("mvlgamma")
def mvlgamma(input: Tensor, p: int) -> Tensor:
    """The logarithm of the multivariate gamma function of dimension `p` >= 1."""
    check_tensor("mvlgamma", "input", input)
    if p < 1:
        raise ArgumentError("p must be at least 1", operator="mvlgamma", got=repr(p))
    total = lgamma(input) + p * (p - 1) / 4 * math.log(math.pi)
    for j in range(1, p):
        total = total + lgamma(input - j / 2)
    return total


# ---------------------------------------------------------------- incomplete gamma functions


@method("igamma")
@op(promote="float")
def igamma(k: Any, input: Array, other: Array) -> Any:
    """The regularised lower incomplete gamma function of shape `input` at `other`; broadcast.

    Derivatives by `other` are of any order, that by the shape is of the first only.
    """
    return k.gammainc(input, other)


@igamma.gradient
def _(g: Tensor, input: Any, other: Any, needs: Any) -> Any:
    return _igamma_gradient(g, input, other, needs)


@method("igammac")
@op(promote="float")
def igammac(k: Any, input: Array, other: Array) -> Any:
    """1 - igamma(input, other), exact where that is small; broadcast."""
    return k.gammaincc(input, other)


@igammac.gradient
def _(g: Tensor, input: Any, other: Any, needs: Any) -> Any:
    return _igamma_gradient(-g, input, other, needs)


def _igamma_gradient(g: Tensor, a: Any, x: Any, needs: Any) -> tuple[Any, Any]:
    a, x = (v if v.dtype is g.dtype else cast(v, g.dtype) for v in _tensors("igamma", a, x))
    log_x = log(x)
    density = g * exp(a * log_x - x - lgamma(a))  # by log x
    return (
        -density * log_gamma_slope(a, log_x) if needs[0] else None,
        density / x if needs[1] else None,
    )


@op(promote="float")
def log_gamma_slope(k: Any, concentration: Array, log: Array) -> Any:
    """How the logarithm of a gamma variable moves with its concentration; it has no gradient.

    d log / d concentration where igamma(concentration, exp(log)) stays: implicit
    reparameterisation (Figurnov, Mohamed, Mnih 2018).
    """
    return k.log_gamma_quantile_backward(concentration, log)


# ---------------------------------------------------------------- logarithms


@op(promote="float")
def _xlogy(k: Any, input: Array, other: Array) -> Any:
    out = k.mul(input, k.log(other))
    return k.where(k.logical_and(k.eq(input, 0), k.eq(other, other)), k.zeros((), out.dtype), out)


@_xlogy.gradient
def _(g: Tensor, input: Tensor, other: Tensor, needs: Any) -> Any:
    if not needs[0]:
        return None, g * input / other
    other = cast(other, g.dtype)  # integers were promoted for the forward only
    gone = logical_and(eq(input, 0), le(other, 0))
    return g * where(gone, 0.0, log(other)), g * input / other if needs[1] else None


@method("xlogy")
def xlogy(input: Any, other: Any) -> Tensor:
    """input * log(other), and 0 where `input` is 0 and `other` is not NaN; broadcast.

    One of both may be a number.
    """
    return _xlogy(*_tensors("xlogy", input, other))


@op(promote="float")
def _xlog1py(k: Any, input: Array, other: Array) -> Any:
    out = k.mul(input, k.log1p(other))
    return k.where(k.logical_and(k.eq(input, 0), k.eq(other, other)), k.zeros((), out.dtype), out)


@_xlog1py.gradient
def _(g: Tensor, input: Tensor, other: Tensor, needs: Any) -> Any:
    if not needs[0]:
        return None, g * input / (other + 1)
    other = cast(other, g.dtype)
    gone = logical_and(eq(input, 0), le(other, -1))
    return g * where(gone, 0.0, log1p(other)), g * input / (other + 1) if needs[1] else None


def xlog1py(input: Any, other: Any) -> Tensor:
    """input * log1p(other), and 0 where `input` is 0 and `other` is not NaN; broadcast.

    One of both may be a number.
    """
    return _xlog1py(*_tensors("xlog1py", input, other))


@op(promote="float")
def _logit(k: Any, input: Array, eps: float | None) -> Any:
    if eps is not None:
        input = k.clip(input, eps, 1 - eps)
    return k.log(k.div(input, k.sub(1, input)))


@_logit.gradient
def _(g: Tensor, input: Tensor, eps: float | None) -> Any:
    low, outside = (0.0, math.nan) if eps is None else (eps, 0.0)
    inside = logical_and(ge(input, low), le(input, 1 - low))
    return where(inside, g / (input * (1 - input)), outside)


@method("logit")
def logit(input: Tensor, eps: float | None = None) -> Tensor:
    """log(input / (1 - input)), `input` limited to [eps, 1 - eps] before if `eps` is given.

    NaN outside [0, 1] otherwise, and infinite at 0 and 1.
    """
    return _logit(input, eps)


@op(promote="float")
def entr(k: Any, input: Array) -> Any:
    """-input * log(input) for positive numbers, 0 for 0 and -inf for negative ones."""
    out = k.neg(k.mul(input, k.log(input)))
    out = k.where(k.eq(input, 0), k.zeros((), out.dtype), out)
    return k.where(k.lt(input, 0), k.full((), -math.inf, out.dtype), out)


@entr.gradient
def _(g: Tensor, input: Tensor) -> Any:
    return g * -(log(input) + 1)


@method("sinc")
def sinc(input: Tensor) -> Tensor:
    """`sin(pi * input) / (pi * input)`, 1 at 0."""
    check_tensor("sinc", "input", input)
    zero = eq(input, 0)
    turned = where(zero, 1, input) * math.pi  # type: ignore[operator]
    curve = input * input * (-math.pi * math.pi / 6) + 1  # type: ignore[operator]
    return where(zero, curve, sin(turned) / turned)


# ---------------------------------------------------------------- normal distribution


@op(promote="float")
def ndtr(k: Any, input: Array) -> Any:
    """The distribution function of the standard normal distribution."""
    return k.mul(k.erfc(k.mul(input, -math.sqrt(0.5))), 0.5)


@ndtr.gradient
def _(g: Tensor, input: Tensor) -> Any:
    return g * exp(input * input * -0.5) * (1 / math.sqrt(2 * math.pi))


@op(promote="float")
def ndtri(k: Any, input: Array) -> Any:
    """The inverse of `ndtr`; infinite at 0 and 1, NaN outside.

    Source of the start in the lower tail, which Halley's method improves: Abramowitz and Stegun,
    26.2.23.
    """
    out = k.mul(k.erfinv(k.sub(k.mul(input, 2), 1)), math.sqrt(2))
    tail = k.logical_and(k.gt(input, 0), k.lt(input, 0.02))
    if k.device == "cpu" and not k.any(tail):
        return out
    p = k.where(tail, input, 0.01).astype(np.float64)
    t = k.sqrt(k.mul(k.log(p), -2))
    x = (2.515517 + t * (0.802853 + t * 0.010328)) / (
        1 + t * (1.432788 + t * (0.189269 + t * 0.001308))
    ) - t
    for _ in range(3):
        density = k.exp(x * x * -0.5) / math.sqrt(2 * math.pi)
        step = (0.5 * k.erfc(x * -math.sqrt(0.5)) - p) / density
        x = x - step / (1 + 0.5 * x * step)
    return k.where(tail, x, out).astype(out.dtype)


@ndtri.gradient
def _(g: Tensor, out: Tensor) -> Any:
    return g * exp(out * out * 0.5) * math.sqrt(2 * math.pi)


in_place_methods(
    lgamma=lgamma,
    digamma=digamma,
    polygamma=_polygamma_method,
    mvlgamma=mvlgamma,
    igamma=igamma,
    igammac=igammac,
    xlogy=xlogy,
    logit=logit,
    sinc=sinc,
)
