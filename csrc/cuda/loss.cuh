// Cross entropy of classes, its gradient, both at once in place; binary cross entropy of logits.
//
// Contract: minidl/backends/reference/loss.py. Computed in float (double for double). Losses and
// log-sum-exp are W: float for 16-bit logits, which they have too few digits for. A target that is
// neither a class nor ignored counts as ignored; `cross_entropy_total` notes it.
//
// Limits on an H200 per logit of b bytes: b / 4.3 TB/s forward, 2 b backward, 2 b for both in place
// (0.77 ms for 16384 x 50304 of bfloat16); an exp and seven other operations forward, two exps and
// twenty operations in place, of the 28e12 that start per second: 26 are as long as 4 bytes take.
//
// Rows as in softmax.cuh, by a warp or a block. Maximum and sum are kept together by each thread
// (the sum is scaled down when the maximum grows), four loads in flight, and joined at the end:
// forward, a row is read once and not kept. In place it is kept in shared memory, from where the
// gradient is written over it; a row that does not fit there is read again.
#pragma once

#include "common/rows.cuh"

struct CrossEntropy {
    void* logits;                               // (rows, classes); in place: becomes the gradient
    const void *target, *weight, *weights_sum;  // i64; one T per class or null; their sum, a W
    const void *g, *kept_lse;                   // of the backward kernel
    void *losses, *lse, *dx;
    i64 rows, classes, ignored;
    i64 g_step;               // from one row's g to the next
    i64 group;                // threads per row
    i64 cached;               // whether the launch has shared memory for its rows
    double smoothing, share;  // of label smoothing: of all classes, and of each
};

// exp, for x <= 0 or where an error of |x| eps does no harm: half as many operations.
__device__ inline float exp_of(float x) {
    return exp2(x * 1.44269504f);
}
__device__ inline double exp_of(double x) {
    return exp(x);
}

// The part of a row's exponentials that one thread has seen: their sum is sum * exp(top).
template <typename W>
struct Seen {
    W top, sum;

    __device__ Seen() : top(-Limits<W>::infinity()), sum(0) {}
    // NaN gets into the sum alone.
    template <typename T>
    __device__ void add(const Vec<T>& x, int count) {
        W most = top;
#pragma unroll
        for (int i = 0; i < Vec<T>::size; ++i)
            if (i < count) most = widen(x.at[i]) > most ? widen(x.at[i]) : most;
        if (most > top) {
            if (sum != 0) sum *= exp_of(top - most);
            top = most;
        }
        const W from = top == -Limits<W>::infinity() ? W(0) : top;  // -inf - -inf would be NaN
#pragma unroll
        for (int i = 0; i < Vec<T>::size; ++i)
            if (i < count) sum += exp_of(widen(x.at[i]) - from);
    }

    // Those of the whole team; a row of -inf alone has no distribution.
    __device__ void join(const Team& team) {
        const W all = team.reduce(top, Max(), -Limits<W>::infinity());
        if (sum != 0 && top != all) sum *= exp_of(top - all);
        top = all;
        sum = team.reduce(sum, Sum(), W(0));
        if (top == -Limits<W>::infinity()) sum = Limits<W>::nan();
    }
};

// One row: where it is, and its target.
template <typename T>
struct LogitsRow {
    typedef typename Wide<T>::type W;
    T *x, *kept;
    const T* weight;
    i64 target;
    bool vec, used;
    W factor;  // the weight of the target

    __device__ LogitsRow(const CrossEntropy& p, const Team& team)
        : x((T*)p.logits + team.row * p.classes),
          kept(p.cached ? kept_row<T>(team, p.classes) : nullptr),
          weight((const T*)p.weight),
          target(((const i64*)p.target)[team.row]),
          vec(in_vecs<T>(p.classes, p.logits, p.dx)) {
        used = target != p.ignored && target >= 0 && target < p.classes;
        factor = used && weight ? widen(weight[target]) : W(1);
    }
    // The thread whose pieces have the target alone reads and writes it.
    __device__ bool owns_target(const Team& team) const {
        return used && team.rank == target / Vec<T>::size % team.size;
    }
    __device__ W weight_of(i64 place) const { return weight ? widen(weight[place]) : W(1); }

    // Reads the row, and keeps it if there is room; `picked` becomes the target's logit.
    __device__ Seen<W> look(const Team& team, i64 width, W* picked) const {
        Seen<W> seen;
        *picked = owns_target(team) ? widen(x[target]) : W(0);
        Pieces<T> piece(team, width, vec);
        if (vec) {
            const int ahead = sizeof(T) == 8 ? 1 : 4;
            while (piece.more()) {
                Vec<T> x[ahead];
                Pieces<T> later = piece;
#pragma unroll
                for (int i = 0; i < ahead; ++i, later.next())
                    if (later.more()) x[i] = later.load(this->x);
#pragma unroll
                for (int i = 0; i < ahead; ++i, piece.next())
                    if (piece.more()) take(piece, x[i], &seen);
            }
        } else {
            for (; piece.more(); piece.next()) take(piece, piece.load(x), &seen);
        }
        *picked = team.reduce(*picked, Sum(), W(0));
        seen.join(team);
        return seen;
    }

  private:
    __device__ void take(const Pieces<T>& piece, const Vec<T>& read, Seen<W>* seen) const {
        if (kept) piece.store(kept, read);
        seen->add(read, piece.count);
    }
};

// What label smoothing does to a row: of each loss, the share `each` (times its class's weight).
template <typename T>
struct Smoothing {
    typedef typename Wide<T>::type W;
    W rest, each, all;  // of the target; of a class; of all classes

    __device__ explicit Smoothing(const CrossEntropy& p)
        : rest(W(1 - p.smoothing)), each(W(p.share)), all(0) {
        if (p.smoothing == 0) return;
        all = p.weights_sum ? each * *(const W*)p.weights_sum : W(p.smoothing);
    }
};

template <typename T>
__device__ inline void cross_entropy(const CrossEntropy& p) {
    typedef typename Wide<T>::type W;
    const Team team(p.group);
    if (team.row >= p.rows) return;
    const LogitsRow<T> row(p, team);
    const Smoothing<T> share(p);
    W picked;
    const Seen<W> seen = row.look(team, p.classes, &picked);
    const W log_sum = log(seen.sum);
    W loss = share.rest * row.factor * (log_sum - (picked - seen.top));
    if (p.smoothing != 0) {
        const T* again = row.kept ? row.kept : row.x;
        W smooth = 0;  // of terms that are not negative
        for (Pieces<T> piece(team, p.classes, row.vec); piece.more(); piece.next()) {
            const Vec<T> x = piece.load(again);
#pragma unroll
            for (int i = 0; i < Vec<T>::size; ++i)
                if (i < piece.count)
                    smooth += row.weight_of(piece.at + i) * (log_sum - (widen(x.at[i]) - seen.top));
        }
        loss += share.each * team.reduce(smooth, Sum(), W(0));
    }
    if (team.rank == 0) {
        ((W*)p.losses)[team.row] = row.used ? loss : W(0);
        ((W*)p.lse)[team.row] = seen.top + log_sum;
    }
}

template <typename T>
__device__ inline void cross_entropy_backward(const CrossEntropy& p) {
    typedef typename Wide<T>::type W;
    const Team team(p.group);
    if (team.row >= p.rows) return;
    const LogitsRow<T> row(p, team);
    const Smoothing<T> share(p);
    T* dx = (T*)p.dx + team.row * p.classes;
    const W g = ((const W*)p.g)[team.row * p.g_step], lse = ((const W*)p.kept_lse)[team.row];
    const W direct = share.rest * row.factor * g, scale = direct + share.all * g;
    const W each = share.each * g;
    const bool smooth = p.smoothing != 0;
    for (Pieces<T> piece(team, p.classes, row.vec); piece.more(); piece.next()) {
        const Vec<T> x = piece.load(row.x);
        Vec<T> result{};
#pragma unroll
        for (int i = 0; i < Vec<T>::size; ++i) {
            W d = exp_of(widen(x.at[i]) - lse) * scale;
            if (smooth && i < piece.count) d -= each * row.weight_of(piece.at + i);
            result.at[i] = narrow<T>(row.used ? d : W(0));
        }
        piece.store(dx, result);
    }
    if (row.owns_target(team)) {
        W d = exp_of(widen(row.x[row.target]) - lse) * scale - direct;
        if (smooth) d -= each * row.factor;
        dx[row.target] = narrow<T>(d);
    }
}

template <typename T>
__device__ inline void cross_entropy_in_place(const CrossEntropy& p) {
    typedef typename Wide<T>::type W;
    const Team team(p.group);
    if (team.row >= p.rows) return;
    const LogitsRow<T> row(p, team);
    const Smoothing<T> share(p);
    W picked;
    const Seen<W> seen = row.look(team, p.classes, &picked);
    const W log_sum = log(seen.sum), direct = share.rest * row.factor;
    const W scale = (direct + share.all) / seen.sum;
    const T* again = row.kept ? row.kept : row.x;
    const bool smoothed = p.smoothing != 0;
    W smooth = 0;
    for (Pieces<T> piece(team, p.classes, row.vec); piece.more(); piece.next()) {
        const Vec<T> x = piece.load(again);
        Vec<T> result{};
#pragma unroll
        for (int i = 0; i < Vec<T>::size; ++i) {
            const W shifted = widen(x.at[i]) - seen.top;
            W d = exp_of(shifted) * scale;
            if (smoothed && i < piece.count) {
                const W weight = row.weight_of(piece.at + i);
                d -= share.each * weight;
                smooth += weight * (log_sum - shifted);
            }
            result.at[i] = narrow<T>(row.used ? d : W(0));
        }
        piece.store(row.x, result);
    }
    if (row.owns_target(team)) {
        W d = exp_of(picked - seen.top) * scale - direct;
        if (smoothed) d -= share.each * row.factor;
        row.x[row.target] = narrow<T>(d);
    }
    W loss = direct * (log_sum - (picked - seen.top));
    if (smoothed) loss += share.each * team.reduce(smooth, Sum(), W(0));
    if (team.rank == 0) {
        ((W*)p.losses)[team.row] = row.used ? loss : W(0);
        ((W*)p.lse)[team.row] = seen.top + log_sum;
    }
}

// The sum of the weights of the targets that count, by each block; one block alone has the result.
struct Targets {
    const void *target, *weight;
    void *parts, *total, *bad;  // double and u8 per block; W
    i64 rows, classes, ignored, blocks;
};

template <typename T>
__device__ inline void cross_entropy_total(const Targets& p) {
    typedef typename Wide<T>::type W;
    const i64* target = (const i64*)p.target;
    const T* weight = (const T*)p.weight;
    double sum = 0;
    int bad = 0;
#pragma unroll 4
    for (i64 i = global_thread(); i < p.rows; i += p.blocks * blockDim.x) {
        const i64 found = target[i];
        if (found == p.ignored) continue;
        if (found < 0 || found >= p.classes)
            bad = 1;
        else
            sum += weight ? (double)widen(weight[found]) : 1.0;
    }
    sum = block_reduce(sum, Sum(), 0.0);
    bad = block_reduce(bad, Max(), 0);
    if (threadIdx.x != 0) return;
    ((u8*)p.bad)[blockIdx.x] = (u8)bad;
    if (p.blocks == 1)
        *(W*)p.total = (W)sum;
    else
        ((double*)p.parts)[blockIdx.x] = sum;
}

template <typename W>
__device__ inline void cross_entropy_total_of_blocks(const Targets& p) {
    double sum = 0;
    for (i64 i = threadIdx.x; i < p.blocks; i += blockDim.x) sum += ((const double*)p.parts)[i];
    sum = block_reduce(sum, Sum(), 0.0);
    if (threadIdx.x == 0) *(W*)p.total = (W)sum;
}

// Binary cross entropy of logits: elementwise, a thread has 16 bytes. Limits per element of b
// bytes: 2 b in and a W out forward, 4 b backward; an exp, and a logarithm or a division.
struct Binary {
    const void *x, *target, *weight, *positive, *g;
    void* out;
    i64 size;
    i64 weight_period, positive_period, g_period;  // elements after which they repeat; 0: none
};

// An operand that repeats: `next` gives its elements one after the other.
template <typename T>
struct Repeated {
    typedef typename Wide<T>::type W;
    const T* of;
    i64 period, place;

    __device__ Repeated(const void* of, i64 period, i64 size, i64 at)
        : of((const T*)of), period(period), place(period == size || !period ? at : at % period) {}
    __device__ W next(bool there) {
        if (!period || !there) return 1;
        const W value = widen(of[place]);
        if (++place == period) place = 0;
        return value;
    }
};

// The whole of an array as one row that all threads of the grid work on.
__device__ inline Team whole_grid() {
    Team team(32);
    team.row = 0;
    team.rank = (int)global_thread();
    team.size = (int)(gridDim.x * blockDim.x);
    return team;
}

// Results of another size than the elements of a piece: those of its elements from `start` on.
template <typename T, typename W>
__device__ inline void store_part(const Pieces<T>& piece, int start, W* out, const Vec<W>& part) {
    out += piece.at + start;
    if (piece.vec) {
        store_vec(out, part);
        return;
    }
#pragma unroll
    for (int i = 0; i < Vec<W>::size; ++i)
        if (start + i < piece.count) out[i] = part.at[i];
}

// out: W.
template <typename T>
__device__ inline void binary_cross_entropy(const Binary& p) {
    typedef typename Wide<T>::type W;
    const bool vec = in_vecs<T>(p.size, p.x, p.target, p.out);
    for (Pieces<T> piece(whole_grid(), p.size, vec); piece.more(); piece.next()) {
        const Vec<T> x = piece.load((const T*)p.x), target = piece.load((const T*)p.target);
        Repeated<T> weight(p.weight, p.weight_period, p.size, piece.at);
        Repeated<T> positive(p.positive, p.positive_period, p.size, piece.at);
#pragma unroll
        for (int start = 0; start < Vec<T>::size; start += Vec<W>::size) {
            Vec<W> part{};
#pragma unroll
            for (int i = 0; i < Vec<W>::size; ++i) {
                const bool there = start + i < piece.count;
                const W logit = widen(x.at[start + i]), t = widen(target.at[start + i]);
                const W l = log1p(exp(smaller(logit, -logit)));
                const W miss = (logit > 0 ? logit : W(0)) + l;
                const W hit = l - (logit < 0 ? logit : W(0));
                part.at[i] = (1 - t) * miss + positive.next(there) * (t * hit);
                part.at[i] *= weight.next(there);
            }
            store_part(piece, start, (W*)p.out, part);
        }
    }
}

template <typename T>
__device__ inline void binary_cross_entropy_backward(const Binary& p) {
    typedef typename Wide<T>::type W;
    const bool vec = in_vecs<T>(p.size, p.x, p.target, p.out);
    for (Pieces<T> piece(whole_grid(), p.size, vec); piece.more(); piece.next()) {
        const Vec<T> x = piece.load((const T*)p.x), target = piece.load((const T*)p.target);
        Repeated<T> g(p.g, p.g_period, p.size, piece.at);
        Repeated<T> weight(p.weight, p.weight_period, p.size, piece.at);
        Repeated<T> positive(p.positive, p.positive_period, p.size, piece.at);
        Vec<T> result{};
#pragma unroll
        for (int i = 0; i < Vec<T>::size; ++i) {
            const bool there = i < piece.count;
            const W logit = widen(x.at[i]), t = widen(target.at[i]);
            const W e = exp(smaller(logit, -logit));  // sigmoid(|x|) = 1 / (1 + e)
            const W hit = positive.next(there) * t * (logit > 0 ? e : W(1));
            const W miss = (1 - t) * (logit > 0 ? W(1) : e);
            const W d = (miss - hit) / (1 + e) * g.next(there) * weight.next(there);
            result.at[i] = narrow<T>(d);
        }
        piece.store((T*)p.out, result);
    }
}

#define LOSS_KERNELS(K)                                                                     \
    FOR_FLOATS(K, cross_entropy, CrossEntropy, cross_entropy, 512)                          \
    FOR_FLOATS(K, cross_entropy_backward, CrossEntropy, cross_entropy_backward, 512)        \
    FOR_FLOATS(K, cross_entropy_in_place, CrossEntropy, cross_entropy_in_place, 512)        \
    FOR_FLOATS(K, cross_entropy_total, Targets, cross_entropy_total, 512)                   \
    FOR_WIDE(K, cross_entropy_total_of_blocks, Targets, cross_entropy_total_of_blocks, 512) \
    FOR_FLOATS(K, binary_cross_entropy, Binary, binary_cross_entropy, 256)                  \
    FOR_FLOATS(K, binary_cross_entropy_backward, Binary, binary_cross_entropy_backward, 256)
LOSS_KERNELS(KERNEL)
