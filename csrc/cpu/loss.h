// Arguments of the cross-entropy kernels; see loss.cpp.
#pragma once

#include <cstddef>
#include <cstdint>

struct CrossEntropy {
    std::ptrdiff_t rows, classes;
    const float* logits;         // (rows, classes)
    const std::int64_t* target;  // (rows), a class or ignore_index
    const float* weight;         // (classes) or null for ones
    std::int64_t ignore_index;
    float label_smoothing;
    float *losses, *lse;  // (rows): written by the forward, lse read by the backward
    float* total;         // written by the forward: the weights of the rows that are not ignored
    // backward only
    const float* g;  // (rows) with step g_step, which may be 0
    std::ptrdiff_t g_step;
    float* dx;  // (rows, classes)
};
