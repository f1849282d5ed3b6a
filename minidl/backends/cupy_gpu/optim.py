"""Norms of gradients that stay on the GPU: nothing waits for them. Steps outside of graphs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import numpy as np

from minidl.backends.cupy_gpu.capture import recording
from minidl.backends.cupy_gpu.xp import cp
from minidl.errors import UnsupportedError

__all__ = ["grad_norm"]


def _norm(x: Any, p: float) -> Any:
    """The p-norm as a 0-d float64 array."""
    x = cp.abs(x.astype(np.float64)).reshape(-1)
    if not x.size:
        return cp.zeros((), np.float64)
    if math.isinf(p):
        return x.max() if p > 0 else x.min()
    if p == 0:
        return (x != 0).sum().astype(np.float64)
    # in units of the largest: powers may leave the range although the norm does not
    top = x.max()
    unit = cp.where((top > 0) & (top < np.inf), top, 1.0)
    x = x / unit
    return unit * (cp.sqrt((x * x).sum()) if p == 2 else (x**p).sum() ** (1 / p))


def grad_norm(grads: Sequence[Any], norm_type: float) -> Any:
    """The specification's norm, as a 0-d float64 array; the float 0.0 for no gradients."""
    if not grads:
        return 0.0
    if len(grads) == 1:
        return _norm(grads[0], norm_type)
    norms = cp.empty((len(grads),), np.float64)
    for i, grad in enumerate(grads):
        norms[i] = _norm(grad, norm_type)
    return _norm(norms, norm_type)


def _outside_of_graphs(twin: Callable) -> Callable:
    """The twin's step holds its numbers: in a graph it would take them in every replay."""

    @wraps(twin)
    def step(*args: Any, **options: Any) -> None:
        if recording() is not None:
            raise UnsupportedError(
                "an optimiser step cannot be captured in a graph without the kernels of csrc/cuda;"
                " step after the replay"
            )
        twin(*args, **options)

    return step


OVER = {"sgd_step": _outside_of_graphs, "adam_step": _outside_of_graphs}
