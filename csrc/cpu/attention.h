// Arguments of the attention kernels; see attention.cpp.
#pragma once

#include <cstddef>

// (batch, heads, rows, columns) with unit column step.
template <typename P>
struct Heads {
    P p;
    std::ptrdiff_t batch, head, row;
    P at(std::ptrdiff_t b, std::ptrdiff_t h, std::ptrdiff_t r) const {
        return p + b * batch + h * head + r * row;
    }
};

// What is added to the scores, or which keys are seen; steps may be 0. Null: neither.
struct AttentionMask {
    const float* added;
    const unsigned char* seen;  // not 0: the query may attend to the key
    std::ptrdiff_t batch, head, row, column;
};

struct AttentionCall {
    std::ptrdiff_t batch, heads, kv_heads, queries, keys, depth, depth_v;
    Heads<const float*> q, k, v;
    AttentionMask mask;
    bool causal;  // query i sees the keys up to i
    float scale;
    // forward: written; backward: read. lse is contiguous: (batch, heads, queries)
    Heads<float*> out;
    float* lse;
    // backward only
    Heads<const float*> g;
    Heads<float*> dq, dk, dv;
};
