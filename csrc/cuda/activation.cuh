// Activations and their gradients; a bias and the activation behind it; the gradient of both.
//
// Contract: minidl/backends/reference/activation.py, and of `linear` there. Computed in float
// (double for double), rounded once. Limits on an H200 per element of b bytes: 2 b / 4.3 TB/s
// forward, 3 b backward; an erf or tanh takes some twenty multiply-adds and one or two of the
// exponential unit's 3.7e12 per second, below that for any dtype but in float64.
//
// Elements: a thread takes four vectors of 16 bytes, all of whose loads come before the first
// store. Bias: the same over rows, with the column of an element from one division per vector.
// Gradient with bias: a block takes `lanes` vectors of columns and `length` rows, 256 / lanes at a
// time, and leaves the sums of its columns in a workspace (parts, width), which a second launch
// adds up likewise: the order depends on the shape alone, and narrow matrices keep all threads
// busy.
#pragma once

#include "common/rows.cuh"

struct Pointwise {
    const void *x, *g;  // g: the gradient of the result, of the backward kernels
    void* out;
    i64 size;
    double a, b;  // of softplus: beta and threshold
};

struct Bias {
    const void *x, *bias;  // x: what the bias is added to; of the gradient: what `linear` kept
    const void* g;
    void *out, *kept;  // kept: the sum before the activation, if it is wanted; sums of columns
    i64 rows, width;
    i64 length, lanes;  // of the gradient: rows and vectors of columns of a block
};

// ---------------------------------------------------------------- functions

struct Relu {
    template <typename W>
    static __device__ W value(W x) {
        return x < 0 ? W(0) : x;
    }
    template <typename W>  // of the result
    static __device__ W slope(W g, W out) {
        return out <= 0 ? W(0) : g;
    }
};

struct Sigmoid {
    template <typename W>
    static __device__ W value(W x) {
        return 1 / (1 + exp(-x));
    }
    template <typename W>  // of the result
    static __device__ W slope(W g, W out) {
        return (1 - out) * out * g;
    }
};

struct Tanh {
    template <typename W>
    static __device__ W value(W x) {
        return tanh(x);
    }
    template <typename W>  // of the result
    static __device__ W slope(W g, W out) {
        return (1 - out * out) * g;
    }
};

struct Silu {
    template <typename W>
    static __device__ W value(W x) {
        return x / (1 + exp(-x));
    }
    template <typename W>
    static __device__ W slope(W g, W x) {
        const W s = Sigmoid::value(x);
        return ((1 - s) * x + 1) * s * g;
    }
};

// So far from 0 the derivative of gelu is 0 or 1, and no product of 0 and an infinity is left.
template <typename W>
__device__ inline W within_40(W x) {
    return x < -40 ? W(-40) : x > 40 ? W(40) : x;
}

struct Gelu {
    template <typename W>
    static __device__ W value(W x) {
        return (erf(x * W(0.70710678118654752440)) + 1) * x * W(0.5);
    }
    template <typename W>
    static __device__ W slope(W g, W x) {
        const W u = x * W(0.70710678118654752440);
        const W density = exp(-u * u) * within_40(x) * W(0.39894228040143267794);
        return ((erf(u) + 1) * W(0.5) + density) * g;
    }
};

struct GeluTanh {
    template <typename W>
    static __device__ W value(W x) {
        const W u = (x * x * W(CUBE) + W(RATE)) * x;
        return (tanh(u) + 1) * x * W(0.5);
    }
    template <typename W>
    static __device__ W slope(W g, W x) {
        const W a = within_40(x), square = a * a;
        const W t = tanh((square * W(CUBE) + W(RATE)) * a);
        const W inner = (square * W(3 * CUBE) + W(RATE)) * a;
        return ((1 - t * t) * inner + t + 1) * W(0.5) * g;
    }

  private:
    static constexpr double RATE = 0.79788456080286535588;  // sqrt(2 / pi)
    static constexpr double CUBE = 0.044715 * RATE;
};

struct LogSigmoid {
    template <typename W>
    static __device__ W value(W x) {
        return (x < 0 ? x : W(0)) - log1p(exp(smaller(x, -x)));
    }
};

// ---------------------------------------------------------------- elements

const int VECTORS = 4;  // of a thread

// The first element of vector `i` of this thread.
template <typename T>
__device__ inline i64 place_of(int i) {
    return (((i64)blockIdx.x * VECTORS + i) * blockDim.x + threadIdx.x) * Vec<T>::size;
}

// The elements from `at` on that there are; the others have any value.
template <typename T>
__device__ inline Vec<T> load_some(const T* x, i64 at, i64 size, bool vec) {
    Vec<T> found{};
    if (vec && at + Vec<T>::size <= size) return load_vec(x + at);
#pragma unroll
    for (int j = 0; j < Vec<T>::size; ++j)
        if (at + j < size) found.at[j] = x[at + j];
    return found;
}
template <typename T>
__device__ inline void store_some(T* x, i64 at, i64 size, bool vec, const Vec<T>& value) {
    if (vec && at + Vec<T>::size <= size) {
        store_vec(x + at, value);
        return;
    }
#pragma unroll
    for (int j = 0; j < Vec<T>::size; ++j)
        if (at + j < size) x[at + j] = value.at[j];
}

template <typename F, typename T>
__device__ inline void forward(const Pointwise& p) {
    const T* x = (const T*)p.x;
    const bool vec = in_vecs<T>(0, p.x, p.out);
    Vec<T> values[VECTORS];
#pragma unroll
    for (int i = 0; i < VECTORS; ++i) values[i] = load_some(x, place_of<T>(i), p.size, vec);
#pragma unroll
    for (int i = 0; i < VECTORS; ++i) {
#pragma unroll
        for (int j = 0; j < Vec<T>::size; ++j)
            values[i].at[j] = narrow<T>(F::value(widen(values[i].at[j])));
        store_some((T*)p.out, place_of<T>(i), p.size, vec, values[i]);
    }
}

// x is what the slope is a function of: the input, or of some the result.
template <typename F, typename T>
__device__ inline void backward(const Pointwise& p) {
    const T *x = (const T*)p.x, *g = (const T*)p.g;
    const bool vec = in_vecs<T>(0, p.x, p.out, p.g);
#pragma unroll
    for (int half = 0; half < VECTORS; half += 2) {  // two inputs: as many loads as above
        Vec<T> values[2], slopes[2];
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            values[i] = load_some(x, place_of<T>(half + i), p.size, vec);
            slopes[i] = load_some(g, place_of<T>(half + i), p.size, vec);
        }
#pragma unroll
        for (int i = 0; i < 2; ++i) {
#pragma unroll
            for (int j = 0; j < Vec<T>::size; ++j)
                values[i].at[j] =
                    narrow<T>(F::slope(widen(slopes[i].at[j]), widen(values[i].at[j])));
            store_some((T*)p.out, place_of<T>(half + i), p.size, vec, values[i]);
        }
    }
}

template <typename T>
__device__ inline void softplus(const Pointwise& p) {
    typedef typename Wide<T>::type W;
    const T* x = (const T*)p.x;
    const bool vec = in_vecs<T>(0, p.x, p.out);
    const W beta = (W)p.a, threshold = (W)p.b;
    Vec<T> values[VECTORS];
#pragma unroll
    for (int i = 0; i < VECTORS; ++i) values[i] = load_some(x, place_of<T>(i), p.size, vec);
#pragma unroll
    for (int i = 0; i < VECTORS; ++i) {
#pragma unroll
        for (int j = 0; j < Vec<T>::size; ++j) {
            const W given = widen(values[i].at[j]), scaled = given * beta;
            const W above = scaled < 0 ? W(0) : scaled;
            const W soft = (above + log1p(exp(smaller(scaled, -scaled)))) / beta;
            values[i].at[j] = narrow<T>(scaled > threshold ? given : soft);
        }
        store_some((T*)p.out, place_of<T>(i), p.size, vec, values[i]);
    }
}

// ---------------------------------------------------------------- with a bias

struct Same {  // no activation
    template <typename W>
    static __device__ W value(W x) {
        return x;
    }
    template <typename W>
    static __device__ W slope(W g, W) {
        return g;
    }
};

// out = F(x + bias), kept = x + bias; out and kept may be x itself.
template <typename F, typename T>
__device__ inline void biased(const Bias& p) {
    typedef typename Wide<T>::type W;
    const i64 size = p.rows * p.width;
    const T *x = (const T*)p.x, *bias = (const T*)p.bias;
    const bool vec = in_vecs<T>(0, p.x, p.out, p.kept);
    Vec<T> values[VECTORS];
#pragma unroll
    for (int i = 0; i < VECTORS; ++i) values[i] = load_some(x, place_of<T>(i), size, vec);
#pragma unroll
    for (int i = 0; i < VECTORS; ++i) {
        const i64 at = place_of<T>(i);
        if (at >= size) return;
        Vec<T> sums{};
        i64 column = at % p.width;
#pragma unroll
        for (int j = 0; j < Vec<T>::size; ++j) {
            const W sum = widen(values[i].at[j]) + (bias ? widen(bias[column]) : W(0));
            sums.at[j] = narrow<T>(sum);
            values[i].at[j] = narrow<T>(F::value(sum));
            if (++column == p.width) column = 0;
        }
        if (p.kept) store_some((T*)p.kept, at, size, vec, sums);
        store_some((T*)p.out, at, size, vec, values[i]);
    }
}

// out = the slope of F times g, and kept (parts, width): the sums of its columns over `length`
// rows each.
template <typename F, typename T>
__device__ inline void biased_backward(const Bias& p) {
    typedef Vec<T> V;
    const int threads = 256, lanes = (int)p.lanes, strips = threads / lanes;
    SHARED(T, sums, threads * V::size);
    const i64 tiles = (p.width + lanes * V::size - 1) / (lanes * V::size);
    const i64 part = blockIdx.x / tiles, tile = blockIdx.x % tiles;
    const int thread = threadIdx.x, strip = thread / lanes;
    const i64 column = (tile * lanes + thread % lanes) * V::size;
    const bool vec = in_vecs<T>(p.width, p.x, p.out, p.g);
    const i64 first = part * p.length, last = smaller(first + p.length, p.rows);
    V total{};
    const int count = column < p.width ? (int)smaller(p.width - column, (i64)V::size) : 0;
    if (count)
        for (i64 at = (first + strip) * p.width + column; at < last * p.width;
             at += strips * p.width) {
            V kept{}, g = load_some((const T*)p.g, at, at + count, vec);
            if (p.x) kept = load_some((const T*)p.x, at, at + count, vec);
#pragma unroll
            for (int j = 0; j < V::size; ++j) {
                g.at[j] = F::slope(g.at[j], kept.at[j]);
                total.at[j] += g.at[j];
            }
            if (p.out) store_some((T*)p.out, at, at + count, vec, g);
        }
#pragma unroll
    for (int j = 0; j < V::size; ++j) sums[j * threads + thread] = total.at[j];
    for (int half = strips / 2; half; half /= 2) {  // the lower half of the strips takes the upper
        __syncthreads();
        if (strip < half) {
#pragma unroll
            for (int j = 0; j < V::size; ++j)
                sums[j * threads + thread] += sums[j * threads + thread + half * lanes];
        }
    }
    if (strip) return;
#pragma unroll
    for (int j = 0; j < V::size; ++j)
        if (j < count) ((T*)p.kept)[part * p.width + column + j] = sums[j * threads + thread];
}

#define FOR_FUNCTIONS(K, T, suffix)                                      \
    K(relu_##suffix, Pointwise, (forward<Relu, T>), 256)                 \
    K(sigmoid_##suffix, Pointwise, (forward<Sigmoid, T>), 256)           \
    K(silu_##suffix, Pointwise, (forward<Silu, T>), 256)                 \
    K(gelu_##suffix, Pointwise, (forward<Gelu, T>), 256)                 \
    K(gelu_tanh_##suffix, Pointwise, (forward<GeluTanh, T>), 256)        \
    K(log_sigmoid_##suffix, Pointwise, (forward<LogSigmoid, T>), 256)    \
    K(softplus_##suffix, Pointwise, softplus<T>, 256)                    \
    K(relu_backward_##suffix, Pointwise, (backward<Relu, T>), 256)       \
    K(sigmoid_backward_##suffix, Pointwise, (backward<Sigmoid, T>), 256) \
    K(tanh_backward_##suffix, Pointwise, (backward<Tanh, T>), 256)       \
    K(silu_backward_##suffix, Pointwise, (backward<Silu, T>), 256)       \
    K(gelu_backward_##suffix, Pointwise, (backward<Gelu, T>), 256)       \
    K(gelu_tanh_backward_##suffix, Pointwise, (backward<GeluTanh, T>), 256)
#define FOR_BIASES(K, T, suffix)                                                \
    K(bias_##suffix, Bias, (biased<Same, T>), 256)                              \
    K(bias_relu_##suffix, Bias, (biased<Relu, T>), 256)                         \
    K(bias_sigmoid_##suffix, Bias, (biased<Sigmoid, T>), 256)                   \
    K(bias_tanh_##suffix, Bias, (biased<Tanh, T>), 256)                         \
    K(bias_silu_##suffix, Bias, (biased<Silu, T>), 256)                         \
    K(bias_gelu_##suffix, Bias, (biased<Gelu, T>), 256)                         \
    K(bias_gelu_tanh_##suffix, Bias, (biased<GeluTanh, T>), 256)                \
    K(bias_backward_##suffix, Bias, (biased_backward<Same, T>), 256)            \
    K(bias_relu_backward_##suffix, Bias, (biased_backward<Relu, T>), 256)       \
    K(bias_sigmoid_backward_##suffix, Bias, (biased_backward<Sigmoid, T>), 256) \
    K(bias_tanh_backward_##suffix, Bias, (biased_backward<Tanh, T>), 256)       \
    K(bias_silu_backward_##suffix, Bias, (biased_backward<Silu, T>), 256)       \
    K(bias_gelu_backward_##suffix, Bias, (biased_backward<Gelu, T>), 256)       \
    K(bias_gelu_tanh_backward_##suffix, Bias, (biased_backward<GeluTanh, T>), 256)
#define ACTIVATION_KERNELS(K)            \
    FOR_FUNCTIONS(K, float, float32)     \
    FOR_FUNCTIONS(K, double, float64)    \
    FOR_FUNCTIONS(K, float16, float16)   \
    FOR_FUNCTIONS(K, bfloat16, bfloat16) \
    FOR_BIASES(K, float, float32)        \
    FOR_BIASES(K, double, float64)
ACTIVATION_KERNELS(KERNEL)
