"""Linear maps: the product by NumPy's BLAS, bias and activation in one pass over it.

`matmul` itself has no entry here: BLAS serves it. Limit: the product; the epilogue adds a read and
a write of the result (two writes where the pre-activation is kept), against six of each in NumPy.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from minidl.backends.numba_kernels.activation import KINDS, NONE, epilogue, slope
from minidl.backends.reference.blocks import as_rows, gemm_ready, sum_rows
from minidl.backends.reference.matmul import ACTIVATIONS, SLOPES

_KEPT = frozenset(("gelu", "gelu_tanh", "silu"))


def linear(
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray | None = None,
    activation: str | None = None,
    keep: bool = True,
) -> tuple[np.ndarray, np.ndarray | None]:
    """As specified in reference/matmul.py."""
    rows, (outer, inner) = math.prod(x.shape[:-1]), weight.shape
    if x.shape[-1:] != (inner,) or (bias is not None and bias.shape != (outer,)):
        raise ValueError("shapes do not fit")
    pre = np.empty((*x.shape[:-1], outer), x.dtype)
    target = pre.reshape(rows, outer)
    np.matmul(as_rows(x, rows, inner), gemm_ready(weight).T, out=target)
    kind = NONE if activation is None else KINDS.get(activation, NONE)
    if not pre.size or (bias is None and kind == NONE):
        out = pre
    else:
        kept = keep and activation in _KEPT
        out = np.empty(pre.shape, pre.dtype) if kept else pre
        shift = np.zeros(outer, x.dtype) if bias is None else bias
        epilogue(kind, shift, target, out.reshape(rows, outer))
        if kept:
            return out, pre
    if activation is None or kind != NONE and pre.size:
        return out, None
    return ACTIVATIONS[activation](pre), pre if keep and activation in _KEPT else None


def linear_backward(
    g: np.ndarray,
    x: np.ndarray | None,
    weight: np.ndarray | None,
    needs: tuple[bool, bool, bool] = (True, True, True),
    activation: str | None = None,
    kept: np.ndarray | None = None,
) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]:
    """As specified in reference/matmul.py."""
    if activation is not None and kept is not None:
        kind = KINDS.get(activation)
        g = SLOPES[activation](g, kept) if kind is None else slope(kind, g, kept)
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


ENTRIES: dict[str, Callable] = {
    function.__name__: function for function in (linear, linear_backward)
}
