"""Linear maps: the product by NumPy's BLAS, bias and activation in one pass over it.

`matmul` itself has no entry here: BLAS serves it. Limit: the product; the epilogue adds a read and
a write of the result (two writes where the pre-activation is kept), against six of each in NumPy.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from minidl.backends import reference
from minidl.backends.numba_kernels.activation import KINDS, NONE, epilogue, slope

_KEPT = frozenset(("gelu", "gelu_tanh", "silu"))


def linear(
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray | None = None,
    activation: str | None = None,
    keep: bool = True,
) -> tuple[np.ndarray, np.ndarray | None]:
    """As specified in reference/matmul.py."""
    kind = NONE if activation is None else KINDS.get(activation)
    if kind is None or (bias is None and kind == NONE):
        return reference.linear(x, weight, bias, activation, keep)
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError("shapes do not fit")
    pre, _ = reference.linear(x, weight)
    kept = keep and activation in _KEPT
    out = np.empty(pre.shape, pre.dtype) if kept else pre
    shift = np.zeros(weight.shape[0], x.dtype) if bias is None else bias
    if pre.size:
        epilogue(kind, shift, *(a.reshape(-1, weight.shape[0]) for a in (pre, out)))
    return out, pre if kept else None


def linear_backward(
    g: np.ndarray,
    x: np.ndarray | None,
    weight: np.ndarray | None,
    needs: tuple[bool, bool, bool] = (True, True, True),
    activation: str | None = None,
    kept: np.ndarray | None = None,
) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]:
    """As specified in reference/matmul.py."""
    if activation in KINDS and kept is not None:
        g, activation = slope(KINDS[activation], g, kept), None
    return reference.linear_backward(g, x, weight, needs, activation, kept)


ENTRIES: dict[str, Callable] = {
    function.__name__: function for function in (linear, linear_backward)
}
