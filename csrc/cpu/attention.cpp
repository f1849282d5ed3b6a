// Scaled dot-product attention, float32, forward and backward.
//
// Contract: AttentionCall, and minidl/backends/reference/attention.py. Results do not depend on the
// number of threads. Memory beyond the results: blocks, a byte per block that a mask touches and,
// where few heads are split over keys, partial query gradients.
//
// Algorithm (Dao et al. 2022, 2023): blocks of 64 queries by 128 keys. Forward: per block of
// queries, the blocks of keys one after the other with a running maximum and sum per query.
// Backward: weights again from the log-sum-exp; per block of queries, the blocks of keys. Scores
// are kept transposed, a row per key: a vector holds queries, so maxima, sums and exponentials run
// down the columns and nothing is reduced across a vector. All five products are tiles that read
// keys, values and their gradients in place; only the block of queries (and of g) is transposed.
// Scores are in units of ln 2, so that weights are powers of two. Blocks that causality or a mask
// empties are skipped; blocks on the diagonal are done in bands of 16.
//
// Limits: 4 D operations per score forward, 10 D backward, and one exponential each. Share of the
// multiply-add peak, one core of Zen 4, a head in the second level cache, D = 64: forward 89 %,
// backward 94 % (T 256), causal 82 % and 87 %; D = 32: 78 % and 85 %; the products alone 97 %.
//
// Versions (8 x 6 heads, T 256, D 64, forward): scores by rows of queries with packed keys, a
// reduction per row 11.1 ms; transposed scores 9.6; head by head instead of block by block 9.1; 128
// keys a block instead of 64 8.9. Rows of the next task fetched ahead, (32, 4, 64, 32) from memory:
// forward 1.14 to 0.98 ms, backward nothing, and 3 % slower where they are in the caches.
#include "attention_blocks.h"
#include "kernels.h"
#include "rows.h"

namespace KERNEL_ISA {
namespace {

constexpr int BAND = 16;  // queries or keys of a block on the diagonal that are done together

// ---------------------------------------------------------------- blocks

// Queries of block i beside keys of block j.
struct Block {
    ptrdiff_t b, h, kv, i, j;
    int rows, columns;
    int width;   // rows, up to whole vectors
    int behind;  // key c of the block is seen by its queries from c - behind on
    bool diagonal;
    bool masked;

    Block(const AttentionCall& a, ptrdiff_t batch, ptrdiff_t head, ptrdiff_t at)
        : b(batch), h(head), kv(head / (a.heads / a.kv_heads)), i(at) {
        constexpr int L = lanes<float>;
        rows = length(a.queries, i, QUERIES);
        width = (rows + L - 1) / L * L;
    }
    // The number of blocks of keys that causality leaves.
    ptrdiff_t count(const AttentionCall& a) const {
        const ptrdiff_t count = blocks(a.keys, KEYS);
        const ptrdiff_t last = (i * QUERIES + rows - 1) / KEYS + 1;
        return a.causal && last < count ? last : count;
    }
    // Moves to keys j; false if the mask hides them all.
    bool move(const AttentionCall& a, const SeenBlocks& seen, ptrdiff_t to) {
        j = to;
        columns = length(a.keys, j, KEYS);
        const ptrdiff_t lead = i * QUERIES - j * KEYS;
        diagonal = a.causal && columns - 1 > lead;
        behind = diagonal ? int(lead) : 0;
        const Seen what = seen.of(b, h, i, j);
        masked = what == some;
        return what != none;
    }

    // f(key, keys, query): some keys, and the first query that sees one of them.
    template <typename F>
    void key_bands(const F& f) const {
        if (!diagonal) return f(0, columns, 0);
        if (behind) f(0, behind, 0);
        for (int c = behind; c < columns && c - behind < rows; c += BAND)
            f(c, columns - c < BAND ? columns - c : BAND, c - behind);
    }
    // f(query, queries, keys): some queries, and how many keys they see.
    template <typename F>
    void query_bands(const F& f) const {
        if (!diagonal) return f(0, rows, columns);
        for (int r = 0; r < rows; r += BAND) {
            const int to = rows - r < BAND ? rows : r + BAND;
            f(r, to - r, columns < behind + to ? columns : behind + to);
        }
    }
};

// to (depth, 64) = factor x^T of a block of rows.
void turned(float* to, const float* x, ptrdiff_t row, int rows, ptrdiff_t depth, float factor) {
    pack<float>(depth, rows, QUERIES, x, 1, row, to);
    if (factor != 1.0f)
        for (ptrdiff_t n = 0; n < depth * QUERIES; n += lanes<float>)
            store(to + n, load(to + n) * factor);
}

// s (keys, 64) = x q^T for the rows of x that are keys of a block.
void against_keys(const Block& at, const float* x, ptrdiff_t x_row, ptrdiff_t depth, const float* q,
                  float* s) {
    at.key_bands([&](int key, int keys, int query) {
        product(keys, at.width - query, depth, x + key * x_row, x_row, 1, q + query, QUERIES,
                s + key * QUERIES + query, QUERIES, false);
    });
}

// Adds the mask to s (keys, 64).
void mask_scores(const AttentionCall& a, const Block& at, float* s) {
    const AttentionMask& m = a.mask;
    const ptrdiff_t from =
        at.b * m.batch + at.h * m.head + at.i * QUERIES * m.row + at.j * KEYS * m.column;
    const int rows = m.row ? at.rows : 1;
    Scratch<float> space(QUERIES * KEYS * 2);
    float *added = space.get(), *flat = added + QUERIES * KEYS;
    if (m.added) {
        pack<float>(at.columns, rows, QUERIES, m.added + from, m.column, m.row, added);
    } else {
        for (int r = 0; r < rows; r++)
            for (int c = 0; c < at.columns; c++)
                flat[r * KEYS + c] = m.seen[from + r * m.row + c * m.column] ? 0.0f : NOTHING;
        pack<float>(at.columns, rows, QUERIES, flat, 1, KEYS, added);
    }
    for (int c = 0; c < at.columns; c++)
        for (int r = 0; r < at.width; r += lanes<float>) {
            const vf x = m.row ? load(added + c * QUERIES + r) : splat(added[c * QUERIES]);
            float* to = s + c * QUERIES + r;
            // what is hidden may be anything, NaN too
            store(to, select(x == NOTHING, x, load(to) + x * LOG2_E));
        }
}

// Base-2 logarithms of the weights: s (keys, 64) = k q^T, masked; q is scaled already.
void scores(const AttentionCall& a, const Block& at, const float* q, float* s) {
    against_keys(at, a.k.at(at.b, at.kv, at.j * KEYS), a.k.row, a.depth, q, s);
    if (at.masked) mask_scores(a, at, s);
    if (!at.diagonal) return;
    for (int c = at.behind; c < at.columns; c++) {
        const int own = c - at.behind, band = own / BAND * BAND;
        float* row = s + c * QUERIES;
        for (int r = band; r < own && r < at.width; r += lanes<float>)
            store(row + r, select(lanes_before(own - r), splat(NOTHING), load(row + r)));
    }
}

// ---------------------------------------------------------------- forward

// Scores of a vector of queries become weights relative to the running maximum; by how much that
// lowers what was summed before goes to fade.
void weigh(float* s, int keys, float* top, float* total, float* fade) {
    vf most[4] = {load(top), load(top), load(top), load(top)};
    int c = 0;
    for (; c + 4 <= keys; c += 4) {
#pragma GCC unroll 4
        for (int n = 0; n < 4; n++) most[n] = max(most[n], load(s + (c + n) * QUERIES));
    }
    for (; c < keys; c++) most[0] = max(most[0], load(s + c * QUERIES));
    const vf now = max(max(most[0], most[1]), max(most[2], most[3]));
    const vf level = select(now == NOTHING, vf{}, now), rate = exp2(load(top) - level);
    vf sum{};
    for (c = 0; c < keys; c++) {
        const vf e = exp2(load(s + c * QUERIES) - level);
        store(s + c * QUERIES, e);
        sum += e;
    }
    store(total, load(total) * rate + sum);
    store(top, now);
    store(fade, rate);
}

void scaled_row(float* to, const float* from, ptrdiff_t n, float factor) {
    for_row(n, [&](ptrdiff_t d, int part) { put(to + d, get(from + d, part) * factor, part); });
}

void forward_block(const AttentionCall& a, const SeenBlocks& seen, Block at) {
    const ptrdiff_t dv = a.depth_v;
    Scratch<float> space(QUERIES * (a.depth + KEYS + dv));
    float *q = space.get(), *s = q + QUERIES * a.depth, *sums = s + QUERIES * KEYS;
    turned(q, a.q.at(at.b, at.h, at.i * QUERIES), a.q.row, at.rows, a.depth, a.scale * LOG2_E);
    alignas(64) float top[QUERIES], total[QUERIES], fade[QUERIES];
    for (int r = 0; r < QUERIES; r++) {
        top[r] = NOTHING;
        total[r] = 0.0f;
    }
    bool begun = false;
    const ptrdiff_t count = at.count(a);
    for (ptrdiff_t j = 0; j < count; j++) {
        if (!at.move(a, seen, j)) continue;
        scores(a, at, q, s);
        at.query_bands([&](int query, int queries, int keys) {
            for (int r = query; r < query + queries; r += lanes<float>)
                weigh(s + r, keys, top + r, total + r, fade + r);
            for (int r = query; begun && r < query + queries; r++)
                if (fade[r] != 1.0f) scaled_row(sums + r * dv, sums + r * dv, dv, fade[r]);
            product(queries, dv, keys, s + query, 1, QUERIES, a.v.at(at.b, at.kv, j * KEYS),
                    a.v.row, sums + query * dv, dv, begun);
        });
        begun = true;
    }
    const ptrdiff_t first = (at.b * a.heads + at.h) * a.queries + at.i * QUERIES;
    for (int r = 0; r < at.rows; r++) {
        float* out = a.out.at(at.b, at.h, at.i * QUERIES + r);
        if (total[r] == 0.0f)
            for (ptrdiff_t d = 0; d < dv; d++) out[d] = 0.0f;
        else
            scaled_row(out, sums + r * dv, dv, 1.0f / total[r]);
    }
    for_row(at.rows, [&](ptrdiff_t r, int n) {
        put(a.lse + first + r, load(top + r) * LN_2 + log(load(total + r)), n);
    });
}

// ---------------------------------------------------------------- backward

// What a block of queries is to all blocks of keys.
struct QuerySide {
    float *q, *g;          // (depth, 64) and (depth_v, 64), transposed; q scaled
    float *s, *ds;         // (KEYS, 64)
    float level[QUERIES];  // base-2 log-sum-exp
    float delta[QUERIES];  // sum of gradient times output, scaled
};

void clear(float* x, ptrdiff_t row, ptrdiff_t rows, ptrdiff_t columns) {
    for (ptrdiff_t r = 0; r < rows; r++)
        for (ptrdiff_t d = 0; d < columns; d++) x[r * row + d] = 0.0f;
}

// dq (rows, depth) of the block, and what it adds to dk and dv from row `from` of the blocks on.
void backward_block(const AttentionCall& a, const SeenBlocks& seen, Block at, ptrdiff_t from,
                    ptrdiff_t to, QuerySide& side, float* dq, ptrdiff_t dq_row) {
    constexpr int L = lanes<float>;
    const float* g = a.g.at(at.b, at.h, at.i * QUERIES);
    const float* q = a.q.at(at.b, at.h, at.i * QUERIES);
    const float* out = a.out.at(at.b, at.h, at.i * QUERIES);
    const ptrdiff_t first = (at.b * a.heads + at.h) * a.queries + at.i * QUERIES;
    turned(side.q, q, a.q.row, at.rows, a.depth, a.scale * LOG2_E);
    turned(side.g, g, a.g.row, at.rows, a.depth_v, 1.0f);
    for (int r = 0; r < at.width; r++) {
        // a query that saw nothing: 2^(s - inf) = 0
        const float lse = r < at.rows ? a.lse[first + r] : NOTHING;
        side.level[r] = lse == NOTHING ? -NOTHING : lse * LOG2_E;
        vf sum{};
        if (r < at.rows)
            for_row(a.depth_v, [&](ptrdiff_t d, int n) {
                sum += get(g + r * a.g.row + d, n) * get(out + r * a.out.row + d, n);
            });
        side.delta[r] = reduce_add<float>(sum) * a.scale;
    }
    bool begun = false;
    for (ptrdiff_t j = from; j < to; j++) {
        if (!at.move(a, seen, j)) continue;
        const float* k = a.k.at(at.b, at.kv, j * KEYS);
        scores(a, at, side.q, side.s);
        against_keys(at, a.v.at(at.b, at.kv, j * KEYS), a.v.row, a.depth_v, side.g, side.ds);
        at.key_bands([&](int key, int keys, int query) {
            for (int r = query; r < at.width; r += L) {
                const vf level = load(side.level + r), delta = load(side.delta + r);
                for (int n = key * QUERIES + r; n < (key + keys) * QUERIES; n += QUERIES) {
                    const vf p = exp2(load(side.s + n) - level);
                    store(side.s + n, p);
                    store(side.ds + n, p * (load(side.ds + n) * a.scale - delta));
                }
            }
            const ptrdiff_t row = j * KEYS + key;
            product(keys, a.depth_v, at.rows - query, side.s + key * QUERIES + query, QUERIES, 1,
                    g + query * a.g.row, a.g.row, a.dv.at(at.b, at.kv, row), a.dv.row, true);
            product(keys, a.depth, at.rows - query, side.ds + key * QUERIES + query, QUERIES, 1,
                    q + query * a.q.row, a.q.row, a.dk.at(at.b, at.kv, row), a.dk.row, true);
        });
        at.query_bands([&](int query, int queries, int keys) {
            product(queries, a.depth, keys, side.ds + query, 1, QUERIES, k, a.k.row,
                    dq + query * dq_row, dq_row, begun);
        });
        begun = true;
    }
    if (!begun) clear(dq, dq_row, at.rows, a.depth);
}

// The gradients of the keys of blocks from..to-1 of one kv head, and what they add to those of the
// queries, dq (group, queries, depth).
void backward_part(const AttentionCall& a, const SeenBlocks& seen, ptrdiff_t head, ptrdiff_t from,
                   ptrdiff_t to, Heads<float*> dq) {
    const ptrdiff_t b = head / a.kv_heads, kv = head % a.kv_heads, group = a.heads / a.kv_heads;
    Scratch<float> space(QUERIES * (a.depth + a.depth_v + 2 * KEYS));
    QuerySide side;
    side.q = space.get();
    side.g = side.q + QUERIES * a.depth;
    side.s = side.g + QUERIES * a.depth_v;
    side.ds = side.s + QUERIES * KEYS;
    const ptrdiff_t end = to * KEYS < a.keys ? to * KEYS : a.keys;
    clear(a.dk.at(b, kv, from * KEYS), a.dk.row, end - from * KEYS, a.depth);
    clear(a.dv.at(b, kv, from * KEYS), a.dv.row, end - from * KEYS, a.depth_v);
    for (ptrdiff_t h = 0; h < group; h++)
        for (ptrdiff_t i = 0; i < blocks(a.queries, QUERIES); i++) {
            const Block at(a, b, kv * group + h, i);
            const ptrdiff_t count = at.count(a);
            backward_block(a, seen, at, from, to < count ? to : count, side,
                           dq.at(0, h, i * QUERIES), dq.row);
        }
}

}  // namespace

void attention_f32(const AttentionCall& a) {
    if (a.queries <= FEW_QUERIES && !a.causal) return attention_few(a);
    const ptrdiff_t count = blocks(a.queries, QUERIES), heads = a.batch * a.heads;
    const SeenBlocks seen(a);
    parallel_for(heads * count, [&](ptrdiff_t task) {
        // head by head, so that keys and values stay in the cache; in each the longest first: under
        // causality the last queries see most
        const ptrdiff_t head = task / count, i = count - 1 - task % count;
        forward_block(a, seen, Block(a, head / a.heads, head % a.heads, i));
    });
}

void attention_backward_f32(const AttentionCall& a) {
    const ptrdiff_t heads = a.batch * a.kv_heads, count = blocks(a.keys, KEYS);
    const ptrdiff_t group = a.heads / a.kv_heads, one = a.queries * a.depth, size = group * one;
    const SeenBlocks seen(a);
    // each share of the keys has query gradients of its own
    const ptrdiff_t parts = shares(heads, count);
    Scratch<float> partial(parts > 1 ? parts * heads * size : 1);
    parallel_for(heads * parts, [&](ptrdiff_t task) {
        const ptrdiff_t head = task / parts, part = task % parts;
        Heads<float*> dq = a.dq;
        dq.p = a.dq.at(head / a.kv_heads, head % a.kv_heads * group, 0);
        if (parts > 1) dq = {partial.get() + task * size, 0, one, a.depth};
        backward_part(a, seen, head, count * part / parts, count * (part + 1) / parts, dq);
    });
    if (parts == 1) return;
    parallel_for(heads, [&](ptrdiff_t head) {
        const float* from = partial.get() + head * parts * size;
        const ptrdiff_t b = head / a.kv_heads, first = head % a.kv_heads * group;
        for (ptrdiff_t r = 0; r < group * a.queries; r++, from += a.depth) {
            float* dq = a.dq.at(b, first + r / a.queries, r % a.queries);
            for_row(a.depth, [&](ptrdiff_t d, int part) {
                vf sum{};
                for (ptrdiff_t t = 0; t < parts; t++) sum += get(from + t * size + d, part);
                put(dq + d, sum, part);
            });
        }
    });
}

}  // namespace KERNEL_ISA
