// Matrix product, single and double precision.
//
// Contract: GemmCall in gemm.h. Every element of C is summed over k in one order that depends on
// the sizes alone, so the result does not depend on the number of threads.
//
// Algorithm (Goto and van de Geijn 2008, with B packed and A read in place): B is copied into
// slivers of a tile's width by KC rows, which stream from the second level cache, under them blocks
// of A that fit there too. Small products read B in place, products of few rows with B transposed
// are dot products.
//
// Limits: 2 m n k operations; a sliver is read once per rows of a tile, C once per KC.
#include "gemm.h"

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
constexpr ptrdiff_t BLOCK_A_BYTES = 768 << 10;  // of the second level cache
constexpr ptrdiff_t PANEL_BYTES = 8 << 20;      // of the last level cache
constexpr ptrdiff_t FEW_ROWS = 24;              // so few that packing B would not pay

constexpr ptrdiff_t up(ptrdiff_t n, ptrdiff_t step) {
    return (n + step - 1) / step;
}

// Parts of `total` in units of `unit`, at most `limit` long and as equal as can be.
ptrdiff_t even(ptrdiff_t total, ptrdiff_t limit, ptrdiff_t unit) {
    if (total <= limit) return total;
    return up(up(total, up(total, limit)), unit) * unit;
}

// Operations below which a second thread costs more than it brings.
constexpr ptrdiff_t SERIAL = ptrdiff_t(64) * 64 * 64;

// Terms that are summed one after the other before they join C: rounding errors grow with this and
// with the number of such sums, not with their product.
constexpr ptrdiff_t CHAIN = 1024;

// B up to this size, half of a second level cache, is read in place by any number of rows.
constexpr ptrdiff_t DIRECT_BYTES = 512 << 10;

template <typename T>
void direct(const GemmCall<T>& g) {
    // the column blocks are the tasks: each reads its part of B once
    const ptrdiff_t slivers = up(g.n, SLIVER<T>);
    const auto body = [&](ptrdiff_t s) {
        const ptrdiff_t j = s * SLIVER<T>;
        const int n = int(g.n - j < SLIVER<T> ? g.n - j : SLIVER<T>);
        ptrdiff_t k0 = 0;
        do {  // also where k is 0: C is still to be written
            const ptrdiff_t k = g.k - k0 < CHAIN ? g.k - k0 : CHAIN;
            sliver_product(g.m, n, k, g.a + k0 * g.a_col, g.a_row, g.a_col, g.b + k0 * g.b_row + j,
                           g.b_row, false, g.c + j, g.c_row, g.bias && !k0 ? g.bias + j : nullptr,
                           g.accumulate || k0 > 0);
            k0 += CHAIN;
        } while (k0 < g.k);
    };
    if (g.m * g.n * g.k < SERIAL)
        for (ptrdiff_t s = 0; s < slivers; s++) body(s);
    else
        parallel_for(slivers, body);
}

// A few rows against contiguous columns, as in a linear layer for a small batch.
template <typename T>
void dot_products(const GemmCall<T>& g) {
    const ptrdiff_t block = g.m * g.n * g.k < SERIAL ? g.n : 64;
    parallel_for(up(g.n, block), [&](ptrdiff_t task) {
        const ptrdiff_t j = task * block, n = g.n - j < block ? g.n - j : block;
        Scratch<T> sums(g.m * n);
        for (ptrdiff_t k0 = 0; k0 < g.k; k0 += CHAIN * lanes<T>) {
            const ptrdiff_t k = g.k - k0 < CHAIN * lanes<T> ? g.k - k0 : CHAIN * lanes<T>;
            dot_product(g.m, n, k, g.a + k0, g.a_row, g.b + k0 + j * g.b_col, g.b_col, sums.get(),
                        n);
            for (ptrdiff_t i = 0; i < g.m; i++)
                for (ptrdiff_t p = 0; p < n; p++) {
                    T value = sums.get()[i * n + p];
                    T& to = g.c[i * g.c_row + j + p];
                    if (g.accumulate || k0) value += to;
                    if (g.bias && !k0) value += g.bias[j + p];
                    to = value;
                }
        }
    });
}

template <typename T>
void blocked(const GemmCall<T>& g) {
    constexpr ptrdiff_t S = SLIVER<T>, size = sizeof(T);
    const ptrdiff_t kc = even(g.k, SLIVER_BYTES / (S * size), 8);
    const ptrdiff_t nc = even(g.n, PANEL_BYTES / (kc * size) / S * S, S);
    const ptrdiff_t mc = even(g.m, BLOCK_A_BYTES / (kc * size), 24);
    Scratch<T> panel(kc * up(nc < g.n ? nc : g.n, S) * S);
    for (ptrdiff_t n0 = 0; n0 < g.n; n0 += nc) {
        const ptrdiff_t columns = g.n - n0 < nc ? g.n - n0 : nc;
        const ptrdiff_t slivers = up(columns, S);
        for (ptrdiff_t k0 = 0; k0 < g.k; k0 += kc) {
            const ptrdiff_t inner = g.k - k0 < kc ? g.k - k0 : kc;
            const auto width = [&](ptrdiff_t s) {
                return int(columns - s * S < S ? columns - s * S : S);
            };
            parallel_for(slivers, [&](ptrdiff_t s) {
                const int n = width(s), wide = int(up(n, lanes<T>)) * lanes<T>;
                pack(inner, n, wide, g.b + k0 * g.b_row + (n0 + s * S) * g.b_col, g.b_row, g.b_col,
                     panel.get() + s * S * inner);
            });
            const ptrdiff_t blocks = up(g.m, mc);
            // slivers of one row block are dealt out in groups when there are few row blocks
            const ptrdiff_t groups =
                blocks >= 8 ? 1 : (slivers < 8 / blocks ? slivers : 8 / blocks);
            parallel_for(blocks * groups, [&](ptrdiff_t task) {
                const ptrdiff_t i = task / groups * mc, part = task % groups;
                const ptrdiff_t rows = g.m - i < mc ? g.m - i : mc;
                const ptrdiff_t last = slivers * (part + 1) / groups;
                for (ptrdiff_t s = slivers * part / groups; s < last; s++) {
                    const int n = width(s), wide = int(up(n, lanes<T>)) * lanes<T>;
                    const ptrdiff_t j = n0 + s * S;
                    sliver_product(rows, n, inner, g.a + i * g.a_row + k0 * g.a_col, g.a_row,
                                   g.a_col, panel.get() + s * S * inner, wide, true,
                                   g.c + i * g.c_row + j, g.c_row,
                                   g.bias && !k0 ? g.bias + j : nullptr, g.accumulate || k0 > 0);
                }
            });
        }
    }
}

template <typename T>
void product(const GemmCall<T>& g) {
    if (g.m <= 0 || g.n <= 0) return;
    if (g.m <= 4 && g.a_col == 1 && g.b_row == 1 && g.b_col != 1 && g.k >= lanes<T>) {
        dot_products(g);
    } else if (!g.k || (g.b_col == 1 &&
                        (g.m <= FEW_ROWS || g.k * g.n * ptrdiff_t(sizeof(T)) <= DIRECT_BYTES))) {
        direct(g);
    } else {
        blocked(g);
    }
}

}  // namespace

void gemm_f32(const GemmCall<float>& g) {
    product(g);
}
void gemm_f64(const GemmCall<double>& g) {
    product(g);
}

}  // namespace KERNEL_ISA
