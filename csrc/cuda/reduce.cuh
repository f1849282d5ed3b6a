// Reductions over an axis: sum, product, largest, smallest, where those are, whether any or all.
//
// Contract: minidl/backends/reference/reduce.py, and NumPy's functions of these names; NaN wins,
// and the first of equals. Limit on an H200: the input's bytes / 4.3 TB/s; an operation or two per
// element is far below.
//
// The input is (outer, width, inner), the result (outer, inner). Rows (inner 1): a warp takes one
// of up to 1,024 elements, a block a longer one, in pieces of 16 bytes. Columns: a warp takes 32
// neighbouring vectors of 16 bytes (elements if inner is no multiple), `strips` warps of a block
// share the axis. Where that keeps too few blocks busy, or where a thread would add up more than
// 64 numbers one after the other, the axis is cut into parts: (outer, parts, inner) of a workspace,
// which is the input of the next launch. So sums are trees of short chains for any width, and
// their order depends on shape, layout and alignment, not on timing.
#pragma once

#include "common/rows.cuh"

struct Reduce {
    const void* x;
    void* out;
    i64 outer, width, inner;
    i64 length, parts;  // of the axis that one part has, a multiple of 16 elements in rows
    i64 group;          // of rows: threads per part of a row; of columns: warps that share the axis
    i64 raw;            // whether to write what the next launch goes on from
};

struct Min {  // NaN wins
    template <typename W>
    __device__ W operator()(W x, W y) const {
        return x < y || x != x ? x : y;
    }
};
struct Product {
    template <typename W>
    __device__ W operator()(W x, W y) const {
        return x * y;
    }
};
struct Either {
    template <typename W>
    __device__ W operator()(W x, W y) const {
        return x | y;
    }
};
struct Both {
    template <typename W>
    __device__ W operator()(W x, W y) const {
        return x & y;
    }
};

template <typename W>
struct Ends {  // of the values that Max and Min choose from
    static __device__ W least() { return -Limits<W>::infinity(); }
    static __device__ W most() { return Limits<W>::infinity(); }
};
const i64 MOST_I64 = 0x7fffffffffffffffLL;
template <>
struct Ends<i64> {
    static __device__ i64 least() { return -MOST_I64 - 1; }
    static __device__ i64 most() { return MOST_I64; }
};

template <typename Op, typename W>
struct Identity;
template <typename W>
struct Identity<Sum, W> {
    static __device__ W value() { return 0; }
};
template <typename W>
struct Identity<Product, W> {
    static __device__ W value() { return 1; }
};
template <typename W>
struct Identity<Max, W> {
    static __device__ W value() { return Ends<W>::least(); }
};
template <typename W>
struct Identity<Min, W> {
    static __device__ W value() { return Ends<W>::most(); }
};
template <typename W>
struct Identity<Either, W> {
    static __device__ W value() { return 0; }
};
template <typename W>
struct Identity<Both, W> {
    static __device__ W value() { return 1; }
};

// A reduction: elements of type X become numbers of type A, two of which are joined to one. Part:
// what a workspace has of them.
template <typename Op, typename X, typename A, typename Out>
struct Values {
    typedef X Element;
    typedef A Part;
    typedef A Joined;
    typedef Out Result;
    static const int chains = 4, ahead = 4, many = 4;
    static __device__ A identity() { return Identity<Op, A>::value(); }
    static __device__ A take(X x, i64) { return number<A>(x); }
    static __device__ A join(A x, A y) { return Op()(x, y); }
    static __device__ A over(const Team& team, A x) { return team.reduce(x, Op(), identity()); }
    static __device__ Out result(A x) { return narrow<Out>(x); }
};

// Of any and all.
template <typename Op>
struct Truth : Values<Op, u8, int, u8> {
    typedef u8 Part;
    static __device__ int take(u8 x, i64) { return x != 0; }
};

template <typename W>
struct __align__(16) Place {
    W value;
    i64 at;
};

// Of argmax and argmin: Op chooses values; of equal ones, and of NaN, the first.
template <typename Op, typename X, typename W>
struct Places {
    typedef X Element;
    typedef Place<W> Part;
    typedef Place<W> Joined;
    typedef i64 Result;
    static const int chains = 2, ahead = 2, many = 2;  // more take registers
    static __device__ Place<W> identity() {
        Place<W> none;
        none.value = Identity<Op, W>::value();
        none.at = MOST_I64;
        return none;
    }
    static __device__ Place<W> take(X x, i64 at) {
        Place<W> one;
        one.value = number<W>(x);
        one.at = at;
        return one;
    }
    static __device__ bool same(W x, W y) { return x == y || (x != x && y != y); }
    static __device__ Place<W> join(const Place<W>& x, const Place<W>& y) {
        if (same(x.value, y.value)) return x.at < y.at ? x : y;
        return same(Op()(x.value, y.value), x.value) ? x : y;
    }
    static __device__ Place<W> over(const Team& team, Place<W> x) {
        Place<W> best;
        best.value = team.reduce(x.value, Op(), Identity<Op, W>::value());
        best.at = team.reduce(same(x.value, best.value) ? x.at : MOST_I64, Min(), MOST_I64);
        return best;
    }
    static __device__ i64 result(const Place<W>& x) { return x.at; }
};
template <typename Op, typename W>
struct MorePlaces : Places<Op, W, W> {
    typedef Place<W> Element;
    static __device__ Place<W> take(const Place<W>& x, i64) { return x; }
};

template <typename R>
__device__ inline void put(const Reduce& p, i64 at, const typename R::Joined& x) {
    if (p.raw)
        ((typename R::Part*)p.out)[at] = x;
    else
        ((typename R::Result*)p.out)[at] = R::result(x);
}

template <typename R>
__device__ inline void reduce_rows(const Reduce& p) {
    typedef typename R::Element X;
    typedef typename R::Joined A;
    const int size = Vec<X>::size, chains = size < R::chains ? size : R::chains;
    const int ahead = size > R::many ? R::ahead / 2 : R::ahead;  // loads of a thread under way
    const Team team(p.group);
    if (team.row >= p.outer * p.parts) return;
    const i64 begin = team.row % p.parts * p.length, step = team.size;
    const i64 count = smaller(p.length, p.width - begin);
    const X* x = (const X*)p.x + team.row / p.parts * p.width + begin;
    // up to the first multiple of 16 bytes, and behind the last
    const i64 head = size == 1 ? 0 : smaller(count, (i64)(-(u64)x % 16 / sizeof(X)));
    const i64 vecs = (count - head) / size, tail = head + vecs * size;
    A found[chains];
#pragma unroll
    for (int j = 0; j < chains; ++j) found[j] = R::identity();
    if (team.rank < head) found[0] = R::join(found[0], R::take(x[team.rank], begin + team.rank));
    i64 i = team.rank;
    for (; i + (ahead - 1) * step < vecs; i += ahead * step) {
        Vec<X> next[ahead];
#pragma unroll
        for (int k = 0; k < ahead; ++k) next[k] = load_vec(x + head + (i + k * step) * size);
#pragma unroll
        for (int k = 0; k < ahead; ++k)
#pragma unroll
            for (int j = 0; j < size; ++j) {
                const i64 at = begin + head + (i + k * step) * size + j;
                A& chain = found[j % chains];
                chain = R::join(chain, R::take(next[k].at[j], at));
            }
    }
    for (; i < vecs; i += step) {
        const Vec<X> next = load_vec(x + head + i * size);
#pragma unroll
        for (int j = 0; j < size; ++j) {
            A& chain = found[j % chains];
            chain = R::join(chain, R::take(next.at[j], begin + head + i * size + j));
        }
    }
    for (i64 at = tail + team.rank; size > 1 && at < count; at += step)
        found[0] = R::join(found[0], R::take(x[at], begin + at));
#pragma unroll
    for (int half = chains / 2; half; half /= 2)
#pragma unroll
        for (int j = 0; j < half; ++j) found[j] = R::join(found[j], found[j + half]);
    const A all = R::over(team, found[0]);
    if (team.rank == 0) put<R>(p, team.row, all);
}

// `unit` neighbouring columns per thread.
template <typename R, int unit>
__device__ inline void reduce_columns_by(const Reduce& p) {
    typedef typename R::Element X;
    typedef typename R::Joined A;
    const int ahead = unit > R::many ? R::ahead / 2 : R::ahead, warps = blockDim.x / 32,
              strips = (int)p.group;
    const int lane = lane_of_thread(), strip = warp_of_thread() % strips;
    const int chunks = warps / strips, chunk = warp_of_thread() / strips;
    SHARED(A, of_strips, 4 * unit * 32);
    const i64 part = blockIdx.x % p.parts;
    const i64 column = ((blockIdx.x / p.parts * chunks + chunk) * 32 + lane) * unit;
    const bool live = column < p.outer * p.inner;
    const i64 o = live ? column / p.inner : 0, start = live ? column - o * p.inner : 0;
    const X* x = (const X*)p.x + o * p.width * p.inner + start;
    i64 i = part * p.length + strip;
    const i64 end = live ? smaller(p.width, (part + 1) * p.length) : 0;
    A found[unit];
#pragma unroll
    for (int j = 0; j < unit; ++j) found[j] = R::identity();
    struct __align__(sizeof(X) * unit) Line {
        X at[unit];
    };
    for (; i + (ahead - 1) * strips < end; i += ahead * strips) {
        Line next[ahead];
#pragma unroll
        for (int k = 0; k < ahead; ++k) next[k] = *(const Line*)(x + (i + k * strips) * p.inner);
#pragma unroll
        for (int k = 0; k < ahead; ++k)
#pragma unroll
            for (int j = 0; j < unit; ++j)
                found[j] = R::join(found[j], R::take(next[k].at[j], i + k * strips));
    }
    for (; i < end; i += strips) {
        const Line next = *(const Line*)(x + i * p.inner);
#pragma unroll
        for (int j = 0; j < unit; ++j) found[j] = R::join(found[j], R::take(next.at[j], i));
    }
    for (int half = strips / 2; half; half /= 2) {  // strips > 1: one chunk per block
        if (strip >= half && strip < 2 * half)
#pragma unroll
            for (int j = 0; j < unit; ++j)
                of_strips[((strip - half) * unit + j) * 32 + lane] = found[j];
        __syncthreads();
        if (strip < half)
#pragma unroll
            for (int j = 0; j < unit; ++j)
                found[j] = R::join(found[j], of_strips[(strip * unit + j) * 32 + lane]);
        __syncthreads();
    }
    if (!live || strip) return;
    const i64 to = (o * p.parts + part) * p.inner + start;
#pragma unroll
    for (int j = 0; j < unit; ++j) put<R>(p, to + j, found[j]);
}

template <typename R>
__device__ inline void reduce_columns(const Reduce& p) {
    typedef typename R::Element X;
    if (in_vecs<X>(p.inner, p.x))
        reduce_columns_by<R, Vec<X>::size>(p);
    else
        reduce_columns_by<R, 1>(p);
}

#define REDUCTION(K, name, ...)                      \
    K(name, Reduce, (reduce_rows<__VA_ARGS__>), 512) \
    K(name##_columns, Reduce, (reduce_columns<__VA_ARGS__>), 256)

#define PER_FLOAT(K, name, Op)                                        \
    REDUCTION(K, name##_float32, Values<Op, float, float, float>)     \
    REDUCTION(K, name##_float64, Values<Op, double, double, double>)  \
    REDUCTION(K, name##_float16, Values<Op, float16, float, float16>) \
    REDUCTION(K, name##_bfloat16, Values<Op, bfloat16, float, bfloat16>)

#define PLACES(K, name, Op)                                    \
    REDUCTION(K, name##_float32, Places<Op, float, float>)     \
    REDUCTION(K, name##_float64, Places<Op, double, double>)   \
    REDUCTION(K, name##_float16, Places<Op, float16, float>)   \
    REDUCTION(K, name##_bfloat16, Places<Op, bfloat16, float>) \
    REDUCTION(K, name##_int64, Places<Op, i64, i64>)           \
    REDUCTION(K, name##_of_float32, MorePlaces<Op, float>)     \
    REDUCTION(K, name##_of_float64, MorePlaces<Op, double>)    \
    REDUCTION(K, name##_of_int64, MorePlaces<Op, i64>)

#define REDUCE_KERNELS(K)                                               \
    PER_FLOAT(K, sum, Sum)                                              \
    REDUCTION(K, sum_of_float16, Values<Sum, float, float, float16>)    \
    REDUCTION(K, sum_of_bfloat16, Values<Sum, float, float, bfloat16>)  \
    REDUCTION(K, sum_bool, Values<Sum, u8, i64, i64>)                   \
    REDUCTION(K, sum_int32, Values<Sum, int, i64, i64>)                 \
    REDUCTION(K, sum_int64, Values<Sum, i64, i64, i64>)                 \
    PER_FLOAT(K, amax, Max)                                             \
    REDUCTION(K, amax_int64, Values<Max, i64, i64, i64>)                \
    PER_FLOAT(K, amin, Min)                                             \
    REDUCTION(K, amin_int64, Values<Min, i64, i64, i64>)                \
    REDUCTION(K, prod_float32, Values<Product, float, double, double>)  \
    REDUCTION(K, prod_float64, Values<Product, double, double, double>) \
    REDUCTION(K, any_bool, Truth<Either>)                               \
    REDUCTION(K, all_bool, Truth<Both>)                                 \
    PLACES(K, argmax, Max)                                              \
    PLACES(K, argmin, Min)
REDUCE_KERNELS(KERNEL)
