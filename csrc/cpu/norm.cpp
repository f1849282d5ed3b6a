// Layer and root-mean-square normalisation of contiguous rows, float32, forward and backward.
//
// Contract: kernels.h and minidl/backends/reference/norm.py. Sums run in a fixed order; those over
// rows, for the weight and the bias, over a number of row groups that depends on the sizes alone.
//
// Algorithm: a row stays in the first level cache for its passes: mean, variance about it, result;
// sums have four accumulators. Four rows side by side, which load weights once, take 0.10 us a row
// of 768 in cache, not 0.16, but break the order in which memory is read: from there 0.3, not 0.2.
// Limits: memory; forward reads and writes once, backward reads x and g and writes dx.
#include "kernels.h"
#include "math.h"
#include "rows.h"

namespace KERNEL_ISA {
namespace {

using std::ptrdiff_t;

constexpr ptrdiff_t GROUPS = 32;  // at most: partial sums of weight and bias gradients

ptrdiff_t group_count(ptrdiff_t rows, ptrdiff_t width) {
    const ptrdiff_t worth = rows * width / 16384;
    return worth < 1 ? 1 : worth < GROUPS ? worth : GROUPS;
}

// dx and this group's sums of g xhat and g. mean is null for RMS normalisation.
void backward_rows(const NormBackward& a, ptrdiff_t from, ptrdiff_t to, float* dweight,
                   float* dbias) {
    const ptrdiff_t width = a.width;
    for (ptrdiff_t r = from; r < to; r++) {
        const float *g = a.g + r * a.g_row, *x = a.x + r * width;
        float* dx = a.dx + r * width;
        const float rate = a.rstd[r], center = a.mean ? a.mean[r] : 0.0f;
        vf products[4] = {}, sums[4] = {};
        for_row_by_fours(width, [&](ptrdiff_t i, int n, int k) INLINED {
            const vf gi = get(g + i, n), xhat = first((get(x + i, n) - center) * rate, n);
            const vf gw = a.weight ? gi * get(a.weight + i, n) : gi;
            products[k] += gw * xhat;
            sums[k] += gw;
            if (dweight) put(dweight + i, get(dweight + i, n) + gi * xhat, n);
            if (dbias) put(dbias + i, get(dbias + i, n) + gi, n);
        });
        const float slope = joined(products) / float(width);
        const float shift = a.mean ? joined(sums) / float(width) : 0.0f;
        for_row(width, [&](ptrdiff_t i, int n) INLINED {
            const vf gi = get(g + i, n), xhat = (get(x + i, n) - center) * rate;
            const vf gw = a.weight ? gi * get(a.weight + i, n) : gi;
            put(dx + i, (gw - xhat * slope - shift) * rate, n);
        });
    }
}

}  // namespace

void layer_norm_f32(const LayerNorm& a) {
    const ptrdiff_t width = a.width;
    const float *const weight = a.weight, *const bias = a.bias;
    for_rows(a.rows, width, [&](ptrdiff_t r) {
        const float* row = a.x + r * width;
        float* to = a.out + r * width;
        vf sums[4] = {};
        if (a.added) {
            const float *x = row, *added = a.added + r * width;
            float* total = a.total + r * width;
            for_row_by_fours(width, [&](ptrdiff_t i, int n, int k) INLINED {
                const vf sum = get(x + i, n) + get(added + i, n);
                put(total + i, sum, n);
                sums[k] += sum;
            });
            row = total;
        } else {
            for_row_by_fours(
                width, [&](ptrdiff_t i, int n, int k) INLINED { sums[k] += get(row + i, n); });
        }
        const float near = joined(sums) / float(width);
        // the mean again from the deviations: equal elements must give zeros, however small eps is
        vf rests[4] = {}, squares[4] = {};
        for_row_by_fours(width, [&](ptrdiff_t i, int n, int k) INLINED {
            const vf d = first(get(row + i, n) - near, n);
            rests[k] += d;
            squares[k] += d * d;
        });
        const float rest = joined(rests) / float(width), center = near + rest;
        const float rate =
            1.0f / __builtin_sqrtf(joined(squares) / float(width) - rest * rest + a.eps);
        for_row(width, [&](ptrdiff_t i, int n) INLINED {
            vf y = (get(row + i, n) - center) * rate;
            if (weight) y *= get(weight + i, n);
            if (bias) y += get(bias + i, n);
            put(to + i, y, n);
        });
        a.mean[r] = center;
        a.rstd[r] = rate;
    });
}

void rms_norm_f32(float* out, float* rstd, const float* x, const float* weight, float eps,
                  ptrdiff_t rows, ptrdiff_t width) {
    for_rows(rows, width, [&](ptrdiff_t r) {
        const float* row = x + r * width;
        float* to = out + r * width;
        vf squares[4] = {};
        for_row_by_fours(width, [&](ptrdiff_t i, int n, int k) INLINED {
            const vf y = get(row + i, n);
            squares[k] += y * y;
        });
        const float rate = 1.0f / __builtin_sqrtf(joined(squares) / float(width) + eps);
        for_row(width, [&](ptrdiff_t i, int n) INLINED {
            vf y = get(row + i, n) * rate;
            if (weight) y *= get(weight + i, n);
            put(to + i, y, n);
        });
        rstd[r] = rate;
    });
}

void norm_backward_f32(const NormBackward& a) {
    const ptrdiff_t groups = group_count(a.rows, a.width), width = a.width;
    const bool sums = a.dweight || a.dbias;
    Scratch<float> partial(sums && groups > 1 ? 2 * groups * width : 1);
    parallel_for(groups, [&](ptrdiff_t t) {
        float *dweight = a.dweight, *dbias = a.dbias;
        if (sums && groups > 1) {
            dweight = a.dweight ? partial.get() + 2 * t * width : nullptr;
            dbias = a.dbias ? partial.get() + (2 * t + 1) * width : nullptr;
        }
        for (ptrdiff_t i = 0; i < width; i++) {
            if (dweight) dweight[i] = 0.0f;
            if (dbias) dbias[i] = 0.0f;
        }
        backward_rows(a, a.rows * t / groups, a.rows * (t + 1) / groups, dweight, dbias);
    });
    if (!sums || groups == 1) return;
    // the sums of the groups in their order; those of weight and bias lie side by side
    const auto join = [&](float* to, const float* parts) {
        for_row(width, [&](ptrdiff_t i, int n) {
            vf sum{};
            for (ptrdiff_t t = 0; t < groups; t++) sum += get(parts + 2 * t * width + i, n);
            put(to + i, sum, n);
        });
    };
    if (a.dweight) join(a.dweight, partial.get());
    if (a.dbias) join(a.dbias, partial.get() + width);
}

}  // namespace KERNEL_ISA
