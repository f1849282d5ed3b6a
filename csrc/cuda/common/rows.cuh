// Rows of a matrix, each worked on by a team of threads: a warp, or the whole block.
#pragma once

#include "reduce.cuh"
#include "vec.cuh"

// The threads that share one row. `group` is 32 or the size of the block.
struct Team {
    i64 row;
    int rank, size, place;  // of this thread, of the team, of the team in the block

    __device__ explicit Team(i64 group) {
        size = (int)group;
        rank = threadIdx.x % size;
        place = threadIdx.x / size;
        row = (i64)blockIdx.x * (blockDim.x / size) + place;
    }

    // Every thread of the team gets op over all their x; op(x, identity) is x.
    template <typename Op, typename W>
    __device__ W reduce(W x, Op op, W identity) const {
        return size == 32 ? lanes_reduce<32>(x, op) : block_reduce(x, op, identity);
    }
};

// The pieces of a row that one thread works on, 16 bytes each:
//     for (Pieces<T> piece(team, width, vec); piece.more(); piece.next()) {
//         const Vec<T> x = piece.load(row);
//         for (int i = 0; i < Vec<T>::size; ++i)
//             if (i < piece.count) ... x.at[i] is element piece.at + i ...
//     }
// `vec` says that all pieces are whole and aligned (see in_vecs); else elements move one by one.
template <typename T>
struct Pieces {
    i64 at, width, step;
    int count;
    bool vec;

    __device__ Pieces(const Team& team, i64 width, bool vec)
        : at((i64)team.rank * Vec<T>::size),
          width(width),
          step((i64)team.size * Vec<T>::size),
          vec(vec) {
        measure();
    }
    __device__ bool more() const { return at < width; }
    __device__ void next() {
        at += step;
        measure();
    }
    // The elements of `row` here; those past the end are not read and have any value.
    template <typename U>
    __device__ Vec<U> load(const U* row) const {
        static_assert(sizeof(U) == sizeof(T), "pieces of one size");
        if (vec) return load_vec(row + at);
        Vec<U> found{};
#pragma unroll
        for (int i = 0; i < Vec<U>::size; ++i)
            if (i < count) found.at[i] = row[at + i];
        return found;
    }
    template <typename U>
    __device__ void store(U* row, const Vec<U>& value) const {
        static_assert(sizeof(U) == sizeof(T), "pieces of one size");
        if (vec) {
            store_vec(row + at, value);
            return;
        }
#pragma unroll
        for (int i = 0; i < Vec<U>::size; ++i)
            if (i < count) row[at + i] = value.at[i];
    }

  private:
    __device__ void measure() {
        const i64 rest = width - at;
        count = vec || rest > Vec<T>::size ? Vec<T>::size : (int)rest;
    }
};

// Where a team keeps its row: in shared memory if the launch brought some, at its own place. Each
// thread reads back only what it wrote itself, so no barrier is needed.
template <typename T>
__device__ inline T* kept_row(const Team& team, i64 width) {
    const i64 pitch = (width * sizeof(T) + 15) / 16 * 16;
    return (T*)(dynamic_memory() + team.place * pitch);
}
