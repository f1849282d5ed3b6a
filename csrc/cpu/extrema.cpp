// Largest and smallest elements of the rows and the columns of a matrix, float32 and bfloat16.
//
// Contract: kernels.h; there is at least one element to choose from. A NaN among them is the
// result. Which of 0 and -0 is found is open.
//
// Algorithm: maxima only; for minima the signs are turned as elements are read. What the caches do
// not hold is read in eight places at once, as in reduce.cpp. Limits: reads x once.
#include "bfloat.h"
#include "kernels.h"
#include "parallel.h"

namespace KERNEL_ISA {
namespace {

using std::ptrdiff_t;

constexpr ptrdiff_t PART = 32768;                 // elements of a task, about
constexpr ptrdiff_t STRIP = 2048;                 // columns
constexpr ptrdiff_t SHARES = 32;                  // of the rows, at most, where the columns are few
constexpr ptrdiff_t MEMORY = ptrdiff_t(1) << 21;  // elements that the caches do not hold, about

// The larger of both, NaN if one is: `max` gives its second operand where there is a NaN.
ALWAYS_INLINE vf larger(vf x, vf most) {
    return select(x == x, max(x, most), x);
}
template <bool SMALLEST>
ALWAYS_INLINE vf turned(vf x) {
    return SMALLEST ? -x : x;
}
template <bool SMALLEST>
ALWAYS_INLINE Two turned(Two x) {
    return {turned<SMALLEST>(x.first), turned<SMALLEST>(x.second)};
}
ALWAYS_INLINE Two larger(Two x, Two most) {
    return {larger(x.first, most.first), larger(x.second, most.second)};
}
template <int D = lanes<float> / 2>
ALWAYS_INLINE float largest(vf v) {
    v = larger(v, crossed<D>(v, std::make_integer_sequence<int, lanes<float>>{}));
    if constexpr (D > 1)
        return largest<D / 2>(v);
    else
        return v[0];
}

// ---------------------------------------------------------------- of rows

// Maxima of K runs of n >= 1 elements, `apart` from each other.
template <bool SMALLEST, int K, typename T>
void maxima(float* out, const T* x, ptrdiff_t apart, ptrdiff_t n) {
    constexpr int L = lanes<float>;
    vf most[K];
    for (int k = 0; k < K; k++) most[k] = splat(-__builtin_inff());
    ptrdiff_t i = 0;
    for (; i + 2 * L <= n; i += 2 * L) {
#pragma GCC unroll 8
        for (int k = 0; k < K; k++) {
            const Two two = turned<SMALLEST>(wide_two(x + k * apart + i));
            most[k] = larger(two.second, larger(two.first, most[k]));
        }
    }
    for (int k = 0; k < K; k++) {
        if (n < L) {
            vf few = turned<SMALLEST>(wide(x + k * apart, int(n)));
            for (int l = int(n); l < L; l++) few[l] = few[0];
            most[k] = few;
        }
        for (ptrdiff_t j = i; j < n && n >= L; j += L)  // the last once more: it is no larger
            most[k] =
                larger(turned<SMALLEST>(wide(x + k * apart + (j + L < n ? j : n - L))), most[k]);
        out[k] = largest(most[k]);
    }
}

// The maximum of n >= 1 elements, one after the other.
template <bool SMALLEST, typename T>
float maximum_of(const T* x, ptrdiff_t n) {
    constexpr int L = lanes<float>;
    const ptrdiff_t whole = n / (8 * L) * (8 * L);
    float most = -__builtin_inff();
    if (whole) {
        vf part[8];
        for (vf& p : part) p = splat(-__builtin_inff());
        for (ptrdiff_t i = 0; i < whole; i += 8 * L) {
#pragma GCC unroll 4
            for (int k = 0; k < 4; k++) {
                const Two two = turned<SMALLEST>(wide_two(x + i + 2 * k * L));
                part[2 * k] = larger(two.first, part[2 * k]);
                part[2 * k + 1] = larger(two.second, part[2 * k + 1]);
            }
        }
        for (int k = 4; k; k /= 2)
            for (int i = 0; i < k; i++) part[i] = larger(part[i + k], part[i]);
        most = largest(part[0]);
    }
    if (whole == n) return most;
    float rest;
    maxima<SMALLEST, 1>(&rest, x + whole, 0, n - whole);
    return rest > most || rest != rest ? rest : most;
}

template <bool SMALLEST, typename T>
void short_rows(T* out, const T* x, ptrdiff_t rows, ptrdiff_t n, bool side_by_side) {
    float found[8];
    ptrdiff_t r = 0;
    for (; side_by_side && r + 8 <= rows; r += 8) {
        maxima<SMALLEST, 8>(found, x + r * n, n, n);
        for (int k = 0; k < 8; k++) out[r + k] = narrowed<T>(SMALLEST ? -found[k] : found[k]);
    }
    for (; r < rows; r++) {
        const float most = maximum_of<SMALLEST>(x + r * n, n);
        out[r] = narrowed<T>(SMALLEST ? -most : most);
    }
}

template <bool SMALLEST, typename T>
void row_extremes(T* out, const T* x, ptrdiff_t rows, ptrdiff_t n) {
    const bool large = rows * n >= MEMORY;
    if (n <= PART && rows >= 8) {
        const ptrdiff_t group = 8 * (n < PART / 8 ? PART / (8 * n) : 1);
        const bool side_by_side = large || n < 16 * lanes<float>;
        parallel_for((rows + group - 1) / group, [&](ptrdiff_t t) {
            const ptrdiff_t at = t * group, left = rows - at;
            short_rows<SMALLEST>(out + at, x + at * n, left < group ? left : group, n,
                                 side_by_side);
        });
        return;
    }
    const ptrdiff_t parts = (n + PART - 1) / PART;
    Scratch<float> all(rows * parts);
    parallel_for(rows * parts, [&](ptrdiff_t t) {
        const ptrdiff_t at = t % parts * PART, size = n - at < PART ? n - at : PART;
        const T* from = x + t / parts * n + at;
        float pieces[8];
        if (large && size == PART) {
            maxima<SMALLEST, 8>(pieces, from, PART / 8, PART / 8);
            all.get()[t] = maximum_of<false>(pieces, 8);
        } else {
            all.get()[t] = maximum_of<SMALLEST>(from, size);
        }
    });
    for (ptrdiff_t r = 0; r < rows; r++) {
        const float most = maximum_of<false>(all.get() + r * parts, parts);
        out[r] = narrowed<T>(SMALLEST ? -most : most);
    }
}

// ---------------------------------------------------------------- of columns

// most (n <= STRIP) = the maxima of the columns of x, whole pairs of vectors as `Two` has them.
template <bool SMALLEST, typename T>
void column_maxima(float* most, const T* x, ptrdiff_t x_row, ptrdiff_t rows, ptrdiff_t n) {
    constexpr int L = lanes<float>;
    for (ptrdiff_t r = 0; r < rows;) {
        const bool first = r == 0;
        const ptrdiff_t together = rows - r < 8 ? 1 : 8;
        const T* row = x + r * x_row;
        ptrdiff_t j = 0;
        for (; j + 2 * L <= n; j += 2 * L) {
            Two found = turned<SMALLEST>(wide_two(row + j));
            if (together == 8) {
#pragma GCC unroll 8
                for (int k = 1; k < 8; k++)
                    found = larger(turned<SMALLEST>(wide_two(row + k * x_row + j)), found);
            }
            if (!first) found = larger(found, wide_two(most + j));
            narrow_two(most + j, found);
        }
        for (; j < n; j += L) {
            const int part = n - j < L ? int(n - j) : L;
            vf found = turned<SMALLEST>(wide(row + j, part));
            for (ptrdiff_t k = 1; k < together; k++)
                found = larger(turned<SMALLEST>(wide(row + k * x_row + j, part)), found);
            if (!first) found = larger(found, wide(most + j, part));
            narrow(most + j, found, part);
        }
        r += together;
    }
}

template <bool SMALLEST, typename T>
void column_extremes(T* out, const T* x, ptrdiff_t rows, ptrdiff_t n) {
    constexpr int L = lanes<float>;
    const ptrdiff_t strips = (n + STRIP - 1) / STRIP, worth = rows * n / (2 * PART) / strips;
    const ptrdiff_t most_shares = (rows + 63) / 64;
    ptrdiff_t shares = worth < SHARES ? worth : SHARES;
    shares = shares < 1 ? 1 : shares < most_shares ? shares : most_shares;
    Scratch<float> all(shares * strips * STRIP);
    const auto width_of = [&](ptrdiff_t s) {
        return n - s * STRIP < STRIP ? n - s * STRIP : STRIP;
    };
    parallel_for(shares * strips, [&](ptrdiff_t t) {
        const ptrdiff_t s = t % strips, part = t / strips;
        const ptrdiff_t from = rows * part / shares, to = rows * (part + 1) / shares;
        column_maxima<SMALLEST>(all.get() + t * STRIP, x + from * n + s * STRIP, n, to - from,
                                width_of(s));
    });
    for (ptrdiff_t s = 0; s < strips; s++) {
        float* most = all.get() + s * STRIP;
        const ptrdiff_t width = width_of(s);
        if (shares > 1) {
            for (ptrdiff_t part = 1; part < shares; part++)
                for (ptrdiff_t j = 0; j < width; j += L) {
                    const float* next = most + part * strips * STRIP + j;
                    const int count = width - j < L ? int(width - j) : L;
                    narrow(most + j, larger(wide(next, count), wide(most + j, count)), count);
                }
        }
        ptrdiff_t j = 0;
        for (; j + 2 * L <= width; j += 2 * L)
            narrow_two(out + s * STRIP + j, turned<SMALLEST>(wide_two(most + j)));
        for (; j < width; j += L) {
            const int count = width - j < L ? int(width - j) : L;
            narrow(out + s * STRIP + j, turned<SMALLEST>(wide(most + j, count)), count);
        }
    }
}

}  // namespace

#define EXTREMES(T, suffix)                                                                      \
    void row_extremes_##suffix(T* out, const T* x, ptrdiff_t rows, ptrdiff_t n, bool smallest) { \
        smallest ? row_extremes<true>(out, x, rows, n) : row_extremes<false>(out, x, rows, n);   \
    }                                                                                            \
    void column_extremes_##suffix(T* out, const T* x, ptrdiff_t rows, ptrdiff_t n,               \
                                  bool smallest) {                                               \
        smallest ? column_extremes<true>(out, x, rows, n)                                        \
                 : column_extremes<false>(out, x, rows, n);                                      \
    }
EXTREMES(float, f32)
EXTREMES(bfloat16, bf16)

}  // namespace KERNEL_ISA
