"""Error functions and activations.

All entries take any strides and any shape and return a fresh C-contiguous array of the input's
shape and dtype. NaN gives NaN. "ULP" in a floor is that of the result's dtype.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np

from minidl.backends.reference.blocks import pointwise

# Our own weighted least-squares fit for float32: erf(x) = tanh(x P(x^2)) within 4 ULP. The tanh
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


def _libm(function: Callable[[float], float], x: np.ndarray) -> np.ndarray:
    """The C library's erf or erfc: as fast as Cody's rational functions in NumPy, more accurate."""
    return np.fromiter(map(function, x.tolist()), np.float64, x.size)


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
        value[upper] = rest[upper] - _libm(math.erfc, x[upper])
        value[~upper] = _libm(math.erf, x[~upper]) - a[~upper]
        value *= math.sqrt(math.pi) / 2 * np.exp(x * x)
        x -= value / (1 + x * value)
    x[a == 1] = np.inf
    np.copysign(x, y, out=out)


def _erf(out: np.ndarray, x: np.ndarray, a: np.ndarray, square: np.ndarray) -> None:
    if x.dtype == np.float64:
        out[...] = _libm(math.erf, x)
        return
    np.clip(x, -_ONE, _ONE, out=a)
    np.multiply(a, a, out=square)
    _polynomial(_TANH32, square, out)
    out *= a
    np.tanh(out, out=out)


def relu(x: np.ndarray) -> np.ndarray:
    """max(x, 0). Exact."""
    # a clip to infinity takes half the time of a maximum with a number
    return np.clip(x, 0, math.inf, out=np.empty(x.shape, x.dtype))


def _relu_backward(dx: np.ndarray, g: np.ndarray, out: np.ndarray) -> None:
    # a bit mask: neither branches, as `where` would, nor makes NaN of an infinite g
    bits = np.int32 if g.itemsize == 4 else np.int64
    mask = dx.view(bits)
    np.less_equal(out, 0, out=mask, casting="unsafe")
    mask -= 1  # -1, all bits set, where the gradient passes
    mask &= g.view(bits)


def relu_backward(g: np.ndarray, out: np.ndarray) -> np.ndarray:
    """g where `out`, the result of `relu`, is positive or NaN, else 0. Exact."""
    return pointwise(_relu_backward, 0, g, out)


def erf(x: np.ndarray) -> np.ndarray:
    """Error function. Floor: 4 ULP (2 for float64)."""
    return pointwise(_erf, 2, x)


def erfc(x: np.ndarray) -> np.ndarray:
    """1 - erf(x), accurate where it is small. Floor: 4 ULP plus the smallest normal number."""

    def kernel(out: np.ndarray, x: np.ndarray) -> None:
        out[...] = _libm(math.erfc, x)

    return pointwise(kernel, 0, x)


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


def _sigmoid_backward(dx: np.ndarray, g: np.ndarray, out: np.ndarray) -> None:
    np.subtract(1, out, out=dx)
    dx *= out
    dx *= g


def sigmoid_backward(g: np.ndarray, out: np.ndarray) -> np.ndarray:
    """g out (1 - out), where `out` is the result of `sigmoid`. Floor: 2 * eps * |g|."""
    return pointwise(_sigmoid_backward, 0, g, out)


def _tanh_backward(dx: np.ndarray, g: np.ndarray, out: np.ndarray) -> None:
    np.multiply(out, out, out=dx)
    np.subtract(1, dx, out=dx)
    dx *= g


def tanh_backward(g: np.ndarray, out: np.ndarray) -> np.ndarray:
    """g (1 - out^2), where `out` is the result of `tanh`. Floor: 2 * eps * |g|."""
    return pointwise(_tanh_backward, 0, g, out)


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
