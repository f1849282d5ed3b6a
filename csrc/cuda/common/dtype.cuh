// 16-bit floating point numbers as storage: kernels compute in float, or in double for double.
#pragma once

#include "kernel.cuh"

struct float16 {
    u16 bits;
};
struct bfloat16 {
    u16 bits;
};

// Wide<T>::type: what a kernel on T computes in.
template <typename T>
struct Wide {
    typedef float type;
};
template <>
struct Wide<double> {
    typedef double type;
};

__device__ inline float widen(float x) {
    return x;
}
__device__ inline double widen(double x) {
    return x;
}
__device__ inline float widen(bfloat16 x) {
    return __uint_as_float((u32)x.bits << 16);
}
__device__ inline float widen(float16 x) {
#ifdef EMULATED
    return emulator::float_of_half(x.bits);
#else
    float wide;
    asm("cvt.f32.f16 %0, %1;" : "=f"(wide) : "h"(x.bits));
    return wide;
#endif
}

// narrow<T>(x): rounded to the nearest, ties to even.
template <typename T, typename W>
__device__ inline T narrow(W x) {
    return (T)x;
}
template <>
__device__ inline float16 narrow<float16, float>(float x) {
    float16 result;
#ifdef EMULATED
    result.bits = emulator::half_of_float(x);
#else
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(result.bits) : "f"(x));
#endif
    return result;
}
template <>
__device__ inline bfloat16 narrow<bfloat16, float>(float x) {
    const u32 bits = __float_as_uint(x);
    bfloat16 result;
    result.bits = x != x ? 0x7fc0 : (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    return result;
}
// Of a double in one rounding: the float next to x on the side of 0, odd if it is not x itself, so
// that the second rounding cannot take it for a tie.
__device__ inline float odd_float(double x) {
    const float near = (float)x;
    const double back = near;
    if (back == x || x != x) return near;
    const u32 bits = __float_as_uint(near);
    const bool beyond = x < 0 ? back < x : back > x;
    return __uint_as_float((beyond ? bits - 1 : bits) | 1);
}
template <>
__device__ inline float16 narrow<float16, double>(double x) {
    return narrow<float16>(odd_float(x));
}
template <>
__device__ inline bfloat16 narrow<bfloat16, double>(double x) {
    return narrow<bfloat16>(odd_float(x));
}

// number<W>(x): any number as a W that a kernel computes in.
template <typename W, typename T>
__device__ inline W number(T x) {
    return (W)x;
}
template <typename W>
__device__ inline W number(float16 x) {
    return (W)widen(x);
}
template <typename W>
__device__ inline W number(bfloat16 x) {
    return (W)widen(x);
}

template <typename W>
struct Limits;
template <>
struct Limits<float> {
    static __device__ inline float infinity() { return __uint_as_float(0x7f800000u); }
    static __device__ inline float nan() { return __uint_as_float(0x7fc00000u); }
};
template <>
struct Limits<double> {
    static __device__ inline double infinity() { return __longlong_as_double(0x7ff0000000000000); }
    static __device__ inline double nan() { return __longlong_as_double(0x7ff8000000000000); }
};
