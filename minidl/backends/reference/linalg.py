"""Decompositions and solutions of linear systems: LAPACK's through NumPy.

Matrices are the last two axes, the axes before them a batch that broadcasts; float32 or float64.
A matrix that has no result raises numpy.linalg.LinAlgError, a ValueError. Floors: backward stable,
so the error of a result is n eps times the condition of its matrix.
"""

import numpy as np


def cholesky(a: np.ndarray) -> np.ndarray:
    """Lower triangular L with L L^T = a; only the lower triangle of `a` is read."""
    return np.linalg.cholesky(a)


def solve_triangular(a: np.ndarray, b: np.ndarray, upper: bool) -> np.ndarray:
    """x with a x = b by substitution; the other triangle of `a` is not read.

    a (..., n, n), b (..., n, k) -> (..., n, k). A 0 on the diagonal gives infinities or NaN.
    """
    batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    n = a.shape[-1]
    x = np.empty((*batch, *b.shape[-2:]), b.dtype)
    rows = range(n - 1, -1, -1) if upper else range(n)
    for i in rows:
        known = slice(i + 1, n) if upper else slice(0, i)
        done = np.matmul(a[..., i : i + 1, known], x[..., known, :])
        x[..., i, :] = (b[..., i, :] - done[..., 0, :]) / a[..., i, i, None]
    return x


def solve(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """x with a x = b. a (..., n, n), b (..., n, k) -> (..., n, k)."""
    return np.linalg.solve(a, b)


def inv(a: np.ndarray) -> np.ndarray:
    """The inverse."""
    return np.linalg.inv(a)


def slogdet(a: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sign and logarithm of the absolute value of the determinant: (...), (...)."""
    sign, log = np.linalg.slogdet(a)
    return np.asarray(sign), np.asarray(log)


def eigh(a: np.ndarray, upper: bool) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues (..., n), ascending, and eigenvectors (..., n, n), in columns.

    a: symmetric; only the named triangle is read.
    """
    values, vectors = np.linalg.eigh(a, "U" if upper else "L")
    return values, vectors
