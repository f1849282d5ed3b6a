// Reductions over the threads of a warp and of a block. Every thread of the block calls them, and
// every thread gets the result; the order is fixed, so the bits do not depend on timing.
#pragma once

#include "kernel.cuh"

struct Sum {
    template <typename W>
    __device__ W operator()(W x, W y) const {
        return x + y;
    }
};
struct Max {  // NaN wins
    template <typename W>
    __device__ W operator()(W x, W y) const {
        return larger(x, y);
    }
};

const u32 ALL_LANES = 0xffffffffu;

// Over groups of `lanes` neighbouring lanes, a power of two up to 32.
template <int lanes, typename Op, typename W>
__device__ inline W lanes_reduce(W x, Op op) {
#pragma unroll
    for (int distance = lanes / 2; distance; distance /= 2)
        x = op(x, __shfl_xor_sync(ALL_LANES, x, distance));
    return x;
}

// Over the block, of a multiple of 32 threads, at most 1024. `identity`: op(x, identity) is x.
template <typename Op, typename W>
__device__ inline W block_reduce(W x, Op op, W identity) {
    SHARED(W, of_warps, 32);
    x = lanes_reduce<32>(x, op);
    const int warps = blockDim.x / 32;
    if (warps == 1) return x;
    __syncthreads();  // the last reduction's results have been read
    if (lane_of_thread() == 0) of_warps[warp_of_thread()] = x;
    __syncthreads();
    x = lane_of_thread() < warps ? of_warps[lane_of_thread()] : identity;
    return lanes_reduce<32>(x, op);
}
