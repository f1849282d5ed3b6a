// Matrix product, single and double precision.
//
// Contract: GemmCall in gemm.h. Every element of C is summed over k in one order that depends on
// the sizes alone, so the result does not depend on the number of threads.
//
// Algorithm, by shape:
// - packed (Goto and van de Geijn 2008, but A is read in place): B is copied into slivers of a
//   tile's width by KC rows, which stream from the second level cache under blocks of A that fit
//   there too. A transposed whose rows are half pages or more is copied as well.
// - in place: B with contiguous rows that fits into half of a second level cache, or under few
//   rows of A, where it is read once, in strips of 8 or 16 rows as long as a page; under one row,
//   of 4 rows as long as two.
// - dot products: few rows, B with contiguous columns; also the last columns of a product where
//   they would fill no quarter of a vector, as rows of the transpose.
// - terms in parts: few tiles under many terms, as in the gradient of a weight over a long batch.
// Up
//   to 8 parts of k, by the sizes alone, take the paths above one beside the other; their sums are
//   added in order.
// An activation is taken of the block of C that a task has just summed, out of the caches.
//
// Limits: 2 m n k operations; a sliver is read once per rows of a tile, C once per KC; under few
// rows the bytes of B.
//
// Measured on one core of Zen 4 at 3.7 GHz (1 MB of second level cache, 118 Gflop/s), kernel alone,
// float32, share of peak: 64^3 95 %, 256^3 97 %, 512^3 96 %, 1024^3 95 %, 2048^3 94 %, 1024^3 with
// A transposed 93 %. Tried there:
// - blocks of A of 384 KB and 768 KB: within 2 % of 512 KB, either way; slivers of 128 KB: 81 % to
//   87 % at 1024^3;
// - A transposed, copied in strips of 48 rows term by term: (512, 2048) (2048, 128) 71 % to 80 % as
//   it was, 84 % to 88 % (the share depends on where the pages lie), 1024^3 91 % and 93 %; copied
//   where rows are no such length: up to 10 % slower; strips of 24 rows: 1 % to 5 % slower; turned
//   into rows instead: 2 % slower at 1024^3;
// - slivers packed just before their first use, with one thread: nothing up to 128 rows, 1 % to 2 %
//   slower at (512, 512) (512, 2048), B transposed;
// - the next sliver's source prefetched while tiles run: 1 % to 4 % faster at 128 rows from the
//   last level cache, 1 % to 3 % slower at 2048 rows;
// - the prefetch of C in the tiles: between nothing and 3 % at 777^3, nothing at powers of two;
// - (8, 2048) (2048, 2048), B transposed: packed 2.8 ms, dot products 0.8 to 1.2 ms;
// - (1, 2048) (2048, 2048): columns of slivers 0.94 ms, strips 0.45 ms, aligned to lines 0.32 ms,
//   four rows at a time 0.24 ms, two or eight rows 0.27 and 0.29;
// - the last column of 65^3 as a masked vector: 6.1 us, as dot products 5.2 us;
// - terms in parts against all terms at once, with one thread and with two: (128, 16384) (16384,
//   128), A or B or neither transposed, within 1 % and 31 % to 38 % less time; (64, 8192) (8192,
//   64), B transposed, 0.70 to 0.71 ms and 0.75 to 0.36 ms, A transposed 0.63 to 0.58 and 0.65 to
//   0.30; B transposed in double precision 1 % more and 6 % less. 16 parts of (128, 16384): between
//   4 % less and 2 % more with one thread, nothing with two. (96, 8192) (8192, 784) has tiles
//   enough: 13.4 ms and 6.9 ms without.
#include "gemm.h"

#include <cstdint>

#include "epilogue.h"
#include "kernels.h"
#include "parallel.h"
#include "tile.h"

namespace KERNEL_ISA {
namespace {

using std::ptrdiff_t;

#if defined(__AVX512F__)
constexpr ptrdiff_t SLIVER_BYTES = 256 << 10;  // of the second level cache
#else
constexpr ptrdiff_t SLIVER_BYTES = 16 << 10;  // of the first
#endif
constexpr ptrdiff_t BLOCK_A_BYTES = 512 << 10;  // of the second level cache
constexpr ptrdiff_t PANEL_BYTES = 8 << 20;      // of the last level cache
constexpr ptrdiff_t DIRECT_BYTES = 512 << 10;   // B up to this size is read in place by any rows
constexpr ptrdiff_t STRIP = 48;                 // rows of A that are copied side by side
constexpr ptrdiff_t FEW_ROWS = 24;              // so few that packing B would not pay
constexpr ptrdiff_t PACKED_ROWS = 48;           // so few that packing B is over a tenth of the work
constexpr ptrdiff_t PARTS_BYTES = 1 << 20;      // of the sums over parts of the terms
constexpr ptrdiff_t PARTS = 8;                  // of the terms, at most
constexpr ptrdiff_t TASKS = 16;                 // enough to be dealt out evenly
constexpr ptrdiff_t TASK_ROWS = 48;             // of which a task has no fewer

// Operations up to which a second thread costs more than it brings.
constexpr ptrdiff_t SERIAL = ptrdiff_t(64) * 64 * 64;

// Terms that are summed one after the other before they join C: rounding errors grow with this and
// with the number of such sums, not with their product.
constexpr ptrdiff_t CHAIN = 1024;

constexpr ptrdiff_t up(ptrdiff_t n, ptrdiff_t step) {
    return (n + step - 1) / step;
}

constexpr ptrdiff_t least(ptrdiff_t a, ptrdiff_t b) {
    return a < b ? a : b;
}

constexpr ptrdiff_t most(ptrdiff_t a, ptrdiff_t b) {
    return a < b ? b : a;
}

// Parts of `total` in units of `unit`, at most `limit` long and as equal as can be.
ptrdiff_t even(ptrdiff_t total, ptrdiff_t limit, ptrdiff_t unit) {
    if (total <= limit) return total;
    return up(up(total, up(total, limit)), unit) * unit;
}

template <typename T>
void undivided(const GemmCall<T>& g);

// Where the sums go.
template <typename T>
T* sums_of(const GemmCall<T>& g) {
    return g.pre ? g.pre : g.c;
}

// The rest of the work on a block of C whose sums are complete.
template <typename T>
void finish(const GemmCall<T>& g, ptrdiff_t i, ptrdiff_t j, ptrdiff_t m, ptrdiff_t n) {
    const ptrdiff_t at = i * g.c_row + j;
    activate(g.activation, m, n, sums_of(g) + at, g.c + at, g.c_row);
}

// The tasks of a product, by this thread alone where it is small.
template <typename T, typename Body>
void deal_out(const GemmCall<T>& g, ptrdiff_t tasks, const Body& body) {
    if (g.m * g.n * g.k <= SERIAL)
        for (ptrdiff_t task = 0; task < tasks; task++) body(task);
    else
        parallel_for(tasks, body);
}

// ---------------------------------------------------------------- B in place

// Columns of B before its first whole cache line, if its rows are whole lines: a vector that lies
// across two lines is read at half the speed.
template <typename T>
ptrdiff_t to_line(const GemmCall<T>& g) {
    constexpr ptrdiff_t LINE = 64 / sizeof(T);
    const std::uintptr_t at = reinterpret_cast<std::uintptr_t>(g.b) / sizeof(T);
    return g.b_row % LINE || g.n <= SLIVER<T> ? 0 : ptrdiff_t(-at % LINE);
}

// One row of A by a large B: C stays in the first level cache while B passes by four rows at a
// time.
template <typename T>
void row_times_large(const GemmCall<T>& g) {
    constexpr ptrdiff_t WIDE = 8192 / sizeof(T);
    const ptrdiff_t lead = to_line(g), blocks = most(1, up(g.n - lead, WIDE));
    T* const sums = sums_of(g);
    parallel_for(blocks, [&](ptrdiff_t block) {
        const ptrdiff_t from = block ? lead + block * WIDE : 0;
        const ptrdiff_t to = least(lead + (block + 1) * WIDE, g.n);
        for (ptrdiff_t j = from; j < to; j++) {
            const T start = g.bias ? g.bias[j] : T(0);
            sums[j] = g.accumulate ? sums[j] + start : start;
        }
        if (from < lead)
            row_product(lead - from, g.k, g.a, g.a_col, g.b + from, g.b_row, sums + from);
        const ptrdiff_t at = most(from, lead);
        row_product(to - at, g.k, g.a, g.a_col, g.b + at, g.b_row, sums + at);
        finish(g, 0, from, 1, to - from);
    });
}

template <typename T>
void direct(const GemmCall<T>& g) {
    // A large B has few rows of A: it is read once, in strips of rows that are as long as a page,
    // because columns of slivers would leave every page after a few lines.
    const bool large = g.k * g.n * ptrdiff_t(sizeof(T)) > DIRECT_BYTES;
    const ptrdiff_t strip = !large ? CHAIN : g.m <= 4 ? 8 : 16;
    const ptrdiff_t width = large ? 4096 / ptrdiff_t(sizeof(T)) : SLIVER<T>;
    if (large && g.m == 1) return row_times_large(g);
    const ptrdiff_t lead = large ? to_line(g) : 0;
    const ptrdiff_t blocks = up(g.n - lead, width);
    const ptrdiff_t rows = even(g.m, most(TASK_ROWS, g.m * blocks / TASKS), 24);
    T* const sums = sums_of(g);
    const auto body = [&](ptrdiff_t task) {
        const ptrdiff_t i = task / blocks * rows, m = least(rows, g.m - i);
        const ptrdiff_t block = task % blocks, from = block ? lead + block * width : 0;
        const ptrdiff_t to = least(lead + (block + 1) * width, g.n);
        ptrdiff_t k0 = 0;
        do {  // also where k is 0: C is still to be written
            const ptrdiff_t k = least(strip, g.k - k0);
            for (ptrdiff_t j = from, n; j < to; j += n) {
                n = least(SLIVER<T>, (j < lead ? lead : to) - j);
                sliver_product(m, int(n), k, g.a + i * g.a_row + k0 * g.a_col, g.a_row, g.a_col,
                               g.b + k0 * g.b_row + j, g.b_row, false, sums + i * g.c_row + j,
                               g.c_row, g.bias && !k0 ? g.bias + j : nullptr,
                               g.accumulate || k0 > 0, !block && j == from);
                if (k0 + strip >= g.k) finish(g, i, j, m, n);
            }
            k0 += strip;
        } while (k0 < g.k);
    };
    const ptrdiff_t tasks = blocks * up(g.m, rows);
    deal_out(g, tasks, body);
}

// ---------------------------------------------------------------- dot products

// A few rows against contiguous columns, as in a linear layer for a small batch.
template <typename T>
void dot_products(const GemmCall<T>& g) {
    const ptrdiff_t block = g.m * g.n * g.k <= SERIAL ? g.n : 64;
    const ptrdiff_t chain = CHAIN * lanes<T>;
    parallel_for(up(g.n, block), [&](ptrdiff_t task) {
        const ptrdiff_t j = task * block, n = least(block, g.n - j);
        const T* b = g.b + j * g.b_col;
        T* c = sums_of(g) + j;
        if (!g.accumulate && !g.bias && g.k <= chain) {
            dot_product(g.m, n, g.k, g.a, g.a_row, b, g.b_col, c, g.c_row);
            return finish(g, 0, j, g.m, n);
        }
        Scratch<T> sums(g.m * n);
        for (ptrdiff_t k0 = 0; k0 < g.k; k0 += chain) {
            dot_product(g.m, n, least(chain, g.k - k0), g.a + k0, g.a_row, b + k0, g.b_col,
                        sums.get(), n);
            for (ptrdiff_t i = 0; i < g.m; i++)
                for (ptrdiff_t p = 0; p < n; p++) {
                    T value = sums.get()[i * n + p];
                    T& to = c[i * g.c_row + p];
                    if (g.accumulate || k0) value += to;
                    if (g.bias && !k0) value += g.bias[j + p];
                    to = value;
                }
        }
        finish(g, 0, j, g.m, n);
    });
}

// The last columns of C where they are too few to fill a vector: their transpose, whose rows are
// dot products, or whole vectors if A is transposed.
template <typename T>
void last_columns(const GemmCall<T>& g, ptrdiff_t count) {
    const ptrdiff_t j = g.n - count;
    Scratch<T> columns(count * g.k), sums(count * g.m);
    for (ptrdiff_t q = 0; q < count; q++)
        for (ptrdiff_t p = 0; p < g.k; p++)
            columns.get()[q * g.k + p] = g.b[p * g.b_row + (j + q) * g.b_col];
    undivided(GemmCall<T>{count, g.m, g.k, columns.get(), g.k, 1, g.a, g.a_col, g.a_row, sums.get(),
                          g.m, nullptr, false});
    for (ptrdiff_t i = 0; i < g.m; i++)
        for (ptrdiff_t q = 0; q < count; q++) {
            T& value = sums.get()[q * g.m + i];
            T& to = sums_of(g)[i * g.c_row + j + q];
            if (g.accumulate) value += to;
            if (g.bias) value += g.bias[j + q];
            to = value;
        }
    if (g.activation == Activation::none) return;
    activate(g.activation, 1, count * g.m, sums.get(), sums.get(), count * g.m);
    for (ptrdiff_t i = 0; i < g.m; i++)
        for (ptrdiff_t q = 0; q < count; q++) g.c[i * g.c_row + j + q] = sums.get()[q * g.m + i];
}

// ---------------------------------------------------------------- B packed

// A transposed, with rows of half a page or of whole pages: its columns share sets of the caches.
template <typename T>
bool shares_sets(const GemmCall<T>& g) {
    const ptrdiff_t bytes = g.a_col * ptrdiff_t(sizeof(T));
    return g.a_row == 1 && g.k >= 512 && g.n > SLIVER<T> &&
           (bytes == 2048 || (bytes && bytes % 4096 == 0));
}

// `to`, strips (k, STRIP) one after the other, from m columns of A transposed.
template <typename T>
void copy_columns(ptrdiff_t k, ptrdiff_t m, const T* a, ptrdiff_t a_col, T* to) {
    constexpr ptrdiff_t L = lanes<T>;
    for (ptrdiff_t from = 0; from < m; from += STRIP) {
        const ptrdiff_t count = least(STRIP, m - from);
        for (ptrdiff_t p = 0; p < k; p++, to += STRIP) {
            const T* row = a + p * a_col + from;
            ptrdiff_t i = 0;
            for (; i + L <= count; i += L) store(to + i, load(row + i));
            if (i < count) store_part(to + i, load_part(row + i, int(count - i)), int(count - i));
        }
    }
}

// Terms that are summed with one packing of B.
template <typename T>
ptrdiff_t terms(ptrdiff_t k) {
    return even(k, SLIVER_BYTES / (SLIVER<T> * ptrdiff_t(sizeof(T))), 8);
}

template <typename T>
void blocked(const GemmCall<T>& g) {
    constexpr ptrdiff_t S = SLIVER<T>, size = sizeof(T);
    const ptrdiff_t kc = terms<T>(g.k);
    const ptrdiff_t nc = even(g.n, PANEL_BYTES / (kc * size) / S * S, S);
    // rows of a task: a block of A, or fewer where few columns leave too few tasks
    const ptrdiff_t share = up(g.m, up(TASKS, up(least(nc, g.n), S)));
    const ptrdiff_t rows =
        even(g.m, least(BLOCK_A_BYTES / (kc * size), most(TASK_ROWS, share)), STRIP);
    const bool copies = shares_sets(g);
    // slivers are dealt out in groups where there are few blocks of rows
    const ptrdiff_t blocks = up(g.m, rows), tasks = copies && thread_count() == 1 ? 1 : TASKS;
    Scratch<T> memory(g.packed ? 0 : kc * up(least(nc, g.n), S) * S);
    T* const sums = sums_of(g);
    for (ptrdiff_t n0 = 0; n0 < g.n; n0 += nc) {
        const ptrdiff_t columns = least(nc, g.n - n0), slivers = up(columns, S);
        const ptrdiff_t groups = least(slivers, up(tasks, blocks));
        const auto width = [&](ptrdiff_t s) { return int(least(S, columns - s * S)); };
        const auto wide = [&](ptrdiff_t s) { return int(up(width(s), lanes<T>) * lanes<T>); };
        for (ptrdiff_t k0 = 0; k0 < g.k; k0 += kc) {
            const ptrdiff_t inner = least(kc, g.k - k0);
            const T* panel = g.packed ? g.packed + k0 * slivers * S : memory.get();
            if (!g.packed)
                deal_out(g, slivers, [&](ptrdiff_t s) {
                    pack(inner, width(s), wide(s), g.b + k0 * g.b_row + (n0 + s * S) * g.b_col,
                         g.b_row, g.b_col, memory.get() + s * S * inner);
                });
            deal_out(g, blocks * groups, [&](ptrdiff_t task) {
                const ptrdiff_t from = task / groups * rows, to = least(from + rows, g.m);
                const ptrdiff_t part = task % groups, first = slivers * part / groups;
                const T* a = g.a + from * g.a_row + k0 * g.a_col;
                ptrdiff_t a_row = g.a_row, a_col = g.a_col, step = to - from, a_step = 0;
                Scratch<T> copy(copies ? up(step, STRIP) * STRIP * inner : 0);
                if (copies) {
                    copy_columns(inner, step, a, a_col, copy.get());
                    a = copy.get();
                    a_row = 1;
                    a_col = step = STRIP;
                    a_step = inner * STRIP;
                }
                for (ptrdiff_t s = first; s < slivers * (part + 1) / groups; s++) {
                    const ptrdiff_t j = n0 + s * S;
                    const T* bias = g.bias && !k0 ? g.bias + j : nullptr;
                    for (ptrdiff_t i = from, q = 0; i < to; i += step, q++)
                        sliver_product(least(step, to - i), width(s), inner, a + q * a_step, a_row,
                                       a_col, panel + s * S * inner, wide(s), true,
                                       sums + i * g.c_row + j, g.c_row, bias,
                                       g.accumulate || k0 > 0, s == first);
                    if (k0 + inner == g.k) finish(g, from, j, to - from, width(s));
                }
            });
        }
    }
}

// ---------------------------------------------------------------- choice

// The columns that are left over and too few to fill a vector, if they are treated apart.
template <typename T>
ptrdiff_t left_over(const GemmCall<T>& g) {
    const ptrdiff_t left = g.n % lanes<T>;
    return left <= lanes<T> / 4 && g.m >= lanes<T> && g.m * g.k >= 1024 ? left : 0;
}

enum class Path { direct, dots, blocked };

template <typename T>
Path path(const GemmCall<T>& g) {
    const ptrdiff_t bytes = g.k * g.n * ptrdiff_t(sizeof(T));
    const bool dots = g.a_col == 1 && g.b_row == 1 && g.b_col != 1 && g.k >= lanes<T>;
    // the sums over the lanes of its vectors are what a dot product costs more
    if (dots && (g.m <= 4 || (g.m <= FEW_ROWS && g.k >= 12 * g.m))) return Path::dots;
    if (!g.k || (g.b_col == 1 && (g.m <= FEW_ROWS || (bytes <= DIRECT_BYTES && !shares_sets(g)))))
        return Path::direct;
    return Path::blocked;
}

template <typename T>
void undivided(const GemmCall<T>& given) {
    GemmCall<T> g = given;
    if (const ptrdiff_t left = left_over(g)) {
        last_columns(g, left);
        g.n -= left;
        if (!g.n) return;
    }
    switch (path(g)) {
        case Path::direct:
            return direct(g);
        case Path::dots:
            return dot_products(g);
        case Path::blocked:
            return blocked(g);
    }
}

// ---------------------------------------------------------------- terms in parts

// Parts of k that are summed apart from each other, by the sizes alone: a power of two where the
// tiles of C make few tasks, else 1. A weight that may be kept packed stays whole.
template <typename T>
ptrdiff_t parts_of(const GemmCall<T>& g) {
    constexpr ptrdiff_t limit = PARTS_BYTES / sizeof(T);
    const ptrdiff_t tiles = up(g.m, TASK_ROWS) * up(g.n, 64);
    if (g.k < 2 * CHAIN || tiles > 2 * PARTS || g.m * g.n * g.k < 4 * SERIAL ||
        (g.m <= PACKED_ROWS && g.b_row == 1 && path(g) == Path::blocked))
        return 1;
    ptrdiff_t parts = 1;
    while (parts < PARTS && 2 * parts <= g.k / CHAIN && 2 * parts * g.m * g.n <= limit) parts *= 2;
    return tiles <= 2 * parts ? parts : 1;
}

// The first part goes where all of them are added up, in their order.
template <typename T>
void in_parts(const GemmCall<T>& g, ptrdiff_t parts) {
    const ptrdiff_t k = up(up(g.k, parts), 64) * 64, size = g.m * g.n;
    parts = up(g.k, k);
    Scratch<T> memory((parts - 1) * size);
    T* const sums = sums_of(g);
    parallel_for(parts, [&](ptrdiff_t part) {
        GemmCall<T> one = g;
        one.k = least(k, g.k - part * k);
        one.a += part * k * g.a_col;
        one.b += part * k * g.b_row;
        one.c = sums;
        one.activation = Activation::none;
        one.pre = nullptr;
        if (part) {
            one.c = memory.get() + (part - 1) * size;
            one.c_row = g.n;
            one.bias = nullptr;
            one.accumulate = false;
        }
        undivided(one);
    });
    const ptrdiff_t rows = most(1, 4096 / g.n);
    parallel_for(up(g.m, rows), [&](ptrdiff_t task) {
        const ptrdiff_t from = task * rows, count = least(rows, g.m - from);
        for (ptrdiff_t i = from; i < from + count; i++) {
            T* const to = sums + i * g.c_row;
            for (ptrdiff_t part = 0; part < parts - 1; part++) {
                const T* add = memory.get() + part * size + i * g.n;
                for (ptrdiff_t j = 0; j < g.n; j++) to[j] += add[j];
            }
        }
        finish(g, from, 0, count, g.n);
    });
}

// ---------------------------------------------------------------- entries

template <typename T>
bool takes_packed(const GemmCall<T>& g) {
    return g.m > 0 && g.m <= PACKED_ROWS && g.n > 0 && !left_over(g) &&
           g.n * g.k * ptrdiff_t(sizeof(T)) <= PANEL_BYTES && path(g) == Path::blocked &&
           parts_of(g) == 1;
}

template <typename T>
void product(const GemmCall<T>& g) {
    if (g.m <= 0 || g.n <= 0) return;
    const ptrdiff_t parts = parts_of(g);
    return parts > 1 ? in_parts(g, parts) : undivided(g);
}

template <typename T>
ptrdiff_t pack_weight(T* to, const T* weight, ptrdiff_t n, ptrdiff_t k) {
    constexpr ptrdiff_t S = SLIVER<T>, L = lanes<T>;
    const ptrdiff_t slivers = up(n, S), kc = terms<T>(k);
    if (to)
        for (ptrdiff_t k0 = 0; k0 < k; k0 += kc)
            for (ptrdiff_t s = 0; s < slivers; s++) {
                const ptrdiff_t inner = least(kc, k - k0), width = least(S, n - s * S);
                pack(inner, int(width), int(up(width, L) * L), weight + s * S * k + k0, 1, k,
                     to + (k0 * slivers + s * inner) * S);
            }
    return slivers * S * k;
}

}  // namespace

void gemm_f32(const GemmCall<float>& g) {
    product(g);
}
void gemm_f64(const GemmCall<double>& g) {
    product(g);
}
bool takes_packed_f32(const GemmCall<float>& g) {
    return takes_packed(g);
}
bool takes_packed_f64(const GemmCall<double>& g) {
    return takes_packed(g);
}
ptrdiff_t pack_weight_f32(float* to, const float* weight, ptrdiff_t n, ptrdiff_t k) {
    return pack_weight(to, weight, n, k);
}
ptrdiff_t pack_weight_f64(double* to, const double* weight, ptrdiff_t n, ptrdiff_t k) {
    return pack_weight(to, weight, n, k);
}

// Every word goes into one of 64 sums by a step that can be undone, so that no single change is
// lost, and that mixes upwards and round, so that changes do not cancel.
void fingerprint(std::uint64_t* to, const void* x, ptrdiff_t bytes) {
    using Words = vec<std::uint64_t>;
    constexpr std::uint64_t FACTOR = 0x9e3779b97f4a7c15u;
    constexpr int CHAINS = 8 * 64 / WIDTH, STEP = CHAINS * WIDTH;
    const auto mixed = [](auto sum, auto word) INLINED {
        sum ^= word;
        return ((sum << 29) | (sum >> 35)) * FACTOR;
    };
    const char* p = static_cast<const char*>(x);
    Words sum[CHAINS];
    for (int i = 0; i < CHAINS; i++) sum[i] = broadcast(std::uint64_t(bytes) + std::uint64_t(i));
    for (; bytes >= STEP; bytes -= STEP, p += STEP)
#pragma GCC unroll 32
        for (int i = 0; i < CHAINS; i++)
            sum[i] = mixed(sum[i], (Words)load(reinterpret_cast<const float*>(p + i * WIDTH)));
    for (int i = 0; bytes > 0; i++, bytes -= WIDTH, p += WIDTH) {
        Words rest{};
        std::memcpy(&rest, p, std::size_t(bytes < WIDTH ? bytes : WIDTH));
        sum[i] = mixed(sum[i], rest);
    }
    for (int q = 0; q < FINGERPRINT; q++) to[q] = 0;
    for (int i = 0; i < CHAINS; i++)
        for (int j = 0; j < WIDTH / 8; j++) {
            std::uint64_t& word = to[(i * (WIDTH / 8) + j) % FINGERPRINT];
            word = mixed(word, std::uint64_t(sum[i][j]));
        }
}

}  // namespace KERNEL_ISA
