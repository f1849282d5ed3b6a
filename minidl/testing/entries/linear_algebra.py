"""Rows of factorisations and linear systems, on well-conditioned matrices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from minidl.backends import reference
from minidl.dtypes import DType
from minidl.testing.case import Sample, sample
from minidl.testing.draws import Inputs
from minidl.testing.entry import Entry, entry


def _matrix(d: Any, dtype: DType, symmetric: bool) -> np.ndarray:
    """(..., n, n), positive definite where symmetric, with a strong and varied diagonal."""
    n, batch = d.choice((3, 1, 2, 5, 8)), d.choice([(), (1,), (2,)])
    a = d.rng.uniform(-1, 1, (*batch, n, n))
    a = (a + np.swapaxes(a, -1, -2)) / 2 if symmetric else a
    a = a + np.diag(n + 2.0 * np.arange(n))
    return d.layout(a.astype(dtype.numpy), broadcast=False)


def _one(symmetric: bool = False, upper: bool = False) -> Inputs:
    def inputs(d: Any, dtype: DType) -> Sample:
        more = (d.boolean(),) if upper else ()
        return sample(_matrix(d, dtype, symmetric), *more)

    return inputs


def _system(triangular: bool) -> Inputs:
    def inputs(d: Any, dtype: DType) -> Sample:
        a = _matrix(d, dtype, False)
        b = d.rng.uniform(-3, 3, (*a.shape[:-1], d.choice((1, 3, 17)))).astype(dtype.numpy)
        more = (d.boolean(),) if triangular else ()
        return sample(a, d.layout(b, broadcast=False), *more)

    return inputs


def _without_signs(function: Callable[..., Any]) -> Callable[..., Any]:
    """Eigenvectors up to their sign, which is no kernel's to choose: |v|."""

    def call(a: np.ndarray, upper: bool) -> tuple[np.ndarray, np.ndarray]:
        values, vectors = function(a, upper)
        return values, abs(vectors)

    return call


# condition numbers up to some tens, and n terms in every sum
ROWS: tuple[Entry, ...] = (
    entry("cholesky", _one(symmetric=True), scale=8),
    entry("solve_triangular", _system(triangular=True), scale=8),
    entry("solve", _system(triangular=False), scale=32),
    entry("inv", _one(), scale=32),
    entry("slogdet", _one(), scale=32),
    entry(
        "eigh",
        _one(symmetric=True, upper=True),
        oracle=_without_signs(reference.eigh),
        through=_without_signs,
        scale=128,  # of float32 cuSOLVER loses more digits than LAPACK
    ),
)
