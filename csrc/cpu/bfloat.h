// bfloat16 as it lies in memory: the upper half of a float32. Kernels widen it as they load and
// round once, to nearest even, as they store.
#pragma once

#include <cstdint>

#include "kernels.h"
#include "math.h"

namespace KERNEL_ISA {
namespace {

typedef std::uint16_t short_vector __attribute__((vector_size(WIDTH / 2)));

ALWAYS_INLINE vf widened(short_vector x) {
    return (vf)(__builtin_convertvector(x, vu) << 16);
}
// Not the instruction for it, which takes subnormal numbers for 0.
ALWAYS_INLINE short_vector rounded(vf x) {
    const vu raw = (vu)x, even = raw + 0x7fff + (raw >> 16 & 1);
    const vu kept = x == x ? even : raw | 0x400000;  // a NaN must not become infinite
    return __builtin_convertvector(kept >> 16, short_vector);
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
