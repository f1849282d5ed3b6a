// Matrix products where cuBLAS may not be called: while a graph is captured.
//
// Contract: numpy.matmul of float or double operands with any strides. A block of 256 threads makes
// a tile of 64 R x 64 R results (R = 1 or 2), each thread 4 R x 4 R of them in registers, from
// slices of 16 of the inner axis that all threads bring to shared memory; the next slice is on its
// way while the present one is multiplied. Results of few tiles and a long inner axis are cut along
// that axis into parts, which are summed afterwards in a fixed order.
//
// Limits on an H200: 2 m n k operations at 67e12/s in float, half of that in double; the tiles read
// (m / SIDE + n / SIDE) times what the operands have, mostly from the L2 cache. No tensor cores:
// the rounding is that of multiply-adds in the dtype.
#pragma once

#include "common/kernel.cuh"

struct Product {
    const void* a;  // (..., m, k)
    const void* b;  // (..., k, n)
    void* c;        // (parts, ..., m, n)
    i64 m, n, k;
    i64 a_row, a_inner, b_inner, b_column, c_row, c_column;  // strides in elements
    i64 size1, size2;  // the batch is (size0, size1, size2); size0 follows from the grid
    i64 a0, a1, a2, b0, b1, b2, c0, c1, c2;
    i64 batch;         // size0 * size1 * size2
    i64 part, c_part;  // inner elements of one part, and the stride of the parts of c
};

template <typename T, int R>
__device__ inline void multiply(const Product& p) {
    const int SIDE = 64 * R, DEPTH = 16, THREADS = 256, EACH = SIDE * DEPTH / THREADS;
    const int PITCH = SIDE + 4;
    SHARED(T, a_memory, DEPTH * PITCH);
    SHARED(T, b_memory, DEPTH * PITCH);
    T(*a_tile)[PITCH] = (T(*)[PITCH])a_memory;
    T(*b_tile)[PITCH] = (T(*)[PITCH])b_memory;

    const i64 tiles_n = (p.n + SIDE - 1) / SIDE, tiles_m = (p.m + SIDE - 1) / SIDE;
    i64 rest = blockIdx.x;
    const i64 column0 = rest % tiles_n * SIDE;
    rest /= tiles_n;
    const i64 row0 = rest % tiles_m * SIDE;
    rest /= tiles_m;
    const i64 item = rest % p.batch, slice = rest / p.batch;
    const i64 i2 = item % p.size2, i1 = item / p.size2 % p.size1, i0 = item / p.size2 / p.size1;

    const T* a = (const T*)p.a + i0 * p.a0 + i1 * p.a1 + i2 * p.a2;
    const T* b = (const T*)p.b + i0 * p.b0 + i1 * p.b1 + i2 * p.b2;
    T* c = (T*)p.c + i0 * p.c0 + i1 * p.c1 + i2 * p.c2 + slice * p.c_part;
    const i64 begin = slice * p.part, end = begin + p.part < p.k ? begin + p.part : p.k;

    // neighbouring threads read along the axis whose stride is 1
    const bool a_along = p.a_inner == 1, b_along = p.b_inner == 1;
    const int thread = threadIdx.x, x = thread % 16 * 4, y = thread / 16 * 4;
    T a_next[EACH], b_next[EACH], sum[4 * R][4 * R];
#pragma unroll
    for (int i = 0; i < 4 * R; ++i)
#pragma unroll
        for (int j = 0; j < 4 * R; ++j) sum[i][j] = 0;

    for (i64 k0 = begin - DEPTH; k0 < end; k0 += DEPTH) {
        if (k0 >= begin) {  // the slice that was fetched in the last round
#pragma unroll
            for (int e = 0; e < EACH; ++e) {
                const int at = e * THREADS + thread;
                a_tile[a_along ? at % DEPTH : at / SIDE][a_along ? at / DEPTH : at % SIDE] =
                    a_next[e];
                b_tile[b_along ? at % DEPTH : at / SIDE][b_along ? at / DEPTH : at % SIDE] =
                    b_next[e];
            }
            __syncthreads();
        }
        if (k0 + DEPTH < end) {
#pragma unroll
            for (int e = 0; e < EACH; ++e) {
                const int at = e * THREADS + thread;
                const i64 ka = k0 + DEPTH + (a_along ? at % DEPTH : at / SIDE);
                const i64 row = row0 + (a_along ? at / DEPTH : at % SIDE);
                const i64 kb = k0 + DEPTH + (b_along ? at % DEPTH : at / SIDE);
                const i64 column = column0 + (b_along ? at / DEPTH : at % SIDE);
                a_next[e] = ka < end && row < p.m ? a[row * p.a_row + ka * p.a_inner] : T(0);
                b_next[e] =
                    kb < end && column < p.n ? b[kb * p.b_inner + column * p.b_column] : T(0);
            }
        }
        if (k0 >= begin) {
#pragma unroll
            for (int d = 0; d < DEPTH; ++d) {
                T left[4 * R], right[4 * R];
#pragma unroll
                for (int i = 0; i < 4 * R; ++i) {
                    left[i] = a_tile[d][i / 4 * 64 + y + i % 4];
                    right[i] = b_tile[d][i / 4 * 64 + x + i % 4];
                }
#pragma unroll
                for (int i = 0; i < 4 * R; ++i)
#pragma unroll
                    for (int j = 0; j < 4 * R; ++j) sum[i][j] += left[i] * right[j];
            }
            __syncthreads();
        }
    }

#pragma unroll
    for (int i = 0; i < 4 * R; ++i) {
        const i64 row = row0 + i / 4 * 64 + y + i % 4;
#pragma unroll
        for (int j = 0; j < 4 * R; ++j) {
            const i64 column = column0 + j / 4 * 64 + x + j % 4;
            if (row < p.m && column < p.n) c[row * p.c_row + column * p.c_column] = sum[i][j];
        }
    }
}

#define GEMM_KERNELS(K)                                           \
    K(multiply_float32, Product, (multiply<float, 1>), 256)       \
    K(multiply_float32_large, Product, (multiply<float, 2>), 256) \
    K(multiply_float64, Product, (multiply<double, 1>), 256)
GEMM_KERNELS(KERNEL)
