// Random numbers: bits, uniform, normal, Boolean and whole numbers, and dropout.
//
// Contract: minidl/backends/reference/random.py, the same bits. Limits on an H200: a counter is 20
// wide multiplications and 40 other integer operations, for four words; 132 multiprocessors issue
// 64 integer operations a cycle each, 1.5e13/s, so a word takes 1/1e12 s. Four bytes at 4.3 TB/s
// take as long: both bound `bits` and `uniform`, the bytes bound dropout. `normal` computes in
// double: a logarithm, a root, a sine and a cosine for two numbers, about 100 operations, bound it
// on GPUs with few units for double.
//
// A thread makes the words of one counter (two where 16 bytes hold eight results) and stores its
// results together. While a graph is replayed, `live` says where its numbers start.
#pragma once

#include "common/philox.cuh"
#include "common/rounded.cuh"
#include "common/vec.cuh"

struct Draw {
    void* out;
    const void* in;   // of dropout: x; of bernoulli_of: the probabilities
    const u64* live;  // (offset relative to the captured one, seed) of this replay, or null
    u64 n, seed, offset;
    u64 limit;      // of bernoulli and dropout: True for words below; of randint: high - low
    i64 base;       // of randint: low; of bernoulli_of: elements from one probability to the next
    double factor;  // of dropout
};

__device__ inline Words words_of(const Draw& p, u64 counter) {
    return philox(p.offset + counter + (p.live ? p.live[0] : 0), p.live ? p.live[1] : p.seed);
}

// Store the results `at` and after; those past the end are left out.
template <typename T, int N>
__device__ inline void put(const Draw& p, u64 at, const T (&values)[N]) {
    const int size = Vec<T>::size;
    T* out = (T*)p.out;
    if (N % size == 0 && at + N <= p.n && in_vecs<T>(0, p.out)) {
#pragma unroll
        for (int v = 0; v < N / size; ++v) {
            Vec<T> together;
#pragma unroll
            for (int i = 0; i < size; ++i) together.at[i] = values[(v * size + i) % N];
            store_vec(out + at + v * size, together);
        }
        return;
    }
#pragma unroll
    for (int i = 0; i < N; ++i)
        if (at + i < p.n) out[at + i] = values[i];
}

__device__ inline void draw_bits(const Draw& p) {
    const u64 counter = global_thread();
    if (4 * counter >= p.n) return;
    put<u32, 4>(p, 4 * counter, words_of(p, counter).at);
}

__device__ inline void uniform_four(const Draw& p) {
    const u64 counter = global_thread();
    if (4 * counter >= p.n) return;
    const Words words = words_of(p, counter);
    float values[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) values[i] = uniform_of(words.at[i]);
    put(p, 4 * counter, values);
}
__device__ inline void uniform_two(const Draw& p) {
    const u64 counter = global_thread();
    if (2 * counter >= p.n) return;
    const Words words = words_of(p, counter);
    const double values[2] = {uniform_of(words.at[0], words.at[1]),
                              uniform_of(words.at[2], words.at[3])};
    put(p, 2 * counter, values);
}

// Sine and cosine of an angle in [0, 2 pi], within one unit in the last place: Taylor's series of
// the distance to the nearest multiple of pi / 2, which is kept in two numbers. CUDA's own have a
// way for large angles that takes memory.
__device__ inline void sine_cosine(double angle, double* sine, double* cosine) {
    const double high = 1.5707963267948966, low = 6.123233995736766e-17;  // pi / 2
    const double q = rint(angle * 0.6366197723675814);
    const double near = fma(-q, high, angle);
    const double r = fma(-q, low, near), rest = fma(-q, low, near - r), z = r * r;
    double s = 1.0 / 355687428096000.0;
    s = fma(s, z, -1.0 / 1307674368000.0);
    s = fma(s, z, 1.0 / 6227020800.0);
    s = fma(s, z, -1.0 / 39916800.0);
    s = fma(s, z, 1.0 / 362880.0);
    s = fma(s, z, -1.0 / 5040.0);
    s = fma(s, z, 1.0 / 120.0);
    s = fma(s, z, -1.0 / 6.0);
    s = r + fma(s * z, r, rest);
    double c = -1.0 / 6402373705728000.0;
    c = fma(c, z, 1.0 / 20922789888000.0);
    c = fma(c, z, -1.0 / 87178291200.0);
    c = fma(c, z, 1.0 / 479001600.0);
    c = fma(c, z, -1.0 / 3628800.0);
    c = fma(c, z, 1.0 / 40320.0);
    c = fma(c, z, -1.0 / 720.0);
    c = fma(c, z, 1.0 / 24.0);
    const double half = 0.5 * z, most = 1.0 - half;
    c = most + (((1.0 - most) - half) + fma(z * z, c, -r * rest));
    const int quarter = (int)q & 3;
    const double a = quarter & 1 ? c : s, b = quarter & 1 ? s : c;
    *sine = quarter & 2 ? -a : a;
    *cosine = quarter == 1 || quarter == 2 ? -b : b;
}

// Two normal numbers from two uniform ones, by Box and Muller.
__device__ inline void pair_of(double u, double v, double* out) {
    const double radius = sqrt(times(-2.0, log(1.0 - u)));
    double sine, cosine;
    sine_cosine(times(v, 6.283185307179586), &sine, &cosine);
    out[0] = radius * cosine;
    out[1] = radius * sine;
}
__device__ inline void normal_four(const Draw& p) {
    const u64 counter = global_thread();
    if (4 * counter >= p.n) return;
    const Words words = words_of(p, counter);
    float values[4];
#pragma unroll
    for (int i = 0; i < 4; i += 2) {
        double pair[2];
        pair_of(uniform_of(words.at[i]), uniform_of(words.at[i + 1]), pair);
        values[i] = (float)pair[0];
        values[i + 1] = (float)pair[1];
    }
    put(p, 4 * counter, values);
}
__device__ inline void normal_two(const Draw& p) {
    const u64 counter = global_thread();
    if (2 * counter >= p.n) return;
    const Words words = words_of(p, counter);
    double values[2];
    pair_of(uniform_of(words.at[0], words.at[1]), uniform_of(words.at[2], words.at[3]), values);
    put(p, 2 * counter, values);
}

__device__ inline void draw_bernoulli(const Draw& p) {
    const u64 counter = global_thread();
    if (4 * counter >= p.n) return;
    const Words words = words_of(p, counter);
#pragma unroll
    for (int i = 0; i < 4; ++i)
        if (4 * counter + i < p.n) ((u8*)p.out)[4 * counter + i] = words.at[i] < p.limit;
}
template <typename T>
__device__ inline void draw_bernoulli_of(const Draw& p) {
    const u64 counter = global_thread();
    if (4 * counter >= p.n) return;
    const Words words = words_of(p, counter);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        const u64 at = 4 * counter + i;
        if (at >= p.n) return;
        const double limit = rint((double)widen(((const T*)p.in)[at * p.base]) * 4294967296.0);
        // a probability that is none counts as the nearest that is one; NaN as 0
        ((u8*)p.out)[at] = limit >= 1 && (limit >= 4294967296.0 || words.at[i] < (u64)limit);
    }
}

__device__ inline void draw_randint(const Draw& p) {
    const u64 counter = global_thread();
    if (2 * counter >= p.n) return;
    const Words words = words_of(p, counter);
    u64 values[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
        const u64 wide = joined(words.at[2 * i], words.at[2 * i + 1]);
        values[i] = __umul64hi(wide, p.limit) + (u64)p.base;
    }
    put(p, 2 * counter, values);
}

template <typename T>
__device__ inline void drop(const Draw& p) {
    typedef typename Wide<T>::type W;
    const int size = Vec<T>::size, counters = size > 4 ? 2 : 1, N = 4 * counters;
    const u64 at = (u64)global_thread() * N;
    if (at >= p.n) return;
    const W kept = (W)p.factor;
    T values[N];
    const T* x = (const T*)p.in + at;
    if (at + N <= p.n && in_vecs<T>(0, p.in)) {
#pragma unroll
        for (int v = 0; v < N / size; ++v) {
            const Vec<T> together = load_vec(x + v * size);
#pragma unroll
            for (int i = 0; i < size; ++i) values[v * size + i] = together.at[i];
        }
    } else {
#pragma unroll
        for (int i = 0; i < N; ++i) values[i] = at + i < p.n ? x[i] : T{};
    }
#pragma unroll
    for (int c = 0; c < counters; ++c) {
        const Words words = words_of(p, at / 4 + c);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const W factor = words.at[i] < p.limit ? kept : W(0);
            values[4 * c + i] = narrow<T>(widen(values[4 * c + i]) * factor);
        }
    }
    put(p, at, values);
}

#define RANDOM_KERNELS(K)                                     \
    K(philox_bits, Draw, draw_bits, 256)                      \
    K(uniform_float32, Draw, uniform_four, 256)               \
    K(uniform_float64, Draw, uniform_two, 256)                \
    K(normal_float32, Draw, normal_four, 256)                 \
    K(normal_float64, Draw, normal_two, 256)                  \
    K(bernoulli, Draw, draw_bernoulli, 256)                   \
    FOR_FLOATS(K, bernoulli_of, Draw, draw_bernoulli_of, 256) \
    K(randint, Draw, draw_randint, 256)                       \
    FOR_FLOATS(K, dropout, Draw, drop, 256)
RANDOM_KERNELS(KERNEL)
