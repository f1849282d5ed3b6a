// Elementary functions and activations, float32, forward and backward.
//
// Contract: contiguous arrays of n elements, out may be the input. Errors: math.h.
//
// Limits: one read and one write per element, 20 to 60 operations between them; above the second
// level cache both matter.
#include "kernels.h"
#include "pointwise.h"

namespace KERNEL_ISA {
namespace {

using std::ptrdiff_t;

constexpr float SQRT_HALF = 0.70710678f;
constexpr float DENSITY = 0.39894228f;    // 1 / sqrt(2 pi)
constexpr float TANH_RATE = 0.79788456f;  // sqrt(2 / pi)
constexpr float TANH_CUBE = 0.044715f;

// x limited to where the derivatives below have reached their limits, so that inf * 0 is not met
ALWAYS_INLINE vf limited(vf x) {
    return min(splat(40.0f), max(splat(-40.0f), x));
}

// (1 + tanh u) / 2 = sigmoid(2 u)
ALWAYS_INLINE vf tanh_gate(vf x) {
    return sigmoid(2.0f * TANH_RATE * (x + TANH_CUBE * x * x * x));
}

ALWAYS_INLINE vf gelu_slope(vf given) {
    const vf x = limited(given), e = exp(-0.5f * x * x);
    return 0.5f * (1.0f + erf(x * SQRT_HALF)) + x * DENSITY * e;
}
ALWAYS_INLINE vf gelu_tanh_slope(vf given) {
    const vf x = limited(given), s = tanh_gate(x);
    const vf inner = 2.0f * TANH_RATE * (1.0f + 3.0f * TANH_CUBE * x * x);
    return s + x * s * (1.0f - s) * inner;
}
ALWAYS_INLINE vf silu_slope(vf x) {
    const vf s = sigmoid(x);
    return s * (1.0f + x * (1.0f - s));
}

}  // namespace

#define UNARY(name, expression)                                 \
    void name##_f32(float* out, const float* in, ptrdiff_t n) { \
        pointwise(out, n, [](vf x) { return expression; }, in); \
    }
UNARY(relu, max(vf{}, x))
UNARY(exp, exp(x))
UNARY(log, log(x))
UNARY(tanh, tanh(x))
UNARY(erf, erf(x))
UNARY(sigmoid, sigmoid(x))
UNARY(log_sigmoid, -softplus(-x))
UNARY(gelu, x * (0.5f + 0.5f * erf(x * SQRT_HALF)))
UNARY(gelu_tanh, x* tanh_gate(x))
UNARY(silu, x* sigmoid(x))

// One gradient for all elements is passed with step 0: that of a sum.
#define BACKWARD(name, slope)                                                            \
    void name##_f32(float* out, const float* grad, ptrdiff_t grad_step, const float* in, \
                    ptrdiff_t n) {                                                       \
        if (grad_step || !n)                                                             \
            return pointwise(out, n, [](vf g, vf x) { return g * slope(x); }, grad, in); \
        const vf g = splat(*grad);                                                       \
        pointwise(out, n, [g](vf x) { return g * slope(x); }, in);                       \
    }
BACKWARD(gelu_backward, gelu_slope)
BACKWARD(gelu_tanh_backward, gelu_tanh_slope)
BACKWARD(silu_backward, silu_slope)

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
