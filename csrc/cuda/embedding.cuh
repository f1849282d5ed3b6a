// Rows of a table by index, and the sum of a gradient's rows per index.
//
// Contracts: NumPy's take along the first axis, and minidl/backends/reference/embedding.py. Sums in
// float (double for double) and in the order of the tokens, rounded once: the bits do not depend on
// timing. An index outside the table counts from an end, around: the caller has refused it.
//
// Limits on an H200, of n tokens and v rows of b bytes: n (2 b + 8) / 4.3 TB/s to look up; n b + v
// b for the gradient (42 us for 16384 tokens into 50304 x 768 of float32), no arithmetic to speak
// of.
//
// Looking up: a team of threads copies a row in the widest units that it is a multiple of. The
// gradient: tokens are sorted by index (a radix sort of up to 10 bits a pass, each one of two
// kernels: blocks count their tokens' digits, then place them behind those of earlier blocks), each
// row of the table finds where its tokens start, and a team adds them up and writes the row once.
// So that an index with very many tokens does not keep one team busy, those of them that fill a
// whole part of the sorted tokens are added up before, a team for each part.
#pragma once

#include "common/rows.cuh"

// An index as one of 0 <= index < count.
__device__ inline i64 wrapped(i64 index, i64 count) {
    if (index >= 0 && index < count) return index;
    index %= count;
    return index < 0 ? index + count : index;
}

struct Take {
    const void *table, *index;
    void* out;
    i64 tokens, count, width;  // rows of out; rows of the table, and the units of one
    i64 group;                 // threads per row
};

template <typename Unit>
__device__ inline void take(const Take& p) {
    const Team team(p.group);
    if (team.row >= p.tokens) return;
    const i64 row = wrapped(((const i64*)p.index)[team.row], p.count);
    const Unit* from = (const Unit*)p.table + row * p.width;
    Unit* to = (Unit*)p.out + team.row * p.width;
#pragma unroll 4
    for (i64 i = team.rank; i < p.width; i += team.size) to[i] = from[i];
}

// A pass of the sort: by `bits` bits of the index, from bit `shift` on. A token is its index and
// its place, in the upper and lower half of a u64.
struct Sort {
    const void *index, *from;  // i64 of the first pass; u64 of the others
    void *to, *counts;         // u64; i64 of each digit and block, of one block together
    i64 tokens, count;         // count: of rows of the table
    i64 tile;                  // tokens of a block, a multiple of its threads
    i64 blocks, shift, bits;
};

const int SORT_THREADS = 256;

__device__ inline u64 token_at(const Sort& p, i64 place) {
    if (p.from) return ((const u64*)p.from)[place];
    return (u64)wrapped(((const i64*)p.index)[place], p.count) << 32 | (u64)place;
}
__device__ inline int digit_of(const Sort& p, u64 token) {
    return (int)(token >> (32 + p.shift)) & ((1 << p.bits) - 1);
}

__device__ inline void count_digits(const Sort& p) {
    u32* count = (u32*)dynamic_memory();  // of each digit
    const int digits = 1 << p.bits;
    for (int d = threadIdx.x; d < digits; d += SORT_THREADS) count[d] = 0;
    __syncthreads();
    const i64 start = blockIdx.x * p.tile, stop = smaller(start + p.tile, p.tokens);
    for (i64 i = start + threadIdx.x; i < stop; i += SORT_THREADS)
        atomicAdd(&count[digit_of(p, token_at(p, i))], 1u);
    __syncthreads();
    for (int d = threadIdx.x; d < digits; d += SORT_THREADS)
        ((i64*)p.counts)[blockIdx.x * digits + d] = count[d];
}

// Each of the sums of `digits` numbers before its own, by the whole block.
__device__ inline void sums_before(i64* sum, int digits) {
    for (int step = 1; step < digits; step *= 2) {
        i64 before[4] = {};  // digits <= 4 * SORT_THREADS
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const int d = threadIdx.x + i * SORT_THREADS;
            if (d < digits && d >= step) before[i] = sum[d - step];
        }
        __syncthreads();
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const int d = threadIdx.x + i * SORT_THREADS;
            if (d < digits) sum[d] += before[i];
        }
        __syncthreads();
    }
}

// The lanes of the warp that have the same digit, of those in `here`.
__device__ inline u32 lanes_alike(u32 here, int digit, int bits) {
    u32 alike = here;
    for (int bit = 0; bit < bits; ++bit) {
        const bool set = digit >> bit & 1;
        const u32 with = __ballot_sync(ALL_LANES, set);
        alike &= set ? with : ~with;
    }
    return alike;
}

// Each warp has a run of the block's tile, and places its tokens 32 at a time.
__device__ inline void place_tokens(const Sort& p) {
    const int digits = 1 << p.bits, warps = SORT_THREADS / 32;
    i64* start = (i64*)dynamic_memory();  // of each digit
    u32* behind =
        (u32*)(start + digits);  // of each warp and digit: tokens of earlier warps, placed
    for (int i = threadIdx.x; i < warps * digits; i += SORT_THREADS) behind[i] = 0;
    // all tokens of smaller digits, and of earlier blocks those of this digit
    for (int d = threadIdx.x; d < digits; d += SORT_THREADS) {
        i64 all = 0;
        for (i64 b = 0; b < p.blocks; ++b) all += ((const i64*)p.counts)[b * digits + d];
        start[d] = all;
    }
    __syncthreads();
    sums_before(start, digits);
    for (int d = threadIdx.x; d < digits; d += SORT_THREADS)
        for (i64 b = blockIdx.x; b < p.blocks; ++b)
            start[d] -= ((const i64*)p.counts)[b * digits + d];

    const i64 run = p.tile / warps, first = blockIdx.x * p.tile + warp_of_thread() * run;
    u32* own = behind + warp_of_thread() * digits;
    for (i64 i = first + lane_of_thread(); i < smaller(first + run, p.tokens); i += 32)
        atomicAdd(&own[digit_of(p, token_at(p, i))], 1u);
    __syncthreads();
    for (int d = threadIdx.x; d < digits; d += SORT_THREADS) {
        u32 before = 0;
        for (int w = 0; w < warps; ++w) {
            const u32 count = behind[w * digits + d];
            behind[w * digits + d] = before;
            before += count;
        }
    }
    __syncthreads();
    for (i64 at = first; at < smaller(first + run, p.tokens); at += 32) {
        const i64 place = at + lane_of_thread();
        const bool here = place < p.tokens;
        const u64 token = here ? token_at(p, place) : 0;
        const int digit = digit_of(p, token);
        const u32 alike = lanes_alike(__ballot_sync(ALL_LANES, here), digit, (int)p.bits);
        const u32 earlier = alike & ((1u << lane_of_thread()) - 1);
        if (here) ((u64*)p.to)[start[digit] + own[digit] + __popc(earlier)] = token;
        __syncwarp();
        if (here && !earlier) own[digit] += __popc(alike);
        __syncwarp();
    }
}

struct Sums {
    const void *g, *tokens;  // tokens: sorted
    void *starts, *parts, *out;
    i64 count, rows, width;  // tokens; rows of the table
    i64 part;                // tokens of a part; 0: there are none
    i64 padding;             // the row that stays 0, or -1
    i64 group;               // threads per row
};

// starts[r]: how many tokens have an index below r.
__device__ inline void find_starts(const Sums& p) {
    const i64 row = global_thread();
    if (row > p.rows) return;
    const u64* tokens = (const u64*)p.tokens;
    i64 low = 0, high = p.count;
    while (low < high) {
        const i64 middle = (low + high) / 2;
        if ((i64)(tokens[middle] >> 32) < row)
            low = middle + 1;
        else
            high = middle;
    }
    ((i64*)p.starts)[row] = low;
}

// Adds the rows of g of sorted tokens to what a thread has of its piece.
template <typename T, typename W>
__device__ inline void add_tokens(const Sums& p, const Pieces<T>& piece, i64 from, i64 to,
                                  W (&sum)[16 / sizeof(T)]) {
    const u64* tokens = (const u64*)p.tokens;
    const T* g = (const T*)p.g;
    const int ahead = sizeof(T) == 8 ? 2 : 4;
    for (; from < to; from += ahead) {
        Vec<T> x[ahead];
#pragma unroll
        for (int i = 0; i < ahead; ++i)
            if (from + i < to) x[i] = piece.load(g + (i64)(u32)tokens[from + i] * p.width);
#pragma unroll
        for (int i = 0; i < ahead; ++i)
            if (from + i < to)
#pragma unroll
                for (int j = 0; j < Vec<T>::size; ++j) sum[j] += widen(x[i].at[j]);
    }
}

// parts[j]: the sum of the tokens of part j, if all of them have one index.
template <typename T>
__device__ inline void embedding_parts(const Sums& p) {
    typedef typename Wide<T>::type W;
    const Team team(p.group);
    const i64 first = team.row * p.part;
    if (first + p.part > p.count) return;
    const u64* tokens = (const u64*)p.tokens;
    if (tokens[first] >> 32 != tokens[first + p.part - 1] >> 32) return;
    W* out = (W*)p.parts + team.row * p.width;
    for (Pieces<T> piece(team, p.width, in_vecs<T>(p.width, p.g)); piece.more(); piece.next()) {
        W sum[Vec<T>::size] = {};
        add_tokens<T>(p, piece, first, first + p.part, sum);
#pragma unroll
        for (int i = 0; i < Vec<T>::size; ++i)
            if (i < piece.count) out[piece.at + i] = sum[i];
    }
}

template <typename T>
__device__ inline void embedding_sums(const Sums& p) {
    typedef typename Wide<T>::type W;
    const Team team(p.group);
    if (team.row >= p.rows) return;
    i64 from = ((const i64*)p.starts)[team.row], to = ((const i64*)p.starts)[team.row + 1];
    if (team.row == p.padding) to = from;
    // the whole parts between, and what is left before and after them
    i64 part = 0, end = 0;
    if (p.part && to - from >= p.part) {
        part = (from + p.part - 1) / p.part;
        end = to / p.part;
    }
    const bool whole = part < end;
    const i64 head = whole ? part * p.part : to, tail = whole ? end * p.part : to;
    T* out = (T*)p.out + team.row * p.width;
    const bool vec = in_vecs<T>(p.width, p.g, p.out);
    for (Pieces<T> piece(team, p.width, vec); piece.more(); piece.next()) {
        W sum[Vec<T>::size] = {};
        add_tokens<T>(p, piece, from, head, sum);
        if (whole) {
#pragma unroll 2
            for (i64 j = part; j < end; ++j) {
                const W* other = (const W*)p.parts + j * p.width + piece.at;
#pragma unroll
                for (int i = 0; i < Vec<T>::size; ++i)
                    if (i < piece.count) sum[i] += other[i];
            }
            add_tokens<T>(p, piece, tail, to, sum);
        }
        Vec<T> result{};
#pragma unroll
        for (int i = 0; i < Vec<T>::size; ++i) result.at[i] = narrow<T>(sum[i]);
        piece.store(out, result);
    }
}

#define EMBEDDING_KERNELS(K)                                   \
    K(take_1, Take, take<u8>, 256)                             \
    K(take_2, Take, take<u16>, 256)                            \
    K(take_4, Take, take<u32>, 256)                            \
    K(take_8, Take, take<u64>, 256)                            \
    K(take_16, Take, take<Vec<u8>>, 256)                       \
    K(sort_count, Sort, count_digits, SORT_THREADS)            \
    K(sort_place, Sort, place_tokens, SORT_THREADS)            \
    K(embedding_starts, Sums, find_starts, 256)                \
    FOR_FLOATS(K, embedding_parts, Sums, embedding_parts, 256) \
    FOR_FLOATS(K, embedding_sums, Sums, embedding_sums, 256)
EMBEDDING_KERNELS(KERNEL)
