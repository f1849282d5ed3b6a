// bfloat16 as it lies in memory: the upper half of a float32. Kernels widen it as they load and
// round once, to nearest even, as they store.
//
// Two vectors at a time take a register of bfloat16 apart into its even and its odd elements, which
// costs a shift and a mask. In order they would be moved between the lanes, which g++ 12 does in
// six instructions (a sum of 32768: 8.7 us, not 2.0).
#pragma once

#include <cstdint>

#include "kernels.h"
#include "math.h"

namespace KERNEL_ISA {
namespace {

typedef std::uint16_t short_vector __attribute__((vector_size(WIDTH / 2)));

ALWAYS_INLINE vf widened(short_vector x) {
#if defined(__AVX512F__)
    return (vf)((vu)_mm512_cvtepu16_epi32((__m256i)x) << 16);
#elif defined(__AVX2__)
    return (vf)((vu)_mm256_cvtepu16_epi32((__m128i)x) << 16);
#else
    return (vf)(__builtin_convertvector(x, vu) << 16);
#endif
}
// The rounded numbers as the upper halves of the lanes; the lower halves are not cleared.
ALWAYS_INLINE vu rounded_up(vf x) {
    const vu raw = (vu)x, even = raw + 0x7fff + (raw >> 16 & 1);
    return x == x ? even : raw | 0x400000;  // a NaN must not become infinite
}
// The upper halves of the lanes.
ALWAYS_INLINE short_vector upper(vu x) {
#if defined(__AVX512F__)
    return (short_vector)_mm512_cvtepi32_epi16((__m512i)(x >> 16));
#else
    return __builtin_convertvector(x >> 16, short_vector);
#endif
}
ALWAYS_INLINE short_vector rounded(vf x) {
#if defined(__AVX512BF16__)
    constexpr int SUBNORMAL = 0x20;  // which the instruction takes for 0
    if (__builtin_expect(!_mm512_fpclass_ps_mask(x, SUBNORMAL), 1))
        return (short_vector)_mm512_cvtneps_pbh(x);
#endif
    return upper(rounded_up(x));
}
// Two vectors as one of bfloat16: the even and the odd elements.
ALWAYS_INLINE vu rounded(vf even, vf odd) {
#if defined(__AVX512BF16__)
    // The instruction takes subnormal numbers for 0: they go the other way.
    constexpr int SUBNORMAL = 0x20;
    const __mmask16 tiny =
        _mm512_fpclass_ps_mask(even, SUBNORMAL) | _mm512_fpclass_ps_mask(odd, SUBNORMAL);
    if (__builtin_expect(!tiny, 1)) {
        const __m512i woven = (__m512i)((vec<std::uint16_t>){
            0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
            8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31});
        return (vu)_mm512_permutexvar_epi16(woven, (__m512i)_mm512_cvtne2ps_pbh(odd, even));
    }
#endif
    return rounded_up(even) >> 16 | (rounded_up(odd) & 0xffff0000);
}

// Elements of either type as float32: n of them, the other lanes 0.
ALWAYS_INLINE vf wide(const float* p) {
    return load(p);
}
ALWAYS_INLINE vf wide(const float* p, int n) {
    return load_part(p, n);
}
ALWAYS_INLINE vf wide(const bfloat16* p) {
    short_vector x;
    std::memcpy(&x, p, sizeof(x));
    return widened(x);
}
ALWAYS_INLINE vf wide(const bfloat16* p, int n) {
    short_vector x{};
    std::memcpy(&x, p, std::size_t(n) * sizeof(bfloat16));
    return widened(x);
}
ALWAYS_INLINE void narrow(float* p, vf v) {
    store(p, v);
}
ALWAYS_INLINE void narrow(float* p, vf v, int n) {
    store_part(p, v, n);
}
ALWAYS_INLINE void narrow(bfloat16* p, vf v) {
    const short_vector x = rounded(v);
    std::memcpy(p, &x, sizeof(x));
}
ALWAYS_INLINE void narrow(bfloat16* p, vf v, int n) {
    const short_vector x = rounded(v);
    std::memcpy(p, &x, std::size_t(n) * sizeof(bfloat16));
}
// 2 lanes<float> elements of either type: neighbours or the even and the odd ones. With two of one
// element type, the same element is in the same place.
struct Two {
    vf first, second;
};
ALWAYS_INLINE Two wide_two(const float* p) {
#if defined(__AVX512F__)
    // by halves: a sum of 2 x 4 MB, from the last level cache, takes 157 us and not 168 on Zen 4,
    // and as long as before from the first and the second
    const auto joined = [](const float* q) INLINED {
        const __m512 low = _mm512_castps256_ps512(_mm256_loadu_ps(q));
        return (vf)_mm512_insertf32x8(low, _mm256_loadu_ps(q + lanes<float> / 2), 1);
    };
    return {joined(p), joined(p + lanes<float>)};
#else
    return {load(p), load(p + lanes<float>)};
#endif
}
ALWAYS_INLINE Two wide_two(const bfloat16* p) {
    vu pairs;
    std::memcpy(&pairs, p, sizeof(pairs));
    return {(vf)(pairs << 16), (vf)(pairs & 0xffff0000)};
}
// Past the caches if STREAMED, to an address that is a multiple of WIDTH.
template <bool STREAMED = false>
ALWAYS_INLINE void narrow_two(float* p, Two x) {
    STREAMED ? stream(p, x.first) : store(p, x.first);
    STREAMED ? stream(p + lanes<float>, x.second) : store(p + lanes<float>, x.second);
}
template <bool STREAMED = false>
ALWAYS_INLINE void narrow_two(bfloat16* p, Two x) {
    const vu pairs = rounded(x.first, x.second);
    if constexpr (STREAMED)
        stream(reinterpret_cast<float*>(p), (vf)pairs);
    else
        std::memcpy(p, &pairs, sizeof(pairs));
}
// One number, rounded to the type.
template <typename T>
T narrowed(float x) {
    if constexpr (sizeof(T) == sizeof(float)) return x;
    std::uint32_t raw;
    std::memcpy(&raw, &x, sizeof(raw));
    raw = x == x ? raw + 0x7fff + (raw >> 16 & 1) : raw | 0x400000;
    const std::uint16_t upper = std::uint16_t(raw >> 16);
    T result;
    std::memcpy(&result, &upper, sizeof(upper));
    return result;
}

}  // namespace
}  // namespace KERNEL_ISA
