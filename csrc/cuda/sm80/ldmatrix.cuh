// Matrices of 8 x 8 16-bit numbers from shared memory into the registers of a warp (sm_75).
//
// Lane l of the 32 gets of each matrix the two neighbours at row l / 4, columns l % 4 * 2 and the
// next, the first in the low half; `transposed`: of the matrix's transpose. The address of row r of
// matrix m comes from lane 8 m + r, a multiple of 16 bytes; the other lanes' are not looked at.
// All lanes take part.
#pragma once

#include "address.cuh"

template <bool transposed>
__device__ inline void ldmatrix(u32 (&to)[4], const void* row) {
#ifdef EMULATED
    emulator::load_matrices(to, row, 4, transposed);
#else
    if (transposed)
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                     : "r"(shared_address(row))
                     : "memory");
    else
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                     : "r"(shared_address(row))
                     : "memory");
#endif
}

template <bool transposed>
__device__ inline void ldmatrix(u32 (&to)[2], const void* row) {
#ifdef EMULATED
    emulator::load_matrices(to, row, 2, transposed);
#else
    if (transposed)
        asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
                     : "=r"(to[0]), "=r"(to[1])
                     : "r"(shared_address(row))
                     : "memory");
    else
        asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
                     : "=r"(to[0]), "=r"(to[1])
                     : "r"(shared_address(row))
                     : "memory");
#endif
}

template <bool transposed>
__device__ inline void ldmatrix(u32 (&to)[1], const void* row) {
#ifdef EMULATED
    emulator::load_matrices(to, row, 1, transposed);
#else
    if (transposed)
        asm volatile("ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {%0}, [%1];"
                     : "=r"(to[0])
                     : "r"(shared_address(row))
                     : "memory");
    else
        asm volatile("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0}, [%1];"
                     : "=r"(to[0])
                     : "r"(shared_address(row))
                     : "memory");
#endif
}
