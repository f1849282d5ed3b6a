// Softmax, its logarithm, and their gradients along one axis; log-sum-exp of rows.
//
// Contract: minidl/backends/reference/softmax.py. Computed in float (double for double), rounded
// once. Limits on an H200 per element of b bytes: 2 b / 4.3 TB/s forward, 3 b backward; an exp at
// 3.7e12/s and ten multiply-adds are below that.
//
// Rows: a warp has a row of up to 1,024 elements, a block a longer one. The row is read once and
// kept in shared memory, where maximum, sum and result find it; a row that does not fit there
// (`cached` 0) is read again, from the L2 cache if that holds it. Columns: a thread has a column,
// neighbours read neighbours; three reads.
#pragma once

#include "common/rows.cuh"

struct Softmax {
    const void *x, *g;  // g: the gradient of the result, of the backward kernels, whose x is the
    void* out;          // result of the forward one
    i64 rows, width;    // of columns: outer * inner and the length of the axis
    i64 group;          // threads per row
    i64 cached;         // whether the launch has shared memory for its rows
    i64 inner;          // of columns: elements from one of the axis to the next
};

// One row of a kernel: where its elements are, the first time and later.
template <typename T>
struct SoftmaxRow {
    typedef typename Wide<T>::type W;
    const T *x, *again;
    T *kept, *out;
    bool vec;

    __device__ SoftmaxRow(const Softmax& p, const Team& team)
        : x((const T*)p.x + team.row * p.width),
          kept(p.cached ? kept_row<T>(team, p.width) : nullptr),
          out((T*)p.out + team.row * p.width),
          vec(in_vecs<T>(p.width, p.x, p.out, p.g)) {
        again = p.cached ? kept : x;
    }
};

// The maximum of a row and the sum of exp(x - maximum); keeps the row.
template <typename T, typename W>
__device__ inline void weigh(const Softmax& p, const Team& team, const SoftmaxRow<T>& row, W* top,
                             W* sum) {
    const W lowest = -Limits<W>::infinity();
    W most = lowest;
    for (Pieces<T> piece(team, p.width, row.vec); piece.more(); piece.next()) {
        const Vec<T> x = piece.load(row.x);
        if (row.kept) piece.store(row.kept, x);
#pragma unroll
        for (int i = 0; i < Vec<T>::size; ++i)
            if (i < piece.count) most = larger(most, widen(x.at[i]));
    }
    *top = most = team.reduce(most, Max(), lowest);
    W total = 0;
    for (Pieces<T> piece(team, p.width, row.vec); piece.more(); piece.next()) {
        const Vec<T> x = piece.load(row.again);
#pragma unroll
        for (int i = 0; i < Vec<T>::size; ++i)
            if (i < piece.count) total += exp(widen(x.at[i]) - most);
    }
    *sum = team.reduce(total, Sum(), W(0));
}

template <typename T, bool logarithm>
__device__ inline void softmax_rows(const Softmax& p) {
    typedef typename Wide<T>::type W;
    const Team team(p.group);
    if (team.row >= p.rows) return;
    const SoftmaxRow<T> row(p, team);
    W top, sum;
    weigh(p, team, row, &top, &sum);
    const W log_sum = logarithm ? log(sum) : W(0), factor = 1 / sum;
    for (Pieces<T> piece(team, p.width, row.vec); piece.more(); piece.next()) {
        const Vec<T> x = piece.load(row.again);
        Vec<T> result{};
#pragma unroll
        for (int i = 0; i < Vec<T>::size; ++i) {
            const W shifted = widen(x.at[i]) - top;
            result.at[i] = narrow<T>(logarithm ? shifted - log_sum : exp(shifted) * factor);
        }
        piece.store(row.out, result);
    }
}

// x is the result of the forward kernel: out * (g - sum(g * out)), or g - exp(out) * sum(g).
template <typename T, bool logarithm>
__device__ inline void softmax_rows_backward(const Softmax& p) {
    typedef typename Wide<T>::type W;
    const Team team(p.group);
    if (team.row >= p.rows) return;
    const SoftmaxRow<T> row(p, team);
    const T* g = (const T*)p.g + team.row * p.width;
    W sum = 0;
    for (Pieces<T> piece(team, p.width, row.vec); piece.more(); piece.next()) {
        const Vec<T> x = piece.load(row.x), dy = piece.load(g);
        if (row.kept) piece.store(row.kept, x);
#pragma unroll
        for (int i = 0; i < Vec<T>::size; ++i)
            if (i < piece.count)
                sum += logarithm ? widen(dy.at[i]) : widen(dy.at[i]) * widen(x.at[i]);
    }
    sum = team.reduce(sum, Sum(), W(0));
    for (Pieces<T> piece(team, p.width, row.vec); piece.more(); piece.next()) {
        const Vec<T> x = piece.load(row.again), dy = piece.load(g);
        Vec<T> result{};
#pragma unroll
        for (int i = 0; i < Vec<T>::size; ++i) {
            const W out = widen(x.at[i]), d = widen(dy.at[i]);
            result.at[i] = narrow<T>(logarithm ? d - exp(out) * sum : out * (d - sum));
        }
        piece.store(row.out, result);
    }
}

template <typename T>
__device__ inline void softmax(const Softmax& p) {
    softmax_rows<T, false>(p);
}
template <typename T>
__device__ inline void log_softmax(const Softmax& p) {
    softmax_rows<T, true>(p);
}
template <typename T>
__device__ inline void softmax_backward(const Softmax& p) {
    softmax_rows_backward<T, false>(p);
}
template <typename T>
__device__ inline void log_softmax_backward(const Softmax& p) {
    softmax_rows_backward<T, true>(p);
}

// out: one number per row; all -inf gives -inf, any +inf gives +inf.
template <typename T>
__device__ inline void logsumexp(const Softmax& p) {
    typedef typename Wide<T>::type W;
    const Team team(p.group);
    if (team.row >= p.rows) return;
    SoftmaxRow<T> row(p, team);
    row.vec = in_vecs<T>(p.width, p.x);
    W top, sum;
    weigh(p, team, row, &top, &sum);
    if (team.rank == 0) {
        const bool endless = top == Limits<W>::infinity() || top == -Limits<W>::infinity();
        ((T*)p.out)[team.row] = narrow<T>(endless ? top : top + log(sum));
    }
}

template <typename T, bool logarithm>
__device__ inline void softmax_of_column(const Softmax& p) {
    typedef typename Wide<T>::type W;
    const i64 column = global_thread();
    if (column >= p.rows) return;
    const i64 start = column / p.inner * p.inner * p.width + column % p.inner;
    const T* x = (const T*)p.x + start;
    T* out = (T*)p.out + start;
    W top = -Limits<W>::infinity(), sum = 0;
    for (i64 i = 0; i < p.width; ++i) top = larger(top, widen(x[i * p.inner]));
    for (i64 i = 0; i < p.width; ++i) sum += exp(widen(x[i * p.inner]) - top);
    const W log_sum = logarithm ? log(sum) : W(0), factor = 1 / sum;
    for (i64 i = 0; i < p.width; ++i) {
        const W shifted = widen(x[i * p.inner]) - top;
        out[i * p.inner] = narrow<T>(logarithm ? shifted - log_sum : exp(shifted) * factor);
    }
}

template <typename T, bool logarithm>
__device__ inline void softmax_of_column_backward(const Softmax& p) {
    typedef typename Wide<T>::type W;
    const i64 column = global_thread();
    if (column >= p.rows) return;
    const i64 start = column / p.inner * p.inner * p.width + column % p.inner;
    const T *x = (const T*)p.x + start, *g = (const T*)p.g + start;
    T* out = (T*)p.out + start;
    W sum = 0;
    for (i64 i = 0; i < p.width; ++i) {
        const W d = widen(g[i * p.inner]);
        sum += logarithm ? d : d * widen(x[i * p.inner]);
    }
    for (i64 i = 0; i < p.width; ++i) {
        const W y = widen(x[i * p.inner]), d = widen(g[i * p.inner]);
        out[i * p.inner] = narrow<T>(logarithm ? d - exp(y) * sum : y * (d - sum));
    }
}

template <typename T>
__device__ inline void softmax_columns(const Softmax& p) {
    softmax_of_column<T, false>(p);
}
template <typename T>
__device__ inline void log_softmax_columns(const Softmax& p) {
    softmax_of_column<T, true>(p);
}
template <typename T>
__device__ inline void softmax_columns_backward(const Softmax& p) {
    softmax_of_column_backward<T, false>(p);
}
template <typename T>
__device__ inline void log_softmax_columns_backward(const Softmax& p) {
    softmax_of_column_backward<T, true>(p);
}

#define SOFTMAX_KERNELS(K)                                                          \
    FOR_FLOATS(K, softmax, Softmax, softmax, 512)                                   \
    FOR_FLOATS(K, log_softmax, Softmax, log_softmax, 512)                           \
    FOR_FLOATS(K, softmax_backward, Softmax, softmax_backward, 512)                 \
    FOR_FLOATS(K, log_softmax_backward, Softmax, log_softmax_backward, 512)         \
    FOR_FLOATS(K, logsumexp, Softmax, logsumexp, 512)                               \
    FOR_FLOATS(K, softmax_columns, Softmax, softmax_columns, 256)                   \
    FOR_FLOATS(K, log_softmax_columns, Softmax, log_softmax_columns, 256)           \
    FOR_FLOATS(K, softmax_columns_backward, Softmax, softmax_columns_backward, 256) \
    FOR_FLOATS(K, log_softmax_columns_backward, Softmax, log_softmax_columns_backward, 256)
SOFTMAX_KERNELS(KERNEL)
