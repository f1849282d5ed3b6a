// Transposes of squares in registers.
#pragma once

#include "simd.h"

namespace KERNEL_ISA {
namespace {

template <typename V, int D, int... I>
ALWAYS_INLINE void exchange(V& x, V& y, std::integer_sequence<int, I...>) {
    constexpr int L = sizeof...(I);
    const V low = __builtin_shufflevector(x, y, (I & D ? L + I - D : I)...);
    const V high = __builtin_shufflevector(x, y, (I & D ? L + I : I + D)...);
    x = low;
    y = high;
}

// The square of v's lanes<T> vectors transposed, for D = lanes<T> / 2.
template <typename T, int D>
ALWAYS_INLINE void transpose_by(vec<T>* v) {
    constexpr int L = lanes<T>;
    if constexpr (D > 0) {
#pragma GCC unroll 16
        for (int i = 0; i < L; i++)
            if (!(i & D)) exchange<vec<T>, D>(v[i], v[i + D], std::make_integer_sequence<int, L>{});
        transpose_by<T, D / 2>(v);
    }
}

}  // namespace
}  // namespace KERNEL_ISA
