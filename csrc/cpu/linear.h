// Arguments of linear_backward; see linear.cpp.
#pragma once

#include <cstddef>

#include "gemm.h"

// Gradients of activation(x W^T + bias): W (outer, inner), x (rows, inner), g (rows, outer).
template <typename T>
struct LinearBackward {
    std::ptrdiff_t rows, outer, inner;
    const T* g;  // unit column step
    std::ptrdiff_t g_row;
    const T* x;  // only for dweight; any steps
    std::ptrdiff_t x_row, x_col;
    const T* weight;  // only for dx; any steps
    std::ptrdiff_t w_row, w_col;
    // (rows, outer), contiguous: what the derivative of the activation is a function of
    Activation activation;
    const T* kept;
    // contiguous; null where it is not wanted
    T *dx, *dweight, *dbias;
};
