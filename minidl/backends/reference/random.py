"""Random numbers: Philox4x32-10 (Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as
1, 2, 3", SC 2011).

The stream of a seed is a sequence of counters of four 32-bit words; the key is the seed (low word,
high word), the low 64 bits of the 128-bit counter are `offset + i div 4` (modulo 2^64), the high
ones 0. Element i in C order is word i mod 4 of counter i div 4. Entries that need 64 bits take
words 2i (low) and 2i + 1 (high) for element i. A draw of n words consumes `philox_blocks(n)`
counters. seed: 0 <= seed < 2^64. All results are fresh and C-contiguous; bits, uniforms, Booleans,
integers and permutations are the same on every backend, normals within 2 ULP.
"""

import math
from collections.abc import Callable

import numpy as np

_MULTIPLIERS = ((0xD2511F53,), (0xCD9E8D57,))
_WEYL = (0x9E3779B9, 0xBB67AE85)
_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)
_WORD = 0xFFFFFFFF
_ROUNDS = 10
_COUNTERS = 2048  # per piece: the four working arrays take 128 KiB


def philox_blocks(n_words: int) -> int:
    """The number of counters that a draw of `n_words` 32-bit words consumes."""
    return -(-n_words // 4)


def _philox(even: np.ndarray, odd: np.ndarray, key: tuple[int, int], spare: np.ndarray) -> None:
    """Ten rounds in place on words (0, 2) in `even` and (1, 3) in `odd`, both (2, n) uint64."""
    multipliers = np.array(_MULTIPLIERS, np.uint64)
    for r in range(_ROUNDS):
        keys = np.array([[(k + r * w) & _WORD] for k, w in zip(key, _WEYL, strict=True)], np.uint64)
        np.multiply(even, multipliers, out=spare)
        np.bitwise_xor(odd, keys, out=even)
        np.bitwise_and(spare[::-1], _LOW, out=odd)
        np.right_shift(spare, _HALF, out=spare)
        np.bitwise_xor(even, spare[::-1], out=even)


def philox_bits(n: int, seed: int, offset: int) -> np.ndarray:
    """The first n words of the stream from counter `offset`: (n,) uint32."""
    blocks = philox_blocks(n)
    out = np.empty((blocks, 4), np.uint32)
    key = (seed & _WORD, (seed >> 32) & _WORD)
    size = min(blocks, _COUNTERS)
    even, odd, spare = np.empty((3, 2, size), np.uint64)
    steps = np.arange(size, dtype=np.uint64)
    for start in range(0, blocks, _COUNTERS):
        m = min(_COUNTERS, blocks - start)
        e, o, s = even[:, :m], odd[:, :m], spare[:, :m]
        counters = steps[:m] + np.uint64((offset + start) & 0xFFFFFFFFFFFFFFFF)
        np.bitwise_and(counters, _LOW, out=e[0])
        np.right_shift(counters, _HALF, out=o[0])
        e[1] = o[1] = 0
        _philox(e, o, key, s)
        out[start : start + m, 0::2] = e.T
        out[start : start + m, 1::2] = o.T
    words = out.reshape(-1)
    return words if words.size == n else words[:n].copy()


def philox_at(counters: np.ndarray, lane: int, seed: int) -> np.ndarray:
    """The four words of each counter (n,) uint64, `lane` as its third word: (4, n) uint32.

    Lanes other than 0 serve draws of which an element may need many: one counter each.
    """
    even, odd, spare = np.zeros((3, 2, counters.size), np.uint64)
    even[0], odd[0] = counters & _LOW, counters >> _HALF
    even[1] = lane
    _philox(even, odd, (seed & _WORD, (seed >> 32) & _WORD), spare)
    return np.stack([even[0], odd[0], even[1], odd[1]]).astype(np.uint32)


Bits = Callable[[int, int, int], np.ndarray]  # `philox_bits`, of whatever layer


def _bits64(n: int, seed: int, offset: int, bits: Bits | None = None) -> np.ndarray:
    """n 64-bit words: word 2i is the low half of element i, word 2i + 1 the high half."""
    return (bits or philox_bits)(2 * n, seed, offset).view("<u8")


def uniform(
    shape: tuple[int, ...],
    dtype: np.dtype | type,
    seed: int,
    offset: int,
    bits: Bits | None = None,
) -> np.ndarray:
    """Uniform on [0, 1): float32 from the 24 high bits of a word, float64 from 53 of two words.

    Consumes one word per float32, two per float64. bits: another layer's `philox_bits`.
    """
    out = np.empty(shape, dtype)
    if out.dtype == np.float32:
        words = (bits or philox_bits)(out.size, seed, offset)
        words >>= np.uint32(8)
        np.multiply(words, np.float32(2**-24), out=out.reshape(-1), casting="unsafe", dtype="f4")
    else:
        wide = _bits64(out.size, seed, offset, bits)
        wide >>= np.uint64(11)
        np.multiply(wide, 2.0**-53, out=out.reshape(-1))
    return out


def normal(shape: tuple[int, ...], dtype: np.dtype | type, seed: int, offset: int) -> np.ndarray:
    """Standard normal by Box and Muller: elements 2j, 2j + 1 are r cos(a), r sin(a) with
    r = sqrt(-2 log(1 - u[2j])), a = 2 pi u[2j + 1], u the stream of `uniform`.

    Computed in float64 (2 pi rounded to float64 before the product) and rounded once. Consumes
    the words of `uniform` for the next even number of elements.
    """
    out = np.empty(shape, dtype)
    pairs = -(-out.size // 2)
    u = uniform((pairs, 2), out.dtype, seed, offset)
    target, step = out.reshape(-1), 8192
    for start in range(0, pairs, step):
        part = u[start : start + step].astype(np.float64)
        radius = np.sqrt(-2 * np.log(1 - part[:, 0]))
        angle = part[:, 1] * (2 * math.pi)
        np.multiply(radius, np.cos(angle), out=part[:, 0])
        np.multiply(radius, np.sin(angle), out=part[:, 1])
        piece = target[2 * start : 2 * (start + step)]
        piece[...] = part.reshape(-1)[: piece.size]
    return out


def bernoulli(
    shape: tuple[int, ...],
    p: float | np.ndarray,
    seed: int,
    offset: int,
    bits: Bits | None = None,
) -> np.ndarray:
    """True with probability p: bool, where the element's word is below round(p * 2^32).

    p: float or array to be broadcast to `shape`, 0 <= p <= 1 (the caller checks); 0 never and 1
    always gives True. Consumes one word per element. bits: another layer's `philox_bits`.
    """
    out = np.empty(shape, np.bool_)
    words = (bits or philox_bits)(out.size, seed, offset).reshape(shape)
    if isinstance(p, np.ndarray):
        threshold = np.rint(p.astype(np.float64) * 2.0**32).astype(np.uint64)
        np.less(words, threshold, out=out)
    elif (limit := round(float(p) * 2**32)) > _WORD:
        out.fill(True)
    else:
        np.less(words, np.uint32(limit), out=out)
    return out


def dropout(x: np.ndarray, p: float, seed: int, offset: int) -> np.ndarray:
    """x / (1 - p) where `bernoulli(x.shape, 1 - p, seed, offset)` holds, x * 0 elsewhere.

    Rounded twice, once in the factor. Consumes one word per element.
    """
    keep = bernoulli(x.shape, 1 - p, seed, offset)
    return np.asarray(x * (keep * x.dtype.type(1 / (1 - p) if p < 1 else 0)))


def randint(low: int, high: int, shape: tuple[int, ...], seed: int, offset: int) -> np.ndarray:
    """Integers in [low, high) as int64: low + floor(bits * (high - low) / 2^64).

    The multiply-shift of 64 bits has no rejection; a value's probability is off by less than
    2^-64. Consumes two words per element.
    """
    bits = _bits64(math.prod(shape), seed, offset)
    size = high - low
    size_low, size_high = np.uint64(size & _WORD), np.uint64(size >> 32)
    bits_low, bits_high = bits & _LOW, bits >> _HALF
    # the high half of a 64 x 64 bit product from four 32 x 32 bit ones
    cross = bits_high * size_low
    middle = (bits_low * size_low >> _HALF) + (cross & _LOW)
    middle += bits_low * size_high
    value = bits_high * size_high + (cross >> _HALF) + (middle >> _HALF)
    value += np.uint64(low & 0xFFFFFFFFFFFFFFFF)
    out = np.empty(shape, np.int64)
    out.reshape(-1)[...] = value.view(np.int64)
    return out


def permutation(n: int, seed: int, offset: int) -> np.ndarray:
    """A permutation of range(n) as (n,) int64: the stable order of n 64-bit keys.

    Consumes two words per element.
    """
    return np.argsort(_bits64(n, seed, offset), kind="stable").astype(np.int64, copy=False)


def multinomial(p: np.ndarray, n: int, replacement: bool, seed: int, offset: int) -> np.ndarray:
    """n categories per row, drawn with probabilities proportional to p, in the order drawn.

    p: (rows, C) or (C,), float, >= 0, finite, with a positive sum, and at least n positive entries
    without replacement (the caller checks) -> (rows, n) or (n,) int64.

    With replacement: inverse of the float64 running sum, two words per drawn number. Without: the
    n smallest of -log(1 - u) / p (exponential race; ties go to the lower category), two words per
    entry of p.
    """
    p2 = p.reshape(-1, p.shape[-1]).astype(np.float64)
    rows, classes = p2.shape
    out = np.empty((*p.shape[:-1], n), np.int64)
    target = out.reshape(rows, n)
    if replacement:
        running = np.cumsum(p2, axis=1)
        points = uniform((rows, n), np.float64, seed, offset) * running[:, -1:]
        for row in range(rows):
            target[row] = np.searchsorted(running[row], points[row], side="right")
    else:
        race = -np.log(1 - uniform((rows, classes), np.float64, seed, offset)) / p2
        np.copyto(race, np.inf, where=p2 == 0)
        target[...] = np.argsort(race, axis=1, kind="stable")[:, :n]
    return out
