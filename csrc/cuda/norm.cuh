// Layer normalisation, that of a sum, root-mean-square normalisation, and their gradients.
//
// Contract: minidl/backends/reference/norm.py. Computed in float (double for double), rounded once;
// statistics are in what is computed in, so float for 16-bit arrays. Limits on an H200 per element
// of b bytes: 2 b / 4.3 TB/s forward, 4 b of a sum, which is written too, 3 b backward; about 12
// and 20 operations at 3e13/s are below that. 65,536 rows of 4,096 bfloat16: 0.25 and 0.37 ms.
//
// Forward: a warp has a row of up to 1,024 elements, a block a longer one. The row is read once and
// kept in shared memory for the later passes; a row that does not fit there (`cached` 0) is read
// again, from the L2 cache if that holds it. The mean is rounded; the sum of the distances from it,
// which the pass for the variance gathers too, says by how much: equal elements give zeros.
//
// Backward: a bounded number of blocks goes over all rows, which are kept as above; each thread
// sums the gradients of weight and bias for its columns in registers, 128 bytes of each, and the
// block writes one row of sums. A second kernel adds these rows in a fixed order. In the work space
// the sums of a thread lie `group` apart, so that neighbours write together. A row too wide for the
// registers of a block takes three kernels: dx, the sums of the columns, and the same second one.
#pragma once

#include "common/rows.cuh"

struct Norm {
    const void *x, *y;          // y: what is added to x first; of add_layer_norm
    const void *weight, *bias;  // of a row, or null
    void *out, *total;          // total: x + y
    void *mean, *rstd;          // of rows; rms_norm has no mean
    i64 rows, width;
    i64 group;   // threads per row
    i64 cached;  // whether the launch has shared memory for its rows
    double eps;
};

struct NormBackward {
    const void *g, *x, *weight, *mean, *rstd;  // mean: null of rms_norm
    void* dx;
    void *dweight, *dbias;  // (blocks, pitch) sums of rows in what is computed in, or null
    i64 rows, width, group, cached;
    i64 pitch;  // width, up to whole pieces of all threads of a team
};

struct NormSums {
    const void *dweight, *dbias;    // as above
    void *dweight_out, *dbias_out;  // of a row
    i64 blocks, width, group, pitch;
};

// Every thread of the team gets both sums over the team.
template <typename W>
__device__ inline void sum_both(const Team& team, W* a, W* b) {
    W x = lanes_reduce<32>(*a, Sum()), y = lanes_reduce<32>(*b, Sum());
    if (team.size > 32) {
        SHARED(W, of_warps, 64);
        const int lane = lane_of_thread(), warp = warp_of_thread();
        __syncthreads();  // the last sums have been read
        if (lane == 0) of_warps[warp] = x, of_warps[32 + warp] = y;
        __syncthreads();
        const bool there = lane < team.size / 32;
        x = lanes_reduce<32>(there ? of_warps[lane] : W(0), Sum());
        y = lanes_reduce<32>(there ? of_warps[32 + lane] : W(0), Sum());
    }
    *a = x;
    *b = y;
}

// Two arrays' rows of one team: where they are, and where they are kept, if they are.
template <typename T>
struct TwoRows {
    const T *a, *b;
    T *kept_a, *kept_b;

    __device__ TwoRows(const Team& team, i64 width, const void* a, const void* b, bool cached)
        : a((const T*)a), b((const T*)b), kept_a(nullptr), kept_b(nullptr) {
        if (!cached) return;
        const i64 pitch = (width * sizeof(T) + 15) / 16 * 16;
        kept_a = kept_row<T>(team, width);
        kept_b = (T*)((u8*)kept_a + blockDim.x / team.size * pitch);
    }
};

// Reads a row, or two with `both`, and keeps it: calls visit(piece, a, b) for all pieces of this
// thread. Loads ahead as much as leaves the registers for many blocks at a time.
template <bool both, typename T, typename Visit>
__device__ inline void first_pass(const Team& team, i64 width, bool vec, const TwoRows<T>& rows,
                                  Visit visit) {
    const int ahead = both ? 1 : 4;
    for (Pieces<T> piece(team, width, vec); piece.more();) {
        Pieces<T> next = piece;
        Vec<T> a[ahead], b[ahead];
#pragma unroll
        for (int k = 0; k < ahead; ++k, next.next()) {
            if (!next.more()) continue;
            a[k] = next.load(rows.a);
            if (both) b[k] = next.load(rows.b);
        }
#pragma unroll
        for (int k = 0; k < ahead; ++k, piece.next()) {
            if (!piece.more()) continue;
            if (rows.kept_a) piece.store(rows.kept_a, a[k]);
            if (both && rows.kept_b) piece.store(rows.kept_b, b[k]);
            visit(piece, a[k], b[k]);
        }
    }
}

// Later: from where the row is kept, if it is.
template <bool both, typename T, typename Visit>
__device__ inline void next_pass(const Team& team, i64 width, bool vec, const TwoRows<T>& rows,
                                 Visit visit) {
    for (Pieces<T> piece(team, width, vec); piece.more(); piece.next()) {
        Vec<T> a = piece.load(rows.kept_a ? rows.kept_a : rows.a), b;
        if (both) b = piece.load(rows.kept_b ? rows.kept_b : rows.b);
        visit(piece, a, b);
    }
}

template <typename T, bool centered, bool added>
__device__ inline void norm_rows(const Norm& p) {
    typedef typename Wide<T>::type W;
    const int size = Vec<T>::size;
    const Team team(p.group);
    if (team.row >= p.rows) return;
    const i64 start = team.row * p.width;
    const TwoRows<T> rows(team, p.width, (const T*)p.x + start, (const T*)p.y + (added ? start : 0),
                          p.cached);
    const T *weight = (const T*)p.weight, *bias = (const T*)p.bias;
    const bool vec =
        in_vecs<T>(p.width, p.x, p.y, p.weight, p.bias) && in_vecs<T>(p.width, p.out, p.total);
    const W width = (W)p.width;
    W mean = 0, rest = 0, squares = 0;
    const auto element = [](const Vec<T>& x, const Vec<T>& y, int i) {
        return added ? widen(x.at[i]) + widen(y.at[i]) : widen(x.at[i]);
    };
    const auto spread = [&](const Pieces<T>& piece, const Vec<T>& x, const Vec<T>& y) {
#pragma unroll
        for (int i = 0; i < size; ++i) {
            const W distance = i < piece.count ? element(x, y, i) - mean : W(0);
            if (centered) rest += distance;
            squares += distance * distance;
        }
    };
    if (centered) {
        first_pass<added>(team, p.width, vec, rows,
                          [&](const Pieces<T>& piece, const Vec<T>& x, const Vec<T>& y) {
                              Vec<T> total;
#pragma unroll
                              for (int i = 0; i < size; ++i) {
                                  const W value = element(x, y, i);
                                  mean += i < piece.count ? value : W(0);
                                  total.at[i] = narrow<T>(value);
                              }
                              if (added) piece.store((T*)p.total + start, total);
                          });
        mean = team.reduce(mean, Sum(), W(0)) / width;
        next_pass<added>(team, p.width, vec, rows, spread);
        sum_both(team, &rest, &squares);
        rest /= width;
    } else {
        first_pass<added>(team, p.width, vec, rows, spread);
        squares = team.reduce(squares, Sum(), W(0));
    }
    const W variance = larger(squares / width - rest * rest, W(0));
    const W rstd = 1 / sqrt(variance + (W)p.eps);
    next_pass<added>(team, p.width, vec, rows,
                     [&](const Pieces<T>& piece, const Vec<T>& x, const Vec<T>& y) {
                         Vec<T> factor, shift, result;
                         if (weight) factor = piece.load(weight);
                         if (bias) shift = piece.load(bias);
#pragma unroll
                         for (int i = 0; i < size; ++i) {
                             W value = element(x, y, i);
                             if (centered) value = value - mean - rest;
                             value *= rstd;
                             if (weight) value *= widen(factor.at[i]);
                             if (bias) value += widen(shift.at[i]);
                             result.at[i] = narrow<T>(value);
                         }
                         piece.store((T*)p.out + start, result);
                     });
    if (team.rank) return;
    if (centered) ((W*)p.mean)[team.row] = mean + rest;
    ((W*)p.rstd)[team.row] = rstd;
}

template <typename T>
__device__ inline void layer_norm(const Norm& p) {
    norm_rows<T, true, false>(p);
}
template <typename T>
__device__ inline void add_layer_norm(const Norm& p) {
    norm_rows<T, true, true>(p);
}
template <typename T>
__device__ inline void rms_norm(const Norm& p) {
    norm_rows<T, false, false>(p);
}

// What the backward kernels compute of one piece of a row.
template <typename T>
struct Slope {
    typedef typename Wide<T>::type W;
    static const int size = Vec<T>::size;
    W g[size], xhat[size], of_row[size];  // of_row: g * weight; g is 0 past the end

    __device__ Slope(const Vec<T>& gs, const Vec<T>& xs, W mean, W rstd) {
#pragma unroll
        for (int i = 0; i < size; ++i) {
            of_row[i] = g[i] = widen(gs.at[i]);
            xhat[i] = (widen(xs.at[i]) - mean) * rstd;
        }
    }
    __device__ void weigh(const Vec<T>& weight) {
#pragma unroll
        for (int i = 0; i < size; ++i) of_row[i] *= widen(weight.at[i]);
    }
    // dx = rstd * (of_row - mean(of_row) - xhat * mean(of_row * xhat)); rms_norm has no
    // mean(of_row)
    __device__ Vec<T> dx(W across, W along, W rstd) const {
        Vec<T> result;
#pragma unroll
        for (int i = 0; i < size; ++i)
            result.at[i] = narrow<T>((of_row[i] - xhat[i] * along - across) * rstd);
        return result;
    }
};

// The second pass over a row.
template <typename T, typename W>
__device__ inline void write_dx(const NormBackward& p, const Team& team, const TwoRows<T>& rows,
                                bool vec, W mean, W rstd, W across, W along, T* dx) {
    next_pass<true>(team, p.width, vec, rows,
                    [&](const Pieces<T>& piece, const Vec<T>& g, const Vec<T>& x) {
                        Slope<T> slope(g, x, mean, rstd);
                        if (p.weight) slope.weigh(piece.load((const T*)p.weight));
                        piece.store(dx, slope.dx(across, along, rstd));
                    });
}

// Writes the block's sums of its columns to its row of the work space.
template <typename T, int parts, typename W>
__device__ inline void write_sums(const Team& team, i64 pitch, const W (&sums)[parts][Vec<T>::size],
                                  void* to) {
    const int size = Vec<T>::size, step = team.size * size;
    W* row = (W*)to + blockIdx.x * pitch;
    if (team.size > 32) {
#pragma unroll
        for (int part = 0; part < parts; ++part) {
            if (part * step >= pitch) break;
#pragma unroll
            for (int i = 0; i < size; ++i)
                row[part * step + i * team.size + team.rank] = sums[part][i];
        }
        return;
    }
    const int most = parts * size * 32, teams = blockDim.x / 32;
    W* shared = (W*)dynamic_memory();
    __syncthreads();  // what was there has been read
#pragma unroll
    for (int k = 0; k < parts * size; ++k)
        shared[team.place * most + k * 32 + team.rank] = sums[k / size][k % size];
    __syncthreads();
    for (int at = threadIdx.x; at < pitch; at += blockDim.x) {
        W sum = 0;
        for (int place = 0; place < teams; ++place) sum += shared[place * most + at];
        row[at] = sum;
    }
}

// For rows whose columns fit the registers of a team: up to 128 of them, so that a multiprocessor
// has two blocks at a time.
template <typename T, bool centered>
__device__ inline void norm_rows_backward(const NormBackward& p) {
    typedef typename Wide<T>::type W;
    const int size = Vec<T>::size, parts = 128 / sizeof(W) / size;
    const Team team(p.group);
    const bool vec = in_vecs<T>(p.width, p.g, p.x, p.weight, p.dx);
    const i64 step = (i64)gridDim.x * (blockDim.x / team.size);
    W dweight[parts][size] = {}, dbias[parts][size] = {};
    for (i64 row = team.row; row < p.rows; row += step) {
        const i64 start = row * p.width;
        const TwoRows<T> rows(team, p.width, (const T*)p.g + start, (const T*)p.x + start,
                              p.cached);
        const W mean = centered ? ((const W*)p.mean)[row] : W(0), rstd = ((const W*)p.rstd)[row];
        W across = 0, along = 0;  // sums of g * weight, of g * weight * xhat
        Pieces<T> piece(team, p.width, vec);
#pragma unroll
        for (int part = 0; part < parts; ++part, piece.next()) {
            if (!piece.more()) break;
            const Vec<T> g = piece.load(rows.a), x = piece.load(rows.b);
            if (rows.kept_a) {
                piece.store(rows.kept_a, g);
                piece.store(rows.kept_b, x);
            }
            Slope<T> slope(g, x, mean, rstd);
            if (p.weight) slope.weigh(piece.load((const T*)p.weight));
#pragma unroll
            for (int i = 0; i < size; ++i) {
                dweight[part][i] += slope.g[i] * slope.xhat[i];
                if (centered) dbias[part][i] += slope.g[i];
                if (centered) across += slope.of_row[i];
                along += slope.of_row[i] * slope.xhat[i];
            }
        }
        if (centered)
            sum_both(team, &across, &along);
        else
            along = team.reduce(along, Sum(), W(0));
        across /= (W)p.width;
        along /= (W)p.width;
        write_dx(p, team, rows, vec, mean, rstd, across, along, (T*)p.dx + start);
    }
    if (p.dweight) write_sums<T>(team, p.pitch, dweight, p.dweight);
    if (centered && p.dbias) write_sums<T>(team, p.pitch, dbias, p.dbias);
}

template <typename T>
__device__ inline void layer_norm_backward(const NormBackward& p) {
    norm_rows_backward<T, true>(p);
}
template <typename T>
__device__ inline void rms_norm_backward(const NormBackward& p) {
    norm_rows_backward<T, false>(p);
}

// dx alone, of rows of any width; a block has a row.
template <typename T>
__device__ inline void norm_dx(const NormBackward& p) {
    typedef typename Wide<T>::type W;
    const Team team(p.group);
    const i64 row = team.row, start = row * p.width;
    if (row >= p.rows) return;
    const bool vec = in_vecs<T>(p.width, p.g, p.x, p.weight, p.dx);
    const TwoRows<T> rows(team, p.width, (const T*)p.g + start, (const T*)p.x + start, p.cached);
    const W mean = p.mean ? ((const W*)p.mean)[row] : W(0), rstd = ((const W*)p.rstd)[row];
    W across = 0, along = 0;
    first_pass<true>(team, p.width, vec, rows,
                     [&](const Pieces<T>& piece, const Vec<T>& g, const Vec<T>& x) {
                         Slope<T> slope(g, x, mean, rstd);
                         if (p.weight) slope.weigh(piece.load((const T*)p.weight));
#pragma unroll
                         for (int i = 0; i < Vec<T>::size; ++i) {
                             across += slope.of_row[i];
                             along += slope.of_row[i] * slope.xhat[i];
                         }
                     });
    sum_both(team, &across, &along);
    across = p.mean ? across / (W)p.width : W(0);
    write_dx(p, team, rows, vec, mean, rstd, across, along / (W)p.width, (T*)p.dx + start);
}

// Sums of the columns alone: a thread has a piece of each row, a block `group` of them and every
// `shares`-th row; the blocks of one share follow each other.
template <typename T>
__device__ inline void norm_columns(const NormBackward& p) {
    typedef typename Wide<T>::type W;
    const int size = Vec<T>::size, group = blockDim.x;
    const i64 tiles = p.pitch / (group * size), shares = gridDim.x / tiles;
    const i64 tile = blockIdx.x % tiles, share = blockIdx.x / tiles;
    const i64 at = (tile * group + threadIdx.x) * size;
    const bool vec = in_vecs<T>(p.width, p.g, p.x);
    W dweight[size] = {}, dbias[size] = {};
    for (i64 row = share; row < p.rows; row += shares) {
        const T *g = (const T*)p.g + row * p.width, *x = (const T*)p.x + row * p.width;
        const W mean = p.mean ? ((const W*)p.mean)[row] : W(0), rstd = ((const W*)p.rstd)[row];
        Vec<T> gs{}, xs{};
        if (vec && at < p.width) {
            gs = load_vec(g + at);
            xs = load_vec(x + at);
        } else {
#pragma unroll
            for (int i = 0; i < size; ++i)
                if (at + i < p.width) gs.at[i] = g[at + i], xs.at[i] = x[at + i];
        }
        const Slope<T> slope(gs, xs, mean, rstd);
#pragma unroll
        for (int i = 0; i < size; ++i) {
            dweight[i] += slope.g[i] * slope.xhat[i];
            dbias[i] += slope.g[i];
        }
    }
    const i64 to = share * p.pitch + tile * group * size + threadIdx.x;
#pragma unroll
    for (int i = 0; i < size; ++i) {
        if (p.dweight) ((W*)p.dweight)[to + i * group] = dweight[i];
        if (p.dbias) ((W*)p.dbias)[to + i * group] = dbias[i];
    }
}

// A block sums 32 columns of the work space, of dweight first: each warp every 16th row, then the
// first warp what the others found.
template <typename T>
__device__ inline void norm_sums(const NormSums& p) {
    typedef typename Wide<T>::type W;
    SHARED(W, of_warps, 16 * 32);
    const i64 tiles = p.pitch / 32;
    const bool bias = !p.dweight || blockIdx.x >= tiles;
    const int lane = lane_of_thread(), warp = warp_of_thread(), size = Vec<T>::size;
    const i64 at = blockIdx.x % tiles * 32 + lane;
    const W* from = (const W*)(bias ? p.dbias : p.dweight) + at;
    const i64 within = at % (p.group * size);  // of one piece of each thread
    const i64 column = at - within + within % p.group * size + within / p.group;
    W sum = 0;
    if (column < p.width) {
#pragma unroll 4
        for (i64 row = warp; row < p.blocks; row += 16) sum += from[row * p.pitch];
    }
    of_warps[warp * 32 + lane] = sum;
    __syncthreads();
    if (warp || column >= p.width) return;
    for (int other = 1; other < 16; ++other) sum += of_warps[other * 32 + lane];
    ((T*)(bias ? p.dbias_out : p.dweight_out))[column] = narrow<T>(sum);
}

#define NORM_KERNELS(K)                                                        \
    FOR_FLOATS(K, layer_norm, Norm, layer_norm, 512)                           \
    FOR_FLOATS(K, add_layer_norm, Norm, add_layer_norm, 512)                   \
    FOR_FLOATS(K, rms_norm, Norm, rms_norm, 512)                               \
    FOR_FLOATS(K, layer_norm_backward, NormBackward, layer_norm_backward, 256) \
    FOR_FLOATS(K, rms_norm_backward, NormBackward, rms_norm_backward, 256)     \
    FOR_FLOATS(K, norm_dx, NormBackward, norm_dx, 512)                         \
    FOR_FLOATS(K, norm_columns, NormBackward, norm_columns, 256)               \
    FOR_FLOATS(K, norm_sums, NormSums, norm_sums, 512)
NORM_KERNELS(KERNEL)
