"""Matrix products.

Every product is one GEMM on two-dimensional operands where the shapes allow it. Tolerance floor
of all entries: inner * eps * sum|a||b|, plus the floor of the activation where there is one.
"""

import math

import numpy as np

from minidl.backends.reference.activation import (
    gelu,
    gelu_backward,
    relu_backward,
    sigmoid,
    sigmoid_backward,
    silu,
    silu_backward,
    tanh_backward,
)
from minidl.backends.reference.blocks import as_rows, gemm_ready, sum_rows

ACTIVATIONS = {
    "relu": lambda pre: np.maximum(pre, 0, out=np.empty(pre.shape, pre.dtype)),
    "gelu": lambda pre: gelu(pre, "none"),
    "gelu_tanh": lambda pre: gelu(pre, "tanh"),
    "silu": silu,
    "tanh": lambda pre: np.tanh(pre, out=np.empty(pre.shape, pre.dtype)),
    "sigmoid": sigmoid,
}
# g times the derivative, of what `linear` keeps
SLOPES = {
    "relu": relu_backward,
    "gelu": lambda g, pre: gelu_backward(g, pre, "none"),
    "gelu_tanh": lambda g, pre: gelu_backward(g, pre, "tanh"),
    "silu": silu_backward,
    "tanh": tanh_backward,
    "sigmoid": sigmoid_backward,
}
_BY_INPUT = frozenset(("gelu", "gelu_tanh", "silu"))  # derivatives of the input, not of the result


def matmul(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Matrix product with NumPy's rules for one-dimensional and batched operands.

    x: (..., n, k) or (k,), y: (..., k, m) or (k,), one dtype, leading axes broadcast
    -> (..., n, m) without the axes that a one-dimensional operand lacks.

    Any strides; the result is fresh, C-contiguous and owned; an inner size of 0 gives zeros.
    ValueError where the shapes do not fit, or an operand has no axis.
    """
    if not x.ndim or not y.ndim:
        raise ValueError("a matrix product needs at least one axis")
    x, y = gemm_ready(x), gemm_ready(y)
    if y.ndim == 2 and x.ndim > 2:
        rows = math.prod(x.shape[:-1])
        out = np.empty((*x.shape[:-1], y.shape[1]), x.dtype)
        np.matmul(as_rows(x, rows, x.shape[-1]), y, out=out.reshape(rows, y.shape[1]))
        return out
    return np.asarray(np.matmul(x, y), order="C")


def linear(
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray | None = None,
    activation: str | None = None,
    keep: bool = True,
) -> tuple[np.ndarray, np.ndarray | None]:
    """activation(x weight^T + bias), and the pre-activation where a gradient will ask for it.

    x: (..., in), weight: (out, in), bias: (out,) or None, one dtype
    -> out (..., out), pre (..., out) or None; activation: None, "relu", "gelu", "gelu_tanh",
    "silu", "tanh" or "sigmoid". pre is None without activation, with keep=False, and for those
    whose derivative is a function of the result: "relu", "tanh", "sigmoid".

    Any strides; both results are fresh, C-contiguous and share no memory. ValueError where the
    shapes do not fit.
    """
    rows, (outer, inner) = math.prod(x.shape[:-1]), weight.shape
    if x.shape[-1:] != (inner,) or (bias is not None and bias.shape != (outer,)):
        raise ValueError("shapes do not fit")
    pre = np.empty((*x.shape[:-1], outer), x.dtype)
    target = pre.reshape(rows, outer)
    np.matmul(as_rows(x, rows, inner), gemm_ready(weight).T, out=target)
    if bias is not None:
        np.add(target, bias, out=target)
    if activation is None:
        return pre, None
    return ACTIVATIONS[activation](pre), pre if keep and activation in _BY_INPUT else None


def linear_backward(
    g: np.ndarray,
    x: np.ndarray | None,
    weight: np.ndarray | None,
    needs: tuple[bool, bool, bool] = (True, True, True),
    activation: str | None = None,
    kept: np.ndarray | None = None,
) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]:
    """Gradients of `linear`; `needs` says which of the three to compute.

    g: (..., out), x: (..., in), weight: (out, in), one of them None where its factor is in no
    gradient that is needed; kept: (..., out), with an activation: what `linear` gave, the
    pre-activation if there was one, else the result
    -> dx (..., in), dweight (out, in), dbias (out,), None where not needed.

    Any strides; results are fresh and C-contiguous.
    """
    if activation is not None:
        g = SLOPES[activation](g, kept)
    outer, lead = g.shape[-1], g.shape[:-1]
    rows = math.prod(lead)
    g2 = as_rows(g, rows, outer)
    dx = dweight = dbias = None
    if needs[0] and weight is not None:
        dx = np.empty((*lead, weight.shape[1]), g.dtype)
        np.matmul(g2, gemm_ready(weight), out=dx.reshape(rows, weight.shape[1]))
    if needs[1] and x is not None:
        dweight = np.matmul(g2.T, as_rows(x, rows, x.shape[-1]))
    if needs[2]:
        dbias = sum_rows(g2)
    return dx, dweight, dbias
