// Words that come with the launch: what must be fresh in every replay of a graph.
//
// Contract: minidl/backends/cupy_gpu/capture.py. A launch carries up to 448 words as its argument,
// within the 4,096 bytes that arguments may have, so no copy waits for memory of the CPU. The floor
// is the launch.
#pragma once

#include "common/kernel.cuh"

struct Fresh {
    u64* target;
    i64 count;
    u64 at[448];
};

__device__ inline void put_fresh(const Fresh& p) {
    if (threadIdx.x < p.count) p.target[threadIdx.x] = p.at[threadIdx.x];
}

#define WORDS_KERNELS(K) K(put_words, Fresh, put_fresh, 448)
WORDS_KERNELS(KERNEL)
