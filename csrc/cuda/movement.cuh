// Copies to C order, and conversions between dtypes.
//
// Contract: minidl/backends/reference/movement.py. Nothing is computed; the limit on an H200 is
// 2 b / 4.3 TB/s for an element of b bytes (of a conversion: the bytes of both). One pass.
//
// Python merges neighbouring axes and calls the largest unit that is whole and aligned on both
// sides, up to 16 bytes, an element. What is left: memory in order (copy_bytes); a last axis that
// the input has elsewhere (transpose): tiles of 128 bytes a side go through shared memory, with
// accesses of 16 bytes on both sides where aligned; anything else (gather): a thread per element.
#pragma once

#include "common/vec.cuh"

struct Plain {
    const void* x;
    void* out;
    i64 count;  // of copy_bytes: bytes
};

__device__ inline void copy_bytes_(const Plain& p) {
    const u8* __restrict__ x = (const u8*)p.x;
    u8* __restrict__ out = (u8*)p.out;
    const i64 stride = (i64)gridDim.x * blockDim.x, self = global_thread();
    const i64 vecs = in_vecs<u8>(0, p.x, p.out) ? p.count / 16 : 0;
#pragma unroll 4
    for (i64 i = self; i < vecs; i += stride) store_vec(out + 16 * i, load_vec(x + 16 * i));
    for (i64 i = 16 * vecs + self; i < p.count; i += stride) out[i] = x[i];
}

const int MOST_AXES = 8;

struct Gather {
    const void* x;
    void* out;
    i64 count, axes;
    i64 size[MOST_AXES], stride[MOST_AXES];  // of the input, in elements; the last axis last
};

template <typename T, typename Index>
__device__ inline void gather_by(const Gather& p) {
    for (i64 i = global_thread(); i < p.count; i += (i64)gridDim.x * blockDim.x) {
        Index rest = (Index)i;
        i64 from = 0;
#pragma unroll
        for (int axis = MOST_AXES - 1; axis > 0; --axis) {
            if (axis >= p.axes) continue;
            const Index next = rest / (Index)p.size[axis];
            from += (i64)(rest - next * (Index)p.size[axis]) * p.stride[axis];
            rest = next;
        }
        from += (i64)rest * p.stride[0];
        ((T*)p.out)[i] = ((const T*)p.x)[from];
    }
}
template <typename T>
__device__ inline void gather(const Gather& p) {
    if (p.count < 0x7fffffff)
        gather_by<T, u32>(p);  // divisions of 64 bits cost several times as much
    else
        gather_by<T, u64>(p);
}

// For each place in the batch: out[r * pitch + c] = x[c * step + r].
struct Transpose {
    const void* x;
    void* out;
    i64 rows, columns;  // of the result
    i64 step, pitch;    // elements
    i64 axes;           // of the batch
    i64 size[MOST_AXES], from[MOST_AXES], to[MOST_AXES];
};

// A tile has 8 vectors a side. In shared memory row r = v * size + i of the tile is line v + 8 i,
// and lines are one unit (a word; 8 bytes for elements of 8) longer than 128 bytes. So the lanes of
// a warp, (v, k) with v < 8 and k < 4, always meet 32 different banks: they write elements of the
// lines v + 8 i at four places a quarter of a line apart, and read units 4 v + j of four lines that
// follow each other.
template <typename T>
struct Tile {
    static const int vec = 16 / sizeof(T), side = 8 * vec;
    static const int unit = sizeof(T) == 8 ? 8 : 4;
    static const int pitch = 128 + unit;  // bytes
    static __device__ int line(int row) { return row / vec + row % vec * 8; }
};
template <int bytes>
struct UnitOf {
    typedef u32 type;
};
template <>
struct UnitOf<8> {
    typedef u64 type;
};

template <typename T>
__device__ inline void transpose(const Transpose& p) {
    typedef Tile<T> Own;
    typedef typename UnitOf<Own::unit>::type Unit;
    const int vec = Own::vec;
    SHARED(u8, tile, Own::side * Own::pitch);

    const i64 across = (p.columns + Own::side - 1) / Own::side;
    const i64 down = (p.rows + Own::side - 1) / Own::side;
    i64 block = blockIdx.x;
    const i64 column = block % across * Own::side;
    block /= across;
    const i64 row = block % down * Own::side;
    block /= down;
    const T* x = (const T*)p.x;
    T* out = (T*)p.out;
    u64 together = 0;  // whether all of the batch is aligned
    u64 together_to = 0;
#pragma unroll
    for (int axis = MOST_AXES - 1; axis >= 0; --axis) {
        if (axis >= p.axes) continue;
        const i64 at = block % p.size[axis];
        block /= p.size[axis];
        x += at * p.from[axis];
        out += at * p.to[axis];
        together |= (u64)p.from[axis];
        together_to |= (u64)p.to[axis];
    }
    const bool vec_in = in_vecs<T>((i64)(together | (u64)p.step | (u64)p.rows), p.x);
    const bool vec_out = in_vecs<T>((i64)(together_to | (u64)p.pitch | (u64)p.columns), p.out);

    const int v = lane_of_thread() % 8, k = lane_of_thread() / 8;
    const int warp = warp_of_thread(), warps = blockDim.x / 32;
    for (int n = warp; n < Own::side / 4; n += warps) {
        const int c = k % 2 * (Own::side / 2) + k / 2 * (Own::side / 4) + n, r = v * vec;
        if (column + c >= p.columns || row + r >= p.rows) continue;
        const T* from = x + (column + c) * p.step + row + r;
        Vec<T> found{};
        if (vec_in) {
            found = load_vec(from);
        } else {
#pragma unroll
            for (int i = 0; i < vec; ++i)
                if (row + r + i < p.rows) found.at[i] = from[i];
        }
#pragma unroll
        for (int i = 0; i < vec; ++i)
            *(T*)(tile + (v + 8 * i) * Own::pitch + c * sizeof(T)) = found.at[i];
    }
    __syncthreads();
    for (int n = warp; n < 2 * vec; n += warps) {
        const int r = (k + 4 * (n % 2)) * vec + n / 2, c = v * vec;
        if (row + r >= p.rows || column + c >= p.columns) continue;
        const u8* from = tile + Own::line(r) * Own::pitch + c * sizeof(T);
        T* to = out + (row + r) * p.pitch + column + c;
        if (vec_out) {
            Vec<Unit> found;
#pragma unroll
            for (int i = 0; i < Vec<Unit>::size; ++i) found.at[i] = ((const Unit*)from)[i];
            store_vec((Unit*)to, found);
        } else {
#pragma unroll
            for (int i = 0; i < vec; ++i)
                if (column + c + i < p.columns) to[i] = ((const T*)from)[i];
        }
    }
}

// As many elements at a time as fill 16 bytes on the wider side.
template <typename T, int size>
struct __align__(sizeof(T) * size) Few {
    T at[size];
};

// bfloat16 and float16 from double are rounded once; whole numbers go through float, as NumPy's do.
template <typename From, typename To>
struct Through {
    typedef float type;
};
template <>
struct Through<double, float16> {
    typedef double type;
};
template <>
struct Through<double, bfloat16> {
    typedef double type;
};
template <typename From>
struct Through<From, double> {
    typedef double type;
};

template <typename From, typename To>
__device__ inline void cast(const Plain& p) {
    typedef typename Through<From, To>::type W;
    const int most = sizeof(From) > sizeof(To) ? sizeof(From) : sizeof(To), size = 16 / most;
    const From* __restrict__ x = (const From*)p.x;
    To* __restrict__ out = (To*)p.out;
    const i64 stride = (i64)gridDim.x * blockDim.x, self = global_thread();
    const i64 whole = in_vecs<u8>(0, p.x, p.out) ? p.count / size : 0;
#pragma unroll 4
    for (i64 i = self; i < whole; i += stride) {
        const Few<From, size> found = ((const Few<From, size>*)x)[i];
        Few<To, size> result;
#pragma unroll
        for (int j = 0; j < size; ++j) result.at[j] = narrow<To>(number<W>(found.at[j]));
        ((Few<To, size>*)out)[i] = result;
    }
    for (i64 i = whole * size + self; i < p.count; i += stride)
        out[i] = narrow<To>(number<W>(x[i]));
}

#define CASTS_TO(K, To, to)                         \
    K(cast_bool_##to, Plain, (cast<u8, To>), 256)   \
    K(cast_int32_##to, Plain, (cast<int, To>), 256) \
    K(cast_int64_##to, Plain, (cast<i64, To>), 256)
#define CAST(K, From, from, To, to) K(cast_##from##_##to, Plain, (cast<From, To>), 256)

#define MOVEMENT_KERNELS(K)                        \
    K(copy_bytes, Plain, copy_bytes_, 256)         \
    K(gather_1, Gather, gather<u8>, 256)           \
    K(gather_2, Gather, gather<u16>, 256)          \
    K(gather_4, Gather, gather<u32>, 256)          \
    K(gather_8, Gather, gather<u64>, 256)          \
    K(gather_16, Gather, gather<Vec<u64>>, 256)    \
    K(transpose_1, Transpose, transpose<u8>, 256)  \
    K(transpose_2, Transpose, transpose<u16>, 256) \
    K(transpose_4, Transpose, transpose<u32>, 256) \
    K(transpose_8, Transpose, transpose<u64>, 128) \
    CASTS_TO(K, float, float32)                    \
    CASTS_TO(K, double, float64)                   \
    CASTS_TO(K, float16, float16)                  \
    CASTS_TO(K, bfloat16, bfloat16)                \
    CAST(K, float, float32, double, float64)       \
    CAST(K, float, float32, float16, float16)      \
    CAST(K, float, float32, bfloat16, bfloat16)    \
    CAST(K, double, float64, float, float32)       \
    CAST(K, double, float64, float16, float16)     \
    CAST(K, double, float64, bfloat16, bfloat16)   \
    CAST(K, float16, float16, float, float32)      \
    CAST(K, float16, float16, double, float64)     \
    CAST(K, float16, float16, bfloat16, bfloat16)  \
    CAST(K, bfloat16, bfloat16, float, float32)    \
    CAST(K, bfloat16, bfloat16, double, float64)   \
    CAST(K, bfloat16, bfloat16, float16, float16)
MOVEMENT_KERNELS(KERNEL)
