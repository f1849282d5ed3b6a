// What CUDA gives a kernel, as C++ on the CPU: nothing here is compiled by nvcc.
//
// Threads are fibres that one thread of the CPU runs in turn; each runs until it waits for others
// (machine.cpp). Kernels are compiled with -fsanitize=thread, without its library: the compiler
// then announces every load and store, and memory.cpp looks at each.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#define __device__
#define __host__
#define __global__
#define __grid_constant__
#define __forceinline__ inline
#define __align__(n) __attribute__((aligned(n)))
#define __launch_bounds__(...)
#define __restrict__ __restrict

using std::abs;
using std::ceil;
using std::copysign;
using std::cos;
using std::erf;
using std::erfc;
using std::exp;
using std::exp2;
using std::expm1;
using std::floor;
using std::fma;
using std::fmax;
using std::fmin;
using std::log;
using std::log1p;
using std::rint;
using std::sin;
using std::sqrt;
using std::tanh;

namespace emulator {

struct Index {
    unsigned x, y, z;
};
// Of the fibre that runs.
extern Index thread_index, block_index, block_size, grid_size;

// Shared memory of this block: one array per `key`, with forbidden memory around it.
void* shared_array(const void* key, const char* name, size_t bytes);
unsigned char* dynamic_memory();

void barrier(const char* file, int line);  // __syncthreads, at this place of the source
void warp_barrier(unsigned mask);
// All lanes of `mask` meet; the last one runs `act(what the lanes gave, mask)`, then all go on.
// `what` names the operation, which must be the same in all of them.
void meet(const char* what, unsigned mask, void* mine, void (*act)(void** lanes, unsigned mask));

// Loads and stores that the kernel's compiler does not see.
void reads(const void* at, size_t bytes);
void writes(void* at, size_t bytes);
void updates(void* at, size_t bytes);                 // atomically
void move(void* to, const void* from, size_t bytes);  // without a look at it
[[noreturn]] void fail(const char* format, ...) __attribute__((format(printf, 1, 2)));

float float_of_half(unsigned short bits);
unsigned short half_of_float(float x);

template <typename T>
struct Exchange {
    T value;
    int from;
};

template <typename T>
T exchange(const char* what, unsigned mask, T value, int from) {
    Exchange<T> mine{value, from};
    meet(what, mask, &mine, [](void** lanes, unsigned mask) {
        T given[32];
        for (int lane = 0; lane < 32; ++lane)
            if (mask >> lane & 1) given[lane] = ((Exchange<T>*)lanes[lane])->value;
        for (int lane = 0; lane < 32; ++lane) {
            if (!(mask >> lane & 1)) continue;
            Exchange<T>& one = *(Exchange<T>*)lanes[lane];
            if (!(mask >> one.from & 1))
                fail("a shuffle of lane %d reads lane %d, which its mask %08x leaves out", lane,
                     one.from, mask);
            one.value = given[one.from];
        }
    });
    return mine.value;
}

inline int own_lane() {
    return (int)(thread_index.x % 32);
}

template <typename T, typename Update>
T update(T* at, Update next) {
    T before, after;
    updates(at, sizeof(T));
    move(&before, at, sizeof(T));
    after = next(before);
    move(at, &after, sizeof(T));
    return before;
}

}  // namespace emulator

#define threadIdx emulator::thread_index
#define blockIdx emulator::block_index
#define blockDim emulator::block_size
#define gridDim emulator::grid_size

inline void __syncthreads(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    emulator::barrier(file, line);
}
inline void __syncwarp(unsigned mask = 0xffffffffu) {
    emulator::warp_barrier(mask);
}

template <typename T>
T __shfl_sync(unsigned mask, T value, int lane, int width = 32) {
    const int base = emulator::own_lane() / width * width;
    return emulator::exchange("__shfl_sync", mask, value, base + lane % width);
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32) {
    const int own = emulator::own_lane(), from = own ^ lanes;
    const bool inside = from / width <= own / width;
    return emulator::exchange("__shfl_xor_sync", mask, value, inside ? from : own);
}
template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned lanes, int width = 32) {
    const int own = emulator::own_lane(), from = own + (int)lanes;
    return emulator::exchange("__shfl_down_sync", mask, value,
                              from / width == own / width ? from : own);
}
template <typename T>
T __shfl_up_sync(unsigned mask, T value, unsigned lanes, int width = 32) {
    const int own = emulator::own_lane(), from = own - (int)lanes;
    return emulator::exchange("__shfl_up_sync", mask, value,
                              from >= own / width * width ? from : own);
}
unsigned __ballot_sync(unsigned mask, int predicate);
inline int __any_sync(unsigned mask, int predicate) {
    return __ballot_sync(mask, predicate) != 0;
}
inline int __all_sync(unsigned mask, int predicate) {
    return __ballot_sync(mask, predicate) == mask;
}

template <typename T>
T atomicAdd(T* at, T value) {
    return emulator::update(at, [=](T x) { return x + value; });
}
template <typename T>
T atomicMax(T* at, T value) {
    return emulator::update(at, [=](T x) { return x > value ? x : value; });
}
template <typename T>
T atomicMin(T* at, T value) {
    return emulator::update(at, [=](T x) { return x < value ? x : value; });
}
template <typename T>
T atomicExch(T* at, T value) {
    return emulator::update(at, [=](T) { return value; });
}
template <typename T>
T atomicCAS(T* at, T wanted, T value) {
    return emulator::update(at, [=](T x) { return x == wanted ? value : x; });
}

template <typename To, typename From>
inline To bits_as(From x) {
    static_assert(sizeof(To) == sizeof(From), "of one size");
    To result;
    __builtin_memcpy(&result, &x, sizeof(To));
    return result;
}
inline float __uint_as_float(unsigned x) {
    return bits_as<float>(x);
}
inline unsigned __float_as_uint(float x) {
    return bits_as<unsigned>(x);
}
inline int __float_as_int(float x) {
    return bits_as<int>(x);
}
inline double __longlong_as_double(long long x) {
    return bits_as<double>(x);
}
inline long long __double_as_longlong(double x) {
    return bits_as<long long>(x);
}

// Products and sums that are rounded by themselves (kernels are compiled with -ffp-contract=off).
inline float __fmul_rn(float x, float y) {
    return x * y;
}
inline float __fadd_rn(float x, float y) {
    return x + y;
}
inline float __fsub_rn(float x, float y) {
    return x - y;
}
inline double __dmul_rn(double x, double y) {
    return x * y;
}
inline double __dadd_rn(double x, double y) {
    return x + y;
}
inline double __dsub_rn(double x, double y) {
    return x - y;
}
inline float rsqrtf(float x) {
    return 1 / std::sqrt(x);
}
inline float rsqrt(float x) {
    return 1 / std::sqrt(x);
}
inline double rsqrt(double x) {
    return 1 / std::sqrt(x);
}
inline unsigned __umulhi(unsigned x, unsigned y) {
    return (unsigned)((unsigned long long)x * y >> 32);
}
inline unsigned long long __umul64hi(unsigned long long x, unsigned long long y) {
    return (unsigned long long)((unsigned __int128)x * y >> 64);
}
inline int __popc(unsigned x) {
    return __builtin_popcount(x);
}
inline int __ffs(int x) {
    return __builtin_ffs(x);
}
inline int __clz(int x) {
    return x ? __builtin_clz((unsigned)x) : 32;
}
