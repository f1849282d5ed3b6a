// Optimiser steps over all parameters in one call, float32.
//
// Contract: optim.h, and minidl/backends/reference/optim.py.
//
// Algorithm: the parameters are one list of chunks that threads claim; a chunk is one pass in which
// every array is read and written once. Limits: memory. Adam moves 28 bytes an element (4 reads, 3
// writes), SGD with momentum 20. In the caches, too: 0.5 M elements at 88 GB/s of the last level,
// and neither a reciprocal with a Newton step for the division nor one for the root changed that.
#include "optim.h"

#include "kernels.h"
#include "math.h"
#include "parallel.h"
#include "rows.h"

namespace KERNEL_ISA {
namespace {

using std::ptrdiff_t;

constexpr ptrdiff_t CHUNK = 16384;

// f(parameter, from, to) for the chunks of all parameters.
template <typename P, typename F>
void for_chunks(const P* parameters, ptrdiff_t count, const F& f) {
    ptrdiff_t total = 0;
    for (ptrdiff_t i = 0; i < count; i++) total += (parameters[i].n + CHUNK - 1) / CHUNK;
    if (!total) return;
    Scratch<ptrdiff_t> places(2 * total);
    ptrdiff_t* place = places.get();
    for (ptrdiff_t i = 0; i < count; i++)
        for (ptrdiff_t at = 0; at < parameters[i].n; at += CHUNK, place += 2) {
            place[0] = i;
            place[1] = at;
        }
    const auto task = [&](ptrdiff_t t) {
        const P& p = parameters[places.get()[2 * t]];
        const ptrdiff_t at = places.get()[2 * t + 1];
        f(p, at, p.n < at + CHUNK ? p.n : at + CHUNK);
    };
    if (total < 4)
        for (ptrdiff_t t = 0; t < total; t++) task(t);
    else
        parallel_for(total, task);
}

}  // namespace

void adam_step_f32(const AdamStep& a) {
    const float decay = a.decoupled ? 1.0f - a.lr * a.weight_decay : 1.0f;
    const bool coupled = a.weight_decay != 0.0f && !a.decoupled;
    for_chunks(a.parameters, a.count, [&](const AdamParameter& p, ptrdiff_t from, ptrdiff_t to) {
        const float per_root = 1.0f / p.root;
        for_row(to - from, [&](ptrdiff_t at, int n) {
            const ptrdiff_t i = from + at;
            vf x = get(p.p + i, n), g = get(p.g + i, n);
            if (a.maximize) g = -g;
            if (coupled) g += x * a.weight_decay;
            const vf average = get(p.average + i, n);
            // from the end that is nearer, as torch.lerp does
            const vf m =
                a.rest1 < 0.5f ? average + (g - average) * a.rest1 : g - (g - average) * a.beta1;
            vf v = get(p.square + i, n) * a.beta2 + g * g * a.rest2;
            put(p.average + i, m, n);
            put(p.square + i, v, n);
            if (p.largest) {
                v = max(get(p.largest + i, n), v);
                put(p.largest + i, v, n);
            }
            const vf divisor = root(v) * per_root + a.eps;
            put(p.p + i, x * decay - p.step_size * m / divisor, n);
        });
    });
}

void sgd_step_f32(const SgdStep& a) {
    for_chunks(a.parameters, a.count, [&](const SgdParameter& p, ptrdiff_t from, ptrdiff_t to) {
        for_row(to - from, [&](ptrdiff_t at, int n) {
            const ptrdiff_t i = from + at;
            const vf x = get(p.p + i, n);
            vf d = get(p.g + i, n);
            if (a.maximize) d = -d;
            if (a.weight_decay != 0.0f) d += x * a.weight_decay;
            if (p.buffer) {
                const vf v =
                    p.first ? d : get(p.buffer + i, n) * a.momentum + d * (1.0f - a.dampening);
                put(p.buffer + i, v, n);
                d = a.nesterov ? d + v * a.momentum : v;
            }
            put(p.p + i, x - d * a.lr, n);
        });
    });
}

// Sum of squares of every array, in double precision: chunks in a fixed order.
void square_sums_f32(double* sums, const FlatArrays& a) {
    using vd = vec<double>;
    typedef float half_vector __attribute__((vector_size(WIDTH / 2)));
    parallel_for(a.count, [&](ptrdiff_t k) {
        const float* x = a.arrays[k];
        constexpr int H = lanes<double>;
        vd sum[4] = {};
        ptrdiff_t i = 0;
        for (; i + 4 * H <= a.sizes[k]; i += 4 * H)
            for (int j = 0; j < 4; j++) {
                half_vector part;
                __builtin_memcpy(&part, x + i + j * H, sizeof(part));
                const vd wide = __builtin_convertvector(part, vd);
                sum[j] += wide * wide;
            }
        double total = reduce_add<double>((sum[0] + sum[1]) + (sum[2] + sum[3]));
        for (; i < a.sizes[k]; i++) total += double(x[i]) * double(x[i]);
        sums[k] = total;
    });
}

void scale_f32(const FlatArrays& a, float factor) {
    struct Part {
        float* x;
        ptrdiff_t n;
    };
    Scratch<Part> parts(a.count ? a.count : 1);
    for (ptrdiff_t k = 0; k < a.count; k++) parts.get()[k] = {a.arrays[k], a.sizes[k]};
    for_chunks(parts.get(), a.count, [&](const Part& p, ptrdiff_t from, ptrdiff_t to) {
        for_row(to - from, [&](ptrdiff_t at, int n) {
            put(p.x + from + at, get(p.x + from + at, n) * factor, n);
        });
    });
}

}  // namespace KERNEL_ISA
