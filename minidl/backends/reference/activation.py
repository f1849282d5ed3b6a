"""Error functions and activations.

All entries take any strides and any shape and return a fresh C-contiguous array of the input's
shape and dtype. NaN gives NaN. "ULP" in a floor is that of the result's dtype.
"""

import math
from collections.abc import Sequence

import numpy as np

from minidl.backends.reference.blocks import pointwise

# W. J. Cody, "Rational Chebyshev approximations for the error function", Math. Comp. 23 (1969).
# Constant term first. erf(x) = x R(x^2) below 0.46875; erfc(x) = exp(-x^2) R(x) up to 4, beyond it
# exp(-x^2) / x (1/sqrt(pi) - R(1/x^2) / x^2).
_NEAR = (
    (3.20937758913846947e3, 3.77485237685302021e2, 1.13864154151050156e2, 3.16112374387056560,
     1.85777706184603153e-1),
    (2.84423683343917062e3, 1.28261652607737228e3, 2.44024637934444173e2, 2.36012909523441209e1,
     1.0),
)  # fmt: skip
_MIDDLE = (
    (1.23033935479799725e3, 2.05107837782607147e3, 1.71204761263407058e3, 8.81952221241769090e2,
     2.98635138197400131e2, 6.61191906371416295e1, 8.88314979438837594, 5.64188496988670089e-1,
     2.15311535474403846e-8),
    (1.23033935480374942e3, 3.43936767414372164e3, 4.36261909014324716e3, 3.29079923573345963e3,
     1.62138957456669019e3, 5.37181101862009858e2, 1.17693950891312499e2, 1.57449261107098347e1,
     1.0),
)  # fmt: skip
_FAR = (
    (6.58749161529837803e-4, 1.60837851487422766e-2, 1.25781726111229246e-1,
     3.60344899949804439e-1, 3.05326634961232344e-1, 1.63153871373020978e-2),
    (2.33520497626869185e-3, 6.05183413124413191e-2, 5.27905102951428412e-1,
     1.87295284992346725, 2.56852019228982242, 1.0),
)  # fmt: skip

# Our own weighted least-squares fit for float32: erf(x) = tanh(x P(x^2)) within 3.1 ULP. The tanh
# damps the error of P as erf nears 1, and needs neither branch nor sign. erf is 1 from _ONE on.
_ONE = 4.05
_TANH32 = (
    1.12837925, 0.102769864, -1.95288142e-4, -6.14838253e-4, 8.45965839e-5, -4.79460424e-6,
    2.7575906e-8, 5.42161184e-9,
)  # fmt: skip

_SQRT_HALF = math.sqrt(0.5)
_TANH_RATE = math.sqrt(2 / math.pi)
_TANH_CUBE = 0.044715  # Hendrycks, Gimpel, "Gaussian Error Linear Units", 2016


def _polynomial(coefficients: Sequence[float], x: np.ndarray, out: np.ndarray) -> np.ndarray:
    """Horner's rule into `out`; constant term first."""
    np.multiply(x, coefficients[-1], out=out)
    out += coefficients[-2]
    for c in coefficients[-3::-1]:
        out *= x
        out += c
    return out


def _ratio(table: tuple[Sequence[float], Sequence[float]], x: np.ndarray) -> np.ndarray:
    top, bottom = (_polynomial(c, x, np.empty_like(x)) for c in table)
    top /= bottom
    return top


def _erfc_tail(a: np.ndarray) -> np.ndarray:
    """erfc of 1-d float64 values >= 0.46875 (or NaN)."""
    a = np.minimum(a, 30.0)  # erfc underflows at 26.6; an infinity would make inf - inf below
    head = np.floor(a * 16) / 16  # exp(-a^2) as two factors, the first with an exact exponent
    out = np.exp(-head * head)
    out *= np.exp((head - a) * (head + a))
    far = a > 4
    out[~far] *= _ratio(_MIDDLE, a[~far])
    b = a[far]
    square = 1 / (b * b)
    out[far] *= (1 / math.sqrt(math.pi) - square * _ratio(_FAR, square)) / b
    return out


def _erf64(out: np.ndarray, x: np.ndarray) -> None:
    near = np.abs(x) <= 0.46875
    inner = x[near]
    out[near] = inner * _ratio(_NEAR, inner * inner)
    outer = x[~near]
    out[~near] = np.copysign(1 - _erfc_tail(np.abs(outer)), outer)


def _erfc64(out: np.ndarray, x: np.ndarray) -> None:
    near = np.abs(x) <= 0.46875
    inner = x[near]
    out[near] = 1 - inner * _ratio(_NEAR, inner * inner)
    outer = x[~near]
    tail = _erfc_tail(np.abs(outer))
    out[~near] = np.where(outer < 0, 2 - tail, tail)


def _erfinv(out: np.ndarray, y: np.ndarray, steps: int) -> None:
    """Winitzki's closed form (0.2 % off), then Halley's third-order steps; float64."""
    a = np.abs(y)
    rest = 1 - a
    log = np.log(rest * (1 + a))
    half = 2 / (math.pi * 0.147) + log / 2
    x = np.sqrt(np.sqrt(half * half - log / 0.147) - half)
    x[a == 0] = 0
    upper = a > 0.5
    for _ in range(steps):
        # erf(x) - a, through erfc where erf would cancel
        value = np.empty_like(x)
        for part, function in ((upper, _erfc64), (~upper, _erf64)):
            near = np.empty(np.count_nonzero(part))
            function(near, x[part])
            value[part] = rest[part] - near if function is _erfc64 else near - a[part]
        value *= math.sqrt(math.pi) / 2 * np.exp(x * x)
        x -= value / (1 + x * value)
    x[a == 1] = np.inf
    np.copysign(x, y, out=out)


def _erf(out: np.ndarray, x: np.ndarray, a: np.ndarray, square: np.ndarray) -> None:
    if x.dtype == np.float64:
        _erf64(out, x)
        return
    np.clip(x, -_ONE, _ONE, out=a)
    np.multiply(a, a, out=square)
    _polynomial(_TANH32, square, out)
    out *= a
    np.tanh(out, out=out)


def erf(x: np.ndarray) -> np.ndarray:
    """Error function. Floor: 4 ULP."""
    return pointwise(_erf, 2, x)


def erfc(x: np.ndarray) -> np.ndarray:
    """1 - erf(x), accurate where it is small. Floor: 6 ULP plus the smallest normal number."""
    return pointwise(_erfc64, 0, x.astype(np.float64, copy=False)).astype(x.dtype, copy=False)


def erfinv(x: np.ndarray) -> np.ndarray:
    """Inverse error function on [-1, 1], infinite at the ends, NaN outside. Floor: 8 ULP."""
    steps = 3 if x.dtype == np.float64 else 1

    def kernel(out: np.ndarray, y: np.ndarray) -> None:
        _erfinv(out, y, steps)

    return pointwise(kernel, 0, x.astype(np.float64, copy=False)).astype(x.dtype, copy=False)


def _sigmoid(out: np.ndarray, x: np.ndarray) -> None:
    np.negative(x, out=out)
    np.exp(out, out=out)  # an overflow to inf is harmless here: 1 / inf is the limit, 0
    out += 1
    np.reciprocal(out, out=out)


def sigmoid(x: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x)). Floor: 4 ULP plus the smallest normal number."""
    return pointwise(_sigmoid, 0, x)


def _log_sigmoid(out: np.ndarray, x: np.ndarray, a: np.ndarray) -> None:
    np.abs(x, out=a)
    np.negative(a, out=a)
    np.exp(a, out=a)
    np.log1p(a, out=a)
    np.minimum(x, 0, out=out)
    out -= a


def log_sigmoid(x: np.ndarray) -> np.ndarray:
    """log(sigmoid(x)) without overflow. Floor: 4 ULP plus the smallest normal number."""
    return pointwise(_log_sigmoid, 1, x)


def softplus(x: np.ndarray, beta: float, threshold: float) -> np.ndarray:
    """log(1 + exp(beta x)) / beta, and x itself where beta x > threshold.

    Floor: 4 ULP plus the smallest normal number over beta.
    """

    def kernel(out: np.ndarray, x: np.ndarray, a: np.ndarray, b: np.ndarray) -> None:
        np.multiply(x, beta, out=a)
        np.abs(a, out=b)
        np.negative(b, out=b)
        np.exp(b, out=b)
        np.log1p(b, out=b)
        np.maximum(a, 0, out=out)
        out += b
        out /= beta
        np.copyto(out, x, where=a > threshold)

    return pointwise(kernel, 2, x)


def _gelu_erf(out: np.ndarray, x: np.ndarray, u: np.ndarray, *scratch: np.ndarray) -> None:
    np.multiply(x, _SQRT_HALF, out=u)
    _erf(out, u, *scratch)
    out += 1
    out *= x
    out *= 0.5


def _tanh_argument(x: np.ndarray, out: np.ndarray) -> None:
    np.multiply(x, x, out=out)
    out *= _TANH_CUBE * _TANH_RATE
    out += _TANH_RATE
    out *= x


def _gelu_tanh(out: np.ndarray, x: np.ndarray) -> None:
    _tanh_argument(x, out)
    np.tanh(out, out=out)
    out += 1
    out *= x
    out *= 0.5


def gelu(x: np.ndarray, approximate: str) -> np.ndarray:
    """x Phi(x), with Phi the normal distribution function or ("tanh") its approximation.

    approximate: "none" or "tanh". -inf gives NaN, as in PyTorch.
    Floor: 4 * eps * |x|. Source: Hendrycks, Gimpel, "Gaussian Error Linear Units", 2016.
    """
    return pointwise(_gelu_tanh, 0, x) if approximate == "tanh" else pointwise(_gelu_erf, 3, x)


def _gelu_erf_backward(
    dx: np.ndarray, g: np.ndarray, x: np.ndarray, u: np.ndarray, a: np.ndarray, spare: np.ndarray
) -> None:
    np.multiply(x, _SQRT_HALF, out=u)
    _erf(dx, u, a, spare)
    dx += 1
    dx *= 0.5
    np.clip(x, -40, 40, out=a)  # so that inf * exp(-inf) is 0
    np.multiply(u, u, out=u)
    np.negative(u, out=u)
    np.exp(u, out=u)
    u *= a
    u *= 1 / math.sqrt(2 * math.pi)
    dx += u
    dx *= g


def _gelu_tanh_backward(
    dx: np.ndarray, g: np.ndarray, x: np.ndarray, a: np.ndarray, t: np.ndarray, u: np.ndarray
) -> None:
    np.clip(x, -40, 40, out=a)  # so that inf * (1 - tanh^2) is 0
    _tanh_argument(a, t)
    np.tanh(t, out=t)
    np.multiply(a, a, out=u)
    u *= 3 * _TANH_CUBE * _TANH_RATE
    u += _TANH_RATE
    u *= a
    np.multiply(t, t, out=dx)
    np.subtract(1, dx, out=dx)
    dx *= u
    dx += t
    dx += 1
    dx *= 0.5
    dx *= g


def gelu_backward(g: np.ndarray, x: np.ndarray, approximate: str) -> np.ndarray:
    """g times the derivative of `gelu` at x; the limits 0 and 1 at the infinities.

    Floor: 4 * eps * |g| * (1 + |x|).
    """
    kernel = _gelu_tanh_backward if approximate == "tanh" else _gelu_erf_backward
    return pointwise(kernel, 3, g, x)


def _silu(out: np.ndarray, x: np.ndarray) -> None:
    np.negative(x, out=out)
    np.exp(out, out=out)
    out += 1
    np.divide(x, out, out=out)


def silu(x: np.ndarray) -> np.ndarray:
    """x sigmoid(x); -inf gives NaN, as in PyTorch.

    Floor: 4 ULP plus the smallest normal number times |x|.
    """
    return pointwise(_silu, 0, x)


def _silu_backward(dx: np.ndarray, g: np.ndarray, x: np.ndarray, s: np.ndarray) -> None:
    _sigmoid(s, x)
    np.subtract(1, s, out=dx)
    dx *= x
    dx += 1
    dx *= s
    dx *= g


def silu_backward(g: np.ndarray, x: np.ndarray) -> np.ndarray:
    """g times the derivative of `silu` at x. Floor: 4 * eps * |g| * (1 + |x|)."""
    return pointwise(_silu_backward, 1, g, x)
