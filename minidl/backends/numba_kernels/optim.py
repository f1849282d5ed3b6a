"""Optimiser steps: one pass over parameter, gradient and state.

Limits per element, float32: SGD with momentum reads 12 bytes and writes 8, Adam reads 16 and
writes 12; a square root and a division per element: memory beyond the caches. Parameters in 16
bits or of mixed dtypes, and arrays that are not C-contiguous, go to the layer below one by one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minidl.backends.numba_kernels.compiled import In1, Kernel, Out1, Wide1, helper, split
from minidl.backends.numba_kernels.elementary import like, maximum

_FLOATS = frozenset((np.dtype(np.float32), np.dtype(np.float64)))
_TERMS = 1 << 14  # of a partial sum of squares


@helper
def _decayed(g, x, sign, decay):
    """The gradient with its sign and, if there is any, the decay of the parameter."""
    d = sign * g
    # without decay nothing of x: an infinite parameter would make NaN of 0 * inf
    return d + decay * x if decay != 0 else d


@Kernel
def _sgd(
    start: int,
    stop: int,
    lr: float,
    momentum: float,
    rest: float,
    decay: float,
    fresh: bool,
    nesterov: bool,
    maximize: bool,
    g: In1,
    p: Out1,
    v: Out1,
) -> None:
    """`rest` is 1 - dampening; v is empty without momentum."""
    g, p = g[start:stop], p[start:stop]
    zero = like(g[0], 0.0)
    rate, keep, shrink = like(zero, lr), like(zero, momentum), like(zero, decay)
    sign = like(zero, -1.0 if maximize else 1.0)
    if v.size == 0:
        for i in range(g.size):
            p[i] -= rate * _decayed(g[i], p[i], sign, shrink)
        return
    v = v[start:stop]
    old, new = (zero, like(zero, 1.0)) if fresh else (keep, like(zero, rest))
    if fresh:
        for i in range(g.size):
            v[i] = zero
    for i in range(g.size):
        d = _decayed(g[i], p[i], sign, shrink)
        m = old * v[i] + new * d
        v[i] = m
        p[i] -= rate * (d + keep * m if nesterov else m)


@helper
def _averages(d, m, v, beta1, a1, beta2, a2):
    """The running averages of the gradient d and of its square."""
    # m + (1 - beta1) (d - m), from the end that is nearer, as torch.lerp does
    t = d - m
    m = m + a1 * t if beta1 > 0.5 else d - beta1 * t
    return m, beta2 * v + a2 * d * d


@Kernel
def _adam(
    start: int,
    stop: int,
    step_size: float,
    root: float,
    shrink: float,
    decay: float,
    beta1: float,
    beta2: float,
    eps: float,
    maximize: bool,
    g: In1,
    p: Out1,
    m: Out1,
    v: Out1,
    peak: Out1,
) -> None:
    """`shrink` is the factor of decoupled decay; `peak` is empty without amsgrad."""
    g, p, m, v = g[start:stop], p[start:stop], m[start:stop], v[start:stop]
    one = like(g[0], 1.0)
    size, bias, keep = like(one, step_size), like(one, root), like(one, shrink)
    add, small = like(one, decay), like(one, eps)
    b1, a1 = like(one, beta1), like(one, 1 - beta1)
    b2, a2 = like(one, beta2), like(one, 1 - beta2)
    sign = like(one, -1.0 if maximize else 1.0)
    if peak.size == 0:
        for i in range(g.size):
            x = p[i] * keep
            d = _decayed(g[i], x, sign, add)
            m[i], v[i] = _averages(d, m[i], v[i], b1, a1, b2, a2)
            p[i] = x - size * m[i] / (math.sqrt(v[i]) / bias + small)
        return
    peak = peak[start:stop]
    for i in range(g.size):
        x = p[i] * keep
        d = _decayed(g[i], x, sign, add)
        m[i], v[i] = _averages(d, m[i], v[i], b1, a1, b2, a2)
        peak[i] = maximum(peak[i], v[i])
        p[i] = x - size * m[i] / (math.sqrt(peak[i]) / bias + small)


@Kernel
def _squares(start: int, stop: int, x: In1, sums: Wide1) -> None:
    """sums[i] is the sum of the squares of piece i of _TERMS elements, in float64."""
    for i in range(start, stop):
        part = x[i * _TERMS : (i + 1) * _TERMS]
        total = 0.0
        for j in range(part.size):
            value = np.float64(part[j])
            total += value * value
        sums[i] = total


def _plain(*arrays: np.ndarray) -> bool:
    """Whether kernels may read and write the arrays where they are."""
    dtype = arrays[0].dtype
    return dtype in _FLOATS and all(a.dtype == dtype and a.flags.c_contiguous for a in arrays)


def _written(*arrays: np.ndarray) -> bool:
    return all(a.flags.writeable for a in arrays)


def sgd_step(below: Callable) -> Callable:
    """The entry over the one that takes other parameters."""

    def step(params: Any, grads: Any, momenta: Any, first: Any, **options: Any) -> None:
        """As specified in reference/optim.py."""
        momentum = float(options["momentum"])
        rest, decay = 1 - options["dampening"], options["weight_decay"]
        numbers = float(options["lr"]), momentum, float(rest), float(decay)
        for p, g, buffer, fresh in zip(params, grads, momenta, first, strict=True):
            v = buffer if momentum and buffer is not None else None
            state = (p,) if v is None else (p, v)
            if not _plain(g, *state) or not _written(*state):
                below([p], [g], [buffer], [fresh], **options)
            elif p.size:
                flags = bool(fresh), bool(options["nesterov"]), bool(options["maximize"])
                flat = p.reshape(-1)
                arrays = g.reshape(-1), flat, flat[:0] if v is None else v.reshape(-1)
                split(_sgd[p.dtype], p.size, p.size, *numbers, *flags, *arrays)

    return step


def adam_step(below: Callable) -> Callable:
    """The entry over the one that takes other parameters."""

    def step(
        params: Any, grads: Any, means: Any, squares: Any, peaks: Any, steps: Any, **options: Any
    ) -> None:
        """As specified in reference/optim.py."""
        lr, decay, decoupled = options["lr"], options["weight_decay"], options["decoupled"]
        beta1, beta2 = float(options["beta1"]), float(options["beta2"])
        rates = (
            1 - lr * decay if decoupled else 1.0,
            0.0 if decoupled else float(decay),
            beta1,
            beta2,
            float(options["eps"]),
        )
        states = zip(params, grads, means, squares, peaks, steps, strict=True)
        for p, g, m, v, largest, number in states:
            peak = largest if options["amsgrad"] and largest is not None else None
            state = (p, m, v) if peak is None else (p, m, v, peak)
            if not _plain(g, *state) or not _written(*state):
                below([p], [g], [m], [v], [largest], [number], **options)
            elif p.size:
                size, root = lr / (1 - beta1**number), math.sqrt(1 - beta2**number)
                flat = [a.reshape(-1) for a in (g, *state)]
                flat += [flat[0][:0]] if peak is None else []
                numbers = size, root, *rates, bool(options["maximize"])
                split(_adam[p.dtype], p.size, 2 * p.size, *numbers, *flat)

    return step


def grad_norm(below: Callable) -> Callable:
    """The entry over the one that takes other gradients and norms."""

    def norm(grads: Sequence[np.ndarray], norm_type: float) -> float:
        if norm_type != 2:
            return below(grads, norm_type)
        norms = np.empty(len(grads))
        for n, g in enumerate(grads):
            norms[n] = _euclidean(g) if _plain(g) and g.size else math.nan
            if not 0 < norms[n] < math.inf:  # others, and squares that left the range
                norms[n] = below([g], norm_type)
        return below([norms], norm_type)

    return norm


def _euclidean(g: np.ndarray) -> float:
    pieces = -(-g.size // _TERMS)
    sums = np.empty(pieces)
    split(_squares[g.dtype], pieces, g.size, g.reshape(-1), sums)
    return math.sqrt(sums.sum())


OVER: dict[str, Callable[[Callable], Callable]] = {
    function.__name__: function for function in (sgd_step, adam_step, grad_norm)
}
