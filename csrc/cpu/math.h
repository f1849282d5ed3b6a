// Elementary functions on vectors of float32.
//
// Largest errors over all float32 arguments (benchmarks/ulp.py, AVX-512), in units of the last
// place: exp 0.89, log 0.81; of every 16th: tanh 1.42, erf 1.001. Infinities, NaN and
// subnormal arguments and results come out as IEEE 754 has them. The polynomials are our own
// minimax fits (Lawson's iteration), with coefficients rounded to float32 one after the other,
// lowest first.
#pragma once

#include "simd.h"

namespace KERNEL_ISA {

using vf = vec<float>;
using vi = vec<std::int32_t>;
using vu = vec<std::uint32_t>;

ALWAYS_INLINE vf splat(float x) {
    return broadcast(x);
}
ALWAYS_INLINE vi bits(vf x) {
    return (vi)x;
}
ALWAYS_INLINE vf from_bits(vi x) {
    return (vf)x;
}
ALWAYS_INLINE vf abs(vf x) {
    return from_bits(bits(x) & 0x7fffffff);
}
ALWAYS_INLINE vf with_sign_of(vf magnitude, vf sign) {
    return from_bits(bits(magnitude) | (bits(sign) & std::int32_t(0x80000000)));
}
ALWAYS_INLINE vf select(vi mask, vf a, vf b) {
    return mask ? a : b;
}

ALWAYS_INLINE vf root(vf x) {
#if defined(__AVX512F__)
    return _mm512_sqrt_ps(x);
#elif defined(__AVX2__)
    return _mm256_sqrt_ps(x);
#elif defined(__x86_64__)
    return _mm_sqrt_ps(x);
#else
    for (int i = 0; i < lanes<float>; i++) x[i] = __builtin_sqrtf(x[i]);
    return x;
#endif
}

// Nearest integer, for |x| < 2^22.
ALWAYS_INLINE vf nearest(vf x) {
    const vf magic = splat(0x1.8p23f);
    vf sum = x + magic;
    asm("" : "+v"(sum));  // the compiler must not cancel the two
    return sum - magic;
}

// x 2^n for integers n in -300..300, rounded once.
ALWAYS_INLINE vf scale(vf x, vf n) {
#if defined(__AVX512F__)
    return _mm512_scalef_ps(x, n);
#else
    // in two steps that are exact but for the last: 2^n itself may be out of range
    const vi whole = __builtin_convertvector(n, vi), first = whole >> 1;
    return x * from_bits((first + 127) << 23) * from_bits((whole - first + 127) << 23);
#endif
}

// e^x. x = n ln 2 + r with ln 2 in two parts; e^r = 1 + r + r^2 q(r). In the sum the two parts of
// r stay apart: r itself is rounded, which would cost 0.12 ULP and save two operations.
ALWAYS_INLINE vf exp(vf x) {
    x = min(splat(89.0f), max(splat(-104.0f), x));  // the second operand is what NaN gives
    const vf n = nearest(x * 0x1.715476p0f);
    const vf high = x - n * 0x1.62e4p-1f, low = n * 0x1.7f7d1cp-20f, r = high - low;
    vf q = splat(0.00138189388f);
    q = q * r + 0.00836870354f;
    q = q * r + 0.0416682884f;
    q = q * r + 0.166665211f;
    q = q * r + 0.49999994f;
    return scale(1.0f + (high + (r * r * q - low)), n);
}

// ln x. x = 2^e (1 + f) with 1 + f in sqrt(1/2)..sqrt(2); ln(1 + f) = f - f^2/2 + f^3 p(f).
ALWAYS_INLINE vf log(vf x) {
    const vi small = x < 0x1p-126f;
    const vf wide = select(small, x * 0x1p25f, x);
    const vi raw = (vi)((vu)wide - 0x3f3504f3u);  // the bits of sqrt(1/2); below 0 they wrap
    const vi e = raw >> 23;
    const vf f = from_bits((vi)((vu)wide - ((vu)e << 23))) - 1.0f;
    const vf n = __builtin_convertvector(e, vf) - select(small, splat(25.0f), vf{});
    vf p = splat(0.0675095618f);
    p = p * f - 0.116714492f;
    p = p * f + 0.11883568f;
    p = p * f - 0.124060318f;
    p = p * f + 0.142203271f;
    p = p * f - 0.166679963f;
    p = p * f + 0.20002073f;
    p = p * f - 0.250000089f;
    p = p * f + 0.333333135f;
    const vf square = f * f;
    // the parts from the smallest on: the low part of n ln 2 is far below the rest
    const vf low = n * 0x1.7f7d1cp-20f + square * f * p;
    vf y = n * 0x1.62e4p-1f + (f + (low - 0.5f * square));
    y = select(x > 0x1.fffffep127f, x, y);  // infinity
    y = select(x == 0.0f, splat(-__builtin_inff()), y);
    return select((x < 0.0f) | (x != x), splat(__builtin_nanf("")), y);
}

// ln(1 + e) for 0 <= e <= 1: the log of the rounded sum, corrected for the rounding.
ALWAYS_INLINE vf log1p(vf e) {
    const vf u = 1.0f + e;
    return log(u) + (e - (u - 1.0f)) / u;
}

// ln(1 + e^x), without overflow on the way.
ALWAYS_INLINE vf softplus(vf x) {
    return max(x, vf{}) + log1p(exp(-abs(x)));
}

// tanh x: x + x^3 p(x^2) near 0, else (1 - e) / (1 + e) with e = exp(-2|x|).
ALWAYS_INLINE vf tanh(vf x) {
    const vf a = abs(x), z = x * x;
    vf p = splat(-0.00569581287f);
    p = p * z + 0.0206308253f;
    p = p * z - 0.0537371412f;
    p = p * z + 0.133314103f;
    p = p * z - 0.333332807f;
    const vf near = x + x * z * p;
    const vf e = exp(-2.0f * a);
    const vf far = with_sign_of(1.0f - 2.0f * e / (1.0f + e), x);
    return select(a < 0.625f, near, far);
}

// 1 / (1 + e^-x); 0 where e^-x is out of range.
ALWAYS_INLINE vf sigmoid(vf x) {
    return 1.0f / (1.0f + exp(-x));
}

// erf x: x + x p(x^2) near 0, else 1 - exp(-t - t q(t)).
ALWAYS_INLINE vf erf(vf x) {
    const vf t = abs(x), z = x * x;
    vf p = splat(7.99378686e-05f);
    p = p * z - 0.000804930402f;
    p = p * z + 0.00519238133f;
    p = p * z - 0.0268557277f;
    p = p * z + 0.112836257f;
    p = p * z - 0.376126289f;
    p = p * z + 0.128379166f;
    const vf u = min(splat(4.0f), t);
    vf q = splat(1.1230014e-05f);
    q = q * u - 0.000322794018f;
    q = q * u + 0.0036424296f;
    q = q * u - 0.0237620194f;
    q = q * u + 0.106236845f;
    q = q * u + 0.635151327f;
    q = q * u + 0.12864849f;
    const vf far = with_sign_of(1.0f - exp(-u - u * q), x);
    return select(t < 0.925f, x + x * p, far);
}

}  // namespace KERNEL_ISA
