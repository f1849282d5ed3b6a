// Activations on vectors of float32: what the kernels of their names and the matrix products apply.
#pragma once

#include "math.h"

namespace KERNEL_ISA {

// c[0] + c[1] z + ...
template <int N>
ALWAYS_INLINE vf polynomial(const float (&c)[N], vf z) {
    vf p = splat(c[N - 1]);
#pragma GCC unroll 8
    for (int i = N - 2; i >= 0; i--) p = p * z + c[i];
    return p;
}

// 1/2 + x P(x^2) / Q(x^2) up to |x| = end, from there on 0 or 1: what the functions below are.
// The coefficients are our own minimax fits.
template <int M, int N>
ALWAYS_INLINE vf rising(vf x, const float (&p)[M], const float (&q)[N], float end) {
    const vf z = x * x, y = x * polynomial(p, z) / polynomial(q, z);
    return 0.5f + select(abs(x) > end, with_sign_of(splat(0.5f), x), y);
}

// The normal distribution function, within 1.6e-7.
ALWAYS_INLINE vf normal_cdf(vf x) {
    constexpr float P[] = {0.398942232f,    0.0333721526f,   0.00465084706f,
                           0.000164320998f, 6.36002096e-06f, 2.33868338e-08f};
    constexpr float Q[] = {1.0f,          0.250317663f,   0.028378645f,
                           0.0018589776f, 7.2399991e-05f, 1.216594e-06f};
    return rising(x, P, Q, 5.4f);
}

// (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2, within 1.8e-7.
ALWAYS_INLINE vf tanh_cdf(vf x) {
    constexpr float P[] = {0.398942322f,    0.0303041227f,   0.00363137037f,
                           0.000132933725f, 7.06942001e-06f, 2.42688571e-08f};
    constexpr float Q[] = {1.0f,           0.243453532f,   0.024305746f,
                           0.00129620137f, 7.5680553e-05f, 1.32342325e-06f};
    return rising(x, P, Q, 5.2f);
}

ALWAYS_INLINE vf relu(vf x) {
    return max(vf{}, x);  // the second operand is what NaN gives
}
ALWAYS_INLINE vf gelu(vf x) {
    return x * normal_cdf(x);
}
ALWAYS_INLINE vf gelu_tanh(vf x) {
    return x * tanh_cdf(x);
}
ALWAYS_INLINE vf silu(vf x) {
    return x / (1.0f + exp(-x));
}

}  // namespace KERNEL_ISA
