"""Random numbers: the specification's streams, one kernel a draw.

A thread makes the four words of one counter. While a graph is captured, the kernels get the address
of the words that say where the numbers of this replay start (see `capture`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from minidl.backends.cupy_gpu.capture import recording
from minidl.backends.cupy_gpu.raw.launch import THREADS, Source
from minidl.backends.cupy_gpu.xp import cp

__all__ = ["bernoulli", "dropout", "normal", "philox_bits", "uniform"]

SOURCE = r"""
typedef unsigned long long u64;

struct Draw {
    void* out;
    const void* in;
    const u64* live;  // (offset relative to the captured one, seed) of this replay, or null
    u64 n, seed, offset;
    u64 limit;        // of bernoulli: True for words below
    double factor;    // of dropout
};

// The four words of counter `block` of the stream.
__device__ void words_of(const Draw& p, u64 block, unsigned* out) {
    const u64 counter = p.offset + block + (p.live ? p.live[0] : 0);
    const u64 seed = p.live ? p.live[1] : p.seed;
    unsigned c0 = (unsigned)counter, c1 = (unsigned)(counter >> 32), c2 = 0, c3 = 0;
    unsigned k0 = (unsigned)seed, k1 = (unsigned)(seed >> 32);
#pragma unroll
    for (int round = 0; round < 10; ++round) {
        const u64 p0 = (u64)0xD2511F53u * c0, p1 = (u64)0xCD9E8D57u * c2;
        c0 = (unsigned)(p1 >> 32) ^ c1 ^ k0;
        c1 = (unsigned)p1;
        c2 = (unsigned)(p0 >> 32) ^ c3 ^ k1;
        c3 = (unsigned)p0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    out[0] = c0, out[1] = c1, out[2] = c2, out[3] = c3;
}

__device__ u64 block_of_thread() { return (u64)blockIdx.x * blockDim.x + threadIdx.x; }

__device__ float uniform_of(unsigned word) { return (word >> 8) * 5.9604644775390625e-8f; }
__device__ double uniform_of(unsigned low, unsigned high) {
    return (((u64)high << 32 | low) >> 11) * 1.1102230246251565e-16;
}

extern "C" __global__ void bits(Draw p) {
    const u64 block = block_of_thread();
    if (4 * block >= p.n) return;
    unsigned words[4];
    words_of(p, block, words);
    for (int i = 0; i < 4; ++i)
        if (4 * block + i < p.n) ((unsigned*)p.out)[4 * block + i] = words[i];
}

extern "C" __global__ void uniform_float(Draw p) {
    const u64 block = block_of_thread();
    if (4 * block >= p.n) return;
    unsigned words[4];
    words_of(p, block, words);
    for (int i = 0; i < 4; ++i)
        if (4 * block + i < p.n) ((float*)p.out)[4 * block + i] = uniform_of(words[i]);
}

extern "C" __global__ void uniform_double(Draw p) {
    const u64 block = block_of_thread();
    if (2 * block >= p.n) return;
    unsigned words[4];
    words_of(p, block, words);
    for (int i = 0; i < 2; ++i)
        if (2 * block + i < p.n)
            ((double*)p.out)[2 * block + i] = uniform_of(words[2 * i], words[2 * i + 1]);
}

// Two normal numbers from two uniform ones, by Box and Muller in double precision.
__device__ void pair_of(double u, double v, double* out) {
    const double radius = sqrt(-2.0 * log(1.0 - u)), angle = v * 6.283185307179586;
    out[0] = radius * cos(angle);
    out[1] = radius * sin(angle);
}

extern "C" __global__ void normal_float(Draw p) {
    const u64 block = block_of_thread();
    if (4 * block >= p.n) return;
    unsigned words[4];
    double pair[2];
    words_of(p, block, words);
    for (int i = 0; i < 4; i += 2) {
        pair_of(uniform_of(words[i]), uniform_of(words[i + 1]), pair);
        for (int j = 0; j < 2; ++j)
            if (4 * block + i + j < p.n) ((float*)p.out)[4 * block + i + j] = (float)pair[j];
    }
}

extern "C" __global__ void normal_double(Draw p) {
    const u64 block = block_of_thread();
    if (2 * block >= p.n) return;
    unsigned words[4];
    double pair[2];
    words_of(p, block, words);
    pair_of(uniform_of(words[0], words[1]), uniform_of(words[2], words[3]), pair);
    for (int j = 0; j < 2; ++j)
        if (2 * block + j < p.n) ((double*)p.out)[2 * block + j] = pair[j];
}

extern "C" __global__ void bernoulli(Draw p) {
    const u64 block = block_of_thread();
    if (4 * block >= p.n) return;
    unsigned words[4];
    words_of(p, block, words);
    for (int i = 0; i < 4; ++i)
        if (4 * block + i < p.n) ((bool*)p.out)[4 * block + i] = words[i] < p.limit;
}

template <typename T>
__device__ void drop(const Draw& p) {
    const u64 block = block_of_thread();
    if (4 * block >= p.n) return;
    unsigned words[4];
    words_of(p, block, words);
    for (int i = 0; i < 4; ++i) {
        const u64 at = 4 * block + i;
        if (at >= p.n) return;
        const T factor = words[i] < p.limit ? (T)p.factor : T(0);
        ((T*)p.out)[at] = ((const T*)p.in)[at] * factor;
    }
}
extern "C" __global__ void dropout_float(Draw p) { drop<float>(p); }
extern "C" __global__ void dropout_double(Draw p) { drop<double>(p); }
"""
_source = Source(
    SOURCE,
    [(name, "<u8") for name in ("out", "in", "live", "n", "seed", "offset", "limit")]
    + [("factor", "<f8")],
)

Bits = Callable[[int, int, int], Any]


def _draw(
    kernel: str,
    out: Any,
    seed: int,
    offset: int,
    each: int = 4,
    x: Any = None,
    limit: int = 0,
    factor: float = 0.0,
) -> Any:
    """Fill `out`, of which a counter gives `each` elements."""
    if out.size:
        record = _source.record()
        row = record[0]
        graph = recording()
        row["out"], row["in"] = out.data.ptr, 0 if x is None else x.data.ptr
        row["live"] = 0 if graph is None else graph.draw(seed, offset)
        row["n"], row["seed"], row["offset"] = out.size, seed, offset % 2**64
        row["limit"], row["factor"] = limit, factor
        blocks = -(-out.size // each)
        _source.start(kernel, -(-blocks // THREADS), record)
    return out


def philox_bits(n: int, seed: int, offset: int) -> Any:
    """See the specification."""
    return _draw("bits", cp.empty((n,), np.uint32), seed, offset)


def uniform(
    shape: tuple[int, ...], dtype: Any, seed: int, offset: int, bits: Bits | None = None
) -> Any:
    """See the specification; `bits` is not asked."""
    out = cp.empty(shape, dtype)
    if out.dtype == np.float32:
        return _draw("uniform_float", out, seed, offset)
    return _draw("uniform_double", out, seed, offset, 2)


def normal(shape: tuple[int, ...], dtype: Any, seed: int, offset: int) -> Any:
    """See the specification."""
    out = cp.empty(shape, dtype)
    if out.dtype == np.float32:
        return _draw("normal_float", out, seed, offset)
    return _draw("normal_double", out, seed, offset, 2)


def bernoulli(
    shape: tuple[int, ...], p: Any, seed: int, offset: int, bits: Bits | None = None
) -> Any:
    """See the specification; `bits` is not asked."""
    if getattr(p, "ndim", 0):
        words = philox_bits(math.prod(shape), seed, offset).reshape(shape)
        return words < cp.rint(cp.asarray(p).astype(np.float64) * 2.0**32).astype(np.uint64)
    if isinstance(p, cp.ndarray):  # a 0-d array: its value stays on the GPU
        return bernoulli((math.prod(shape),), p[None], seed, offset).reshape(shape)
    return _draw("bernoulli", cp.empty(shape, np.bool_), seed, offset, limit=_limit(p))


def dropout(x: Any, p: float, seed: int, offset: int) -> Any:
    """See the specification."""
    x = x if x.flags.c_contiguous else cp.ascontiguousarray(x)
    out = cp.empty(x.shape, x.dtype)
    kernel = "dropout_float" if x.dtype == np.float32 else "dropout_double"
    factor = 1 / (1 - p) if p < 1 else 0.0
    return _draw(kernel, out, seed, offset, x=x, limit=_limit(1 - p), factor=factor)


def _limit(p: float) -> int:
    return round(float(p) * 2**32)
