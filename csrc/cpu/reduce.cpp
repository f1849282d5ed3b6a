// Sums over rows.
//
// Contract: kernels.h. Rows are added in blocks of fixed size whose sums are added in order, so the
// error grows with the block and the number of blocks, and not with their product.
//
// Limits: reads x once; one addition per element.
#include "kernels.h"
#include "parallel.h"
#include "simd.h"

namespace KERNEL_ISA {
namespace {

using std::ptrdiff_t;

constexpr ptrdiff_t BLOCK = 64;  // rows whose sum is taken before it joins the others

template <typename T>
void sum_columns(T* out, const T* x, ptrdiff_t x_row, ptrdiff_t rows, int n) {
    vec<T> total{};
    const bool whole = n == lanes<T>;
    for (ptrdiff_t at = 0; at < rows; at += BLOCK) {
        const ptrdiff_t end = rows < at + BLOCK ? rows : at + BLOCK;
        vec<T> sum{};
        for (ptrdiff_t i = at; i < end; i++)
            sum += whole ? load(x + i * x_row) : load_part(x + i * x_row, n);
        total += sum;
    }
    store_part(out, total, n);
}

template <typename T>
void sum_rows(T* out, const T* x, ptrdiff_t x_row, ptrdiff_t rows, ptrdiff_t n) {
    constexpr ptrdiff_t STRIP = 4 * lanes<T>;
    const auto strip = [&](ptrdiff_t s) {
        const ptrdiff_t end = n < (s + 1) * STRIP ? n : (s + 1) * STRIP;
        for (ptrdiff_t j = s * STRIP; j < end; j += lanes<T>)
            sum_columns(out + j, x + j, x_row, rows, int(end - j < lanes<T> ? end - j : lanes<T>));
    };
    const ptrdiff_t strips = (n + STRIP - 1) / STRIP;
    if (rows * n < 1 << 16)
        for (ptrdiff_t s = 0; s < strips; s++) strip(s);
    else
        parallel_for(strips, strip);
}

}  // namespace

void sum_rows_f32(float* out, const float* x, ptrdiff_t x_row, ptrdiff_t rows, ptrdiff_t n) {
    sum_rows(out, x, x_row, rows, n);
}
void sum_rows_f64(double* out, const double* x, ptrdiff_t x_row, ptrdiff_t rows, ptrdiff_t n) {
    sum_rows(out, x, x_row, rows, n);
}

}  // namespace KERNEL_ISA
