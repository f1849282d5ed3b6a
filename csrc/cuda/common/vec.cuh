// Accesses of 16 bytes.
#pragma once

#include "dtype.cuh"

template <typename T>
struct __align__(16) Vec {
    static const int size = 16 / sizeof(T);
    T at[16 / sizeof(T)];
};

template <typename T>
__device__ inline Vec<T> load_vec(const T* from) {
    return *(const Vec<T>*)from;
}
template <typename T>
__device__ inline void store_vec(T* to, const Vec<T>& value) {
    *(Vec<T>*)to = value;
}

// Whether 16 bytes at each of `count` addresses, and at every multiple of `width` elements from
// there, can be read at once.
template <typename T>
__device__ inline bool in_vecs(i64 width, const void* a, const void* b = nullptr,
                               const void* c = nullptr, const void* d = nullptr) {
    const u64 together = (u64)a | (u64)b | (u64)c | (u64)d | (u64)(width * sizeof(T));
    return together % 16 == 0;
}
