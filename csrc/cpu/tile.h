// The register tiles of gemm.cpp, for kernels that multiply small blocks of their own.
#pragma once

#include "simd.h"

namespace KERNEL_ISA {

#if defined(__AVX512F__)
constexpr int NV_MAX = 4;
#else
constexpr int NV_MAX = 2;
#endif

// The widest block of columns that a tile takes.
template <typename T>
constexpr int SLIVER = NV_MAX * lanes<T>;

// C (m, n) = A B, or C += A B; n <= SLIVER<T>. A (m, k) may have any steps. B (k, n) has unit
// column step; `packed` says that its rows may be read up to the next whole vector. `first`: A was
// not read before.
template <typename T>
void sliver_product(std::ptrdiff_t m, int n, std::ptrdiff_t k, const T* a, std::ptrdiff_t a_row,
                    std::ptrdiff_t a_col, const T* b, std::ptrdiff_t b_row, bool packed, T* c,
                    std::ptrdiff_t c_row, const T* bias, bool accumulate, bool first = false);

// `to` (k, width), contiguous, from B (k, n <= width) with any steps; the columns from n on are 0.
template <typename T>
void pack(std::ptrdiff_t k, int n, int width, const T* b, std::ptrdiff_t b_row,
          std::ptrdiff_t b_col, T* to);

// C (m, n) = A B by dot products along k: unit column step of A, unit row step of B.
template <typename T>
void dot_product(std::ptrdiff_t m, std::ptrdiff_t n, std::ptrdiff_t k, const T* a,
                 std::ptrdiff_t a_row, const T* b, std::ptrdiff_t b_col, T* c,
                 std::ptrdiff_t c_row);

// c (n) += a (k) B (k, n): one row; unit column step of B.
template <typename T>
void row_product(std::ptrdiff_t n, std::ptrdiff_t k, const T* a, std::ptrdiff_t a_col, const T* b,
                 std::ptrdiff_t b_row, T* c);

}  // namespace KERNEL_ISA
