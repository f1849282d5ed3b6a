// Rows of float32: walking over one in vectors, and dealing many out to threads.
#pragma once

#include "math.h"
#include "parallel.h"

namespace KERNEL_ISA {
namespace {

// f(at, n) for every vector of a row; n is lanes<float> but in the last.
template <typename F>
ALWAYS_INLINE void for_row(std::ptrdiff_t width, const F& f) {
    constexpr int L = lanes<float>;
    std::ptrdiff_t at = 0;
    for (; at + L <= width; at += L) f(at, L);
    if (at < width) f(at, int(width - at));
}

// f(at, n, k) likewise, with k = 0, 1, 2, 3, 0 ...: of four sums, the one to add to.
template <typename F>
ALWAYS_INLINE void for_row_by_fours(std::ptrdiff_t width, const F& f) {
    constexpr int L = lanes<float>;
    std::ptrdiff_t at = 0;
    for (; at + 4 * L <= width; at += 4 * L) {
        f(at, L, 0);
        f(at + L, L, 1);
        f(at + 2 * L, L, 2);
        f(at + 3 * L, L, 3);
    }
    for (; at + L <= width; at += L) f(at, L, 0);
    if (at < width) f(at, int(width - at), 1);
}
ALWAYS_INLINE float joined(const vf (&sums)[4]) {
    return reduce_add<float>((sums[0] + sums[2]) + (sums[1] + sums[3]));
}

ALWAYS_INLINE vf get(const float* p, int n) {
    return n == lanes<float> ? load(p) : load_part(p, n);
}
ALWAYS_INLINE void put(float* p, vf v, int n) {
    if (n == lanes<float>)
        store(p, v);
    else
        store_part(p, v, n);
}

template <int... I>
ALWAYS_INLINE vi counted(std::integer_sequence<int, I...>) {
    return vi{I...};
}
// The lanes before n.
ALWAYS_INLINE vi lanes_before(int n) {
    return counted(std::make_integer_sequence<int, lanes<float>>{}) < n;
}
// v with 0 in the lanes from n on.
ALWAYS_INLINE vf first(vf v, int n) {
    return n == lanes<float> ? v : select(lanes_before(n), v, vf{});
}
ALWAYS_INLINE vf load_part_or(const float* p, int n, float other) {
    return select(lanes_before(n), load_part(p, n), splat(other));
}

// f(row) for every row, in tasks of about 16,384 elements.
template <typename F>
ALWAYS_INLINE void for_rows(std::ptrdiff_t rows, std::ptrdiff_t width, const F& f) {
    const std::ptrdiff_t group = width < 16384 ? 16384 / (width ? width : 1) : 1;
    const std::ptrdiff_t groups = (rows + group - 1) / group;
    const auto task = [&](std::ptrdiff_t t) {
        const std::ptrdiff_t end = rows < (t + 1) * group ? rows : (t + 1) * group;
        for (std::ptrdiff_t r = t * group; r < end; r++) f(r);
    };
    if (groups < 4)
        for (std::ptrdiff_t t = 0; t < groups; t++) task(t);
    else
        parallel_for(groups, task);
}

}  // namespace
}  // namespace KERNEL_ISA
