// Asynchronous copies from global to shared memory (sm_80).
//
// A thread's copies land in groups: `cp_async_commit` closes one, `cp_async_wait<n>` returns when
// all but the latest n groups of this thread have landed, for this thread alone: others see them
// after a barrier that follows the wait.
#pragma once

#include "address.cuh"

// Copy `bytes` (4, 8 or 16; both addresses are multiples), of which only the first `valid` are read
// and the others become zero. With `valid` 0 nothing is read.
template <int bytes>
__device__ inline void cp_async(void* to, const void* from, int valid = bytes) {
    static_assert(bytes == 4 || bytes == 8 || bytes == 16, "4, 8 or 16 bytes");
#ifdef EMULATED
    emulator::copy_async(to, from, bytes, valid);
#else
    if constexpr (bytes == 16)  // past the L1 cache
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)),
                     "l"(__cvta_generic_to_global(from)), "r"(valid)
                     : "memory");
    else
        asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(shared_address(to)),
                     "l"(__cvta_generic_to_global(from)), "n"(bytes), "r"(valid)
                     : "memory");
#endif
}

__device__ inline void cp_async_commit() {
#ifdef EMULATED
    emulator::commit_copies();
#else
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

template <int groups>
__device__ inline void cp_async_wait() {
#ifdef EMULATED
    emulator::wait_for_copies(groups);
#else
    asm volatile("cp.async.wait_group %0;" ::"n"(groups) : "memory");
#endif
}

// All copies of this thread, in a group or not.
__device__ inline void cp_async_wait_all() {
#ifdef EMULATED
    emulator::commit_copies();
    emulator::wait_for_copies(0);
#else
    asm volatile("cp.async.wait_all;" ::: "memory");
#endif
}
