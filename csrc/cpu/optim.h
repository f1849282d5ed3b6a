// Arguments of the optimiser kernels; see optim.cpp.
#pragma once

#include <cstddef>

// One parameter of n elements with its gradient and state.
struct AdamParameter {
    float *p, *average, *square, *largest;  // largest is null without amsgrad
    const float* g;
    std::ptrdiff_t n;
    float step_size, root;  // lr / (1 - beta1^t), sqrt(1 - beta2^t)
};

struct AdamStep {
    const AdamParameter* parameters;
    std::ptrdiff_t count;
    float lr, beta1, beta2, eps, weight_decay;
    float rest1, rest2;  // 1 - beta1, 1 - beta2, rounded once: 1.0f - 0.999f is off by 1e-5
    bool maximize, decoupled;
};

struct SgdParameter {
    float *p, *buffer;  // buffer is null without momentum
    const float* g;
    std::ptrdiff_t n;
    bool first;  // the buffer starts with this gradient
};

struct SgdStep {
    const SgdParameter* parameters;
    std::ptrdiff_t count;
    float lr, momentum, dampening, weight_decay;
    bool nesterov, maximize;
};

// Arrays of several parameters, for norms and factors.
struct FlatArrays {
    float* const* arrays;
    const std::ptrdiff_t* sizes;
    std::ptrdiff_t count;
};
