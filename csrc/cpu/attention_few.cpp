// Attention of a handful of queries to many keys, as in decoding: forward, float32.
//
// Contract: attention_f32 of attention.cpp, for at most FEW_QUERIES and without causality.
//
// Algorithm: keys and values pass once, in blocks of 128, for the queries of all heads that share
// them: rows. Up to 4 rows: scores are dot products, key by key in the order of memory, whose next
// lines the processor fetches by itself; a tree of shuffles adds across the sums of a vector of
// keys. More rows, 8 at a time: scores are kept a vector of rows per key, numbers of the keys are
// broadcast, and nothing is added across lanes. That takes as long as memory does and reads 8 keys
// side by side, so values are asked for while scores are computed and the next keys while values
// are summed. Few heads are split over the keys; the shares are put together at the end, in order.
//
// Limits: reading keys and values, up to some 4 rows; then 4 D operations per score. One core of
// Zen 4, 48 heads, 8,192 keys, D = 64 (201 MB, which a plain read takes 6.5 ms for, from pages of 2
// MB): 1 query 8.1 to 8.6 ms, 2 queries 7.4 to 7.9, 4 queries 9.4 to 9.7, 8 queries 10.4 to 11 (80,
// 85, 68 and 61 %). The last two compute for 6.5 and 10.2 ms, beside which memory works in part.
//
// Versions (1, 4 and 8 queries; pages of 2 MB): each head's rows by themselves, 16 keys side by
// side in dot products for any number of rows, values and next keys asked for while scores are
// computed 12.4, 12.4, 15.8. For 8 rows: keys 16 side by side, whose addresses spill, 12.3; asked
// for a few keys ahead in order or side by side 15 to 22; every second line 17.8; a number of each
// page of the next block read first 12.0 (13.0 instead of 15.4 where pages have 4 KB). For up to 4:
// nothing asked for 7.8 to 10.5 and 9.4, beginnings of pages 32 keys ahead 7.8 to 10.8 and 10.4
// (9.4 and 10.5 where pages have 4 KB), 16 keys ahead 8.7 to 9.0 and 9.3 to 10.6; 4 rows as the 8
// do 12.6.
#include "attention_blocks.h"
#include "kernels.h"
#include "rows.h"

namespace KERNEL_ISA {
namespace {

constexpr int L = lanes<float>;
constexpr int LINE = 16;          // of the cache, in elements
constexpr int AHEAD = 32;         // keys between a fetch and its use
constexpr int STRAIGHT = 4;       // rows up to which scores are dot products
constexpr int W = L < 8 ? L : 8;  // rows at a time beyond that

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

// The products of R queries with a vector of keys, key by key, as they lie in memory; behind key
// n - 1 is nothing. D: vectors of a key, 0 if that is not known.
template <int R, int D, bool WHOLE>
ALWAYS_INLINE void dots(const float* q, const float* k, ptrdiff_t row, int n, ptrdiff_t depth,
                        float* s, ptrdiff_t s_row) {
    vf sum[R][L];
    vf known[R][D ? D : 1];
    if (D)
        for (int r = 0; r < R; r++)
#pragma GCC unroll 8
            for (int d = 0; d < D; d++) known[r][d] = load(q + r * depth + d * L);
#pragma GCC unroll 16
    for (int i = 0; i < L; i++) {
        const float* key = k + i * row;
        for (int r = 0; r < R; r++) sum[r][i] = vf{};
        if (!WHOLE && i >= n) continue;
        if (D) {
#pragma GCC unroll 8
            for (int d = 0; d < D; d++)
                for (int r = 0; r < R; r++) sum[r][i] += known[r][d] * load(key + d * L);
        } else {
            for_row(depth, [&](ptrdiff_t d, int part) {
                for (int r = 0; r < R; r++)
                    sum[r][i] += get(q + r * depth + d, part) * get(key + d, part);
            });
        }
    }
    for (int r = 0; r < R; r++) store(s + r * s_row, sums_of(sum[r]));
}

// The queries of all heads that share a kv head are rows that pass over its keys together.
struct Rows {
    ptrdiff_t b, first, count;  // batch, first head, rows

    ptrdiff_t head(const AttentionCall& a, ptrdiff_t r) const { return first + r / a.queries; }
    // Where the mask of row r begins for block j of the keys.
    ptrdiff_t mask(const AttentionCall& a, ptrdiff_t r, ptrdiff_t j) const {
        return b * a.mask.batch + head(a, r) * a.mask.head + r % a.queries * a.mask.row +
               j * KEYS * a.mask.column;
    }
};

// What one share of the keys gives some rows.
struct Share {
    float *sums, *top, *total;  // (rows, depth_v), (rows) relative to top
};

// s (n, `step` apart) of a row with its mask.
void mask_row(const AttentionMask& m, ptrdiff_t at, float* s, ptrdiff_t step, int n) {
    if (m.added) {
        const float* p = m.added + at;
        for (int c = 0; c < n; c++)
            s[c * step] =
                p[c * m.column] == NOTHING ? NOTHING : s[c * step] + p[c * m.column] * LOG2_E;
    } else {
        const unsigned char* p = m.seen + at;
        for (int c = 0; c < n; c++) s[c * step] = p[c * m.column] ? s[c * step] : NOTHING;
    }
}

// Masks the scores of `count` rows from `from` on; row r's are s + r * row, `step` apart.
void mask_rows(const AttentionCall& a, const SeenBlocks& seen, const Rows& rows, ptrdiff_t from,
               ptrdiff_t count, ptrdiff_t j, float* s, ptrdiff_t row, ptrdiff_t step, int n) {
    for (ptrdiff_t r = 0; r < count; r++) {
        const Seen what = seen.of(rows.b, rows.head(a, from + r), 0, j);
        float* to = s + r * row;
        if (what == some)
            mask_row(a.mask, rows.mask(a, from + r, j), to, step, n);
        else if (what == none)
            for (int c = 0; c < n; c++) to[c * step] = NOTHING;
    }
}

void faded(const Share& share, ptrdiff_t r, ptrdiff_t depth, float fade) {
    if (fade != 1.0f)
        for_row(depth, [&](ptrdiff_t d, int part) {
            float* to = share.sums + r * depth + d;
            put(to, get(to, part) * fade, part);
        });
}

// Asks for rows that are wanted soon, line by line as they lie. Inlined: GCC removes calls of what
// only prefetches.
ALWAYS_INLINE void fetch(const float* x, ptrdiff_t row, ptrdiff_t rows, ptrdiff_t depth) {
    for (ptrdiff_t r = 0; r < rows; r++)
        for (ptrdiff_t d = 0; d < depth; d += LINE) __builtin_prefetch(x + r * row + d, 0, 2);
}

// out (R, C vectors of columns) += p v, p (R, n) with any steps; ahead(i) fetches what it wants.
template <int R, int C, typename F>
ALWAYS_INLINE void weighted(const float* p, ptrdiff_t p_row, ptrdiff_t p_key, const float* v,
                            ptrdiff_t row, int n, float* out, ptrdiff_t out_row, const F& ahead) {
    vf sum[R][C];
#pragma GCC unroll 8
    for (int r = 0; r < R; r++)
#pragma GCC unroll 4
        for (int c = 0; c < C; c++) sum[r][c] = load(out + r * out_row + c * L);
    for (int i = 0; i < n; i++) {
        ahead(i);
        vf y[C];
#pragma GCC unroll 4
        for (int c = 0; c < C; c++) y[c] = load(v + i * row + c * L);
#pragma GCC unroll 8
        for (int r = 0; r < R; r++)
#pragma GCC unroll 4
            for (int c = 0; c < C; c++) sum[r][c] += y[c] * p[i * p_key + r * p_row];
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; r++)
#pragma GCC unroll 4
        for (int c = 0; c < C; c++) store(out + r * out_row + c * L, sum[r][c]);
}

// ---------------------------------------------------------------- up to STRAIGHT rows

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

// A block of keys, which is read as it lies in memory.
template <int R>
void straight_block(const AttentionCall& a, const SeenBlocks& seen, const Rows& rows, ptrdiff_t j,
                    const float* q, const Share& share) {
    const int n = length(a.keys, j, KEYS);
    const ptrdiff_t kv = rows.first / (a.heads / a.kv_heads), dv = a.depth_v;
    const float* k = a.k.at(rows.b, kv, j * KEYS);
    alignas(64) float s[R * KEYS];
    int c = 0;
    for (; c + L <= n; c += L)
        for (int r = 0; r < R; r++) {
            // one row is done before the processor has fetched the next lines
            if (R == 1) fetch(k + (c + AHEAD) * a.k.row, a.k.row, L, a.depth);
            const float* one = q + r * a.depth;
            if (a.depth == 4 * L)
                dots<1, 4, true>(one, k + c * a.k.row, a.k.row, L, a.depth, s + r * KEYS + c, KEYS);
            else
                dots<1, 0, true>(one, k + c * a.k.row, a.k.row, L, a.depth, s + r * KEYS + c, KEYS);
        }
    if (c < n)
        for (int r = 0; r < R; r++) {
            float* to = s + r * KEYS + c;
            dots<1, 0, false>(q + r * a.depth, k + c * a.k.row, a.k.row, n - c, a.depth, to, KEYS);
            store(to, select(lanes_before(n - c), load(to), splat(NOTHING)));
        }
    mask_rows(a, seen, rows, 0, R, j, s, KEYS, 1, n);
    for (int r = 0; r < R; r++)
        faded(share, r, dv, weigh(s + r * KEYS, n, share.top[r], share.total[r]));
    constexpr int C = L > 8 ? 4 : 2;
    const float* v = a.v.at(rows.b, kv, j * KEYS);
    ptrdiff_t d = 0;
    for (; d + C * L <= dv; d += C * L)
        weighted<R, C>(s, KEYS, 1, v + d, a.v.row, n, share.sums + d, dv, [&](int i) INLINED {
            if (R == 1) fetch(v + d + (i + AHEAD) * a.v.row, a.v.row, 1, C * L);
        });
    if (d < dv) product(R, dv - d, n, s, KEYS, 1, v + d, a.v.row, share.sums + d, dv, true);
}

// ---------------------------------------------------------------- more rows, W at a time

typedef float rows_of __attribute__((vector_size(4 * W), aligned(4), may_alias));

// s (R, W) = keys q^T: a vector of queries for each of R keys. Meanwhile R rows of x are fetched.
template <int R>
ALWAYS_INLINE void turned_dots(const float* q, const float* k, ptrdiff_t row, ptrdiff_t depth,
                               float* s, const float* x, ptrdiff_t x_row, ptrdiff_t x_depth) {
    rows_of sum[R] = {};
    for (ptrdiff_t from = 0; from < depth; from += LINE) {
        const ptrdiff_t first = R * from / depth, last = R * (from + LINE) / depth;
        fetch(x + first * x_row, x_row, (last < R ? last : R) - first, x_depth);
        const ptrdiff_t end = depth - from < LINE ? depth : from + LINE;
        for (ptrdiff_t d = from; d < end; d++) {
            const rows_of y = *reinterpret_cast<const rows_of*>(q + d * W);
#pragma GCC unroll 16
            for (int i = 0; i < R; i++) sum[i] += y * k[i * row + d];
        }
    }
#pragma GCC unroll 16
    for (int i = 0; i < R; i++) *reinterpret_cast<rows_of*>(s + i * W) = sum[i];
}

// Every lane r: the most, or the sum, of the lanes r, r + W, ...
template <int D = L / 2, typename F>
ALWAYS_INLINE vf across(vf v, const F& both) {
    if constexpr (D < W)
        return v;
    else
        return across<D / 2>(both(v, crossed<D>(v, std::make_integer_sequence<int, L>{})), both);
}

ALWAYS_INLINE vf repeated(const float* x) {
    alignas(64) float all[L];
    for (int i = 0; i < L; i++) all[i] = x[i % W];
    return load(all);
}

// weigh for W rows at once: s (n, W), whole vectors, filled up with NOTHING.
ALWAYS_INLINE void turned_weigh(float* s, int n, float* top, float* total, float* fade) {
    const vf before = repeated(top);
    vf most = before, sum{};
    for (int c = 0; c < n * W; c += L) most = max(most, load(s + c));
    most = across(most, [](vf x, vf y) INLINED { return max(x, y); });
    const vf level = select(most == NOTHING, vf{}, most);
    for (int c = 0; c < n * W; c += L) {
        const vf e = exp2(load(s + c) - level);
        store(s + c, e);
        sum += e;
    }
    sum = across(sum, [](vf x, vf y) INLINED { return x + y; });
    const vf rate = exp2(before - level), all = repeated(total) * rate + sum;
    for (int r = 0; r < W; r++) {
        top[r] = most[r];
        total[r] = all[r];
        fade[r] = rate[r];
    }
}

// A block of keys for the W rows from `from` on: q (depth, W).
void turned_block(const AttentionCall& a, const SeenBlocks& seen, const Rows& rows, ptrdiff_t from,
                  ptrdiff_t j, const float* q, const Share& share) {
    constexpr int R = 8;  // keys at a time
    const int n = length(a.keys, j, KEYS), whole = n / R * R;
    const ptrdiff_t kv = rows.first / (a.heads / a.kv_heads), dv = a.depth_v;
    const float *k = a.k.at(rows.b, kv, j * KEYS), *v = a.v.at(rows.b, kv, j * KEYS);
    alignas(64) float s[KEYS * W];
    float fade[W];
    for (int c = 0; c < whole; c += R)
        turned_dots<R>(q, k + c * a.k.row, a.k.row, a.depth, s + c * W, v + c * a.v.row, a.v.row,
                       dv);
    for (int c = whole; c < n; c++)
        turned_dots<1>(q, k + c * a.k.row, a.k.row, a.depth, s + c * W, v + c * a.v.row, a.v.row,
                       dv);
    for (int c = n * W; c % L; c++) s[c] = NOTHING;
    const ptrdiff_t own = rows.count - from < W ? rows.count - from : W;
    mask_rows(a, seen, rows, from, own, j, s, 1, W, n);
    turned_weigh(s, n, share.top + from, share.total + from, fade);
    for (ptrdiff_t r = 0; r < own; r++) faded(share, from + r, dv, fade[r]);
    // the next keys, or these again
    const float* next = (j + 2) * KEYS <= a.keys ? k + KEYS * a.k.row : k;
    constexpr int C = L > 8 ? 2 : 1;
    const int every = dv >= C * L ? int(dv / (C * L)) : 1;
    float* out = share.sums + from * dv;
    ptrdiff_t d = 0;
    for (; d + C * L <= dv; d += C * L) {
        int left = 0;
        weighted<W, C>(s, 1, W, v + d, a.v.row, n, out + d, dv, [&](int) INLINED {
            if (!left) {
                fetch(next, a.k.row, 1, a.depth);
                next += a.k.row;
                left = every;
            }
            left--;
        });
    }
    if (d < dv) product(own, dv - d, n, s, 1, W, v + d, a.v.row, out + d, dv, true);
}

// to (depth, wide) = the rows from `from` on, scaled; rows that are not there are 0.
void turned_queries(const AttentionCall& a, const Rows& rows, ptrdiff_t from, int wide, float* to) {
    for (int r = 0; r < wide; r++) {
        const ptrdiff_t row = from + r;
        const float* q =
            row < rows.count ? a.q.at(rows.b, rows.head(a, row), row % a.queries) : nullptr;
        for (ptrdiff_t d = 0; d < a.depth; d++)
            to[d * wide + r] = q ? q[d] * (a.scale * LOG2_E) : 0.0f;
    }
}

}  // namespace

void attention_few(const AttentionCall& a) {
    const ptrdiff_t count = blocks(a.keys, KEYS), group = a.heads / a.kv_heads;
    const ptrdiff_t parts = shares(a.batch * a.kv_heads, count), dv = a.depth_v;
    const ptrdiff_t rows = group * a.queries;
    const int wide = rows <= STRAIGHT ? 1 : W;
    const ptrdiff_t padded = (rows + wide - 1) / wide * wide, size = padded * (dv + 2);
    const SeenBlocks seen(a);
    Scratch<float> partial(a.batch * a.kv_heads * parts * size);
    const auto share_of = [&](ptrdiff_t kv_head, ptrdiff_t part) {
        float* p = partial.get() + (kv_head * parts + part) * size;
        return Share{p, p + padded * dv, p + padded * (dv + 1)};
    };
    parallel_for(a.batch * a.kv_heads * parts, [&](ptrdiff_t task) {
        const ptrdiff_t kv_head = task / parts, part = task % parts;
        const Rows own{kv_head / a.kv_heads, kv_head % a.kv_heads * group, rows};
        const Share share = share_of(kv_head, part);
        for (ptrdiff_t n = 0; n < padded * dv; n++) share.sums[n] = 0.0f;
        for (ptrdiff_t r = 0; r < padded; r++) {
            share.top[r] = NOTHING;
            share.total[r] = 0.0f;
        }
        Scratch<float> queries(padded * a.depth);
        for (ptrdiff_t from = 0; from < padded; from += wide)
            turned_queries(a, own, from, wide, queries.get() + from * a.depth);
        const ptrdiff_t end = count * (part + 1) / parts;
        for (ptrdiff_t j = count * part / parts; j < end; j++) {
            bool wanted = false;
            for (ptrdiff_t h = 0; h < group; h++)
                wanted |= seen.of(own.b, own.first + h, 0, j) != none;
            if (!wanted) continue;
            const float* q = queries.get();
            if (rows == 1)
                straight_block<1>(a, seen, own, j, q, share);
            else if (rows == 2)
                straight_block<2>(a, seen, own, j, q, share);
            else if (rows == 3)
                straight_block<3>(a, seen, own, j, q, share);
            else if (rows == 4)
                straight_block<4>(a, seen, own, j, q, share);
            else
                for (ptrdiff_t from = 0; from < rows; from += W)
                    turned_block(a, seen, own, from, j, q + from * a.depth, share);
        }
    });
    for (ptrdiff_t kv_head = 0; kv_head < a.batch * a.kv_heads; kv_head++)
        for (ptrdiff_t r = 0; r < rows; r++) {
            float top = NOTHING, total = 0.0f;
            for (ptrdiff_t part = 0; part < parts; part++) {
                const float one = share_of(kv_head, part).top[r];
                top = one > top ? one : top;
            }
            const float level = top == NOTHING ? 0.0f : top;
            const ptrdiff_t b = kv_head / a.kv_heads, query = r % a.queries;
            const ptrdiff_t h = kv_head % a.kv_heads * group + r / a.queries;
            float* out = a.out.at(b, h, query);
            for (ptrdiff_t d = 0; d < dv; d++) out[d] = 0.0f;
            for (ptrdiff_t part = 0; part < parts; part++) {
                const Share share = share_of(kv_head, part);
                const float fade = exp2(splat(share.top[r] - level))[0];
                total += fade * share.total[r];
                for (ptrdiff_t d = 0; d < dv; d++) out[d] += fade * share.sums[r * dv + d];
            }
            const float rate = total == 0.0f ? 0.0f : 1.0f / total;
            for (ptrdiff_t d = 0; d < dv; d++) out[d] *= rate;
            a.lse[(b * a.heads + h) * a.queries + query] = top * LN_2 + log(splat(total))[0];
        }
}

}  // namespace KERNEL_ISA
