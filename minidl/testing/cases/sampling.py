"""Rows of `minidl.ops.sampling`, against the same algorithms element by element in Python."""

from __future__ import annotations

import math
from itertools import count
from typing import Any

import numpy as np

from minidl.dtypes import DType, float32, float64
from minidl.ops import sampling as ops
from minidl.testing.case import Case, Sample, sample
from minidl.testing.cases.random import drawn_seed, philox, stream

WIDE = (float64, float32)


def _uniform(low: int, high: int) -> float:
    return (((high << 32 | low) >> 11) + 0.5) * 2.0**-53


def _log_gamma(a: float, element: int, seed: int) -> float:
    """Marsaglia and Tsang 2000, for one element of the stream of `seed`."""
    d = a + (a < 1) - 1 / 3
    for lane in count():
        one, two, three, four = philox(element, seed, lane)
        z = math.sqrt(-2 * math.log(_uniform(one, two)))
        z *= math.cos(2 * math.pi * (three + 0.5) * 2.0**-32)
        v = (1 + z / math.sqrt(9 * d)) ** 3
        if v > 0 and math.log((four + 0.5) * 2.0**-32) < z * z / 2 + d * (1 - v + math.log(v)):
            break
    boost = 0.0
    if a < 1:
        one, two, *_ = philox(element, seed, 2**32 - 1)
        boost = math.log(_uniform(one, two)) / a
    return math.log(d * v) + boost


def _logs(a: Any, seed: int) -> Any:
    found = [_log_gamma(float(v), i, seed) for i, v in enumerate(a.ravel())]
    return np.array(found, np.float64).reshape(a.shape)


def _dirichlet(a: Any, seed: int) -> Any:
    logs = _logs(a, seed)
    powers = np.exp(logs - logs.max(-1, keepdims=True, initial=-np.inf))
    return powers / powers.sum(-1, keepdims=True)


def _inverse(first: float, factor: Any, element: int, seed: int) -> float:
    """The smallest count whose probabilities add up to more than the element's uniform."""
    one, two, *_ = philox(element, seed)
    rest, k = _uniform(one, two) - first, 0
    while rest >= 0:
        k += 1
        first *= factor(k)
        rest -= first
    return float(k)


def _ptrs(mu: float, element: int, seed: int) -> float:
    """Hoermann 1993, "The transformed rejection method", algorithm PTRS."""
    b = 0.931 + 2.53 * math.sqrt(mu)
    a = -0.059 + 0.02483 * b
    for lane in count():
        words = philox(element, seed, lane)
        u, v = _uniform(*words[:2]) - 0.5, _uniform(*words[2:])
        us = 0.5 - abs(u)
        k = math.floor((2 * a / us + b) * u + mu + 0.43)
        if us >= 0.07 and v <= 0.9277 - 3.6224 / (b - 2):
            return float(k)
        if k < 0 or (us < 0.013 and v > us):
            continue
        height = v * (1.1239 + 1.1328 / (b - 3.4)) / (a / us**2 + b)
        if math.log(height) <= -mu + k * math.log(mu) - math.lgamma(k + 1):
            return float(k)
    raise AssertionError


def _poisson(rate: Any, seed: int) -> Any:
    def one(i: int, mu: float) -> float:
        small = mu <= 10
        return _inverse(math.exp(-mu), lambda k: mu / k, i, seed) if small else _ptrs(mu, i, seed)

    return np.array([one(i, float(v)) for i, v in enumerate(rate.ravel())]).reshape(rate.shape)


def _btrs(n: int, p: float, element: int, seed: int) -> float:
    """Hoermann 1993, "The generation of binomial random variates", algorithm BTRS."""
    root = math.sqrt(n * p * (1 - p))
    b = 1.15 + 2.53 * root
    a = -0.0873 + 0.0248 * b + 0.01 * p
    mode = math.floor((n + 1) * p)
    for lane in count():
        words = philox(element, seed, lane)
        u, v = _uniform(*words[:2]) - 0.5, _uniform(*words[2:])
        us = 0.5 - abs(u)
        k = math.floor((2 * a / us + b) * u + n * p + 0.5)
        if not 0 <= k <= n:
            continue
        if us >= 0.07 and v <= 0.92 - 4.2 / b:
            return float(k)
        height = v * (2.83 + 5.1 / b) * root / (a / us**2 + b)
        ratio = math.lgamma(mode + 1) + math.lgamma(n - mode + 1)
        ratio -= math.lgamma(k + 1) + math.lgamma(n - k + 1)
        if math.log(height) <= ratio + (k - mode) * math.log(p / (1 - p)):
            return float(k)
    raise AssertionError


def _binomial(n: Any, p: Any, seed: int) -> Any:
    def one(i: int, n: float, p: float) -> float:
        q = min(p, 1 - p)
        if n * q > 10:
            k = _btrs(int(n), q, i, seed)
        else:
            first = math.exp(n * math.log1p(-q))
            k = _inverse(first, lambda k: q / (1 - q) * (n - k + 1) / k, i, seed)
        return k if p <= 0.5 else n - k

    n, p = np.broadcast_arrays(n, p)
    rows = zip(n.ravel().tolist(), p.ravel().tolist(), strict=True)
    return np.array([one(i, *row) for i, row in enumerate(rows)]).reshape(n.shape)


def _concentrations(min_dims: int = 0) -> Any:
    def inputs(d: Any, dtype: DType) -> Sample:
        shape = d.shape(min_dims=min_dims)
        return sample(d.array(shape, dtype, *d.choice([(0.25, 2), (2, 40)])), drawn_seed(d))

    return inputs


def _rates(d: Any, dtype: DType) -> Sample:
    # multiples of 1/8 are the same in every dtype: a rounded mean may draw another number
    rate = np.asarray(d.rng.integers(1, 800, d.shape()) / 8).astype(dtype.numpy)
    return sample(d.layout(rate), drawn_seed(d))


def _trials(d: Any, dtype: DType) -> Sample:
    shape = d.shape()
    n = np.asarray(d.rng.integers(0, 99, shape)).astype(dtype.numpy)
    p = np.asarray(d.rng.integers(0, 9, d.broadcastable(shape)) / 8).astype(dtype.numpy)
    return sample(d.layout(n), d.layout(p), drawn_seed(d))


def _row(name: str, function: Any, oracle: Any, inputs: Any, **options: Any) -> Case:
    """A row without counterpart: torch's streams are others.

    The gradients of draws are those at a fixed quantile, which the attempts of a rejection do not
    keep: no difference quotient of the draw shows them. `log_gamma_slope` has a row of its own.
    """

    def draw(*args: Any) -> Any:
        return function(*args[:-1], generator=stream(args[-1])).detach()

    return Case(name, draw, oracle, inputs, None, dtypes=WIDE, grad=False, **options)


CASES = [
    _row("standard_gamma", ops.standard_gamma, lambda a, s: np.exp(_logs(a, s)),
         _concentrations()),
    _row("log_standard_gamma", ops.log_standard_gamma, _logs, _concentrations(),
         scale=4),
    _row("standard_dirichlet", ops.standard_dirichlet, _dirichlet, _concentrations(1),
         operators=("log_standard_gamma",), scale=8),
    _row("poisson", ops.poisson, _poisson, _rates),
    _row("binomial", ops.binomial, _binomial, _trials),
]  # fmt: skip
