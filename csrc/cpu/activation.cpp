// Elementary functions and activations, float32 and bfloat16, forward and backward.
//
// Contract: contiguous arrays of n elements, out may be the input. Errors: math.h; bfloat16 is
// computed in float32 and rounded once.
//
// Limits: one read and one write per element, 20 to 60 operations between them; above the second
// level cache both matter.
#include "activation.h"

#include "kernels.h"
#include "pointwise.h"

namespace KERNEL_ISA {
namespace {

using std::ptrdiff_t;

// The derivative of x normal_cdf(x), within 2.7e-7.
ALWAYS_INLINE vf gelu_slope(vf x) {
    constexpr float P[] = {0.79788518f,     -0.0317014232f,  0.0142075801f,  1.04229712e-05f,
                           3.50167466e-05f, 1.66529148e-07f, 1.00635437e-10f};
    constexpr float Q[] = {1.0f,           0.293608189f,    0.0406599231f,
                           0.00346811838f, 0.000188089733f, 8.43303769e-06f};
    return rising(x, P, Q, 5.8f);
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
UNARY(relu, relu(x))
UNARY(exp, exp(x))
UNARY(log, log(x))
UNARY(tanh, tanh(x))
UNARY(sigmoid, sigmoid(x))
UNARY(gelu, gelu(x))
UNARY(gelu_tanh, gelu_tanh(x))
UNARY(silu, silu(x))
UNARY_OF(float, erf, f32, erf(x))
UNARY_OF(float, log_sigmoid, f32, -softplus(-x))
UNARY(neg, -x)
UNARY(abs, abs(x))
UNARY(sqrt, root(x))
UNARY(square, x* x)
UNARY(cube, x * x * x)
UNARY(rsqrt, 1.0f / root(x))

template <typename T>
void clip(T* out, const T* in, float low, float high, ptrdiff_t n) {
    const vf least = splat(low), most = splat(high);  // the second operand is what NaN gives
    pointwise(out, n, [&](vf x) { return min(most, max(least, x)); }, in);
}
void clip_f32(float* out, const float* in, float low, float high, ptrdiff_t n) {
    clip(out, in, low, high, n);
}
void clip_bf16(bfloat16* out, const bfloat16* in, float low, float high, ptrdiff_t n) {
    clip(out, in, low, high, n);
}

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
