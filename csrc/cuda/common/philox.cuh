// Philox4x32-10: the four words of a counter, and numbers from words.
//
// Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
#pragma once

#include "kernel.cuh"

struct Words {
    u32 at[4];
};

// The key is the seed (low word, high word); the counter's 64 high bits are 0.
__device__ inline Words philox(u64 counter, u64 seed) {
    u32 c0 = (u32)counter, c1 = (u32)(counter >> 32), c2 = 0, c3 = 0;
    u32 k0 = (u32)seed, k1 = (u32)(seed >> 32);
#pragma unroll
    for (int round = 0; round < 10; ++round) {
        const u64 p0 = (u64)0xD2511F53u * c0, p1 = (u64)0xCD9E8D57u * c2;
        c0 = (u32)(p1 >> 32) ^ c1 ^ k0;
        c1 = (u32)p1;
        c2 = (u32)(p0 >> 32) ^ c3 ^ k1;
        c3 = (u32)p0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return Words{{c0, c1, c2, c3}};
}

__device__ inline u64 joined(u32 low, u32 high) {
    return (u64)high << 32 | low;
}
// On [0, 1): from the 24 high bits of a word, or the 53 of two.
__device__ inline float uniform_of(u32 word) {
    return (float)(word >> 8) * 5.9604644775390625e-8f;
}
__device__ inline double uniform_of(u32 low, u32 high) {
    return (double)(joined(low, high) >> 11) * 1.1102230246251565e-16;
}
