// The start of every kernel file: integer types, shared memory, and the list of its kernels.
//
// nvcc and NVRTC (at run time, through CuPy) compile these files, and g++ does for the emulator, so
// they include no header of the system, and what differs between the three stands in common/ and
// sm80/ alone. A kernel takes one struct by value whose fields all have 8 bytes (pointers, i64,
// u64, double), so that one launcher serves all of them: `KERNEL(name, Arguments, function,
// threads)` makes the kernel `name` that calls `function(const Arguments&)` in blocks of up to
// `threads` threads. Grids have one axis. A file lists its kernels once, in a macro that
// the .cu file of the same name turns into the table of the extension (registry.h).
#pragma once

#ifdef EMULATED
#    include "../emulator/device.h"
#endif

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;

#define KERNEL(name, Arguments, function, threads)                      \
    extern "C" __global__ void __launch_bounds__(threads)               \
        name(const __grid_constant__ Arguments arguments) {             \
        static_assert(sizeof(Arguments) % 8 == 0, "fields of 8 bytes"); \
        function(arguments);                                            \
    }

// One kernel for each floating point type; K is KERNEL or what registry.h makes of the list.
#define FOR_WIDE(K, name, Arguments, function, threads)    \
    K(name##_float32, Arguments, function<float>, threads) \
    K(name##_float64, Arguments, function<double>, threads)
#define FOR_FLOATS(K, name, Arguments, function, threads)    \
    FOR_WIDE(K, name, Arguments, function, threads)          \
    K(name##_float16, Arguments, function<float16>, threads) \
    K(name##_bfloat16, Arguments, function<bfloat16>, threads)

// SHARED(T, name, count): an array in the memory that the threads of a block share. Starts at a
// multiple of 16 bytes; holds nothing before it is written.
#ifdef EMULATED
#    define SHARED(T, name, count)   \
        static char name##_of_block; \
        T* const name = (T*)emulator::shared_array(&name##_of_block, #name, sizeof(T) * (count))
#else
#    define SHARED(T, name, count) __shared__ __align__(16) T name[count]
#endif

// The shared memory whose size the launch says, in bytes; at a multiple of 16 bytes.
__device__ inline u8* dynamic_memory() {
#ifdef EMULATED
    return emulator::dynamic_memory();
#else
    extern __shared__ __align__(16) u8 memory_of_launch[];
    return memory_of_launch;
#endif
}

__device__ inline i64 global_thread() {
    return (i64)blockIdx.x * blockDim.x + threadIdx.x;
}
__device__ inline int lane_of_thread() {
    return threadIdx.x % 32;
}
__device__ inline int warp_of_thread() {
    return threadIdx.x / 32;
}

template <typename T>
__device__ inline T smaller(T x, T y) {
    return x < y ? x : y;
}
// The larger one, and NaN if one of them is.
template <typename T>
__device__ inline T larger(T x, T y) {
    return x > y || x != x ? x : y;
}
