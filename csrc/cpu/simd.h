// Vectors of the register width of the instruction set that this file is compiled for.
//
// Everything is in the namespace KERNEL_ISA, which the build sets per object file: an inline
// function compiled for AVX-512 must never be the one that the linker keeps for everybody.
// `vec<T>` has the operators of the compiler's vector extension; the shims below are what it
// lacks: loads and stores of a part, conversions, and single instructions for max and min.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>
#if defined(__x86_64__)
#    include <immintrin.h>
#endif

#ifndef KERNEL_ISA
#    error "KERNEL_ISA names the namespace of the kernels; setup.py sets it"
#endif

#define ALWAYS_INLINE inline __attribute__((always_inline))
// of a lambda, behind its parameters
#define INLINED __attribute__((always_inline))

namespace KERNEL_ISA {

#if defined(__AVX512F__)
constexpr int WIDTH = 64;
#elif defined(__AVX2__)
constexpr int WIDTH = 32;
#else
constexpr int WIDTH = 16;
#endif

template <typename T>
struct vector_of {
    typedef T type __attribute__((vector_size(WIDTH)));
    typedef T unaligned __attribute__((vector_size(WIDTH), aligned(sizeof(T)), may_alias));
};
template <typename T>
using vec = typename vector_of<T>::type;
template <typename T>
constexpr int lanes = WIDTH / int(sizeof(T));

template <typename T>
ALWAYS_INLINE vec<T> load(const T* p) {
    return *reinterpret_cast<const typename vector_of<T>::unaligned*>(p);
}

template <typename T>
ALWAYS_INLINE void store(T* p, vec<T> v) {
    *reinterpret_cast<typename vector_of<T>::unaligned*>(p) = v;
}

template <typename T>
ALWAYS_INLINE vec<T> broadcast(T x) {
    return x - vec<T>{};
}

// The first n elements (0 <= n <= lanes); nothing behind them is touched, the other lanes are 0.
template <typename T>
ALWAYS_INLINE vec<T> load_part(const T* p, int n) {
    vec<T> v{};
    std::memcpy(&v, p, std::size_t(n) * sizeof(T));
    return v;
}

template <typename T>
ALWAYS_INLINE void store_part(T* p, vec<T> v, int n) {
    std::memcpy(p, &v, std::size_t(n) * sizeof(T));
}

#if defined(__AVX512F__)
template <>
ALWAYS_INLINE vec<float> load_part(const float* p, int n) {
    return _mm512_maskz_loadu_ps(__mmask16((1u << n) - 1), p);
}
template <>
ALWAYS_INLINE vec<double> load_part(const double* p, int n) {
    return _mm512_maskz_loadu_pd(__mmask8((1u << n) - 1), p);
}
template <>
ALWAYS_INLINE void store_part(float* p, vec<float> v, int n) {
    _mm512_mask_storeu_ps(p, __mmask16((1u << n) - 1), v);
}
template <>
ALWAYS_INLINE void store_part(double* p, vec<double> v, int n) {
    _mm512_mask_storeu_pd(p, __mmask8((1u << n) - 1), v);
}
ALWAYS_INLINE vec<float> max(vec<float> a, vec<float> b) {
    return _mm512_max_ps(a, b);
}
ALWAYS_INLINE vec<float> min(vec<float> a, vec<float> b) {
    return _mm512_min_ps(a, b);
}
ALWAYS_INLINE vec<double> max(vec<double> a, vec<double> b) {
    return _mm512_max_pd(a, b);
}
ALWAYS_INLINE vec<double> min(vec<double> a, vec<double> b) {
    return _mm512_min_pd(a, b);
}
#elif defined(__AVX2__)
// n ones followed by zeros, wherever it is read from
alignas(64) constexpr std::int32_t MASK32[16] = {-1, -1, -1, -1, -1, -1, -1, -1};
alignas(64) constexpr std::int64_t MASK64[8] = {-1, -1, -1, -1};
ALWAYS_INLINE __m256i mask32(int n) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(MASK32 + 8 - n));
}
ALWAYS_INLINE __m256i mask64(int n) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(MASK64 + 4 - n));
}
template <>
ALWAYS_INLINE vec<float> load_part(const float* p, int n) {
    return _mm256_maskload_ps(p, mask32(n));
}
template <>
ALWAYS_INLINE vec<double> load_part(const double* p, int n) {
    return _mm256_maskload_pd(p, mask64(n));
}
template <>
ALWAYS_INLINE void store_part(float* p, vec<float> v, int n) {
    _mm256_maskstore_ps(p, mask32(n), v);
}
template <>
ALWAYS_INLINE void store_part(double* p, vec<double> v, int n) {
    _mm256_maskstore_pd(p, mask64(n), v);
}
ALWAYS_INLINE vec<float> max(vec<float> a, vec<float> b) {
    return _mm256_max_ps(a, b);
}
ALWAYS_INLINE vec<float> min(vec<float> a, vec<float> b) {
    return _mm256_min_ps(a, b);
}
ALWAYS_INLINE vec<double> max(vec<double> a, vec<double> b) {
    return _mm256_max_pd(a, b);
}
ALWAYS_INLINE vec<double> min(vec<double> a, vec<double> b) {
    return _mm256_min_pd(a, b);
}
#else
template <typename V>
ALWAYS_INLINE V max(V a, V b) {
    return a > b ? a : b;
}
template <typename V>
ALWAYS_INLINE V min(V a, V b) {
    return a < b ? a : b;
}
#endif

// A store past the caches, to an address that is a multiple of WIDTH; whoever streams calls
// stream_end before another thread may look.
ALWAYS_INLINE void stream(float* p, vec<float> v) {
#if defined(__AVX512F__)
    _mm512_stream_ps(p, v);
#elif defined(__AVX2__)
    _mm256_stream_ps(p, v);
#elif defined(__x86_64__)
    _mm_stream_ps(p, v);
#else
    store(p, v);
#endif
}
ALWAYS_INLINE void stream_end() {
#if defined(__x86_64__)
    _mm_sfence();
#endif
}

// Lane i of the result is lane i ^ D.
template <int D, typename V, int... I>
ALWAYS_INLINE V crossed(V v, std::integer_sequence<int, I...>) {
    return __builtin_shufflevector(v, v, (I ^ D)...);
}
template <typename T, int D = lanes<T> / 2>
ALWAYS_INLINE T reduce_add(vec<T> v) {
    v += crossed<D>(v, std::make_integer_sequence<int, lanes<T>>{});
    if constexpr (D > 1)
        return reduce_add<T, D / 2>(v);
    else
        return v[0];
}
template <typename T, int D = lanes<T> / 2>
ALWAYS_INLINE T reduce_max(vec<T> v) {
    v = max(v, crossed<D>(v, std::make_integer_sequence<int, lanes<T>>{}));
    if constexpr (D > 1)
        return reduce_max<T, D / 2>(v);
    else
        return v[0];
}

}  // namespace KERNEL_ISA
