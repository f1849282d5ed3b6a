// The register tiles of the matrix products, and the packing of their right-hand sides.
//
// Contract: tile.h. Every element is summed over k in one order.
//
// Algorithm: MR rows by NV vectors of C stay in registers while k runs: MR NV multiply-adds for MR
// broadcasts of A and NV loads of B. A transposed is the same tile with other steps. B transposed
// goes through register transposes into its packed form. Columns at the edge are masked.
//
// Tiles (rows x vectors) and share of the multiply-add peak, one core of Zen 4, 64 terms from the
// first level cache, C stored: AVX-512 6x4 98 %, 8x3 97 %, 12x2 96 %, 5x4 97 %; 1024 terms from the
// second: 6x4 97 %, 8x3 96 %, 12x2 87 %. More rows make no better tile: 7x4 98 %, 14x2 73 % there,
// since rows that are a power of two apart share cache sets. The prefetch of A: (768, 512)
// (512, 128) from the last level cache 90 % to 95 %, (2048, 512) (512, 128) 93 % to 97 %; with rows
// of whole pages 1 % to 2 % slower at 1024^3. Tried without gain: unrolling by 2 or 4 terms;
// prefetching B; transposes for packing whose quarters of vectors come into place by masked loads,
// which halves the shuffles (0.08 to 0.19 ns an element, as it is 0.08 to 0.13); prefetching what
// is packed.
#include "tile.h"

#include <utility>

#include "transpose.h"

namespace KERNEL_ISA {

using std::ptrdiff_t;

namespace {

#if defined(__AVX512F__)
constexpr int ROWS[] = {0, 12, 12, 8, 6};  // by vectors a row: registers hold rows x vectors sums
#else
constexpr int ROWS[] = {0, 10, 6};
#endif
constexpr int ROWS_MAX = 12;
constexpr ptrdiff_t LONG = 128;

// ---------------------------------------------------------------- tile

// C tile (MR rows, NV vectors; `part` elements in the last vector) = or += A B.
template <typename T, int MR, int NV, bool PART>
void tile(ptrdiff_t k, const T* a, ptrdiff_t a_row, ptrdiff_t a_col, const T* b, ptrdiff_t b_row,
          T* c, ptrdiff_t c_row, int part, const T* bias, bool accumulate, bool first) {
    constexpr int L = lanes<T>;
    if (k >= LONG)  // C arrives while the sums are formed
        for (int i = 0; i < MR; i++)
            for (int j = 0; j < NV; j++) __builtin_prefetch(c + i * c_row + j * L, 1);
    vec<T> acc[MR][NV] = {};
    // and so do the rows of A for the next tile, unless all of them share the sets of a cache
    first &= k >= LONG && a_col == 1 && a_row * ptrdiff_t(sizeof(T)) % 4096 != 0;
    for (ptrdiff_t p = 0, end; p < k; p = end) {
        end = k - p < L ? k : p + L;
        if (first)
            for (int i = 0; i < MR; i++) __builtin_prefetch(a + (MR + i) * a_row);
        for (; p < end; p++, a += a_col, b += b_row) {
            vec<T> row[NV];
#pragma GCC unroll 4
            for (int j = 0; j < NV; j++)
                row[j] = PART && j == NV - 1 ? load_part(b + j * L, part) : load(b + j * L);
#pragma GCC unroll 12
            for (int i = 0; i < MR; i++) {
                const vec<T> x = broadcast(a[i * a_row]);
#pragma GCC unroll 4
                for (int j = 0; j < NV; j++) acc[i][j] += x * row[j];
            }
        }
    }
#pragma GCC unroll 12
    for (int i = 0; i < MR; i++) {
#pragma GCC unroll 4
        for (int j = 0; j < NV; j++) {
            T* to = c + i * c_row + j * L;
            const int count = j == NV - 1 ? part : L;
            vec<T> sum = acc[i][j];
            if (count == L) {
                if (accumulate) sum += load(to);
                if (bias) sum += load(bias + j * L);
                store(to, sum);
            } else {
                if (accumulate) sum += load_part(to, count);
                if (bias) sum += load_part(bias + j * L, count);
                store_part(to, sum, count);
            }
        }
    }
}

template <typename T>
using Tile = void (*)(ptrdiff_t, const T*, ptrdiff_t, ptrdiff_t, const T*, ptrdiff_t, T*, ptrdiff_t,
                      int, const T*, bool, bool);

// TILES[part][vectors - 1][rows - 1]
template <typename T>
struct Tiles {
    Tile<T> of[2][NV_MAX][ROWS_MAX] = {};

    template <bool PART, int NV, int... I>
    constexpr void fill(std::integer_sequence<int, I...>) {
        ((of[PART][NV - 1][I] = tile<T, I + 1, NV, PART>), ...);
    }
    template <bool PART, int... NV>
    constexpr void fill_all(std::integer_sequence<int, NV...>) {
        (fill<PART, NV + 1>(std::make_integer_sequence<int, ROWS[NV + 1]>{}), ...);
    }
    constexpr Tiles() {
        fill_all<false>(std::make_integer_sequence<int, NV_MAX>{});
        fill_all<true>(std::make_integer_sequence<int, NV_MAX>{});
    }
};
template <typename T>
constexpr Tiles<T> TILES;

}  // namespace

template <typename T>
void sliver_product(ptrdiff_t m, int n, ptrdiff_t k, const T* a, ptrdiff_t a_row, ptrdiff_t a_col,
                    const T* b, ptrdiff_t b_row, bool packed, T* c, ptrdiff_t c_row, const T* bias,
                    bool accumulate, bool first) {
    constexpr int L = lanes<T>;
    const int vectors = (n + L - 1) / L, part = n - (vectors - 1) * L;
    const auto& of = TILES<T>.of[!packed && part != L][vectors - 1];
    if (m <= ROWS[vectors]) {  // no divisions: under few rows a tile costs little more than they
        if (m > 0) of[m - 1](k, a, a_row, a_col, b, b_row, c, c_row, part, bias, accumulate, first);
        return;
    }
    // rows are dealt out evenly: 13 are 5 + 4 + 4, not 6 + 6 + 1
    const ptrdiff_t tiles = (m + ROWS[vectors] - 1) / ROWS[vectors];
    const ptrdiff_t rows = m / tiles, longer = m % tiles;
    for (ptrdiff_t i = 0, at = 0; i < tiles; i++) {
        const ptrdiff_t count = rows + (i < longer);
        of[count - 1](k, a + at * a_row, a_row, a_col, b, b_row, c + at * c_row, c_row, part, bias,
                      accumulate, first);
        at += count;
    }
}

// ---------------------------------------------------------------- packing

namespace {

// `to` (rows, L), of row step `width`, from the columns of b; what b lacks of L columns is 0.
template <typename T>
ALWAYS_INLINE void turn(const T* b, ptrdiff_t b_col, int rows, int columns, T* to, int width) {
    constexpr int L = lanes<T>;
    vec<T> v[L];
#pragma GCC unroll 16
    for (int i = 0; i < L; i++)
        v[i] = i >= columns ? vec<T>{}
               : rows == L  ? load(b + i * b_col)
                            : load_part(b + i * b_col, rows);
    transpose_by<T, L / 2>(v);
#pragma GCC unroll 16
    for (int i = 0; i < L; i++)
        if (i < rows) store(to + i * width, v[i]);
}

}  // namespace

template <typename T>
void pack(ptrdiff_t k, int n, int width, const T* b, ptrdiff_t b_row, ptrdiff_t b_col, T* to) {
    constexpr int L = lanes<T>;
    if (b_col == 1) {
        for (ptrdiff_t p = 0; p < k; p++, to += width, b += b_row) {
            int j = 0;
            for (; j + L <= n; j += L) store(to + j, load(b + j));
            for (; j < width; j += L) store(to + j, j < n ? load_part(b + j, n - j) : vec<T>{});
        }
        return;
    }
    if (b_row == 1 && k >= L) {
        // down the columns, L of them at a time: so few streams are what processors prefetch
        for (int j = 0; j < width; j += L) {
            const int columns = n - j < L ? n - j : L;
            for (ptrdiff_t p = 0; p < k; p += L) {
                const T* from = b + p + j * b_col;
                T* at = to + p * width + j;
                if (p + L <= k && columns == L)
                    turn(from, b_col, L, L, at, width);
                else
                    turn(from, b_col, k - p < L ? int(k - p) : L, columns, at, width);
            }
        }
        return;
    }
    for (ptrdiff_t p = 0; p < k; p++)
        for (int j = 0; j < width; j++) to[p * width + j] = j < n ? b[p * b_row + j * b_col] : T(0);
}

// ---------------------------------------------------------------- few rows, B transposed

namespace {

// Lane i of v[0] becomes the sum of the lanes of v[i], of L vectors.
template <typename T, int D>
ALWAYS_INLINE void sum_by(vec<T>* v) {
    constexpr int L = lanes<T>;
    if constexpr (D > 0) {
#pragma GCC unroll 16
        for (int i = 0; i < D; i++) {
            exchange<vec<T>, D>(v[i], v[i + D], std::make_integer_sequence<int, L>{});
            v[i] += v[i + D];
        }
        sum_by<T, D / 2>(v);
    }
}

// C (M, N) = A B, for rows of A and columns of B that are contiguous.
template <typename T, int M, int N>
void dots(ptrdiff_t k, const T* a, ptrdiff_t a_row, const T* b, ptrdiff_t b_col, T* c,
          ptrdiff_t c_row) {
    constexpr int L = lanes<T>;
    vec<T> acc[M][N] = {};
    for (ptrdiff_t p = 0; p < k; p += L) {
        const bool whole = p + L <= k;
        vec<T> y[N];
#pragma GCC unroll 4
        for (int j = 0; j < N; j++) {
            if (M == 1) __builtin_prefetch(b + p + j * b_col + 32 * L);  // (1, 2048): 11 % faster
            y[j] = whole ? load(b + p + j * b_col) : load_part(b + p + j * b_col, int(k - p));
        }
#pragma GCC unroll 4
        for (int i = 0; i < M; i++) {
            const T* x = a + p + i * a_row;
            const vec<T> xs = whole ? load(x) : load_part(x, int(k - p));
#pragma GCC unroll 4
            for (int j = 0; j < N; j++) acc[i][j] += xs * y[j];
        }
    }
    constexpr int GROUPS = (M * N + L - 1) / L;
    T sums[GROUPS * L];
#pragma GCC unroll 8
    for (int q = 0; q < GROUPS; q++) {
        vec<T> v[L];
#pragma GCC unroll 16
        for (int i = 0; i < L; i++) {
            const int at = q * L + i;
            v[i] = at < M * N ? acc[at / N][at % N] : vec<T>{};
        }
        sum_by<T, L / 2>(v);
        store(sums + q * L, v[0]);
    }
    for (int i = 0; i < M; i++)
        for (int j = 0; j < N; j++) c[i * c_row + j] = sums[i * N + j];
}

template <typename T, int M>
void dot_rows(ptrdiff_t n, ptrdiff_t k, const T* a, ptrdiff_t a_row, const T* b, ptrdiff_t b_col,
              T* c, ptrdiff_t c_row) {
    ptrdiff_t j = 0;
    for (; j + 4 <= n; j += 4) dots<T, M, 4>(k, a, a_row, b + j * b_col, b_col, c + j, c_row);
    for (; j < n; j++) dots<T, M, 1>(k, a, a_row, b + j * b_col, b_col, c + j, c_row);
}

}  // namespace

template <typename T>
void dot_product(ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, const T* a, ptrdiff_t a_row, const T* b,
                 ptrdiff_t b_col, T* c, ptrdiff_t c_row) {
    for (; m >= 4; m -= 4, a += 4 * a_row, c += 4 * c_row)
        dot_rows<T, 4>(n, k, a, a_row, b, b_col, c, c_row);
    if (m == 3) dot_rows<T, 3>(n, k, a, a_row, b, b_col, c, c_row);
    if (m == 2) dot_rows<T, 2>(n, k, a, a_row, b, b_col, c, c_row);
    if (m == 1) dot_rows<T, 1>(n, k, a, a_row, b, b_col, c, c_row);
}

// ---------------------------------------------------------------- one row

namespace {

template <int R, typename T>
ALWAYS_INLINE void add_rows(ptrdiff_t n, const T* a, ptrdiff_t a_col, const T* b, ptrdiff_t b_row,
                            T* c) {
    constexpr int L = lanes<T>;
    vec<T> x[R];
#pragma GCC unroll 4
    for (int i = 0; i < R; i++) x[i] = broadcast(a[i * a_col]);
    ptrdiff_t j = 0;
    for (; j + L <= n; j += L) {
        vec<T> sum = load(c + j);
#pragma GCC unroll 4
        for (int i = 0; i < R; i++) sum += x[i] * load(b + i * b_row + j);
        store(c + j, sum);
    }
    if (j < n) {
        const int part = int(n - j);
        vec<T> sum = load_part(c + j, part);
#pragma GCC unroll 4
        for (int i = 0; i < R; i++) sum += x[i] * load_part(b + i * b_row + j, part);
        store_part(c + j, sum, part);
    }
}

}  // namespace

template <typename T>
void row_product(ptrdiff_t n, ptrdiff_t k, const T* a, ptrdiff_t a_col, const T* b, ptrdiff_t b_row,
                 T* c) {
    for (; k >= 4; k -= 4, a += 4 * a_col, b += 4 * b_row) add_rows<4>(n, a, a_col, b, b_row, c);
    for (; k > 0; k--, a += a_col, b += b_row) add_rows<1>(n, a, a_col, b, b_row, c);
}

#define INSTANTIATE(T)                                                                            \
    template void sliver_product(ptrdiff_t, int, ptrdiff_t, const T*, ptrdiff_t, ptrdiff_t,       \
                                 const T*, ptrdiff_t, bool, T*, ptrdiff_t, const T*, bool, bool); \
    template void pack(ptrdiff_t, int, int, const T*, ptrdiff_t, ptrdiff_t, T*);                  \
    template void dot_product(ptrdiff_t, ptrdiff_t, ptrdiff_t, const T*, ptrdiff_t, const T*,     \
                              ptrdiff_t, T*, ptrdiff_t);                                          \
    template void row_product(ptrdiff_t, ptrdiff_t, const T*, ptrdiff_t, const T*, ptrdiff_t, T*);
INSTANTIATE(float)
INSTANTIATE(double)

}  // namespace KERNEL_ISA
