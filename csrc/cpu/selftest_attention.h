// The part of selftest.cpp about attention; included there, in its namespace.

enum class Masked { nothing, causal, seen, added, lengths, causal_lengths };

// Gradients of queries, keys and values as plain loops sum them up.
struct AttentionGradients {
    std::vector<double> q, k, v;
};

// One query row and the keys and values of its head: checks its output and log-sum-exp, and adds to
// the gradients. score(j) is -inf for a key that is not seen.
template <typename Score>
void attention_row(const AttentionCall& a, const float* q, const float* k, const float* v,
                   const float* g, const float* out, double lse, const Score& score, double* dq,
                   double* dk, double* dv) {
    std::vector<double> p, slope;
    double sum = 0, delta = 0;
    for (ptrdiff_t j = 0; j < a.keys; j++) {
        p.push_back(std::exp(score(j)));
        sum += p.back();
    }
    check("attention lse", lse, std::log(sum), 1e-4);
    for (ptrdiff_t j = 0; j < a.keys; j++) {
        double dot = 0;
        p[std::size_t(j)] = sum ? p[std::size_t(j)] / sum : 0;
        for (ptrdiff_t c = 0; c < a.depth_v; c++)
            dot += double(g[c]) * double(v[j * a.depth_v + c]);
        slope.push_back(dot);
        delta += p[std::size_t(j)] * dot;
    }
    for (ptrdiff_t c = 0; c < a.depth_v; c++) {
        double value = 0;
        for (ptrdiff_t j = 0; j < a.keys; j++) {
            value += p[std::size_t(j)] * double(v[j * a.depth_v + c]);
            dv[j * a.depth_v + c] += p[std::size_t(j)] * double(g[c]);
        }
        check("attention", double(out[c]), value, 1e-4);
    }
    for (ptrdiff_t j = 0; j < a.keys; j++) {
        const double ds = p[std::size_t(j)] * (slope[std::size_t(j)] - delta) * double(a.scale);
        for (ptrdiff_t c = 0; c < a.depth; c++) {
            dq[c] += ds * double(k[j * a.depth + c]);
            dk[j * a.depth + c] += ds * double(q[c]);
        }
    }
}

void attention_case(Masked what, ptrdiff_t group, ptrdiff_t t, ptrdiff_t s, ptrdiff_t d,
                    ptrdiff_t dv) {
    const ptrdiff_t batch = 2, kv_heads = 2, heads = kv_heads * group;
    const Floats q = normal(batch * heads * t * d), k = normal(batch * kv_heads * s * d);
    const Floats v = normal(batch * kv_heads * s * dv), g = normal(batch * heads * t * dv);
    Floats out(g.size(), 7.0f), lse(std::size_t(batch * heads * t)), dq(q), dk(k), dval(v);
    const bool lengths = what == Masked::lengths || what == Masked::causal_lengths;
    AttentionMask mask{};
    Floats added = normal(batch * t * s);  // one for all heads
    std::vector<unsigned char> seen(std::size_t(heads * t * s), 1);
    if (what == Masked::added) {
        for (float& x : added) x = engine() % 3 ? x : -HUGE_VALF;
        for (ptrdiff_t j = 0; j < s; j++) added[std::size_t(j)] = -HUGE_VALF;  // sees nothing
        mask = {added.data(), nullptr, t * s, 0, s, 1};
    } else if (what == Masked::seen) {  // one for the whole batch, whose first half is hidden
        for (std::size_t i = 0; i < seen.size(); i++)
            seen[i] = ptrdiff_t(i) % s >= s / 2 && engine() % 2;
        mask = {nullptr, seen.data(), 0, t * s, s, 1};
    } else if (lengths) {
        for (ptrdiff_t j = 0; j < s; j++) {
            seen[std::size_t(j)] = j < (2 * s + 2) / 3;
            seen[std::size_t(s + j)] = j < 1;
        }
        mask = {nullptr, seen.data(), s, 0, 0, 1};
    }
    AttentionCall a{};
    a.batch = batch, a.heads = heads, a.kv_heads = kv_heads;
    a.queries = t, a.keys = s, a.depth = d, a.depth_v = dv;
    a.q = {q.data(), heads * t * d, t * d, d};
    a.k = {k.data(), kv_heads * s * d, s * d, d};
    a.v = {v.data(), kv_heads * s * dv, s * dv, dv};
    a.mask = mask;
    a.causal = what == Masked::causal || what == Masked::causal_lengths;
    a.scale = 0.3f;
    a.out = {out.data(), heads * t * dv, t * dv, dv};
    a.lse = lse.data();
    a.g = {g.data(), heads * t * dv, t * dv, dv};
    a.dq = {dq.data(), heads * t * d, t * d, d};
    a.dk = {dk.data(), kv_heads * s * d, s * d, d};
    a.dv = {dval.data(), kv_heads * s * dv, s * dv, dv};
    kernels().attention_f32(a);
    kernels().attention_backward_f32(a);

    AttentionGradients want{std::vector<double>(q.size()), std::vector<double>(k.size()),
                            std::vector<double>(v.size())};
    for (ptrdiff_t row = 0; row < batch * heads * t; row++) {
        const ptrdiff_t b = row / t / heads, h = row / t % heads, i = row % t;
        const ptrdiff_t first = (b * kv_heads + h / group) * s;
        const float *x = q.data() + row * d, *keys = k.data() + first * d;
        const auto score = [&](ptrdiff_t j) {
            const ptrdiff_t at = b * mask.batch + h * mask.head + i * mask.row + j * mask.column;
            double sum = 0;
            for (ptrdiff_t c = 0; c < d; c++) sum += double(x[c]) * double(keys[j * d + c]);
            if ((a.causal && j > i) || (mask.seen && !mask.seen[at])) return -HUGE_VAL;
            return double(a.scale) * sum + (mask.added ? double(mask.added[at]) : 0);
        };
        attention_row(a, x, keys, v.data() + first * dv, g.data() + row * dv, out.data() + row * dv,
                      double(lse[std::size_t(row)]), score, want.q.data() + row * d,
                      want.k.data() + first * d, want.v.data() + first * dv);
    }
    for (std::size_t i = 0; i < q.size(); i++)
        check("attention dq", double(dq[i]), want.q[i], 1e-3);
    for (std::size_t i = 0; i < k.size(); i++)
        check("attention dk", double(dk[i]), want.k[i], 1e-3);
    for (std::size_t i = 0; i < v.size(); i++)
        check("attention dv", double(dval[i]), want.v[i], 1e-3);
}

void attention() {
    for (Masked what : {Masked::nothing, Masked::causal, Masked::seen, Masked::added,
                        Masked::lengths, Masked::causal_lengths})
        for (int round = 0; round < 4; round++)
            attention_case(what, pick({1, 3}), pick({1, 5, 64, 70}), pick({1, 17, 130, 300}),
                           pick({3, 16, 40}), pick({5, 64}));
}
