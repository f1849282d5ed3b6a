// Sums: of rows of a matrix, of columns, of everything.
//
// Contract: kernels.h. Sums are taken in blocks of fixed size, whose sums are added in order:
// rounding errors do not grow with the number of terms, and results do not depend on the number of
// threads.
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
    const bool whole = n == lanes<T>;
    vec<T> total{}, large{};
    for (ptrdiff_t at = 0, block = 1; at < rows; at += BLOCK, block++) {
        const ptrdiff_t end = rows < at + BLOCK ? rows : at + BLOCK;
        vec<T> sum{};
        for (ptrdiff_t i = at; i < end; i++)
            sum += whole ? load(x + i * x_row) : load_part(x + i * x_row, n);
        large += sum;
        if (block % BLOCK == 0) {
            total += large;
            large = vec<T>{};
        }
    }
    store_part(out, total + large, n);
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

constexpr ptrdiff_t PIECE = 4096;       // elements whose sum is taken in vectors
constexpr ptrdiff_t PART = 16 * PIECE;  // of a long sum, a task

float piece_sum(const float* x, ptrdiff_t n) {
    constexpr int L = lanes<float>;
    vec<float> sum[8] = {};
    ptrdiff_t i = 0;
    for (; i + 8 * L <= n; i += 8 * L) {
#pragma GCC unroll 8
        for (int j = 0; j < 8; j++) sum[j] += load(x + i + j * L);
    }
    for (; i + L <= n; i += L) sum[0] += load(x + i);
    if (i < n) sum[1] += load_part(x + i, int(n - i));
    for (int step = 4; step; step /= 2)
        for (int j = 0; j < step; j++) sum[j] += sum[j + step];
    return reduce_add<float>(sum[0]);
}

double long_sum(const float* x, ptrdiff_t n) {
    double total = 0;
    for (ptrdiff_t at = 0; at < n; at += PIECE)
        total += double(piece_sum(x + at, n - at < PIECE ? n - at : PIECE));
    return total;
}

}  // namespace

void row_sums_f32(float* out, const float* x, ptrdiff_t rows, ptrdiff_t n) {
    const ptrdiff_t parts = (n + PART - 1) / PART;
    if (parts < 4) {
        const ptrdiff_t group = n < PART ? PART / (n ? n : 1) : 1;
        parallel_for((rows + group - 1) / group, [&](ptrdiff_t t) {
            const ptrdiff_t end = rows < (t + 1) * group ? rows : (t + 1) * group;
            for (ptrdiff_t r = t * group; r < end; r++) out[r] = float(long_sum(x + r * n, n));
        });
        return;
    }
    Scratch<double> sums(parts);
    for (ptrdiff_t r = 0; r < rows; r++) {
        parallel_for(parts, [&](ptrdiff_t t) {
            const ptrdiff_t at = t * PART;
            sums.get()[t] = long_sum(x + r * n + at, n - at < PART ? n - at : PART);
        });
        double total = 0;
        for (ptrdiff_t t = 0; t < parts; t++) total += sums.get()[t];
        out[r] = float(total);
    }
}

void sum_rows_f32(float* out, const float* x, ptrdiff_t x_row, ptrdiff_t rows, ptrdiff_t n) {
    sum_rows(out, x, x_row, rows, n);
}
void sum_rows_f64(double* out, const double* x, ptrdiff_t x_row, ptrdiff_t rows, ptrdiff_t n) {
    sum_rows(out, x, x_row, rows, n);
}

}  // namespace KERNEL_ISA
