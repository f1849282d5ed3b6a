"""The gamma function's family: log gamma, its derivatives, incomplete gamma functions.

All entries compute in float64 and round once; any strides and any shape, arguments broadcast;
results are fresh C-contiguous arrays. NaN gives NaN. "ULP" in a floor is that of the result.
"""

import math
from collections.abc import Callable
from functools import cache

import numpy as np

from minidl.backends.reference.blocks import pointwise
from minidl.backends.reference.host import host

_HALF_LOG_TAU = 0.5 * math.log(2 * math.pi)
# B(2k) of the Euler-Maclaurin formula, k = 1, 2, ...
_BERNOULLI = (
    1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6, -3617 / 510, 43867 / 798,
    -174611 / 330,
)  # fmt: skip
_SHIFT = 10  # asymptotic series are evaluated at this argument or beyond
_NODES = 128  # of the quadrature; 96 leave errors of 4e-12
_PIECE = 1024  # elements whose quadrature is done at once


def _in_float64(kernel: Callable[..., np.ndarray], *xs: np.ndarray) -> np.ndarray:
    """`kernel(*xs)` on flat float64 pieces, rounded to the dtype of the arguments."""
    dtype = np.result_type(*xs)

    def fill(out: np.ndarray, *pieces: np.ndarray) -> None:
        out[...] = kernel(*pieces)

    wide = np.broadcast_arrays(*(x.astype(np.float64, copy=False) for x in xs))
    return pointwise(fill, 0, *wide).astype(dtype, copy=False)


def _series(coefficients: tuple[float, ...], x: np.ndarray) -> np.ndarray:
    """Horner's rule, constant term first."""
    out = np.full_like(x, coefficients[-1])
    for c in coefficients[-2::-1]:
        out = out * x + c
    return out


@cache
def _near_two() -> tuple[float, ...]:
    """Coefficients of log gamma(2 + z) / z: 1 - Euler's constant, then (-1)^k (zeta(k) - 1) / k."""
    zeta = host(_zeta(np.arange(2.0, 30.0), np.array(2.0))).tolist()
    return (1 - 0.5772156649015329, *((-1) ** k * z / k for k, z in enumerate(zeta, 2)))


def _log_gamma_1p(x: np.ndarray) -> np.ndarray:
    """log gamma(1 + x) for 0 <= x <= 0.5, relatively exact near 0."""
    return x * _series(_near_two(), x) - np.log1p(x)


def _stirling(x: np.ndarray) -> np.ndarray:
    """log gamma(x) - ((x - 1/2) log x - x + log(2 pi) / 2) for x >= 8 (Abramowitz 6.1.40)."""
    terms = tuple(b / (2 * k * (2 * k - 1)) for k, b in enumerate(_BERNOULLI, 1))
    return _series(terms, 1 / (x * x)) / x


def _log_gamma(x: np.ndarray) -> np.ndarray:
    """For x >= 0: the series around 2 after steps of the recurrence, Stirling's from 8 on."""
    out = np.empty_like(x)
    large = ~(x < 8)
    far = x[large]
    # (x - 1/2)(log x - 1) overflows no earlier than the result
    out[large] = (far - 0.5) * (np.log(far) - 1) + (_HALF_LOG_TAU - 0.5) + _stirling(far)
    x = x[~large]
    whole = np.rint(x)
    z = x - whole
    up = np.ones_like(x)
    for j in range(2, 8):
        up *= np.where(j < whole, z + j, 1.0)
    near = z * _series(_near_two(), z) + np.log(up)
    near -= np.where(whole < 2, np.log(x), 0.0)
    near -= np.where(whole < 1, np.log1p(x), 0.0)
    out[~large] = near
    return out


def _lgamma(x: np.ndarray) -> np.ndarray:
    a = np.abs(x)
    out = _log_gamma(a)
    below = x < 0
    if below.any():
        # reflection: gamma(x) gamma(-x) = -pi / (x sin(pi x))
        a = a[below]
        rest = np.abs(a - np.rint(a))
        sine = np.sin(math.pi * rest)
        reflected = math.log(math.pi) - np.log(a) - np.log(sine) - out[below]
        out[below] = np.where((rest == 0) | np.isinf(a), np.inf, reflected)
    return out


def lgamma(x: np.ndarray) -> np.ndarray:
    """log |gamma(x)|; infinite at 0, -1, -2 ... and at both infinities.

    Floor: 8 ULP plus 8 eps where it crosses 0 below 0.
    """
    return _in_float64(_lgamma, x)


def _digamma(x: np.ndarray) -> np.ndarray:
    y = np.where(x < 0, 1 - x, x)  # reflection: psi(1 - x) - psi(x) = pi cot(pi x)
    far = y + _SHIFT
    terms = tuple(-b / (2 * k) for k, b in enumerate(_BERNOULLI, 1))
    square = 1 / (far * far)
    out = square * _series(terms, square) - 0.5 / far
    for j in range(_SHIFT - 1, 0, -1):
        out -= 1 / (y + j)
    out += np.log(far)
    out -= np.where(x == 0, 1 / x, 1 / y)  # the sign of a zero counts
    rest = x - np.rint(x)
    cotangent = np.where(rest == 0, np.nan, math.pi / np.tan(math.pi * rest))
    return np.where(x < 0, out - cotangent, out)


def digamma(x: np.ndarray) -> np.ndarray:
    """The derivative of `lgamma`; NaN at negative integers, -inf at 0 and inf at -0.

    Source: Abramowitz and Stegun 6.3.5, 6.3.7, 6.3.18. Floor: 8 ULP plus 16 eps near a zero.
    """
    return _in_float64(_digamma, x)


def _zeta(s: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Euler-Maclaurin for q >= 0, s > 1: ten terms, then the integral and its corrections."""
    far = q + _SHIFT
    last = far**-s
    term = last * s / far
    out = last * far / (s - 1) + 0.5 * last
    for k, b in enumerate(_BERNOULLI, 1):
        out += term * (b / math.factorial(2 * k))
        term = term * ((s + 2 * k - 1) * (s + 2 * k)) / (far * far)
    for j in range(_SHIFT - 1, -1, -1):
        out += (q + j) ** -s
    return out


def _zeta_anywhere(s: np.ndarray, q: np.ndarray) -> np.ndarray:
    out = np.where(s == 1, np.inf, _zeta(s, q))
    out = np.where((np.isinf(s) & (q >= 0)) | (q == np.inf), q**-s, out)  # the first term alone
    out = np.where(s < 1, np.nan, out)
    below = (q < 0) & (s > 1)
    if below.any():
        # over all integers n, sum (q + n)^-s has period 1; both halves are sums at q > 0
        s, q = s[below], q[below]
        part = q - np.floor(q)
        sign = np.where(s % 2 == 0, 1.0, -1.0)
        value = _zeta(s, part) + sign * (_zeta(s, 1 - part) - _zeta(s, 1 - q))
        value = np.where(part == 0, np.inf, value)
        out[below] = np.where((s == np.rint(s)) | (part == 0), value, np.nan)
    return out


def zeta(s: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Hurwitz' zeta function: the sum over n >= 0 of (q + n)^-s.

    Infinite for s = 1 and where q is 0 or a negative integer; NaN for s < 1, and where q < 0 while
    s is no integer. Floor: 8 ULP up to s = 30 or so.
    """
    return _in_float64(_zeta_anywhere, s, q)


# ---------------------------------------------------------------- incomplete gamma functions


def _nodes(a: np.ndarray, x: np.ndarray, upper: bool) -> tuple[np.ndarray, np.ndarray]:
    """Abscissas s and weighted integrand of the two integrals below, (_NODES, n).

    With t = x e^s the integrals of t^(a-1) e^-t on either side of x are x^a e^-x times those of
    exp((a - x) s - x (e^s - 1 - s)), over s > 0 above x and s < 0 below. The trapezium rule in v
    with |s| = scale exp(v - e^-v) converges doubly exponentially (Takahasi, Mori 1974).
    """
    v, step = np.linspace(-3.6, 3.5, _NODES, retstep=True)
    v = v[:, None]
    distance = x - a if upper else a - x
    scale = 2 / (distance + np.sqrt(distance * distance + 2 * x))
    weight = np.exp(v - np.exp(-v)) * step
    s = weight * (scale / step)
    weight = weight * (1 + np.exp(-v)) * scale
    bend = np.expm1(s) - s if upper else np.expm1(-s) + s
    return s, weight * np.exp(-distance * s - x * bend)


def _ratio(a: np.ndarray, x: np.ndarray, upper: bool) -> np.ndarray:
    """The incomplete gamma function on one side of x over x^a e^-x, in pieces."""
    out = np.empty_like(x)
    for i in range(0, x.size, _PIECE):
        here = slice(i, i + _PIECE)
        out[here] = _nodes(a[here], x[here], upper)[1].sum(0)
    return out


def _log_density(a: np.ndarray, x: np.ndarray) -> np.ndarray:
    """log(x^a e^-x / gamma(a)) without the cancellation of its three terms for large a."""
    relative = (x - a) / a
    near = np.abs(relative) < 0.5
    log = np.where(near, np.log1p(np.where(near, relative, 0.0)), np.log(x / a))
    large = 0.5 * np.log(a) - _HALF_LOG_TAU - _stirling(a) - a * (relative - log)
    small = a * np.log(x) - x - _log_gamma(np.where(a < 8, a, 1.0))
    return np.where(a < 8, small, large)


def _incomplete(a: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """P and Q of (n,) arrays, each computed by itself where it is the smaller one."""
    p, q = np.full((2, *x.shape), np.nan)
    inside = (a > 0) & (x > 0) & np.isfinite(a) & np.isfinite(x)
    p[(x == 0) & (a > 0)] = p[(x >= 0) & (a == np.inf) & (x < np.inf)] = 0
    p[(x == np.inf) & (a >= 0) & (a < np.inf)] = p[(a == 0) & (x > 0)] = 1
    np.subtract(1, p, out=q)
    small, left = x <= 0.5, x <= a
    here = np.flatnonzero(inside & small)
    if here.size:
        s, t = a[here], x[here]
        term, total = np.ones_like(t), np.zeros_like(t)
        for k in range(1, 18):
            term = term * (-t / k)
            total += term * (s / (s + k))
        log1p = np.where(s < 0.5, _log_gamma_1p(np.minimum(s, 0.5)), _log_gamma(s + 1))
        power = s * np.log(t) - log1p
        p[here] = np.exp(power) * (1 + total)
        q[here] = -np.expm1(power) - np.exp(power) * total
    for side, upper, one, other in ((left, False, p, q), (~left, True, q, p)):
        here = np.flatnonzero(inside & ~small & side)
        if here.size:
            s, t = a[here], x[here]
            value = np.exp(_log_density(s, t)) * _ratio(s, t, upper)
            one[here] = value
            other[here] = 1 - value
    return p, q


def gammainc(a: np.ndarray, x: np.ndarray) -> np.ndarray:
    """P(a, x), the regularised lower incomplete gamma function; NaN for negative arguments.

    Source: series for small x (Abramowitz 6.5.29), else quadrature. Floor: 32 ULP and what a
    change of a and x by a few ULP makes.
    """
    return _in_float64(lambda a, x: _incomplete(a, x)[0], a, x)


def gammaincc(a: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Q(a, x) = 1 - P(a, x), the regularised upper incomplete gamma function; as `gammainc`."""
    return _in_float64(lambda a, x: _incomplete(a, x)[1], a, x)


def _log_gamma_quantile(a: np.ndarray, y: np.ndarray) -> np.ndarray:
    x = np.exp(y)
    out = np.empty_like(x)
    middle = _digamma(a + 1)
    near = (x <= 1.5) & (y <= middle)
    series = np.flatnonzero(near)
    s, t, log = a[series], x[series], y[series]
    # x^a e^-x / P = sum of x^k / (a ... (a + k)), differentiated by a term by term
    term, harmonic = 1 / s, np.zeros_like(s)
    total, slope = term, np.zeros_like(s)
    for k in range(1, 26):
        term = term * (t / (s + k))
        harmonic += 1 / (s + k)
        total = total + term
        slope += term * harmonic
    out[series] = (middle[series] - log) * total + slope
    middle -= 1 / a
    for upper in (False, True):
        places = np.flatnonzero(~near & (y > middle if upper else ~(y > middle)))
        for i in range(0, places.size, _PIECE):
            here = places[i : i + _PIECE]
            s, weight = _nodes(a[here], x[here], upper)
            out[here] = ((np.abs(y[here] - middle[here]) + s) * weight).sum(0)
    return out


def log_gamma_quantile_backward(a: np.ndarray, y: np.ndarray) -> np.ndarray:
    """dy/da at a fixed value of P(a, e^y): how the logarithm of a gamma variable moves with a.

    The implicit reparameterisation gradient -(dP/da) / (dP/dy) (Figurnov, Mohamed, Mnih 2018), as
    an integral of what has one sign: log t - psi(a), whose mean is 0, over one side of e^y.
    a > 0, finite. Floor: 1e-12 relative.
    """
    return _in_float64(_log_gamma_quantile, a, y)
