// Matrix product C = A B, the shape of one call; see gemm.cpp.
#pragma once

#include <cstddef>

enum class Activation { none, relu, gelu, gelu_tanh, silu, tanh, sigmoid };

// C (m, n) = A (m, k) B (k, n), or C += A B; row and column steps are in elements and may be
// anything for A and B (0 and negative too); C has unit column step and overlaps neither.
// bias: n values added to every row, or null. activation: taken of every sum; where `pre` is not
// null, it holds the sums, with C's row step, and C their activation. packed: B as pack_weight lays
// it out, or null; only where takes_packed says so.
template <typename T>
struct GemmCall {
    std::ptrdiff_t m, n, k;
    const T* a;
    std::ptrdiff_t a_row, a_col;
    const T* b;
    std::ptrdiff_t b_row, b_col;
    T* c;
    std::ptrdiff_t c_row;
    const T* bias;
    bool accumulate;
    Activation activation = Activation::none;
    T* pre = nullptr;
    const T* packed = nullptr;
};
