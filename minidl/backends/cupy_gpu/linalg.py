"""cuSOLVER's decompositions through CuPy.

A matrix without a result raises LinAlgError at once, as PyTorch does: this waits for the GPU.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minidl.backends.cupy_gpu.xp import cp, cupyx

__all__ = ["cholesky", "eigh", "inv", "slogdet", "solve"]


def cholesky(a: Any) -> Any:
    """Lower triangular L with L L^T = a."""
    with cupyx.errstate(linalg="raise"):
        return cp.ascontiguousarray(cp.linalg.cholesky(a))


def solve(a: Any, b: Any) -> Any:
    """x with a x = b; CuPy itself does not broadcast the batches."""
    batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    a, b = (cp.broadcast_to(x, (*batch, *x.shape[-2:])) for x in (a, b))
    with cupyx.errstate(linalg="raise"):
        return cp.ascontiguousarray(cp.linalg.solve(a, b))


def inv(a: Any) -> Any:
    """The inverse."""
    with cupyx.errstate(linalg="raise"):
        return cp.ascontiguousarray(cp.linalg.inv(a))


def slogdet(a: Any) -> tuple[Any, Any]:
    """Sign and logarithm of the absolute value of the determinant; a singular matrix has 0, -inf.

    Nothing waits: there is no matrix without a result.
    """
    sign, log = cp.linalg.slogdet(a)
    return cp.asarray(sign), cp.asarray(log)


def eigh(a: Any, upper: bool) -> tuple[Any, Any]:
    """Eigenvalues, ascending, and eigenvectors in columns."""
    with cupyx.errstate(linalg="raise"):
        values, vectors = cp.linalg.eigh(a, "U" if upper else "L")
    return cp.ascontiguousarray(values), cp.ascontiguousarray(vectors)
