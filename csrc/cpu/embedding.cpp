// Gradient of a look-up: rows added where the indices say, float32.
//
// Contract: every row of out (rows, width) is the sum of the rows of g (g_row apart) whose index
// names it, in their order; `padding` (or -1) names a row that stays 0.
//
// Algorithm: the indices of every row of out are chained, from first to last; then out is written
// in order, once: sums where there is a chain, and zeros, past the caches where out is large,
// between them. Limits: memory, out written once and g read once.
#include "kernels.h"
#include "math.h"
#include "parallel.h"
#include "rows.h"

namespace KERNEL_ISA {
namespace {

using std::ptrdiff_t;

constexpr ptrdiff_t LARGE = ptrdiff_t(4) << 20;  // elements: half of a common last level cache

void clear(float* p, ptrdiff_t n, bool large) {
    constexpr int L = lanes<float>;
    if (!large) {
        __builtin_memset(p, 0, std::size_t(n) * sizeof(float));
        return;
    }
    for (; n > 0 && reinterpret_cast<std::uintptr_t>(p) % WIDTH; n--) *p++ = 0.0f;
    for (; n >= L; n -= L, p += L) stream(p, vf{});
    for (; n > 0; n--) *p++ = 0.0f;
}

// out (width) = the sum of the rows of g in the chain that starts with number `first`; past the
// caches if STREAMED, where out is aligned and of whole vectors.
template <bool STREAMED>
void sum_chain(float* out, const float* g, ptrdiff_t g_row, ptrdiff_t first,
               const ptrdiff_t* next_of, ptrdiff_t width) {
    constexpr int L = lanes<float>;
    ptrdiff_t at = 0;
    for (; at + 4 * L <= width; at += 4 * L) {
        vf sum[4] = {};
        for (ptrdiff_t i = first; i; i = next_of[i]) {
#pragma GCC unroll 4
            for (int j = 0; j < 4; j++) sum[j] += load(g + (i - 1) * g_row + at + j * L);
        }
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++)
            STREAMED ? stream(out + at + j * L, sum[j]) : store(out + at + j * L, sum[j]);
    }
    for (; at < width; at += L) {
        const int part = width - at < L ? int(width - at) : L;
        vf sum{};
        for (ptrdiff_t i = first; i; i = next_of[i]) sum += get(g + (i - 1) * g_row + at, part);
        STREAMED ? stream(out + at, sum) : put(out + at, sum, part);
    }
}

}  // namespace

void embedding_backward_f32(float* out, const float* g, ptrdiff_t g_row, const std::int64_t* index,
                            ptrdiff_t count, ptrdiff_t rows, ptrdiff_t width, ptrdiff_t padding) {
    constexpr ptrdiff_t AHEAD = 16, LINE = 16;  // rows of out; elements
    const bool large = rows * width >= LARGE;
    const bool streamed =
        large && width % lanes<float> == 0 && reinterpret_cast<std::uintptr_t>(out) % WIDTH == 0;
    // the number (from 1) of the first index of a row of out, and of the next one of an index's
    Scratch<ptrdiff_t> chains(rows + count + 1);
    ptrdiff_t *first_of = chains.get(), *next_of = first_of + rows;
    for (ptrdiff_t r = 0; r < rows; r++) first_of[r] = 0;
    for (ptrdiff_t i = count; i > 0; i--) {
        const std::int64_t row = index[i - 1];
        if (row < 0 || row >= rows) continue;
        next_of[i] = first_of[row];
        first_of[row] = i;
    }
    if (padding >= 0 && padding < rows) first_of[padding] = 0;
    const ptrdiff_t worth = rows * width / 65536 + 1, ranges = worth < 64 ? worth : 64;
    parallel_for(ranges, [&](ptrdiff_t t) {
        const ptrdiff_t end = rows * (t + 1) / ranges;
        ptrdiff_t cleared = rows * t / ranges;  // rows before it are done
        for (ptrdiff_t r = cleared; r < end; r++) {
            if (const ptrdiff_t soon = r + AHEAD < end ? first_of[r + AHEAD] : 0)
                for (ptrdiff_t j = 0; j < width; j += LINE)
                    __builtin_prefetch(g + (soon - 1) * g_row + j);
            if (!first_of[r]) continue;
            clear(out + cleared * width, (r - cleared) * width, large);
            cleared = r + 1;
            const auto sum = streamed ? sum_chain<true> : sum_chain<false>;
            sum(out + r * width, g, g_row, first_of[r], next_of, width);
        }
        clear(out + cleared * width, (end - cleared) * width, large);
        if (large) stream_end();
    });
}

}  // namespace KERNEL_ISA
