// What matrix products do to a block of their result once it is summed; included by gemm.cpp.
#pragma once

#include "activation.h"
#include "gemm.h"
#include "pointwise.h"

namespace KERNEL_ISA {

// For one number of double precision the C library is as fast as a polynomial.
inline double relu(double x) {
    return x <= 0 ? 0 : x;
}
inline double gelu(double x) {
    return 0.5 * x * __builtin_erfc(-0.70710678118654752 * x);
}
inline double gelu_tanh(double x) {
    constexpr double RATE = 1.5957691216057308;  // 2 sqrt(2 / pi)
    return x / (1 + __builtin_exp(-RATE * x * (1 + 0.044715 * x * x)));
}
inline double silu(double x) {
    return x / (1 + __builtin_exp(-x));
}
inline double tanh(double x) {
    return __builtin_tanh(x);
}
inline double sigmoid(double x) {
    return 1 / (1 + __builtin_exp(-x));
}

namespace {

// out (m, n) = f(in), of one row step; out may be in.
template <typename F>
ALWAYS_INLINE void each(std::ptrdiff_t m, std::ptrdiff_t n, const float* in, float* out,
                        std::ptrdiff_t row, const F& f) {
    if (n == row) {
        n *= m;
        m = 1;
    }
    for (std::ptrdiff_t i = 0; i < m; i++) span(out + i * row, 0, n, f, in + i * row);
}
template <typename F>
ALWAYS_INLINE void each(std::ptrdiff_t m, std::ptrdiff_t n, const double* in, double* out,
                        std::ptrdiff_t row, const F& f) {
    for (std::ptrdiff_t i = 0; i < m; i++)
        for (std::ptrdiff_t j = 0; j < n; j++) out[i * row + j] = f(in[i * row + j]);
}

// The same bits as the kernels of these names give.
template <typename T>
void activate(Activation which, std::ptrdiff_t m, std::ptrdiff_t n, const T* in, T* out,
              std::ptrdiff_t row) {
    switch (which) {
        case Activation::none:
            return;
        case Activation::relu:
            return each(m, n, in, out, row, [](auto x) { return relu(x); });
        case Activation::gelu:
            return each(m, n, in, out, row, [](auto x) { return gelu(x); });
        case Activation::gelu_tanh:
            return each(m, n, in, out, row, [](auto x) { return gelu_tanh(x); });
        case Activation::silu:
            return each(m, n, in, out, row, [](auto x) { return silu(x); });
        case Activation::tanh:
            return each(m, n, in, out, row, [](auto x) { return tanh(x); });
        case Activation::sigmoid:
            return each(m, n, in, out, row, [](auto x) { return sigmoid(x); });
    }
}

}  // namespace
}  // namespace KERNEL_ISA
