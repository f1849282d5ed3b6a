// Sums: of rows of a matrix, of columns, of everything.
//
// Contract: kernels.h. Sums are taken in float over blocks of fixed size and in double over the
// blocks: rounding errors do not grow with the number of terms, and results do not depend on the
// number of threads.
//
// Algorithm: memory is read in eight places at once, which is faster than one after the other (64
// MB: 2.7 ms, not 3.7): eight rows side by side, or eight pieces of a long one. The sum over rows
// adds eight rows at a time, a strip of columns wide, to a block sum that stays in the first level
// cache (4096 x 4096: 3.1 ms; four vectors wide down all rows: 18.6 ms). Limits: reads x once; one
// addition per element.
#include "bfloat.h"
#include "kernels.h"
#include "parallel.h"

namespace KERNEL_ISA {
namespace {

using std::ptrdiff_t;

// What elements of T are added up in, and how they are read.
template <typename T>
struct sum_of_type {
    using type = float;
};
template <>
struct sum_of_type<double> {
    using type = double;
};
template <typename T>
using summed = typename sum_of_type<T>::type;

ALWAYS_INLINE vec<double> wide(const double* p) {
    return load(p);
}
ALWAYS_INLINE vec<double> wide(const double* p, int n) {
    return load_part(p, n);
}

// Elements of T in a register, and their sum added to that of the lanes, in whatever order.
template <typename T>
constexpr ptrdiff_t held = WIDTH / ptrdiff_t(sizeof(T));
ALWAYS_INLINE vf plus(vf sum, const float* p) {
    return sum + load(p);
}
ALWAYS_INLINE vf plus(vf sum, const bfloat16* p) {
    vu pairs;
    std::memcpy(&pairs, p, sizeof(pairs));
    return sum + ((vf)(pairs << 16) + (vf)(pairs & 0xffff0000));
}

template <typename T>
T result(double total) {
    if constexpr (sizeof(T) == sizeof(double))
        return total;
    else
        return narrowed<T>(float(total));
}

// ---------------------------------------------------------------- over rows

constexpr ptrdiff_t BLOCK = 64;       // rows whose sum is taken before it joins the others
constexpr ptrdiff_t TOGETHER = 8;     // rows that are read side by side
constexpr ptrdiff_t STRIP = 2048;     // columns
constexpr ptrdiff_t WORTH = 1 << 16;  // elements of a task, about
constexpr ptrdiff_t SHARES = 32;      // of the rows, at most, where the columns are few

// sum (n <= STRIP) = the sum of up to TOGETHER rows of x, added to what is there if `add`.
template <typename T>
void add_rows(summed<T>* sum, const T* x, ptrdiff_t x_row, ptrdiff_t rows, ptrdiff_t n, bool add) {
    using S = summed<T>;
    constexpr int L = lanes<S>;
    ptrdiff_t j = 0;
    if (rows == TOGETHER)
        for (; j + L <= n; j += L) {
            vec<S> part[TOGETHER];
#pragma GCC unroll 8
            for (int i = 0; i < TOGETHER; i++) part[i] = wide(x + i * x_row + j);
            const vec<S> low = (part[0] + part[1]) + (part[2] + part[3]),
                         high = (part[4] + part[5]) + (part[6] + part[7]);
            store(sum + j, add ? load(sum + j) + (low + high) : low + high);
        }
    for (; j < n; j += L) {
        const int part = n - j < L ? int(n - j) : L;
        vec<S> total = add ? load_part(sum + j, part) : vec<S>{};
        for (ptrdiff_t i = 0; i < rows; i++) total += wide(x + i * x_row + j, part);
        store_part(sum + j, total, part);
    }
}

// total (n <= STRIP) = the sum of the rows of x.
template <typename T>
void add_blocks(double* total, const T* x, ptrdiff_t x_row, ptrdiff_t rows, ptrdiff_t n) {
    alignas(64) summed<T> sum[STRIP];
    for (ptrdiff_t j = 0; j < n; j++) total[j] = 0.0;
    for (ptrdiff_t at = 0; at < rows; at += BLOCK) {
        const ptrdiff_t end = rows < at + BLOCK ? rows : at + BLOCK;
        for (ptrdiff_t i = at; i < end; i += TOGETHER)
            add_rows(sum, x + i * x_row, x_row, end - i < TOGETHER ? end - i : TOGETHER, n, i > at);
        for (ptrdiff_t j = 0; j < n; j++) total[j] += double(sum[j]);
    }
}

template <typename T>
void sum_rows(T* out, const T* x, ptrdiff_t x_row, ptrdiff_t rows, ptrdiff_t n) {
    const ptrdiff_t strips = (n + STRIP - 1) / STRIP, worth = rows * n / WORTH;
    const ptrdiff_t most = (rows + BLOCK - 1) / BLOCK, wanted = worth < SHARES ? worth : SHARES;
    ptrdiff_t shares = strips ? wanted / strips : 1;  // a strip is dealt out in so many parts
    shares = shares < 1 ? 1 : shares < most ? shares : most;
    const auto share = [&](ptrdiff_t t, double* total) {
        const ptrdiff_t s = t % strips, part = t / strips, column = s * STRIP;
        const ptrdiff_t from = most * part / shares * BLOCK,
                        to = most * (part + 1) / shares * BLOCK;
        add_blocks(total, x + from * x_row + column, x_row, (to < rows ? to : rows) - from,
                   n - column < STRIP ? n - column : STRIP);
    };
    if (shares == 1) {
        parallel_for(strips, [&](ptrdiff_t s) {
            alignas(64) double total[STRIP];
            share(s, total);
            const ptrdiff_t column = s * STRIP, width = n - column < STRIP ? n - column : STRIP;
            for (ptrdiff_t j = 0; j < width; j++) out[column + j] = result<T>(total[j]);
        });
        return;
    }
    Scratch<double> totals(shares * strips * STRIP);
    parallel_for(shares * strips, [&](ptrdiff_t t) { share(t, totals.get() + t * STRIP); });
    for (ptrdiff_t j = 0; j < n; j++) {
        double total = 0.0;
        for (ptrdiff_t part = 0; part < shares; part++)
            total += totals.get()[part * strips * STRIP + j];
        out[j] = result<T>(total);
    }
}

// ---------------------------------------------------------------- of rows

constexpr ptrdiff_t RUN = 64 * lanes<float>;  // elements that one vector adds up
constexpr ptrdiff_t PIECE = 4096;
constexpr ptrdiff_t PART = 8 * PIECE;             // of a long sum, a task
constexpr ptrdiff_t MEMORY = ptrdiff_t(1) << 21;  // elements that the caches do not hold, about

// The sums of R runs of n elements, `apart` from each other, side by side.
template <int R, typename T>
void sums_of(double* total, const T* x, ptrdiff_t apart, ptrdiff_t n) {
    constexpr int L = lanes<float>;
    constexpr ptrdiff_t W = held<T>;
    for (int k = 0; k < R; k++) total[k] = 0.0;
    for (ptrdiff_t at = 0; at < n; at += RUN) {
        const ptrdiff_t end = n < at + RUN ? n : at + RUN;
        vec<float> sum[R] = {};
        ptrdiff_t i = at;
        for (; i + W <= end; i += W) {
#pragma GCC unroll 8
            for (int k = 0; k < R; k++) sum[k] = plus(sum[k], x + k * apart + i);
        }
        for (; i < end; i += L) {
            const int part = end - i < L ? int(end - i) : L;
#pragma GCC unroll 8
            for (int k = 0; k < R; k++) sum[k] += wide(x + k * apart + i, part);
        }
#pragma GCC unroll 8
        for (int k = 0; k < R; k++) total[k] += double(reduce_add<float>(sum[k]));
    }
}

// The sum of n elements, one after the other.
template <typename T>
double sum_of(const T* x, ptrdiff_t n) {
    constexpr int L = lanes<float>;
    constexpr ptrdiff_t W = held<T>;
    double total = 0.0;
    for (ptrdiff_t i = 0; i < n;) {
        const ptrdiff_t end = n < i + PIECE ? n : i + PIECE;
        vec<float> sum[8] = {};
        for (; i + 8 * W <= end; i += 8 * W) {
#pragma GCC unroll 8
            for (int j = 0; j < 8; j++) sum[j] = plus(sum[j], x + i + j * W);
        }
        for (; i < end; i += L) sum[0] += wide(x + i, end - i < L ? int(end - i) : L);
        total += double(reduce_add<float>(((sum[0] + sum[4]) + (sum[2] + sum[6])) +
                                          ((sum[1] + sum[5]) + (sum[3] + sum[7]))));
    }
    return total;
}

// Rows of up to PART elements.
template <typename T>
void short_rows(T* out, const T* x, ptrdiff_t rows, ptrdiff_t n, bool side_by_side) {
    double sums[8];
    ptrdiff_t r = 0;
    for (; side_by_side && r + 8 <= rows; r += 8) {
        sums_of<8>(sums, x + r * n, n, n);
        for (int k = 0; k < 8; k++) out[r + k] = result<T>(sums[k]);
    }
    for (; r < rows; r++) out[r] = result<T>(sum_of(x + r * n, n));
}

template <typename T>
void row_sums(T* out, const T* x, ptrdiff_t rows, ptrdiff_t n) {
    const bool side_by_side = rows * n >= MEMORY;
    if (n <= PART && rows >= 8) {
        const ptrdiff_t group = 8 * (n < PART / 8 ? PART / (8 * (n ? n : 1)) : 1);
        parallel_for((rows + group - 1) / group, [&](ptrdiff_t t) {
            const ptrdiff_t at = t * group, left = rows - at;
            short_rows(out + at, x + at * n, left < group ? left : group, n, side_by_side);
        });
        return;
    }
    const ptrdiff_t parts = n ? (n + PART - 1) / PART : 1;
    Scratch<double> sums(rows * parts);
    parallel_for(rows * parts, [&](ptrdiff_t t) {
        const ptrdiff_t at = t % parts * PART, size = n - at < PART ? n - at : PART;
        const T* from = x + t / parts * n + at;
        double pieces[8] = {};
        if (side_by_side && size == PART)
            sums_of<8>(pieces, from, PIECE, PIECE);
        else
            pieces[0] = sum_of(from, size);
        double total = 0.0;
        for (double piece : pieces) total += piece;
        sums.get()[t] = total;
    });
    for (ptrdiff_t r = 0; r < rows; r++) {
        double total = 0.0;
        for (ptrdiff_t t = 0; t < parts; t++) total += sums.get()[r * parts + t];
        out[r] = result<T>(total);
    }
}

}  // namespace

void row_sums_f32(float* out, const float* x, ptrdiff_t rows, ptrdiff_t n) {
    row_sums(out, x, rows, n);
}
void row_sums_bf16(bfloat16* out, const bfloat16* x, ptrdiff_t rows, ptrdiff_t n) {
    row_sums(out, x, rows, n);
}
void sum_rows_bf16(bfloat16* out, const bfloat16* x, ptrdiff_t x_row, ptrdiff_t rows, ptrdiff_t n) {
    sum_rows(out, x, x_row, rows, n);
}
void sum_rows_f32(float* out, const float* x, ptrdiff_t x_row, ptrdiff_t rows, ptrdiff_t n) {
    sum_rows(out, x, x_row, rows, n);
}
void sum_rows_f64(double* out, const double* x, ptrdiff_t x_row, ptrdiff_t rows, ptrdiff_t n) {
    sum_rows(out, x, x_row, rows, n);
}

}  // namespace KERNEL_ISA
