"""Rows of random numbers: the same bits on every table."""

from __future__ import annotations

from typing import Any

import numpy as np

from minidl.dtypes import DType, float64
from minidl.testing.case import Sample, sample
from minidl.testing.draws import Inputs
from minidl.testing.entries.draws import array, shape, side
from minidl.testing.entry import Entry, entry

SEEDS = (0, 1, 2**32, 2**64 - 1, 2**63 + 12345)


def _stream(d: Any) -> tuple[int, int]:
    """(seed, offset)."""
    return d.choice(SEEDS), d.choice((0, 3, 2**32 - 1, 2**64 - 2, 12345))


def _filled(d: Any, dtype: DType) -> Sample:
    return sample(shape(d), dtype.numpy, *_stream(d))


def _bits(d: Any, dtype: DType) -> Sample:
    return sample(side(d), *_stream(d))


def _bernoulli(d: Any, dtype: DType) -> Sample:
    full = shape(d)
    p = d.number(0, 1) if d.boolean() else array(d, d.broadcastable(full, True), dtype, 0, 1)
    return sample(full, p, *_stream(d))


def _dropout(d: Any, dtype: DType) -> Sample:
    p = d.choice([0.1, 0.5, 1 / 3, 1.0, 0.0])
    return sample(array(d, shape(d), dtype, extreme=True), p, *_stream(d))


def _randint(d: Any, dtype: DType) -> Sample:
    low, high = d.choice([(0, 10), (-5, 1), (0, 1), (-(2**63), 2**63 - 1)])
    return sample(low, high, shape(d), *_stream(d))


def _multinomial(d: Any, dtype: DType) -> Sample:
    classes, replacement = d.choice((5, 8, 17, 33)), d.boolean()
    lead = d.choice([(), (3,), (1,), (0,)])
    return sample(array(d, (*lead, classes), dtype, 0.1, 2), d.integer(1, 4), replacement,
                  *_stream(d))  # fmt: skip


def _around(low: float, high: float) -> Inputs:
    return lambda d, dtype: sample(array(d, shape(d), dtype, low, high), *_stream(d))


def _binomial(d: Any, dtype: DType) -> Sample:
    full = shape(d)
    n = d.layout(np.asarray(d.rng.integers(0, 60, full)).astype(dtype.numpy))
    return sample(n, array(d, full, dtype, 0.05, 0.95), *_stream(d))


ONE = (float64,)  # no array is drawn: the dtype plays no part
ROWS: tuple[Entry, ...] = (
    entry("philox_bits", _bits, dtypes=ONE, same="bits"),
    entry("uniform", _filled, same="bits"),
    entry("normal", _filled, same=2.0),
    entry("bernoulli", _bernoulli, same="bits"),
    entry("dropout", _dropout, same="bits"),
    entry("randint", _randint, dtypes=ONE, same="bits"),
    entry("permutation", _bits, dtypes=ONE, same="bits"),
    entry("multinomial", _multinomial, same="bits"),
    # a logarithm of a number near 1 keeps that number's error
    entry("log_standard_gamma", _around(0.2, 9), same=16.0, least=1.0),
    entry("poisson", _around(0.1, 30), same="bits"),
    entry("binomial", _binomial, same="bits"),
)
