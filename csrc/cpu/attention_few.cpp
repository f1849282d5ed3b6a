// Attention of a handful of queries to many keys, as in decoding: forward, float32.
//
// Contract: attention_f32 of attention.cpp, for at most FEW_QUERIES and without causality.
//
// Algorithm: keys and values pass once, in blocks of 128 that all heads of a group use while they
// are in the cache. Scores are dot products, one vector of keys at a time: a running sum per key,
// then one tree of shuffles that adds across the sums of all. Few heads are split over the keys;
// the shares are put together at the end, in order.
//
// Limits: reading keys and values, up to some 6 queries; then 4 D operations per score. Share of
// the bandwidth of a plain read, one core of Zen 4, 48 heads, 8,192 keys, D = 64: 1 query 95 %, 4
// queries 86 %, 8 queries 76 %.
//
// Versions (1, 4 and 8 queries, 12 heads): nothing fetched ahead 54, 49 and 41 %; all of a block's
// fetches at its first query 82, 62 and 48 %; keys transposed and multiplied by tiles, for 4 and 8:
// 70, 57 %.
#include "attention_blocks.h"
#include "kernels.h"
#include "rows.h"

namespace KERNEL_ISA {
namespace {

constexpr int L = lanes<float>;
constexpr int LINE = 16;  // of the cache, in elements

// Lane i of the result is in part the sum of x (bit D of i is 0) or of y, each folded by D.
template <int D, int... I>
ALWAYS_INLINE vf folded(vf x, vf y, std::integer_sequence<int, I...>) {
    return __builtin_shufflevector(x, y, (I & D ? L + I - D : I)...) +
           __builtin_shufflevector(x, y, (I & D ? L + I : I + D)...);
}

// Lane i of the result is the sum of v[i].
template <int D = L / 2>
ALWAYS_INLINE vf sums_of(vf* v) {
#pragma GCC unroll 8
    for (int i = 0; i < D; i++)
        v[i] = folded<D>(v[i], v[i + D], std::make_integer_sequence<int, L>{});
    if constexpr (D > 1)
        return sums_of<D / 2>(v);
    else
        return v[0];
}

// The products of q with a vector of keys; behind key n - 1 is nothing.
template <bool WHOLE>
ALWAYS_INLINE vf dots(const float* q, const float* k, ptrdiff_t row, int n, ptrdiff_t depth) {
    vf sum[L] = {};
    ptrdiff_t d = 0;
    for (; d + L <= depth; d += L) {
        const vf x = load(q + d);
#pragma GCC unroll 16
        for (int i = 0; i < L; i++)
            if (WHOLE || i < n) sum[i] += x * load(k + i * row + d);
    }
    if (d < depth) {
        const vf x = load_part(q + d, int(depth - d));
#pragma GCC unroll 16
        for (int i = 0; i < L; i++)
            if (WHOLE || i < n) sum[i] += x * load_part(k + i * row + d, int(depth - d));
    }
    return sums_of(sum);
}

void mask_row(const AttentionMask& m, ptrdiff_t at, float* s, int n) {
    if (m.added) {
        const float* p = m.added + at;
        for (int c = 0; c < n; c++)
            s[c] = p[c * m.column] == NOTHING ? NOTHING : s[c] + p[c * m.column] * LOG2_E;
    } else {
        const unsigned char* p = m.seen + at;
        for (int c = 0; c < n; c++) s[c] = p[c * m.column] ? s[c] : NOTHING;
    }
}

// Scores of a query become weights relative to the running maximum; the result is what that makes
// of what was summed before. The last vector is filled up with NOTHING.
float weigh(float* s, int n, float& top, float& total) {
    vf most = splat(top), sum{};
    for (int c = 0; c < n; c += L) most = max(most, load(s + c));
    const float now = reduce_max<float>(most), level = now == NOTHING ? 0.0f : now;
    for (int c = 0; c < n; c += L) {
        const vf e = exp2(load(s + c) - level);
        store(s + c, e);
        sum += e;
    }
    const float fade = exp2(splat(top - level))[0];
    total = total * fade + reduce_add<float>(sum);
    top = now;
    return fade;
}

// What one share of the keys gives one head.
struct Share {
    float *sums, *top, *total;  // (queries, depth_v), (queries) relative to top
};

// Asks for rows that are wanted soon. Inlined: GCC removes calls of what only prefetches.
ALWAYS_INLINE void fetch(const float* x, ptrdiff_t row, ptrdiff_t rows, ptrdiff_t depth) {
    for (ptrdiff_t r = 0; r < rows; r++)
        for (ptrdiff_t d = 0; d < depth; d += LINE) __builtin_prefetch(x + r * row + d, 0, 2);
}

// A block of keys. While its scores are computed, its values and the next keys are fetched, a few
// rows at a time: so memory works while we do.
void few_block(const AttentionCall& a, Seen what, ptrdiff_t b, ptrdiff_t h, ptrdiff_t j,
               const float* q, const Share& share) {
    const int n = length(a.keys, j, KEYS);
    const ptrdiff_t kv = h / (a.heads / a.kv_heads), dv = a.depth_v;
    const float *k = a.k.at(b, kv, j * KEYS), *v = a.v.at(b, kv, j * KEYS);
    alignas(64) float s[FEW_QUERIES * KEYS];
    for (int c = 0; c < n; c += L) {
        const int part = n - c < L ? n - c : L;
        const float* keys = k + c * a.k.row;
        for (ptrdiff_t r = 0; r < a.queries; r++) {
            const ptrdiff_t from = L * r / a.queries, rows = L * (r + 1) / a.queries - from;
            if (part == L) fetch(v + (c + from) * a.v.row, a.v.row, rows, dv);
            if (j * KEYS + KEYS + c + L <= a.keys)
                fetch(keys + (KEYS + from) * a.k.row, a.k.row, rows, a.depth);
            const float* one = q + r * a.depth;
            store(s + r * KEYS + c,
                  part == L
                      ? dots<true>(one, keys, a.k.row, L, a.depth)
                      : select(lanes_before(part), dots<false>(one, keys, a.k.row, part, a.depth),
                               splat(NOTHING)));
        }
    }
    for (ptrdiff_t r = 0; r < a.queries; r++) {
        float* row = s + r * KEYS;
        if (what == some)
            mask_row(a.mask,
                     b * a.mask.batch + h * a.mask.head + r * a.mask.row + j * KEYS * a.mask.column,
                     row, n);
        const float fade = weigh(row, n, share.top[r], share.total[r]);
        if (fade != 1.0f)
            for_row(dv, [&](ptrdiff_t d, int part) {
                float* to = share.sums + r * dv + d;
                put(to, get(to, part) * fade, part);
            });
    }
    product(a.queries, dv, n, s, KEYS, 1, v, a.v.row, share.sums, dv, true);
}

}  // namespace

void attention_few(const AttentionCall& a) {
    const ptrdiff_t count = blocks(a.keys, KEYS), group = a.heads / a.kv_heads;
    const ptrdiff_t parts = shares(a.batch * a.kv_heads, count), dv = a.depth_v;
    const ptrdiff_t queries = a.queries, size = queries * (dv + 2);
    const SeenBlocks seen(a);
    Scratch<float> partial(a.batch * a.heads * parts * size);
    const auto share_of = [&](ptrdiff_t head, ptrdiff_t part) {
        float* p = partial.get() + (head * parts + part) * size;
        return Share{p, p + queries * dv, p + queries * (dv + 1)};
    };
    parallel_for(a.batch * a.kv_heads * parts, [&](ptrdiff_t task) {
        const ptrdiff_t b = task / parts / a.kv_heads, first = task / parts % a.kv_heads * group;
        const ptrdiff_t part = task % parts;
        Scratch<float> scaled(group * queries * a.depth);
        for (ptrdiff_t h = 0; h < group; h++) {
            const Share share = share_of(b * a.heads + first + h, part);
            for (ptrdiff_t r = 0; r < queries; r++) {
                const float* q = a.q.at(b, first + h, r);
                for (ptrdiff_t d = 0; d < a.depth; d++)
                    scaled.get()[(h * queries + r) * a.depth + d] = q[d] * (a.scale * LOG2_E);
                for (ptrdiff_t d = 0; d < dv; d++) share.sums[r * dv + d] = 0.0f;
                share.top[r] = NOTHING;
                share.total[r] = 0.0f;
            }
        }
        const ptrdiff_t end = count * (part + 1) / parts;
        for (ptrdiff_t j = count * part / parts; j < end; j++)
            for (ptrdiff_t h = 0; h < group; h++) {
                const Seen what = seen.of(b, first + h, 0, j);
                if (what != none)
                    few_block(a, what, b, first + h, j, scaled.get() + h * queries * a.depth,
                              share_of(b * a.heads + first + h, part));
            }
    });
    for (ptrdiff_t head = 0; head < a.batch * a.heads; head++)
        for (ptrdiff_t r = 0; r < queries; r++) {
            float top = NOTHING, total = 0.0f;
            for (ptrdiff_t part = 0; part < parts; part++) {
                const float one = share_of(head, part).top[r];
                top = one > top ? one : top;
            }
            const float level = top == NOTHING ? 0.0f : top;
            float* out = a.out.at(head / a.heads, head % a.heads, r);
            for (ptrdiff_t d = 0; d < dv; d++) out[d] = 0.0f;
            for (ptrdiff_t part = 0; part < parts; part++) {
                const Share share = share_of(head, part);
                const float fade = exp2(splat(share.top[r] - level))[0];
                total += fade * share.total[r];
                for (ptrdiff_t d = 0; d < dv; d++) out[d] += fade * share.sums[r * dv + d];
            }
            const float rate = total == 0.0f ? 0.0f : 1.0f / total;
            for (ptrdiff_t d = 0; d < dv; d++) out[d] *= rate;
            a.lse[head * queries + r] = top * LN_2 + log(splat(total))[0];
        }
}

}  // namespace KERNEL_ISA
