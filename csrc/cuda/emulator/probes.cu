// Kernels that try the emulator: right ones, and the same with one fault each, which it must name.
// tests/test_emulator.py runs them; nvcc compiles them, too, which assembles sm80's instructions.
#include "../common/reduce.cuh"
#include "../common/swizzle.h"
#include "../common/vec.cuh"
#include "../registry.h"
#include "../sm80/cp_async.cuh"
#include "../sm80/ldmatrix.cuh"
#include "../sm80/mma.cuh"

struct Probe {
    const void *x, *y;
    void* out;
    i64 m, n, k;
};

// ---------------------------------------------------------------- products

enum class Gemm { RIGHT, NO_BARRIER, WAITS_FOR_FEW, WRONG_STAGE, FILLS_TOO_EARLY, STAGE_PAST_END };

// One operand's tile of a stage: 32 rows of 32 16-bit numbers. Copies the part at (row, column) of
// a matrix; what lies outside of it becomes zero. `columns` is a multiple of 8.
template <typename T>
__device__ inline void copy_tile(T* tile, const T* from, i64 rows, i64 columns, i64 row,
                                 i64 column) {
    const int r = threadIdx.x / 4, c = threadIdx.x % 4;
    const bool inside = row + r < rows && column + 8 * c < columns;
    const T* piece = from + (row + r) * columns + column + 8 * c;
    cp_async<16>(tile + 8 * swizzled(r, c, 4), inside ? piece : from, inside ? 16 : 0);
}

// out (m x n, float) = x (m x k) y, where y is k x n, or stored as n x k: tiles of 32 x 32, four
// warps with 16 x 16 each, a ring of three stages of 32 of k.
template <typename T, bool y_by_columns, Gemm fault>
__device__ inline void gemm(const Probe& p) {
    const int STAGES = 3, TILE = 32 * 32;
    SHARED(T, tiles, STAGES * 2 * TILE);
    const i64 row = blockIdx.x / ((p.n + 31) / 32) * 32;
    const i64 column = blockIdx.x % ((p.n + 31) / 32) * 32;
    const int steps = (int)((p.k + 31) / 32), lane = lane_of_thread();
    const int top = warp_of_thread() / 2 * 16, left = warp_of_thread() % 2 * 16;
    auto fill = [&](int step) {
        const int last = fault == Gemm::STAGE_PAST_END ? STAGES + 1 : STAGES;
        T* stage = tiles + step % last * 2 * TILE;
        if (step < steps) {
            copy_tile(stage, (const T*)p.x, p.m, p.k, row, 32 * (i64)step);
            if (y_by_columns)
                copy_tile(stage + TILE, (const T*)p.y, p.n, p.k, column, 32 * (i64)step);
            else
                copy_tile(stage + TILE, (const T*)p.y, p.k, p.n, 32 * (i64)step, column);
        }
        cp_async_commit();
    };
    float d[2][4] = {};
    for (int step = 0; step < STAGES - 1; ++step) fill(step);
    for (int step = 0; step < steps; ++step) {
        cp_async_wait<fault == Gemm::WAITS_FOR_FEW ? STAGES - 1 : STAGES - 2>();
        if (fault == Gemm::FILLS_TOO_EARLY) fill(step + STAGES - 1);
        if (fault != Gemm::NO_BARRIER) __syncthreads();
        if (fault != Gemm::FILLS_TOO_EARLY) fill(step + STAGES - 1);
        const int read = fault == Gemm::WRONG_STAGE ? step + 1 : step;
        const T *x = tiles + read % STAGES * 2 * TILE, *y = x + TILE;
#pragma unroll
        for (int k = 0; k < 32; k += 16) {
            u32 a[4], b[4];
            const int r = lane % 16, half = lane / 16;
            ldmatrix<false>(a, x + 8 * swizzled(top + r, k / 8 + half, 4));
            if (y_by_columns)
                ldmatrix<false>(
                    b, y + 8 * swizzled(left + lane % 8 + half * 8, k / 8 + lane / 8 % 2, 4));
            else
                ldmatrix<true>(b, y + 8 * swizzled(k + r, left / 8 + half, 4));
            const u32 right[2] = {b[2], b[3]}, both[2] = {b[0], b[1]};
            mma<T>(d[0], a, both);
            mma<T>(d[1], a, right);
        }
    }
    cp_async_wait_all();
#pragma unroll
    for (int i = 0; i < 8; ++i) {
        const i64 r = row + top + lane / 4 + i / 2 % 2 * 8;
        const i64 c = column + left + i / 4 * 8 + lane % 4 * 2 + i % 2;
        if (r < p.m && c < p.n) ((float*)p.out)[r * p.n + c] = d[i / 4][i % 4];
    }
}

// out (16 x 8) = x (16 x k) y (k x 8) in tf32, k a multiple of 8: one warp; `rounded`: the operands
// are rounded first, else their low bits are cut.
template <bool rounded>
__device__ inline void product_tf32(const Probe& p) {
    const float *x = (const float*)p.x, *y = (const float*)p.y;
    const int g = lane_of_thread() / 4, t = lane_of_thread() % 4;
    auto bits = [](float z) { return rounded ? tf32_of(z) : __float_as_uint(z); };
    float d[4] = {};
    for (i64 k = 0; k < p.k; k += 8) {
        const u32 a[4] = {bits(x[g * p.k + k + t]), bits(x[(g + 8) * p.k + k + t]),
                          bits(x[g * p.k + k + t + 4]), bits(x[(g + 8) * p.k + k + t + 4])};
        const u32 b[2] = {bits(y[(k + t) * 8 + g]), bits(y[(k + t + 4) * 8 + g])};
        mma_tf32(d, a, b);
    }
    for (int i = 0; i < 4; ++i) ((float*)p.out)[(g + i / 2 * 8) * 8 + t * 2 + i % 2] = d[i];
}

// ---------------------------------------------------------------- 16-bit numbers

template <typename T>
__device__ inline void widened(const Probe& p) {
    const i64 own = global_thread();
    if (own < p.m) ((float*)p.out)[own] = widen(((const T*)p.x)[own]);
}
template <typename T>
__device__ inline void narrowed(const Probe& p) {
    const i64 own = global_thread();
    if (own < p.m) ((T*)p.out)[own] = narrow<T>(((const float*)p.x)[own]);
}

// ---------------------------------------------------------------- the warp's loads, and copies

// x: `count` matrices of 8 x 8 16-bit numbers; out: the registers of each lane.
template <int count, bool transposed>
__device__ inline void fragments(const Probe& p) {
    SHARED(u16, kept, 64 * count);
    const u16* x = (const u16*)p.x;
    const int lane = lane_of_thread();
    for (int i = lane; i < 64 * count; i += 32) kept[i] = x[i];
    __syncwarp();
    u32 found[count];
    ldmatrix<transposed>(found, kept + 8 * (lane % (8 * count)));
    for (int i = 0; i < count; ++i) ((u32*)p.out)[lane * count + i] = found[i];
}

enum class Copying { RIGHT, WRITES, CHANGES, MISALIGNED, TO_GLOBAL, NOT_COMMITTED, NO_SYNC };

// Each thread moves a piece of x through shared memory, its first m bytes, and zeros behind.
template <int bytes, Copying fault>
__device__ inline void copying(const Probe& p) {
    SHARED(u8, kept, 256 * bytes);
    const int own = threadIdx.x * bytes;
    const u8* from = (const u8*)p.x + own;
    u8 *to = kept + own, *out = (u8*)p.out + own;
    if (fault == Copying::MISALIGNED) ++from;
    if (fault == Copying::TO_GLOBAL) to = out;
    cp_async<bytes>(to, from, (int)p.m);
    if (fault == Copying::WRITES) to[0] = 1;
    if (fault == Copying::CHANGES) ((u8*)p.x)[own] += 1;
    if (fault != Copying::NOT_COMMITTED) cp_async_commit();
    cp_async_wait<0>();
    if (fault == Copying::NO_SYNC) to = kept + (threadIdx.x ^ 1) * bytes;
    for (int i = 0; i < bytes; ++i) out[i] = to[i];
}

// ---------------------------------------------------------------- a reduction

enum class Reduction { RIGHT, RACE, NO_BARRIER, UNWRITTEN, PAST_END, FAR_PAST_END, DYNAMIC };

// out[block, i] = the sum of a row of x, of 256, times i = 1, 2.
template <Reduction fault>
__device__ inline void reduction(const Probe& p) {
    SHARED(float, of_warps, 8);
    const int lane = lane_of_thread(), warp = warp_of_thread();
    const float x = ((const float*)p.x)[global_thread()];
    for (int i = 1; i <= 2; ++i) {
        const float sum = lanes_reduce<32>(x * i, Sum());
        const int place = fault == Reduction::PAST_END ? warp + 1 : warp;
        if (fault != Reduction::UNWRITTEN || warp != 3)
            if (lane == 0) of_warps[fault == Reduction::FAR_PAST_END ? place + 100 : place] = sum;
        if (fault == Reduction::DYNAMIC) dynamic_memory()[threadIdx.x] = 1;
        if (fault == Reduction::RACE)
            __syncwarp();
        else
            __syncthreads();
        const float all = lanes_reduce<8>(of_warps[lane % 8], Sum());
        if (threadIdx.x == 0) ((float*)p.out)[2 * blockIdx.x + i - 1] = all;
        if (fault != Reduction::NO_BARRIER) __syncthreads();
    }
}

enum class Barriers { SOME, ENDED, TWO, TIMES, WARP };

// Barriers that not all threads reach.
template <Barriers fault>
__device__ inline void barriers(const Probe&) {
    const int warp = warp_of_thread();
    if (fault == Barriers::SOME && warp < 4) __syncthreads();
    if (fault == Barriers::ENDED && threadIdx.x == 77) return;
    if (fault == Barriers::TWO) {
        if (warp < 4)
            __syncthreads();
        else
            __syncthreads();
    }
    if (fault == Barriers::TIMES)
        for (int i = 0; i < 1 + warp % 2; ++i) __syncthreads();
    if (fault == Barriers::WARP && lane_of_thread() < 16) __syncwarp();
    __syncthreads();
}

// Thread 0 writes what its own warp has read before a barrier of the warp, and thread 32 at any
// time.
__device__ inline void readers(const Probe& p) {
    SHARED(int, kept, 1);
    if (threadIdx.x == 0) kept[0] = 1;
    __syncthreads();
    if (threadIdx.x <= 32) ((int*)p.out)[threadIdx.x] = kept[0];
    __syncwarp();
    if (threadIdx.x == 0) kept[0] = 2;
}

// Every thread does its own m steps of x on 16 shared bytes: kind + 8 * offset + 128 * size. Kinds:
// 1 read, 2 write, 3 atomic addition (of 4 bytes), 4 barrier of the warp, 5 of the block.
__device__ inline void steps(const Probe& p) {
    SHARED(u32, kept, 4);
    if (threadIdx.x < 4) kept[threadIdx.x] = 0;
    __syncthreads();
    const int* own = (const int*)p.x + threadIdx.x * p.m;
    u32 seen = 0;
    for (i64 i = 0; i < p.m; ++i) {
        const int kind = own[i] % 8, offset = own[i] / 8 % 16, size = own[i] / 128;
        if (kind == 1) {
            if (size == 1) seen += ((const u8*)kept)[offset];
            if (size == 2) seen += ((const u16*)kept)[offset / 2];
            if (size == 4) seen += kept[offset / 4];
            if (size == 16) seen += load_vec(kept).at[1];
        } else if (kind == 2) {
            if (size == 1) ((u8*)kept)[offset] = (u8)i;
            if (size == 2) ((u16*)kept)[offset / 2] = (u16)i;
            if (size == 4) kept[offset / 4] = (u32)i;
            if (size == 16) store_vec(kept, Vec<u32>{{1, 2, 3, 4}});
        } else if (kind == 3) {
            atomicAdd(&kept[offset / 4], 1u);
        }
        if (kind == 4) __syncwarp();
        if (kind == 5) __syncthreads();
    }
    ((u32*)p.out)[threadIdx.x] = seen;
}

// ---------------------------------------------------------------- rows with a tail

enum class Tail { RIGHT, NEXT_ROW, PAST_END, READS_PAST_END, MISALIGNED, FAR };

// out = 2 x, of m rows of n floats, a block each: in pieces of 16 bytes and a tail.
template <Tail fault>
__device__ inline void tail(const Probe& p) {
    const float* x = (const float*)p.x + (i64)blockIdx.x * p.n;
    float* out = (float*)p.out + (i64)blockIdx.x * p.n;
    const bool vec = fault == Tail::MISALIGNED || in_vecs<float>(p.n, p.x, p.out);
    const i64 whole = vec ? p.n / 4 * 4 : 0;
    for (i64 i = 4 * threadIdx.x; i < whole; i += 4 * blockDim.x) {
        Vec<float> piece = load_vec(x + i);
        for (int j = 0; j < 4; ++j) piece.at[j] *= 2;
        store_vec(out + i, piece);
    }
    const bool last = blockIdx.x == gridDim.x - 1;
    i64 end = p.n;
    if (fault == Tail::NEXT_ROW && !last) ++end;
    if (fault == Tail::PAST_END && last) ++end;
    if (fault == Tail::FAR && last) end += 1000;
    for (i64 i = whole + threadIdx.x; i < end; i += blockDim.x) out[i] = 2 * (i < p.n ? x[i] : 0);
    if (fault == Tail::READS_PAST_END && last && threadIdx.x == 0) out[0] = x[p.n];
}

// ---------------------------------------------------------------- shuffles

enum class Shuffle {
    RIGHT,
    NOT_IN_MASK,
    ENDED,
    OUTSIDE,
    OTHER_MASK,
    OTHER_KIND,
    ELSEWHERE,
    ABSENT
};

// out = x, its lanes turned around within each warp.
template <Shuffle fault>
__device__ inline void shuffle(const Probe& p) {
    const int lane = lane_of_thread();
    const i64 own = global_thread();
    const i64 x = ((const i64*)p.x)[own];
    u32 mask = ALL_LANES;
    int from = 31 - lane;
    if (fault == Shuffle::NOT_IN_MASK) mask = 0xffff0000u;
    if (fault == Shuffle::ENDED && lane == 7) return;
    if (fault == Shuffle::OUTSIDE) mask = lane < 16 ? 0xffffu : 0xffff0000u;
    if (fault == Shuffle::OTHER_MASK && lane == 3) mask = 0x7fffffffu;
    if (fault == Shuffle::ELSEWHERE && lane == 5) __syncthreads();
    if (fault == Shuffle::ABSENT || fault == Shuffle::NOT_IN_MASK) from = lane;
    i64 found;
    if (fault == Shuffle::OTHER_KIND && lane >= 16)
        found = __shfl_xor_sync(mask, x, 31);
    else
        found = __shfl_sync(mask, x, from);
    ((i64*)p.out)[own] = found;
}

// ---------------------------------------------------------------- atomic updates

enum class Counting { RIGHT, PLAIN, READS, WRITES, BLOCKS };

// out[x[i]] += 1 for m numbers, counted in shared memory first.
template <Counting fault>
__device__ inline void counting(const Probe& p) {
    SHARED(u32, counts, 32);
    if (threadIdx.x < 32) counts[threadIdx.x] = 0;
    __syncthreads();
    const u32* x = (const u32*)p.x;
    u32* out = (u32*)p.out;
    for (i64 i = global_thread(); i < p.m; i += (i64)gridDim.x * blockDim.x) {
        if (fault == Counting::PLAIN)
            counts[x[i]] += 1;
        else
            atomicAdd(&counts[x[i]], 1u);
    }
    if (fault == Counting::WRITES && threadIdx.x == 40) counts[1] = 0;
    if (fault != Counting::READS) __syncthreads();
    if (threadIdx.x < 32) {
        if (fault == Counting::BLOCKS)
            out[threadIdx.x] += counts[threadIdx.x];
        else
            atomicAdd(&out[threadIdx.x], counts[threadIdx.x]);
    }
}

// What the other atomic operations leave in out[0..4], of 100 threads in 2 blocks.
__device__ inline void atomics(const Probe& p) {
    int* out = (int*)p.out;
    const int own = (int)global_thread();
    atomicMax(&out[0], own);
    atomicMin(&out[1], own);
    atomicExch(&out[2], 7);
    if (own == 11) atomicCAS(&out[3], 5, 9);
    atomicCAS(&out[4], 1000, own);
}

// ---------------------------------------------------------------- for AddressSanitizer and UBSan

// out[0] = x[k]: through an array of the thread's own, of 8, and a sum that may be too large.
__device__ inline void sanitized(const Probe& p) {
    int own[8];
    for (int i = 0; i < 8; ++i) own[i] = ((const int*)p.x)[i];
    volatile int* seen = own;
    ((int*)p.out)[0] = seen[p.k] + (int)p.m;
}

#define PROBE_KERNELS(K)                                                                     \
    K(probe_gemm_float16, Probe, (gemm<float16, false, Gemm::RIGHT>), 128)                   \
    K(probe_gemm_bfloat16, Probe, (gemm<bfloat16, false, Gemm::RIGHT>), 128)                 \
    K(probe_gemm_by_columns_float16, Probe, (gemm<float16, true, Gemm::RIGHT>), 128)         \
    K(probe_gemm_by_columns_bfloat16, Probe, (gemm<bfloat16, true, Gemm::RIGHT>), 128)       \
    K(probe_gemm_no_barrier, Probe, (gemm<float16, false, Gemm::NO_BARRIER>), 128)           \
    K(probe_gemm_waits_for_few, Probe, (gemm<float16, false, Gemm::WAITS_FOR_FEW>), 128)     \
    K(probe_gemm_wrong_stage, Probe, (gemm<float16, false, Gemm::WRONG_STAGE>), 128)         \
    K(probe_gemm_fills_too_early, Probe, (gemm<float16, false, Gemm::FILLS_TOO_EARLY>), 128) \
    K(probe_gemm_stage_past_end, Probe, (gemm<float16, false, Gemm::STAGE_PAST_END>), 128)   \
    K(probe_product_tf32, Probe, product_tf32<false>, 32)                                    \
    K(probe_product_tf32_rounded, Probe, product_tf32<true>, 32)                             \
    K(probe_widened_float16, Probe, widened<float16>, 256)                                   \
    K(probe_widened_bfloat16, Probe, widened<bfloat16>, 256)                                 \
    K(probe_narrowed_float16, Probe, narrowed<float16>, 256)                                 \
    K(probe_narrowed_bfloat16, Probe, narrowed<bfloat16>, 256)                               \
    K(probe_fragments_1, Probe, (fragments<1, false>), 32)                                   \
    K(probe_fragments_2, Probe, (fragments<2, false>), 32)                                   \
    K(probe_fragments_4, Probe, (fragments<4, false>), 32)                                   \
    K(probe_fragments_1_transposed, Probe, (fragments<1, true>), 32)                         \
    K(probe_fragments_2_transposed, Probe, (fragments<2, true>), 32)                         \
    K(probe_fragments_4_transposed, Probe, (fragments<4, true>), 32)                         \
    K(probe_copying_4, Probe, (copying<4, Copying::RIGHT>), 256)                             \
    K(probe_copying_8, Probe, (copying<8, Copying::RIGHT>), 256)                             \
    K(probe_copying_16, Probe, (copying<16, Copying::RIGHT>), 256)                           \
    K(probe_copying_writes, Probe, (copying<8, Copying::WRITES>), 256)                       \
    K(probe_copying_changes, Probe, (copying<8, Copying::CHANGES>), 256)                     \
    K(probe_copying_misaligned, Probe, (copying<8, Copying::MISALIGNED>), 256)               \
    K(probe_copying_to_global, Probe, (copying<8, Copying::TO_GLOBAL>), 256)                 \
    K(probe_copying_not_committed, Probe, (copying<8, Copying::NOT_COMMITTED>), 256)         \
    K(probe_copying_no_sync, Probe, (copying<8, Copying::NO_SYNC>), 256)                     \
    K(probe_reduction, Probe, reduction<Reduction::RIGHT>, 256)                              \
    K(probe_reduction_race, Probe, reduction<Reduction::RACE>, 256)                          \
    K(probe_reduction_no_barrier, Probe, reduction<Reduction::NO_BARRIER>, 256)              \
    K(probe_reduction_unwritten, Probe, reduction<Reduction::UNWRITTEN>, 256)                \
    K(probe_reduction_past_end, Probe, reduction<Reduction::PAST_END>, 256)                  \
    K(probe_reduction_far_past_end, Probe, reduction<Reduction::FAR_PAST_END>, 256)          \
    K(probe_reduction_dynamic, Probe, reduction<Reduction::DYNAMIC>, 256)                    \
    K(probe_barriers_some, Probe, barriers<Barriers::SOME>, 256)                             \
    K(probe_barriers_ended, Probe, barriers<Barriers::ENDED>, 256)                           \
    K(probe_barriers_two, Probe, barriers<Barriers::TWO>, 256)                               \
    K(probe_barriers_times, Probe, barriers<Barriers::TIMES>, 256)                           \
    K(probe_barriers_warp, Probe, barriers<Barriers::WARP>, 256)                             \
    K(probe_steps, Probe, steps, 256)                                                        \
    K(probe_readers, Probe, readers, 256)                                                    \
    K(probe_tail, Probe, tail<Tail::RIGHT>, 256)                                             \
    K(probe_tail_next_row, Probe, tail<Tail::NEXT_ROW>, 256)                                 \
    K(probe_tail_past_end, Probe, tail<Tail::PAST_END>, 256)                                 \
    K(probe_tail_reads_past_end, Probe, tail<Tail::READS_PAST_END>, 256)                     \
    K(probe_tail_misaligned, Probe, tail<Tail::MISALIGNED>, 256)                             \
    K(probe_tail_far, Probe, tail<Tail::FAR>, 256)                                           \
    K(probe_shuffle, Probe, shuffle<Shuffle::RIGHT>, 256)                                    \
    K(probe_shuffle_not_in_mask, Probe, shuffle<Shuffle::NOT_IN_MASK>, 256)                  \
    K(probe_shuffle_ended, Probe, shuffle<Shuffle::ENDED>, 256)                              \
    K(probe_shuffle_outside, Probe, shuffle<Shuffle::OUTSIDE>, 256)                          \
    K(probe_shuffle_other_mask, Probe, shuffle<Shuffle::OTHER_MASK>, 256)                    \
    K(probe_shuffle_other_kind, Probe, shuffle<Shuffle::OTHER_KIND>, 256)                    \
    K(probe_shuffle_elsewhere, Probe, shuffle<Shuffle::ELSEWHERE>, 256)                      \
    K(probe_shuffle_absent, Probe, shuffle<Shuffle::ABSENT>, 256)                            \
    K(probe_counting, Probe, counting<Counting::RIGHT>, 256)                                 \
    K(probe_counting_plain, Probe, counting<Counting::PLAIN>, 256)                           \
    K(probe_counting_reads, Probe, counting<Counting::READS>, 256)                           \
    K(probe_counting_writes, Probe, counting<Counting::WRITES>, 256)                         \
    K(probe_counting_blocks, Probe, counting<Counting::BLOCKS>, 256)                         \
    K(probe_atomics, Probe, atomics, 64)                                                     \
    K(probe_sanitized, Probe, sanitized, 32)
PROBE_KERNELS(KERNEL)

REGISTER(probes, PROBE_KERNELS);
