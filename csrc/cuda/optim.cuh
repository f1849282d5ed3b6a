// Optimiser steps, the norm of all gradients and their scaling: many parameters in a launch.
//
// Contract: minidl/backends/reference/optim.py, bit for bit: every product is rounded by itself.
// Arrays of 16-bit numbers are widened, computed on in float and rounded once. Limits on an H200 at
// 4.3 TB/s, per element of b bytes with states of s bytes: SGD 3 b, with momentum + 2 s; Adam
// 3 b + 4 s (28 bytes in float: 6.5 ns per 1,000); the squares b, the scaling 2 b. A square root,
// two divisions and 15 other operations of Adam are below that. The floor of small models is the
// launch, so the addresses of up to 64 parameters travel in the arguments of one.
//
// A block has 256 threads of 16 bytes of one parameter; it finds which in the list of first blocks.
// A block of the norm adds up 4,096 squares in double, one block adds up those sums.
#pragma once

#include "common/reduce.cuh"
#include "common/rounded.cuh"
#include "common/vec.cuh"

struct Step {
    const double* live;  // the numbers of this replay of a graph, or null
    double given[8];     // the same outside of graphs
    void *param[64], *grad[64], *first[64], *second[64], *third[64];  // grad is only read
    i64 size[64];
    i64 start[65];  // the first block of each parameter, and the number of blocks
    i64 params;
    i64 momentum, fresh, nesterov, maximize, decay, decoupled, amsgrad;  // flags
};

struct Gradients {
    void* out;           // of the squares: one sum per block
    const double* live;  // of the scaling: where the factor is, or null
    double factor;
    void* grad[160];
    i64 size[160];
    i64 start[161];
    i64 grads;
};

struct Total {
    const double* sums;
    double* out;
    i64 count;
};

// The array that this block works on: the last whose first block is not behind it.
__device__ inline int array_of_block(const i64* start, i64 arrays) {
    int low = 0, high = (int)arrays;
    while (high - low > 1) {
        const int middle = (low + high) / 2;
        if ((i64)blockIdx.x >= start[middle])
            low = middle;
        else
            high = middle;
    }
    return low;
}

// N neighbours, of which `count` are there, as numbers to compute on; and back.
template <int N, typename T, typename W>
__device__ inline void fetch(const T* from, int count, bool vec, W (&to)[N]) {
    const int size = Vec<T>::size;
    if (vec) {
#pragma unroll
        for (int v = 0; v < N / size; ++v) {
            const Vec<T> x = load_vec(from + v * size);
#pragma unroll
            for (int i = 0; i < size; ++i) to[v * size + i] = widen(x.at[i]);
        }
    } else {
#pragma unroll
        for (int i = 0; i < N; ++i) to[i] = i < count ? widen(from[i]) : W(0);
    }
}
template <int N, typename T, typename W>
__device__ inline void put_back(T* to, int count, bool vec, const W (&from)[N]) {
    const int size = Vec<T>::size;
    if (vec) {
#pragma unroll
        for (int v = 0; v < N / size; ++v) {
            Vec<T> x;
#pragma unroll
            for (int i = 0; i < size; ++i) x.at[i] = narrow<T>(from[v * size + i]);
            store_vec(to + v * size, x);
        }
    } else {
#pragma unroll
        for (int i = 0; i < N; ++i)
            if (i < count) to[i] = narrow<T>(from[i]);
    }
}

// The elements of one thread.
template <int N>
struct Part {
    int array, count;
    i64 at;

    __device__ Part(const i64* start, const i64* sizes, i64 arrays) {
        array = array_of_block(start, arrays);
        at = (((i64)blockIdx.x - start[array]) * 256 + threadIdx.x) * N;
        const i64 rest = sizes[array] - at;
        count = rest < N ? (int)rest : N;
    }
};

// numbers: lr, momentum, 1 - dampening, weight decay. T: of parameter and gradient, S: of states.
template <typename T, typename S>
__device__ inline void sgd(const Step& p) {
    typedef typename Wide<T>::type W;
    const int N = Vec<T>::size;
    const double* number = p.live ? p.live : p.given;
    const W lr = (W)number[0], momentum = (W)number[1], damped = (W)number[2];
    const W decay = (W)number[3];
    const Part<N> part(p.start, p.size, p.params);
    if (part.count <= 0) return;
    T* param = (T*)p.param[part.array] + part.at;
    const T* grad = (const T*)p.grad[part.array] + part.at;
    S* first = (S*)p.first[part.array];
    const bool vec =
        part.count == N && in_vecs<T>(0, param, grad, first);  // part.at is a multiple of N
    if (first) first += part.at;
    W x[N], d[N], v[N];
    fetch(param, part.count, vec, x);
    fetch(grad, part.count, vec, d);
    if (p.momentum && !p.fresh) fetch(first, part.count, vec, v);
#pragma unroll
    for (int i = 0; i < N; ++i) {
        if (p.maximize) d[i] = -d[i];
        if (p.decay) d[i] = d[i] + times(x[i], decay);
        if (p.momentum) {
            v[i] = p.fresh ? d[i] : times(v[i], momentum) + times(d[i], damped);
            d[i] = p.nesterov ? d[i] + times(v[i], momentum) : v[i];
        }
        x[i] = x[i] - times(d[i], lr);
    }
    if (p.momentum) put_back(first, part.count, vec, v);
    put_back(param, part.count, vec, x);
}

// numbers: lr / (1 - beta1^t), sqrt(1 - beta2^t), 1 - lr * weight decay, beta1, beta2, eps,
// weight decay
template <typename T, typename S>
__device__ inline void adam(const Step& p) {
    typedef typename Wide<T>::type W;
    const int N = Vec<T>::size;
    const double* number = p.live ? p.live : p.given;
    const W step_size = (W)number[0], root = (W)number[1], shrink = (W)number[2];
    const W beta1 = (W)number[3], beta2 = (W)number[4], eps = (W)number[5];
    const W decay = (W)number[6];
    const W rest1 = (W)(1.0 - number[3]), rest2 = (W)(1.0 - number[4]);
    const bool near = number[3] > 0.5;
    const Part<N> part(p.start, p.size, p.params);
    if (part.count <= 0) return;
    T* param = (T*)p.param[part.array] + part.at;
    const T* grad = (const T*)p.grad[part.array] + part.at;
    S *average = (S*)p.first[part.array] + part.at, *square = (S*)p.second[part.array] + part.at;
    S* largest = p.amsgrad ? (S*)p.third[part.array] + part.at : nullptr;
    const bool vec =
        part.count == N && in_vecs<T>(0, param, grad, average, square) && (u64)largest % 16 == 0;
    W x[N], d[N], m[N], v[N], u[N];
    fetch(param, part.count, vec, x);
    fetch(grad, part.count, vec, d);
    fetch(average, part.count, vec, m);
    fetch(square, part.count, vec, v);
    if (p.amsgrad) fetch(largest, part.count, vec, u);
#pragma unroll
    for (int i = 0; i < N; ++i) {
        if (p.maximize) d[i] = -d[i];
        if (p.decay && p.decoupled)
            x[i] = times(x[i], shrink);
        else if (p.decay)
            d[i] = d[i] + times(x[i], decay);
        // from the end that is nearer, as the specification does
        const W apart = d[i] - m[i];
        m[i] = near ? m[i] + times(apart, rest1) : d[i] - times(apart, beta1);
        v[i] = times(v[i], beta2) + times(times(d[i], rest2), d[i]);
        if (p.amsgrad) u[i] = larger(u[i], v[i]);
        const W below = sqrt(p.amsgrad ? u[i] : v[i]) / root + eps;
        x[i] = x[i] - times(m[i], step_size) / below;
    }
    put_back(average, part.count, vec, m);
    put_back(square, part.count, vec, v);
    if (p.amsgrad) put_back(largest, part.count, vec, u);
    put_back(param, part.count, vec, x);
}

template <typename T>
__device__ inline void squares(const Gradients& p) {
    typedef typename Wide<T>::type W;
    const int N = Vec<T>::size, EACH = 4096;
    const int array = array_of_block(p.start, p.grads);
    const T* grad = (const T*)p.grad[array];
    const bool aligned = in_vecs<T>(0, grad);
    const i64 begin = ((i64)blockIdx.x - p.start[array]) * EACH;
    const i64 end = smaller(begin + EACH, p.size[array]);
    double sum = 0;
    for (i64 at = begin + threadIdx.x * N; at < end; at += 256 * N) {
        const int count = end - at < N ? (int)(end - at) : N;
        W x[N];
        fetch(grad + at, count, aligned && count == N, x);
#pragma unroll
        for (int i = 0; i < N; ++i) sum += (double)x[i] * (double)x[i];
    }
    sum = block_reduce(sum, Sum(), 0.0);
    if (threadIdx.x == 0) ((double*)p.out)[blockIdx.x] = sum;
}

__device__ inline void root_of_total(const Total& p) {
    double sum = 0;
    for (i64 i = threadIdx.x; i < p.count; i += blockDim.x) sum += p.sums[i];
    sum = block_reduce(sum, Sum(), 0.0);
    if (threadIdx.x == 0) *p.out = sqrt(sum);
}

template <typename T>
__device__ inline void scale(const Gradients& p) {
    typedef typename Wide<T>::type W;
    const int N = Vec<T>::size;
    const W factor = (W)(p.live ? *p.live : p.factor);
    const Part<N> part(p.start, p.size, p.grads);
    if (part.count <= 0) return;
    T* grad = (T*)p.grad[part.array] + part.at;
    const bool vec = part.count == N && in_vecs<T>(0, grad);
    W x[N];
    fetch(grad, part.count, vec, x);
#pragma unroll
    for (int i = 0; i < N; ++i) x[i] = x[i] * factor;
    put_back(grad, part.count, vec, x);
}

// float16_float32: parameters and gradients of float16, states of float32
#define FOR_STATES(K, name, function)                                      \
    K(name##_float32_float32, Step, (function<float, float>), 256)         \
    K(name##_float64_float64, Step, (function<double, double>), 256)       \
    K(name##_float16_float16, Step, (function<float16, float16>), 256)     \
    K(name##_float16_float32, Step, (function<float16, float>), 256)       \
    K(name##_bfloat16_bfloat16, Step, (function<bfloat16, bfloat16>), 256) \
    K(name##_bfloat16_float32, Step, (function<bfloat16, float>), 256)

#define OPTIM_KERNELS(K)                                   \
    FOR_STATES(K, sgd, sgd)                                \
    FOR_STATES(K, adam, adam)                              \
    K(squares_float32, Gradients, squares<float>, 256)     \
    K(squares_float16, Gradients, squares<float16>, 256)   \
    K(squares_bfloat16, Gradients, squares<bfloat16>, 256) \
    K(root_of_sum, Total, root_of_total, 1024)             \
    FOR_FLOATS(K, scale, Gradients, scale, 256)
OPTIM_KERNELS(KERNEL)
