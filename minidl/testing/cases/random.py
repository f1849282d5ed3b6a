"""Rows of `minidl.ops.random`, against Philox4x32-10 in Python integers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minidl.dtypes import FLOATS, DType, bfloat16, float16, float32, float64, int64, uint8
from minidl.ops.random import (
    Generator,
    bernoulli,
    dropout,
    multinomial,
    normal,
    rand,
    rand_like,
    randint,
    randint_like,
    randn,
    randn_like,
    randperm,
)
from minidl.tensor import Tensor
from minidl.testing.case import Case, Sample, sample
from minidl.testing.targets import device, placed

_MASK = 0xFFFFFFFF


def philox(counter: int, seed: int, lane: int = 0) -> list[int]:
    """The four words of a counter (Salmon et al. 2011, section 3.3); `lane` is its third word."""
    a, b, c, d = counter & _MASK, counter >> 32, lane, 0
    low, high = seed & _MASK, seed >> 32
    for _ in range(10):
        p, q = a * 0xD2511F53, c * 0xCD9E8D57
        a, b, c, d = (q >> 32) ^ b ^ low, q & _MASK, (p >> 32) ^ d ^ high, p & _MASK
        low, high = (low + 0x9E3779B9) & _MASK, (high + 0xBB67AE85) & _MASK
    return [a, b, c, d]


def _words(count: int, seed: int) -> list[int]:
    """The first 32-bit words of a seed's stream."""
    return [word for i in range(-(-count // 4)) for word in philox(i, seed)][:count]


def _wide_words(count: int, seed: int) -> list[int]:
    words = _words(2 * count, seed)
    return [words[2 * i] + (words[2 * i + 1] << 32) for i in range(count)]


def _uniforms(count: int, seed: int, dtype: DType) -> np.ndarray:
    if dtype is float64:
        return np.array([(w >> 11) * 2.0**-53 for w in _wide_words(count, seed)])
    bits = {float16: 11, bfloat16: 8}.get(dtype, 24)
    return np.array([(w >> (32 - bits)) * 2.0**-bits for w in _words(count, seed)])


def _normals(shape: Any, seed: int, dtype: DType) -> np.ndarray:
    count = math.prod(shape)
    u = _uniforms(count + count % 2, seed, float64 if dtype is float64 else float32)
    out = []
    for first, second in zip(u[::2], u[1::2], strict=True):
        radius = math.sqrt(-2 * math.log(1 - first))
        out += [radius * math.cos(math.tau * second), radius * math.sin(math.tau * second)]
    return np.array(out[:count]).reshape(shape)


def stream(seed: int) -> Generator:
    """The generator of a seed, at its start."""
    return Generator().manual_seed(seed)


def drawn_seed(d: Any) -> int:
    """A seed, at times one of more than 32 bits."""
    return d.choice([0, 1, 2**32, 2**63 + 12345, d.integer(0, 2**31)])


def _sized(d: Any, dtype: DType) -> Sample:
    return sample(d.shape(), drawn_seed(d), dtype)


def _like(d: Any, dtype: DType) -> Sample:
    return sample(d.array(d.shape(), dtype), drawn_seed(d))


def _plain_dtype(x: np.ndarray) -> DType:
    return float64 if x.dtype == np.float64 else float32


def _ranged(d: Any, dtype: DType) -> Sample:
    low = d.integer(0, 3) if dtype is uint8 else d.integer(-5, 3)
    return sample(low, low + d.choice([1, 2, 7, 100]), d.shape(), drawn_seed(d), dtype)


def _integers(low: int, high: int, shape: Any, seed: int, dtype: Any = None) -> Any:
    words = _wide_words(math.prod(shape), seed)
    values = [low + (w * (high - low) >> 64) for w in words]
    return np.array(values, np.int64).reshape(shape)


def _permuted(n: int, seed: int) -> Any:
    keys = _wide_words(n, seed)
    return np.array(sorted(range(n), key=lambda i: keys[i]), np.int64)


def _hits(p: Any, seed: int) -> Any:
    p = np.asarray(p)
    words = np.array(_words(p.size, seed), np.float64).reshape(p.shape)
    return (words < np.rint(p * 2.0**32)).astype(np.float64)


def _categories(p: Any, n: int, replacement: bool, seed: int) -> Any:
    rows = p.reshape(-1, p.shape[-1])
    out = np.empty((len(rows), n), np.int64)
    per_row = n if replacement else p.shape[-1]
    points = _uniforms(len(rows) * per_row, seed, float64).reshape(len(rows), per_row)
    for i, row in enumerate(rows):
        if replacement:
            for j, u in enumerate(points[i]):
                out[i, j] = next(c for c in range(len(row)) if row[: c + 1].sum() > u * row.sum())
        else:
            times = [math.inf if not q else -math.log(1 - u) / q
                     for q, u in zip(row, points[i], strict=True)]  # fmt: skip
            out[i] = sorted(range(len(row)), key=lambda c: times[c])[:n]
    return out.reshape(*p.shape[:-1], n)


def _category_inputs(d: Any, dtype: DType) -> Sample:
    classes = d.integer(2, 5)
    shape = (*d.shape(max_dims=1, max_side=3, min_side=1), classes)
    replacement = d.boolean()
    count = d.integer(1, 6) if replacement else d.integer(1, classes)
    # multiples of 1/8: their sums are exact in any order
    p = np.asarray(d.rng.integers(1, 9, shape) / 8).astype(dtype.numpy)
    return sample(d.layout(p, broadcast=False), count, replacement, drawn_seed(d))


def _dropout_inputs(d: Any, dtype: DType) -> Sample:
    return sample(d.array(d.shape(), dtype), d.choice([0.5, 0.1, 0.875, 1.0]), drawn_seed(d))


def _dropout(x: Any, p: float, seed: int) -> Any:
    kept = _hits(np.full(x.shape, 1 - p), seed)
    return x * kept / (1 - p) if p < 1 else x * 0


def _in_place(name: str, seed: int, shape: Any, *args: Any, dtype: DType) -> Tensor:
    """The method `name` on a tensor whose elements are not in C order."""
    array = np.zeros(shape[::-1], dtype.numpy).transpose()
    return getattr(Tensor(placed(array)), name)(*args, generator=stream(seed))


def _filled(name: str, *args: Any) -> Any:
    return lambda shape, seed, dtype: _in_place(name, seed, shape, *args, dtype=dtype)


def _none(name: str, function: Any, oracle: Any, inputs: Any, *operators: str, **o: Any) -> Case:
    """A row without counterpart: torch's streams are others."""
    return Case(name, function, oracle, inputs, None, operators=operators, grad=False, **o)


CASES = [
    _none("rand", lambda size, seed, dtype: rand(
              size, generator=stream(seed), dtype=dtype, device=device()),
          lambda size, seed, dtype: _uniforms(math.prod(size), seed, dtype).reshape(size), _sized,
          "rand"),
    _none("rand_like", lambda x, seed: rand_like(x, generator=stream(seed)),
          lambda x, seed: _uniforms(x.size, seed, float64).reshape(x.shape), _like, "rand",
          dtypes=(float64,)),
    _none("randn", lambda size, seed, dtype: randn(
              size, generator=stream(seed), dtype=dtype, device=device()),
          _normals, _sized, "randn"),
    _none("randn_like", lambda x, seed: randn_like(x, generator=stream(seed)),
          lambda x, seed: _normals(x.shape, seed, float64), _like, "randn", dtypes=(float64,)),
    _none("randint", lambda low, high, size, seed, dtype: randint(
              low, high, size, generator=stream(seed), dtype=dtype, device=device()),
          _integers, _ranged, "randint", dtypes=(int64, uint8)),
    _none("randint_like", lambda x, seed: randint_like(x, 3, 9, generator=stream(seed)),
          lambda x, seed: _integers(3, 9, x.shape, seed), _like, "randint", dtypes=(int64, uint8)),
    _none("randperm", lambda n, seed: randperm(n, generator=stream(seed), device=device()),
          _permuted,
          lambda d, dtype: sample(d.integer(0, 20), drawn_seed(d)), "randperm", dtypes=(int64,)),
    _none("normal", lambda mean, std, seed: normal(mean, std, generator=stream(seed)),
          lambda mean, std, seed: mean + std * _normals(
              np.broadcast_shapes(mean.shape, std.shape), seed, float64),
          lambda d, dtype: sample(
              d.array((2, 3), dtype), d.array((3,), dtype, 0.5, 2), drawn_seed(d)),
          "normal", dtypes=(float64,)),
    _none("bernoulli", lambda p, seed: bernoulli(p, generator=stream(seed)), _hits,
          lambda d, dtype: sample(d.array(d.shape(), dtype, 0, 1), drawn_seed(d)), "bernoulli"),
    _none("multinomial", lambda p, n, replacement, seed: multinomial(
              p, n, replacement, generator=stream(seed)),
          _categories, _category_inputs, "multinomial"),
    _none("uniform_", _filled("uniform_", -2, 6),
          lambda size, seed, dtype: -2 + 8 * _uniforms(math.prod(size), seed, dtype).reshape(size),
          _sized, "rand"),
    _none("normal_", _filled("normal_", 4, 0.5),
          lambda size, seed, dtype: 4 + 0.5 * _normals(size, seed, dtype), _sized, "randn",
          dtypes=(float64, float32)),
    _none("exponential_", _filled("exponential_", 2.0),
          lambda size, seed, dtype: -np.log1p(
              -_uniforms(math.prod(size), seed, dtype).reshape(size)) / 2,
          _sized, "exponential", "rand", dtypes=(float64, float32)),
    _none("log_normal_", _filled("log_normal_", 0.5, 0.25),
          lambda size, seed, dtype: np.exp(0.5 + 0.25 * _normals(size, seed, dtype)), _sized,
          "randn", dtypes=(float64, float32)),
    # the sum may cancel all but the rounding of the tangent
    _none("cauchy_", _filled("cauchy_", 1.0, 0.5),
          lambda size, seed, dtype: 1 + 0.5 * np.tan(
              np.pi * (_uniforms(math.prod(size), seed, dtype).reshape(size) - 0.5)),
          _sized, "cauchy", "rand", dtypes=(float64,), scale=16),
    _none("geometric_", _filled("geometric_", 0.25),
          lambda size, seed, dtype: np.maximum(np.ceil(np.log1p(
              -_uniforms(math.prod(size), seed, dtype).reshape(size)) / math.log1p(-0.25)), 1),
          _sized, "geometric", "rand", dtypes=(float64,)),
    _none("random_", _filled("random_", 3, 50),
          lambda size, seed, dtype: _integers(3, 50, size, seed), _sized, "randint",
          dtypes=(int64, uint8)),
    _none("bernoulli_", _filled("bernoulli_", 0.25),
          lambda size, seed, dtype: _hits(np.full(size, 0.25), seed), _sized, "bernoulli",
          dtypes=FLOATS),
    Case("dropout", lambda x, p, seed: dropout(x, p, generator=stream(seed)), _dropout,
         _dropout_inputs, None, operators=("dropout",)),
]  # fmt: skip
