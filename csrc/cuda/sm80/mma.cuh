// Products of small matrices by a warp: d += a b, in float (sm_80).
//
// With g = lane / 4 and t = lane % 4, a lane holds
//     d (16 x 8):                 rows g, g, g + 8, g + 8, columns 2 t, 2 t + 1, 2 t, 2 t + 1;
//     a (16 x 16, 16-bit pairs):  rows g, g + 8, g, g + 8, columns 2 t.. of the left half, twice,
//                                 then of the right half: what ldmatrix gives for the four
//                                 quarters: top left, bottom left, top right, bottom right;
//     b (16 x 8, 16-bit pairs):   rows 2 t.. and 8 + 2 t.., column g: what ldmatrix gives for the
//                                 two halves of a matrix stored by columns;
//     a (16 x 8, tf32):           (g, t), (g + 8, t), (g, t + 4), (g + 8, t + 4);
//     b (8 x 8, tf32):            (t, g), (t + 4, g).
// All lanes take part. The order and rounding of the sums are the hardware's own.
#pragma once

#include "address.cuh"

// 16 x 8 x 16, of float16 or bfloat16.
template <typename T>
__device__ inline void mma(float (&d)[4], const u32 (&a)[4], const u32 (&b)[2]);

template <>
__device__ inline void mma<float16>(float (&d)[4], const u32 (&a)[4], const u32 (&b)[2]) {
#ifdef EMULATED
    emulator::multiply(d, a, b, emulator::Format::FLOAT16);
#else
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}
template <>
__device__ inline void mma<bfloat16>(float (&d)[4], const u32 (&a)[4], const u32 (&b)[2]) {
#ifdef EMULATED
    emulator::multiply(d, a, b, emulator::Format::BFLOAT16);
#else
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}

// 16 x 8 x 8, of floats with 10 bits of mantissa: the 13 low bits of a and b do not count.
__device__ inline void mma_tf32(float (&d)[4], const u32 (&a)[4], const u32 (&b)[2]) {
#ifdef EMULATED
    emulator::multiply(d, a, b, emulator::Format::TF32);
#else
    asm volatile(
        "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}

// The bits of x rounded to tf32: to the nearest, ties away from zero.
__device__ inline u32 tf32_of(float x) {
#ifdef EMULATED
    return emulator::tf32_of_float(x);
#else
    u32 bits;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
    return bits;
#endif
}
