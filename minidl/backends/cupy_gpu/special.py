"""The gamma function's family from CuPy's library, in float64 and rounded once."""

from __future__ import annotations

from typing import Any

import numpy as np

from minidl.backends.cupy_gpu.xp import cp, special

__all__ = ["_PIECE", "_log_gamma", "digamma", "lgamma", "zeta"]

_PIECE = 2**16  # elements whose quadrature is done at once: 64 MiB per working array


def _in_float64(name: str, *xs: Any) -> Any:
    wide = [x.astype(np.float64, copy=False) for x in xs]
    return getattr(special, name)(*wide).astype(xs[0].dtype, copy=False)


def _log_gamma(x: Any) -> Any:
    return special.gammaln(x)


def lgamma(x: Any) -> Any:
    """log |gamma(x)|."""
    out = _in_float64("gammaln", x)
    cp.copyto(out, np.inf, where=cp.isinf(x))  # CuPy's is -inf at -inf
    return out


def digamma(x: Any) -> Any:
    """The derivative of `lgamma`."""
    return _in_float64("digamma", x)


def zeta(s: Any, q: Any) -> Any:
    """Hurwitz' zeta function."""
    return _in_float64("zeta", s, q)
