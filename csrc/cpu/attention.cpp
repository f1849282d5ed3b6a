// Scaled dot-product attention, float32, forward and backward.
//
// Contract: AttentionCall, and minidl/backends/reference/attention.py. Results do not depend on the
// number of threads. Memory beyond the results: packed keys (forward), packed keys and values and,
// where few heads are split over keys, partial query gradients (backward).
//
// Algorithm (Dao et al. 2022, 2023): blocks of 64 queries by 64 keys. Forward: per block of
// queries, the blocks of keys one after the other with a running maximum and sum per query.
// Backward: weights again from the log-sum-exp; per block of keys, the blocks of queries. Blocks
// that causality or a mask empties are skipped, blocks on the diagonal are done in bands of 16
// queries that stop at theirs. A handful of queries reads keys in place, split over keys.
//
// Limits: 4 D operations per score forward, 10 D backward, and one exponential each.
#include "attention.h"

#include "kernels.h"
#include "math.h"
#include "parallel.h"
#include "rows.h"
#include "tile.h"

namespace KERNEL_ISA {
namespace {

using std::ptrdiff_t;

constexpr int B = 64;           // queries and keys of a block
constexpr int BAND = 16;        // queries of a block on the diagonal that are done together
constexpr ptrdiff_t PARTS = 8;  // at most: shares of the keys, where there are few heads
constexpr float NOTHING = -__builtin_inff();

ptrdiff_t blocks(ptrdiff_t n) {
    return (n + B - 1) / B;
}
int length(ptrdiff_t n, ptrdiff_t block) {
    return int(n - block * B < B ? n - block * B : B);
}

// C (m, n) (+)= A B in slivers of columns.
void product(ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, const float* a, ptrdiff_t a_row,
             ptrdiff_t a_col, const float* b, ptrdiff_t b_row, float* c, ptrdiff_t c_row,
             bool accumulate) {
    constexpr int S = SLIVER<float>;
    for (ptrdiff_t j = 0; j < n; j += S)
        sliver_product<float>(m, int(n - j < S ? n - j : S), k, a, a_row, a_col, b + j, b_row,
                              false, c + j, c_row, nullptr, accumulate);
}

// The rows of a block that see any of its keys, and how far: all, or bands below the diagonal.
struct Band {
    int from, to, columns;
};

// Calls f(band) for the parts of block (i, j), and says nothing of those that causality empties.
template <typename F>
void bands(const AttentionCall& a, ptrdiff_t i, ptrdiff_t j, const F& f) {
    const int rows = length(a.queries, i), columns = length(a.keys, j);
    if (!a.causal || i > j) return f(Band{0, rows, columns});
    for (int from = 0; from < rows; from += BAND) {
        const int to = rows < from + BAND ? rows : from + BAND;
        f(Band{from, to, columns < to ? columns : to});
    }
}

// ---------------------------------------------------------------- masks

enum class Seen { none, some, all };

const unsigned char* seen_at(const AttentionMask& m, ptrdiff_t b, ptrdiff_t h) {
    return m.seen + b * m.batch + h * m.head;
}

// Whether the mask lets block (i, j) of a head through.
Seen seen(const AttentionCall& a, ptrdiff_t b, ptrdiff_t h, ptrdiff_t i, ptrdiff_t j) {
    const AttentionMask& m = a.mask;
    if (!m.seen) return m.added ? Seen::some : Seen::all;
    const int rows = m.row ? length(a.queries, i) : 1, columns = m.column ? length(a.keys, j) : 1;
    const unsigned char* p = seen_at(m, b, h) + i * B * m.row + j * B * m.column;
    bool any = false, every = true;
    for (int r = 0; r < rows; r++)
        for (int c = 0; c < columns; c++) {
            const bool one = p[r * m.row + c * m.column];
            any |= one;
            every &= one;
        }
    return every ? Seen::all : any ? Seen::some : Seen::none;
}

// Apply the mask to `n` scores of one query from key `key` on.
void mask_row(const AttentionMask& m, ptrdiff_t b, ptrdiff_t h, ptrdiff_t query, ptrdiff_t key,
              float* s, int n) {
    if (m.added) {
        const float* p = m.added + b * m.batch + h * m.head + query * m.row + key * m.column;
        for (int c = 0; c < n; c++) s[c] += p[c * m.column];
    } else {
        const unsigned char* p = seen_at(m, b, h) + query * m.row + key * m.column;
        for (int c = 0; c < n; c++)
            if (!p[c * m.column]) s[c] = NOTHING;
    }
}

// ---------------------------------------------------------------- scores

// The keys (or values) of every kv head as blocks of 64 that are transposed: (depth, 64) each.
void pack_heads(float* to, const Heads<const float*>& x, const AttentionCall& a, ptrdiff_t depth) {
    const ptrdiff_t count = blocks(a.keys);
    parallel_for(a.batch * a.kv_heads * count, [&](ptrdiff_t task) {
        const ptrdiff_t j = task % count, head = task / count;
        pack<float>(depth, length(a.keys, j), B, x.at(head / a.kv_heads, head % a.kv_heads, j * B),
                    1, x.row, to + task * depth * B);
    });
}

// s (rows, 64) = q k^T of one band, masked; q is scaled already.
void scores(const AttentionCall& a, ptrdiff_t b, ptrdiff_t h, ptrdiff_t i, ptrdiff_t j, Band band,
            bool masked, const float* q, const float* packed, float* s) {
    constexpr int S = SLIVER<float>;
    for (int c = 0; c < band.columns; c += S) {
        const int n = band.columns - c < S ? band.columns - c : S;
        sliver_product<float>(band.to - band.from, n, a.depth, q + band.from * a.depth, a.depth, 1,
                              packed + c, B, true, s + band.from * B + c, B, nullptr, false);
    }
    for (int r = band.from; r < band.to; r++) {
        float* row = s + r * B;
        if (masked) mask_row(a.mask, b, h, i * B + r, j * B, row, band.columns);
        if (a.causal && i == j)
            for (int c = r + 1; c < band.columns; c++) row[c] = NOTHING;
    }
}

void scaled_rows(float* to, const float* from, ptrdiff_t row, int rows, ptrdiff_t depth,
                 float scale) {
    for (int r = 0; r < rows; r++)
        for_row(depth, [&](ptrdiff_t d, int n) {
            put(to + r * depth + d, get(from + r * row + d, n) * scale, n);
        });
}

// ---------------------------------------------------------------- forward

// Scores become weights relative to the running maximum; what was summed before is scaled down if
// the maximum rose.
void weigh_row(float* s, int columns, float& top, float& total, float* out, ptrdiff_t depth) {
    vf most = splat(NOTHING);
    for (int c = 0; c < columns; c += lanes<float>) {
        const int n = columns - c < lanes<float> ? columns - c : lanes<float>;
        most = max(most, n == lanes<float> ? load(s + c) : load_part_or(s + c, n, NOTHING));
    }
    const float highest = reduce_max<float>(most), now = highest > top ? highest : top;
    if (now == NOTHING) {  // nothing seen yet
        for (int c = 0; c < columns; c++) s[c] = 0.0f;
        return;
    }
    vf sum{};
    for_row(columns, [&](ptrdiff_t c, int n) {
        const vf e = exp(get(s + c, n) - now);
        put(s + c, e, n);
        sum += first(e, n);
    });
    if (now != top) {
        const float fade = exp(splat(top - now))[0];
        total *= fade;
        for_row(depth, [&](ptrdiff_t d, int n) { put(out + d, get(out + d, n) * fade, n); });
        top = now;
    }
    total += reduce_add<float>(sum);
}

void forward_block(const AttentionCall& a, ptrdiff_t b, ptrdiff_t h, ptrdiff_t i,
                   const float* packed) {
    const int rows = length(a.queries, i);
    const ptrdiff_t kv = h / (a.heads / a.kv_heads), count = blocks(a.keys);
    const ptrdiff_t dv = a.depth_v;
    Scratch<float> space(B * (a.depth + B));
    float *q = space.get(), *s = q + B * a.depth;
    scaled_rows(q, a.q.at(b, h, i * B), a.q.row, rows, a.depth, a.scale);
    float* out = a.out + ((b * a.heads + h) * a.queries + i * B) * dv;
    float top[B], total[B];
    for (int r = 0; r < rows; r++) {
        top[r] = NOTHING;
        total[r] = 0.0f;
    }
    for (ptrdiff_t n = 0; n < rows * dv; n++) out[n] = 0.0f;
    const ptrdiff_t last = a.causal && i + 1 < count ? i + 1 : count;
    for (ptrdiff_t j = 0; j < last; j++) {
        const Seen what = seen(a, b, h, i, j);
        if (what == Seen::none) continue;
        bands(a, i, j, [&](Band band) {
            scores(a, b, h, i, j, band, what == Seen::some, q,
                   packed + ((b * a.kv_heads + kv) * count + j) * a.depth * B, s);
            for (int r = band.from; r < band.to; r++)
                weigh_row(s + r * B, band.columns, top[r], total[r], out + r * dv, dv);
            product(band.to - band.from, dv, band.columns, s + band.from * B, B, 1,
                    a.v.at(b, kv, j * B), a.v.row, out + band.from * dv, dv, true);
        });
    }
    float* lse = a.lse + (b * a.heads + h) * a.queries + i * B;
    for (int r = 0; r < rows; r++) {
        const float rate = total[r] == 0.0f ? 0.0f : 1.0f / total[r];
        for_row(dv, [&](ptrdiff_t d, int n) {
            put(out + r * dv + d, get(out + r * dv + d, n) * rate, n);
        });
        lse[r] = top[r] + log(splat(total[r]))[0];
    }
}

// ---------------------------------------------------------------- backward

struct BackwardSpace {
    float *q, *s, *ds, *dq;
};

// Block (i, j) of head h: adds to dk and dv (rows of the block) and to dq (rows of the head).
void backward_block(const AttentionCall& a, ptrdiff_t b, ptrdiff_t h, ptrdiff_t i, ptrdiff_t j,
                    Seen what, const float* keys, const float* values, const float* delta,
                    const BackwardSpace& space, float* dk, float* dv, float* dq) {
    const ptrdiff_t kv = h / (a.heads / a.kv_heads);
    const float* lse = a.lse + (b * a.heads + h) * a.queries + i * B;
    const float* g = a.g.at(b, h, i * B);
    float *s = space.s, *ds = space.ds;
    bands(a, i, j, [&](Band band) {
        constexpr int S = SLIVER<float>;
        const int rows = band.to - band.from, from = band.from;
        scores(a, b, h, i, j, band, what == Seen::some, space.q, keys, s);
        for (int c = 0; c < band.columns; c += S) {
            const int n = band.columns - c < S ? band.columns - c : S;
            sliver_product<float>(rows, n, a.depth_v, g + from * a.g.row, a.g.row, 1, values + c, B,
                                  true, ds + from * B + c, B, nullptr, false);
        }
        for (int r = from; r < band.to; r++) {
            // a query that saw nothing: exp(s - inf) = 0
            const float level = lse[r] == NOTHING ? -NOTHING : lse[r];
            for_row(band.columns, [&](ptrdiff_t c, int n) {
                const vf p = exp(get(s + r * B + c, n) - level);
                put(s + r * B + c, p, n);
                put(ds + r * B + c, p * (get(ds + r * B + c, n) - delta[r]), n);
            });
        }
        product(band.columns, a.depth_v, rows, s + from * B, 1, B, g + from * a.g.row, a.g.row, dv,
                a.depth_v, true);
        product(band.columns, a.depth, rows, ds + from * B, 1, B, space.q + from * a.depth, a.depth,
                dk, a.depth, true);
        product(rows, a.depth, band.columns, ds + from * B, B, 1, a.k.at(b, kv, j * B), a.k.row,
                dq + (i * B + from) * a.depth, a.depth, true);
    });
}

// The queries' gradients of share `part` of the keys of one kv head, and that share of dk and dv.
void backward_part(const AttentionCall& a, ptrdiff_t head, ptrdiff_t from, ptrdiff_t to,
                   const float* keys, const float* values, const float* deltas, float* dq) {
    const ptrdiff_t b = head / a.kv_heads, kv = head % a.kv_heads, group = a.heads / a.kv_heads;
    const ptrdiff_t count = blocks(a.keys), size = a.queries * a.depth;
    Scratch<float> space(B * (a.depth + 2 * B));
    const BackwardSpace work{space.get(), space.get() + B * a.depth,
                             space.get() + B * (a.depth + B), nullptr};
    for (ptrdiff_t n = 0; n < group * size; n++) dq[n] = 0.0f;
    float* dk = a.dk + (head * a.keys + from * B) * a.depth;
    float* dv = a.dv + (head * a.keys + from * B) * a.depth_v;
    const ptrdiff_t end = to * B < a.keys ? to * B : a.keys;
    for (ptrdiff_t n = 0; n < (end - from * B) * a.depth; n++) dk[n] = 0.0f;
    for (ptrdiff_t n = 0; n < (end - from * B) * a.depth_v; n++) dv[n] = 0.0f;
    for (ptrdiff_t h = kv * group; h < (kv + 1) * group; h++)
        for (ptrdiff_t i = 0; i < blocks(a.queries); i++) {
            if (a.causal && i < from) continue;
            scaled_rows(work.q, a.q.at(b, h, i * B), a.q.row, length(a.queries, i), a.depth,
                        a.scale);
            for (ptrdiff_t j = from; j < to && !(a.causal && j > i); j++) {
                const Seen what = seen(a, b, h, i, j);
                if (what == Seen::none) continue;
                backward_block(a, b, h, i, j, what, keys + (head * count + j) * a.depth * B,
                               values + (head * count + j) * a.depth_v * B,
                               deltas + (b * a.heads + h) * a.queries + i * B, work,
                               dk + (j - from) * B * a.depth, dv + (j - from) * B * a.depth_v,
                               dq + (h - kv * group) * size);
            }
        }
    // the scores were of scaled queries
    for_row(group * size,
            [&](ptrdiff_t n, int part) { put(dq + n, get(dq + n, part) * a.scale, part); });
}

}  // namespace

void attention_f32(const AttentionCall& a) {
    const ptrdiff_t count = blocks(a.queries);
    Scratch<float> packed(a.batch * a.kv_heads * blocks(a.keys) * a.depth * B);
    pack_heads(packed.get(), a.k, a, a.depth);
    parallel_for(a.batch * a.heads * count, [&](ptrdiff_t task) {
        // the longest first: under causality the last queries see most
        const ptrdiff_t i = count - 1 - task / (a.batch * a.heads),
                        head = task % (a.batch * a.heads);
        forward_block(a, head / a.heads, head % a.heads, i, packed.get());
    });
}

void attention_backward_f32(const AttentionCall& a) {
    const ptrdiff_t heads = a.batch * a.kv_heads, count = blocks(a.keys);
    const ptrdiff_t group = a.heads / a.kv_heads, size = group * a.queries * a.depth;
    Scratch<float> keys(heads * count * a.depth * B), values(heads * count * a.depth_v * B);
    pack_heads(keys.get(), a.k, a, a.depth);
    pack_heads(values.get(), a.v, a, a.depth_v);
    Scratch<float> deltas(a.batch * a.heads * a.queries);
    parallel_for(a.batch * a.heads, [&](ptrdiff_t head) {
        for (ptrdiff_t r = 0; r < a.queries; r++) {
            const float* g = a.g.at(head / a.heads, head % a.heads, r);
            const float* out = a.out + (head * a.queries + r) * a.depth_v;
            vf sum{};
            for_row(a.depth_v, [&](ptrdiff_t d, int n) { sum += get(g + d, n) * get(out + d, n); });
            deltas.get()[head * a.queries + r] = reduce_add<float>(sum);
        }
    });
    // few heads are split over the keys, each share with query gradients of its own
    ptrdiff_t parts = heads >= 2 * PARTS ? 1 : (2 * PARTS + heads - 1) / heads;
    parts = parts < PARTS ? parts : PARTS;
    parts = parts < (count + 1) / 2 ? parts : (count + 1) / 2;
    Scratch<float> partial(parts > 1 ? parts * heads * size : 1);
    parallel_for(heads * parts, [&](ptrdiff_t task) {
        const ptrdiff_t head = task / parts, part = task % parts;
        float* dq = parts > 1 ? partial.get() + task * size : a.dq + head * size;
        backward_part(a, head, count * part / parts, count * (part + 1) / parts, keys.get(),
                      values.get(), deltas.get(), dq);
    });
    if (parts == 1) return;
    parallel_for(heads, [&](ptrdiff_t head) {
        const float* from = partial.get() + head * parts * size;
        for_row(size, [&](ptrdiff_t n, int part) {
            vf sum{};
            for (ptrdiff_t t = 0; t < parts; t++) sum += get(from + t * size + n, part);
            put(a.dq + head * size + n, sum, part);
        });
    });
}

}  // namespace KERNEL_ISA
