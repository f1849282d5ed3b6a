// Elementary functions and activations, float32 and bfloat16, forward and backward.
//
// Contract: contiguous arrays of n elements, out may be the input. Errors: math.h; bfloat16 is
// computed in float32 and rounded once.
//
// Limits: one read and one write per element, 20 to 60 operations between them; above the second
// level cache both matter.
#include "kernels.h"
#include "pointwise.h"

namespace KERNEL_ISA {
namespace {

using std::ptrdiff_t;

constexpr float TANH_RATE = 0.79788456f;  // sqrt(2 / pi)
constexpr float TANH_CUBE = 0.044715f;

// c[0] + c[1] z + ...
template <int N>
ALWAYS_INLINE vf polynomial(const float (&c)[N], vf z) {
    vf p = splat(c[N - 1]);
#pragma GCC unroll 8
    for (int i = N - 2; i >= 0; i--) p = p * z + c[i];
    return p;
}

// 1/2 + x P(x^2) / Q(x^2) up to |x| = end, from there on 0 or 1: what the two functions below are.
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

// The derivative of x normal_cdf(x), within 2.7e-7.
ALWAYS_INLINE vf gelu_slope(vf x) {
    constexpr float P[] = {0.79788518f,     -0.0317014232f,  0.0142075801f,  1.04229712e-05f,
                           3.50167466e-05f, 1.66529148e-07f, 1.00635437e-10f};
    constexpr float Q[] = {1.0f,           0.293608189f,    0.0406599231f,
                           0.00346811838f, 0.000188089733f, 8.43303769e-06f};
    return rising(x, P, Q, 5.8f);
}

// 1 / sigmoid(2 u), where sigmoid(2 u) = (1 + tanh u) / 2
ALWAYS_INLINE vf tanh_gate(vf x) {
    return 1.0f + exp(x * (-2.0f * TANH_RATE - 2.0f * TANH_RATE * TANH_CUBE * (x * x)));
}
// x limited to where the derivative below has reached its limits, so that inf * 0 is not met
ALWAYS_INLINE vf limited(vf x) {
    return min(splat(40.0f), max(splat(-40.0f), x));
}
ALWAYS_INLINE vf gelu_tanh_slope(vf given) {
    const vf x = limited(given), s = 1.0f / tanh_gate(x);
    const vf inner = 2.0f * TANH_RATE + 6.0f * TANH_RATE * TANH_CUBE * (x * x);
    return s + x * inner * (s - s * s);
}
ALWAYS_INLINE vf silu_slope(vf x) {
    const vf s = sigmoid(x);
    return s * (1.0f + x * (1.0f - s));
}

}  // namespace

#define UNARY_OF(T, name, suffix, expression)                   \
    void name##_##suffix(T* out, const T* in, ptrdiff_t n) {    \
        pointwise(out, n, [](vf x) { return expression; }, in); \
    }
#define UNARY(name, expression)            \
    UNARY_OF(float, name, f32, expression) \
    UNARY_OF(bfloat16, name, bf16, expression)
UNARY(relu, max(vf{}, x))
UNARY(exp, exp(x))
UNARY(log, log(x))
UNARY(tanh, tanh(x))
UNARY(sigmoid, sigmoid(x))
UNARY(gelu, x* normal_cdf(x))
UNARY(gelu_tanh, x / tanh_gate(x))
UNARY(silu, x / (1.0f + exp(-x)))
UNARY_OF(float, erf, f32, erf(x))
UNARY_OF(float, log_sigmoid, f32, -softplus(-x))
UNARY_OF(bfloat16, sqrt, bf16, root(x))

// Of the input x or the output y. One gradient for all elements is passed with step 0: that of a
// sum.
#define BACKWARD_OF(T, suffix, name, of, expression)                                               \
    void name##_##suffix(T* out, const T* grad, ptrdiff_t grad_step, const T* in, ptrdiff_t n) {   \
        if (grad_step) return pointwise(out, n, [](vf g, vf of) { return expression; }, grad, in); \
        const vf g = splat(wide(grad, 1)[0]);                                                      \
        pointwise(out, n, [g](vf of) { return expression; }, in);                                  \
    }
#define BACKWARD(name, of, expression)            \
    BACKWARD_OF(float, f32, name, of, expression) \
    BACKWARD_OF(bfloat16, bf16, name, of, expression)
BACKWARD(relu_backward, y, select(y <= 0.0f, vf{}, g))
BACKWARD(tanh_backward, y, g * (1.0f - y * y))
BACKWARD(sigmoid_backward, y, g * ((1.0f - y) * y))
BACKWARD(gelu_backward, x, g* gelu_slope(x))
BACKWARD(gelu_tanh_backward, x, g* gelu_tanh_slope(x))
BACKWARD(silu_backward, x, g* silu_slope(x))

// t softplus(-x) + (1 - t) softplus(x)
void bce_logits_f32(float* out, const float* in, const float* target, ptrdiff_t n) {
    pointwise(
        out, n,
        [](vf x, vf t) {
            const vf tail = log1p(exp(-abs(x)));
            return t * (tail - min(x, vf{})) + (1.0f - t) * (max(x, vf{}) + tail);
        },
        in, target);
}

// g ((1 - t) sigmoid(x) - t sigmoid(-x)), without cancellation where t is 0 or 1
void bce_logits_backward_f32(float* out, const float* grad, const float* in, const float* target,
                             ptrdiff_t n) {
    pointwise(
        out, n,
        [](vf g, vf x, vf t) {
            const vf e = exp(-abs(x));
            const vi positive = x > 0.0f;
            const vf p = select(positive, t * e, t), q = select(positive, 1.0f - t, (1.0f - t) * e);
            return g * ((q - p) / (1.0f + e));
        },
        grad, in, target);
}

}  // namespace KERNEL_ISA
