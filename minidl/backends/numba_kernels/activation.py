"""GELU and SiLU with their gradients, and the activations of `linear`, in one pass each.

All are x times a distribution function, so float32 needs one exponential and one division per
element: gelu is x phi(x), its approximation x sigmoid(2 u) with u the argument of the tanh, silu
x sigmoid(x). Limits per element, float32: 4 bytes read and 4 written (8 and 4 backward), and
20 to 30 operations in vectors of 8: memory beyond the caches, arithmetic within.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from minidl.backends.numba_kernels.compiled import In1, Kernel, Out1, Out2, helper, split
from minidl.backends.numba_kernels.elementary import exp, like, phi, widest
from minidl.backends.reference.blocks import flat

NONE, RELU, GELU, GELU_TANH, SILU = range(5)
KINDS = {"relu": RELU, "gelu": GELU, "gelu_tanh": GELU_TANH, "silu": SILU}
COST = 2  # elements of 1 ns, against `compiled.GRAIN`

_RATE = math.sqrt(2 / math.pi)
_CUBE = 0.044715  # Hendrycks, Gimpel, "Gaussian Error Linear Units", 2016
_DENSITY = 1 / math.sqrt(2 * math.pi)


@helper
def _sigmoid(x):
    one = like(x, 1.0)
    return one / (one + exp(-x))


@helper
def _doubled(x):
    """2 u(x), where gelu_tanh(x) = x sigmoid(2 u)."""
    return x * (like(x, 2 * _RATE) + like(x, 2 * _RATE * _CUBE) * (x * x))


@helper
def _within(x):
    """x clipped to +-40, so that inf * exp(-inf) is 0."""
    high = like(x, 40.0)
    x = high if x > high else x
    return -high if x < -high else x


@helper
def _gelu_slope(x):
    a = _within(x)
    return phi(x) + a * (like(x, _DENSITY) * exp(like(x, -0.5) * (a * a)))


@helper
def _gelu_tanh_slope(x):
    a = _within(x)
    s = _sigmoid(_doubled(a))
    rise = like(x, 2 * _RATE) + like(x, 6 * _RATE * _CUBE) * (a * a)
    return s + a * (s * (like(x, 1.0) - s)) * rise


@helper
def _silu_slope(x):
    s = _sigmoid(x)
    return s * (like(x, 1.0) + x * (like(x, 1.0) - s))


@Kernel
def _activate(start: int, stop: int, kind: int, x: In1, out: Out1) -> None:
    widest()
    x, out = x[start:stop], out[start:stop]
    if kind == GELU:
        for i in range(x.size):
            out[i] = x[i] * phi(x[i])
    elif kind == GELU_TANH:
        for i in range(x.size):
            out[i] = x[i] * _sigmoid(_doubled(x[i]))
    else:
        for i in range(x.size):
            out[i] = x[i] * _sigmoid(x[i])


@Kernel
def _slope(start: int, stop: int, kind: int, g: In1, x: In1, out: Out1) -> None:
    widest()
    g, x, out = g[start:stop], x[start:stop], out[start:stop]
    if kind == GELU:
        for i in range(x.size):
            out[i] = g[i] * _gelu_slope(x[i])
    elif kind == GELU_TANH:
        for i in range(x.size):
            out[i] = g[i] * _gelu_tanh_slope(x[i])
    elif kind == SILU:
        for i in range(x.size):
            out[i] = g[i] * _silu_slope(x[i])
    else:
        for i in range(x.size):
            out[i] = like(g[i], 0.0) if x[i] <= 0 else g[i]


@Kernel
def _epilogue(start: int, stop: int, kind: int, bias: In1, pre: Out2, out: Out2) -> None:
    """pre += bias, in place, and out = the activation of that; `out` may be `pre`."""
    widest()
    for i in range(start, stop):
        p, o = pre[i], out[i]
        if kind == NONE:
            for j in range(p.size):
                p[j] += bias[j]
        elif kind == RELU:
            for j in range(p.size):
                x = p[j] + bias[j]
                o[j] = like(x, 0.0) if x < 0 else x
        else:
            for j in range(p.size):
                p[j] += bias[j]
            if kind == GELU:
                for j in range(p.size):
                    o[j] = p[j] * phi(p[j])
            elif kind == GELU_TANH:
                for j in range(p.size):
                    o[j] = p[j] * _sigmoid(_doubled(p[j]))
            else:
                for j in range(p.size):
                    o[j] = p[j] * _sigmoid(p[j])


def activate(kind: int, x: np.ndarray) -> np.ndarray:
    """The activation of x, of any strides."""
    out = np.empty(x.shape, x.dtype)
    split(_activate[x.dtype], x.size, x.size * COST, kind, flat(x), out.reshape(-1))
    return out


def slope(kind: int, g: np.ndarray, x: np.ndarray) -> np.ndarray:
    """g times the derivative at x (for relu: where its result x is positive or NaN)."""
    out = np.empty(x.shape, x.dtype)
    split(_slope[x.dtype], x.size, x.size * COST, kind, flat(g), flat(x), out.reshape(-1))
    return out


def epilogue(kind: int, bias: np.ndarray, pre: np.ndarray, out: np.ndarray) -> None:
    """Add the bias to the rows of `pre` and put their activation into `out`, which may be it."""
    split(_epilogue[pre.dtype], len(pre), pre.size * COST, kind, flat(bias), pre, out)


def gelu(x: np.ndarray, approximate: str) -> np.ndarray:
    """As specified in reference/activation.py."""
    return activate(GELU_TANH if approximate == "tanh" else GELU, x)


def gelu_backward(g: np.ndarray, x: np.ndarray, approximate: str) -> np.ndarray:
    """As specified in reference/activation.py."""
    return slope(GELU_TANH if approximate == "tanh" else GELU, g, x)


def silu(x: np.ndarray) -> np.ndarray:
    """As specified in reference/activation.py."""
    return activate(SILU, x)


def silu_backward(g: np.ndarray, x: np.ndarray) -> np.ndarray:
    """As specified in reference/activation.py."""
    return slope(SILU, g, x)


ENTRIES: dict[str, Callable] = {
    function.__name__: function for function in (gelu, gelu_backward, silu, silu_backward)
}
