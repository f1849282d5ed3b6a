"""Rows of `minidl.ops.special`, against sums and integrals in Python's floats."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from minidl.dtypes import ALL, DType, float32, float64
from minidl.ops import special as ops
from minidl.testing.case import Case, Sample, sample
from minidl.testing.draws import Inputs, one, two, wide

WIDE = (float64, float32)  # compositions round half dtypes more than once


def _each(function: Callable[..., float]) -> Any:
    """An oracle from a function of Python floats."""

    def oracle(*arrays: Any) -> Any:
        arrays = np.broadcast_arrays(*(np.asarray(a, np.float64) for a in arrays))
        rows = zip(*(a.ravel().tolist() for a in arrays), strict=True)
        values = [function(*row) for row in rows]
        return np.array(values, np.float64).reshape(arrays[0].shape)

    return oracle


def _lgamma(x: float) -> float:
    try:
        return math.lgamma(x)
    except ValueError:  # a pole
        return math.inf
    except OverflowError:
        return math.inf


def _tail(s: float, q: float) -> float:
    """The sum over n >= 0 of (q + n)^-s for q > 0: 300 terms and Euler-Maclaurin's first ones."""
    end = q + 300
    terms = [(q + n) ** -s for n in range(300)]
    rest = [end ** (1 - s) / (s - 1), 0.5 * end**-s, s / 12 * end ** (-s - 1)]
    rest.append(-s * (s + 1) * (s + 2) / 720 * end ** (-s - 3))
    return math.fsum(terms + rest)


def _zeta(s: float, q: float) -> float:
    if q <= 0 and q == math.floor(q):
        return math.inf
    lead = []
    while q < 0:
        lead.append(q**-s)
        q += 1
    return math.fsum([*lead, _tail(s, q)])


def _digamma(x: float) -> float:
    if x == 0 or not math.isfinite(x):
        return -math.copysign(math.inf, x) if x == 0 else math.inf if x > 0 else math.nan
    if x < 0 and x == math.floor(x):
        return math.nan
    lead = []
    while x < 50:  # psi(x) = psi(x + 1) - 1 / x
        lead.append(-1 / x)
        x += 1
    series = [-1 / (2 * x), -1 / (12 * x**2), 1 / (120 * x**4), -1 / (252 * x**6)]
    return math.fsum([*lead, math.log(x), *series, 1 / (240 * x**8)])


def _polygamma(n: int, x: Any) -> Any:
    if n == 0:
        return _each(_digamma)(x)
    return (-1) ** (n + 1) * math.factorial(n) * _each(lambda q: _zeta(n + 1.0, q))(x)


def _order(low: float, high: float) -> Inputs:
    return lambda d, dtype: sample(d.integer(0, 4), d.array(d.shape(), dtype, low, high))


def _upper(a: float, x: float) -> float:
    """Q(a, x) by Legendre's continued fraction, from its 400th level up."""
    level = 0.0
    for n in range(400, 0, -1):
        level = n * (n - a) / (x + 2 * n + 1 - a - level)
    return math.exp(a * math.log(x) - x - math.lgamma(a)) / (x + 1 - a - level)


def _lower(a: float, x: float) -> float:
    """P(a, x) by its power series."""
    term, terms = 1 / a, []
    for n in range(1, 200):
        terms.append(term)
        term *= x / (a + n)
    return math.exp(a * math.log(x) - x - math.lgamma(a)) * math.fsum(terms)


def _igamma(a: float, x: float) -> float:
    return _lower(a, x) if x < a + 1 else 1 - _upper(a, x)


def _igammac(a: float, x: float) -> float:
    return 1 - _lower(a, x) if x < a + 1 else _upper(a, x)


def _shape_fixed(d: Any, dtype: DType) -> Sample:
    """The shape as a constant: torch has no derivative by it."""
    shape = d.shape()
    a = d.constant(d.array(shape, dtype, 0.5, 8))
    return sample(a, d.array(d.broadcastable(shape), dtype, 0.25, 9))


def _slope(a: float, y: float) -> float:
    """The integral of |log t - psi(a)| over the density on one side of e^y, by Gauss-Legendre."""
    nodes, weights = np.polynomial.legendre.leggauss(60)
    x, middle = math.exp(y), _digamma(a)
    sign = 1 if y > middle else -1
    panel = (math.log1p((60 + 8 * a) / x) if sign > 0 else (x + 45) / a) / 12
    total = 0.0
    for i in range(12):
        s = (nodes + 1 + 2 * i) * panel / 2
        inner = (abs(middle - y) + s) * np.exp(sign * a * s - x * np.expm1(sign * s))
        total += float(weights @ inner) * panel / 2
    return total


def _xlogy(x: Any, y: Any) -> Any:
    return np.where((x == 0) & ~np.isnan(y), 0.0, x * np.log(y))


def _xlog1py(x: Any, y: Any) -> Any:
    return np.where((x == 0) & ~np.isnan(y), 0.0, x * np.log1p(y))


def _with_zeros(low: float) -> Inputs:
    """First arguments of which some are 0, second ones of which some are `low`."""

    def inputs(d: Any, dtype: DType) -> Sample:
        shape = d.shape()
        x = d.array(shape, dtype)
        kept = np.asarray(d.rng.integers(0, 2, shape)).astype(x.dtype)
        return sample(np.asarray(x * kept), d.array(d.broadcastable(shape), dtype, low + 0.25, 3))

    return inputs


def _logit(x: Any, eps: float | None = None) -> Any:
    x = x if eps is None else np.clip(x, eps, 1 - eps)
    return np.log(x / (1 - x))


def _entr(x: Any) -> Any:
    return np.where(x < 0, -np.inf, np.where(x == 0, 0.0, -x * np.log(x)))


def _ndtri(p: float) -> float:
    """The inverse of the normal distribution function by bisection."""
    low, high = -9.0, 9.0
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if math.erfc(-middle / math.sqrt(2)) < 2 * p else (low, middle)
    return (low + high) / 2


CASES = [
    # torch's gradient cancels more near 0
    Case("sinc", ops.sinc, np.sinc, one(-3, 3), dtypes=WIDE, operators=("sin",), scale=4,
         grad_inputs=one(0.5, 3)),
    # scale: Python's own, by Lanczos' formula, is right to 1e-15 around its zeros, no better
    Case("lgamma", ops.lgamma, _each(_lgamma), one(-3, 9, extreme=True), dtypes=ALL,
         grad_inputs=one(0.25, 6), scale=8),
    # scale: logarithms of about 1 cancel
    Case("lgamma_below", ops.lgamma, _each(_lgamma), one(-2.75, -2.25), torch="torch.lgamma",
         operators=("lgamma",), scale=8),
    # torch's trigamma is right to 1e-9 only, and gives its gradient
    Case("digamma", ops.digamma, _each(_digamma), one(-3, 9), torch=None, dtypes=ALL,
         grad_inputs=one(0.25, 6)),
    Case("digamma_value", lambda x: ops.digamma(x).detach(), _each(_digamma), one(-3, 9),
         torch="torch.digamma", grad=False, operators=("digamma",)),
    # difference quotients cannot do with values of 1e-3 beside those of 1e6 near 0
    Case("polygamma", ops.polygamma, _polygamma, _order(0.25, 9), dtypes=WIDE,
         grad_inputs=_order(1.5, 6),
         operators=("polygamma",), scale=16, torch=None),
    Case("polygamma_below", ops.polygamma, _polygamma, _order(-1.75, -1.25), dtypes=WIDE,
         torch=None, operators=("polygamma",), scale=16),
    Case("zeta", ops.zeta, _each(_zeta), lambda d, dtype: sample(
        d.constant(d.array(shape := d.shape(), dtype, 2, 6)),
        d.array(d.broadcastable(shape), dtype, 0.25, 6)), dtypes=WIDE, scale=4),
    Case("mvlgamma", ops.mvlgamma,
         lambda x, p: p * (p - 1) / 4 * math.log(math.pi)
         + sum(_each(_lgamma)(x - j / 2) for j in range(p)),
         lambda d, dtype: sample(d.array(d.shape(), dtype, 1.75, 6), d.integer(1, 4)),
         dtypes=WIDE, operators=("lgamma",), scale=4),
    Case("igamma", ops.igamma, _each(_igamma), _shape_fixed, scale=8),
    Case("igammac", ops.igammac, _each(_igammac), _shape_fixed, scale=8),
    # torch has no derivative by the shape; ours has no second one
    Case("igamma_shape", ops.igamma, _each(_igamma), two(0.5, 8, 0.25, 9), torch=None,
         operators=("igamma",), gradgrad=False, scale=8),
    Case("igammac_shape", ops.igammac, _each(_igammac), two(0.5, 8, 0.25, 9), torch=None,
         operators=("igammac",), gradgrad=False, scale=8),
    Case("log_gamma_slope", ops.log_gamma_slope, _each(_slope), two(0.5, 9, -3, 2.5), torch=None,
         grad=False, scale=16),
    Case("xlogy", ops.xlogy, wide(_xlogy), _with_zeros(0), dtypes=ALL),
    Case("xlog1py", ops.xlog1py, wide(_xlog1py), _with_zeros(-1), dtypes=ALL),
    Case("logit", ops.logit, wide(_logit), one(0.1, 0.9)),
    Case("logit_eps", ops.logit, wide(_logit), lambda d, dtype: sample(
        d.array(d.shape(), dtype, -0.5, 1.5), d.choice([0.25, 0.125])), torch="torch.logit",
        operators=("logit",), grad_inputs=lambda d, dtype: sample(
            d.array(d.shape(), dtype, 0.3, 0.7), 0.25)),
    Case("entr", ops.entr, wide(_entr), one(-1, 3, extreme=True), grad_inputs=one(0.25, 3)),
    Case("ndtr", ops.ndtr, _each(lambda x: math.erfc(-x / math.sqrt(2)) / 2), one(), dtypes=ALL),
    Case("ndtri", ops.ndtri, _each(_ndtri), one(0.05, 0.95), scale=4),
]  # fmt: skip
