"""Philox4x32-10 as specified in reference/random.py: bits, and dropout in one pass.

Limits of dropout per element, float32: 4 bytes read, 4 written, and a quarter of 10 rounds of two
products each in vectors of 4 (64-bit lanes): about 1 ns, so arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from minidl.backends import reference
from minidl.backends.numba_kernels.compiled import In1, Kernel, Out1, Words1, helper, split
from minidl.backends.numba_kernels.elementary import like
from minidl.backends.reference.blocks import flat

_CHUNK = 256  # counters at a time: their words take 4 KiB
_M0, _M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_W0, _W1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
_LOW, _HALF = np.uint64(0xFFFFFFFF), np.uint64(32)
_ZERO = np.uint64(0)
_WORD = 0xFFFFFFFF


@helper
def _philox(words, count, first, key0, key1):
    """The four words of counters first, first + 1, ... into the rows of `words`."""
    for i in range(count):
        counter = first + np.uint64(i)
        c0, c1, c2, c3 = counter & _LOW, counter >> _HALF, _ZERO, _ZERO
        k0, k1 = key0, key1
        for _ in range(10):
            p, q = c0 * _M0, c2 * _M1
            c0, c1 = (q >> _HALF) ^ c1 ^ k0, q & _LOW
            c2, c3 = (p >> _HALF) ^ c3 ^ k1, p & _LOW
            k0, k1 = (k0 + _W0) & _LOW, (k1 + _W1) & _LOW
        words[0, i], words[1, i], words[2, i], words[3, i] = c0, c1, c2, c3


@Kernel
def _bits(start: int, stop: int, low: int, high: int, key0: int, key1: int, out: Words1) -> None:
    """Words 4 start to 4 stop of the stream from the counter high * 2^32 + low."""
    first = (np.uint64(high) << _HALF) + np.uint64(low)
    words = np.empty((4, _CHUNK), np.uint32)
    for begin in range(start, stop, _CHUNK):
        count = min(_CHUNK, stop - begin)
        _philox(words, count, first + np.uint64(begin), np.uint64(key0), np.uint64(key1))
        part = out[4 * begin : 4 * (begin + count)]
        for i in range(part.size // 4):
            for j in range(4):
                part[4 * i + j] = words[j, i]
        for i in range(part.size // 4 * 4, part.size):  # the last counter may be used in part
            part[i] = words[i % 4, i // 4]


@Kernel
def _dropout(
    start: int,
    stop: int,
    low: int,
    high: int,
    key0: int,
    key1: int,
    limit: int,
    factor: float,
    x: In1,
    out: Out1,
) -> None:
    """out = x * factor where a word is below `limit`, x * 0 elsewhere; counters as in `_bits`."""
    first = (np.uint64(high) << _HALF) + np.uint64(low)
    words = np.empty((4, _CHUNK), np.uint32)
    bound = np.uint64(limit)
    for begin in range(start, stop, _CHUNK):
        count = min(_CHUNK, stop - begin)
        _philox(words, count, first + np.uint64(begin), np.uint64(key0), np.uint64(key1))
        source, target = x[4 * begin : 4 * (begin + count)], out[4 * begin : 4 * (begin + count)]
        kept = like(source[0], factor)
        for i in range(source.size // 4):
            for j in range(4):
                scale = kept if np.uint64(words[j, i]) < bound else like(kept, 0.0)
                target[4 * i + j] = source[4 * i + j] * scale
        for i in range(source.size // 4 * 4, source.size):
            scale = kept if np.uint64(words[i % 4, i // 4]) < bound else like(kept, 0.0)
            target[i] = source[i] * scale


def _stream(seed: int, offset: int) -> tuple[int, int, int, int]:
    """Low and high word of the counter and of the key."""
    return offset & _WORD, (offset >> 32) & _WORD, seed & _WORD, (seed >> 32) & _WORD


def philox_bits(n: int, seed: int, offset: int) -> np.ndarray:
    """As specified in reference/random.py."""
    out = np.empty(n, np.uint32)
    split(_bits[_FLOAT32], -(-n // 4), n, *_stream(seed, offset), out)
    return out


def dropout(x: np.ndarray, p: float, seed: int, offset: int) -> np.ndarray:
    """As specified in reference/random.py."""
    out = np.empty(x.shape, x.dtype)
    limit, factor = round(float(1 - p) * 2**32), 1 / (1 - p) if p < 1 else 0.0
    operands = limit, factor, flat(x), out.reshape(-1)
    split(_dropout[x.dtype], -(-x.size // 4), x.size, *_stream(seed, offset), *operands)
    return out


_FLOAT32 = np.dtype(np.float32)
ENTRIES: dict[str, Callable] = {
    "philox_bits": philox_bits,
    "uniform": partial(reference.uniform, bits=philox_bits),
    "bernoulli": partial(reference.bernoulli, bits=philox_bits),
    "dropout": dropout,
}
