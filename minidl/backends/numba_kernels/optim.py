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

from minidl.backends.numba_kernels.compiled import In1, Kernel, Out1, Wide1, split
from minidl.backends.numba_kernels.elementary import like

_FLOATS = frozenset((np.dtype(np.float32), np.dtype(np.float64)))
_TERMS = 1 << 14  # of a partial sum of squares


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
    rate, keep, new, shrink = (
        like(zero, lr),
        like(zero, momentum),
        like(zero, rest),
        like(zero, decay),
    )
    sign = like(zero, -1.0 if maximize else 1.0)
    if v.size == 0:
        for i in range(g.size):
            p[i] -= rate * (sign * g[i] + shrink * p[i])
        return
    v = v[start:stop]
    if fresh:
        keep_old, keep_new = zero, like(zero, 1.0)
    else:
        keep_old, keep_new = keep, new
    if fresh:
        for i in range(g.size):
            v[i] = zero
    for i in range(g.size):
        d = sign * g[i] + shrink * p[i]
        m = keep_old * v[i] + keep_new * d
        v[i] = m
        p[i] -= rate * (d + keep * m if nesterov else m)


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
    size, bias, keep, add = (
        like(one, step_size),
        like(one, root),
        like(one, shrink),
        like(one, decay),
    )
    b1, a1 = like(one, beta1), like(one, 1 - beta1)
    b2, a2 = like(one, beta2), like(one, 1 - beta2)
    small, sign = like(one, eps), like(one, -1.0 if maximize else 1.0)
    near = beta1 > 0.5
    if peak.size == 0:
        for i in range(g.size):
            x = p[i] * keep
            d = sign * g[i] + add * x
            # m + (1 - beta1) (d - m), from the end that is nearer, as torch.lerp does
            t = d - m[i]
            a = m[i] + a1 * t if near else d - b1 * t
            s = b2 * v[i] + a2 * d * d
            m[i], v[i] = a, s
            p[i] = x - size * a / (math.sqrt(s) / bias + small)
        return
    peak = peak[start:stop]
    for i in range(g.size):
        x = p[i] * keep
        d = sign * g[i] + add * x
        t = d - m[i]
        a = m[i] + a1 * t if near else d - b1 * t
        s = b2 * v[i] + a2 * d * d
        m[i], v[i] = a, s
        s = peak[i] if peak[i] > s or peak[i] != peak[i] else s
        peak[i] = s
        p[i] = x - size * a / (math.sqrt(s) / bias + small)


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

    def step(
        params: Sequence[np.ndarray],
        grads: Sequence[np.ndarray],
        momenta: Sequence[np.ndarray | None],
        first: Sequence[bool],
        *,
        lr: float,
        momentum: float,
        dampening: float,
        weight_decay: float,
        nesterov: bool,
        maximize: bool,
    ) -> None:
        options: dict[str, Any] = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
            "maximize": maximize,
        }
        numbers = float(lr), float(momentum), float(1 - dampening), float(weight_decay)
        for p, g, buffer, fresh in zip(params, grads, momenta, first, strict=True):
            v = buffer if momentum and buffer is not None else None
            state = (p,) if v is None else (p, v)
            if not _plain(g, *state) or not _written(*state):
                below([p], [g], [buffer], [fresh], **options)
            elif p.size:
                flags = bool(fresh), bool(nesterov), bool(maximize)
                flat = p.reshape(-1)
                arrays = g.reshape(-1), flat, flat[:0] if v is None else v.reshape(-1)
                split(_sgd[p.dtype], p.size, p.size, *numbers, *flags, *arrays)

    return step


def adam_step(below: Callable) -> Callable:
    """The entry over the one that takes other parameters."""

    def step(
        params: Sequence[np.ndarray],
        grads: Sequence[np.ndarray],
        exp_avgs: Sequence[np.ndarray],
        exp_avg_sqs: Sequence[np.ndarray],
        max_exp_avg_sqs: Sequence[np.ndarray | None],
        steps: Sequence[int],
        *,
        lr: float,
        beta1: float,
        beta2: float,
        eps: float,
        weight_decay: float,
        amsgrad: bool,
        maximize: bool,
        decoupled: bool,
    ) -> None:
        options: dict[str, Any] = {
            "lr": lr,
            "beta1": beta1,
            "beta2": beta2,
            "eps": eps,
            "weight_decay": weight_decay,
            "amsgrad": amsgrad,
            "maximize": maximize,
            "decoupled": decoupled,
        }
        shrink = 1 - lr * weight_decay if decoupled else 1.0
        rates = shrink, 0.0 if decoupled else float(weight_decay), *map(float, (beta1, beta2, eps))
        states = zip(params, grads, exp_avgs, exp_avg_sqs, max_exp_avg_sqs, steps, strict=True)
        for p, g, m, v, largest, number in states:
            peak = largest if amsgrad and largest is not None else None
            state = (p, m, v) if peak is None else (p, m, v, peak)
            if not _plain(g, *state) or not _written(*state):
                below([p], [g], [m], [v], [largest], [number], **options)
            elif p.size:
                size, root = lr / (1 - beta1**number), math.sqrt(1 - beta2**number)
                flat = [a.reshape(-1) for a in (g, *state)]
                flat += [flat[0][:0]] if peak is None else []
                numbers = size, root, *rates, bool(maximize)
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
