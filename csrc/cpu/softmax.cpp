// Softmax and log-softmax of contiguous rows, float32, forward and backward.
//
// Contract: kernels.h; rows of `width` elements follow each other; out may be the input. Sums run
// in a fixed order within a row, so results do not depend on the number of threads.
//
// Algorithm: two or three passes over a row, which stays in the first level cache: the largest, the
// sum of exponentials, the result. Limits: one read and one write of memory, one exponential an
// element.
#include "kernels.h"
#include "math.h"
#include "rows.h"

namespace KERNEL_ISA {
namespace {

using std::ptrdiff_t;
constexpr int L = lanes<float>;

float largest(const float* x, ptrdiff_t width) {
    vf top = splat(-__builtin_inff());
    ptrdiff_t j = 0;
    // a NaN must win: it is the second operand where both are compared
    for (; j + L <= width; j += L) top = max(top, load(x + j));
    if (j < width) top = max(top, load_part_or(x + j, int(width - j), -__builtin_inff()));
    return reduce_max<float>(top);
}

void softmax_row(float* out, const float* x, ptrdiff_t width) {
    const float top = largest(x, width);
    vf sum{};
    ptrdiff_t j = 0;
    for (; j + L <= width; j += L) {
        const vf e = exp(load(x + j) - top);
        store(out + j, e);
        sum += e;
    }
    if (j < width) {
        const int part = int(width - j);
        const vf e = exp(load_part_or(x + j, part, -__builtin_inff()) - top);
        store_part(out + j, e, part);
        sum += first(e, part);
    }
    const float rate = 1.0f / reduce_add<float>(sum);
    for_row(width, [&](ptrdiff_t i, int n) { put(out + i, get(out + i, n) * rate, n); });
}

float log_sum(const float* x, ptrdiff_t width, float top) {
    vf sum{};
    for_row(width, [&](ptrdiff_t i, int n) { sum += first(exp(get(x + i, n) - top), n); });
    return log(splat(reduce_add<float>(sum)))[0];
}

void log_softmax_row(float* out, const float* x, ptrdiff_t width) {
    const float top = largest(x, width), total = log_sum(x, width, top);
    for_row(width, [&](ptrdiff_t i, int n) { put(out + i, (get(x + i, n) - top) - total, n); });
}

void softmax_backward_row(float* dx, const float* g, const float* out, ptrdiff_t width) {
    vf sums[4] = {};
    for_row_by_fours(width, [&](ptrdiff_t i, int n, int k)
                                INLINED { sums[k] += get(g + i, n) * get(out + i, n); });
    const float dot = joined(sums);
    for_row(width,
            [&](ptrdiff_t i, int n) { put(dx + i, (get(g + i, n) - dot) * get(out + i, n), n); });
}

void log_softmax_backward_row(float* dx, const float* g, const float* out, ptrdiff_t width) {
    vf sums[4] = {};
    for_row_by_fours(width, [&](ptrdiff_t i, int n, int k) INLINED { sums[k] += get(g + i, n); });
    const float total = joined(sums);
    for_row(width, [&](ptrdiff_t i, int n) {
        put(dx + i, get(g + i, n) - exp(get(out + i, n)) * total, n);
    });
}

}  // namespace

void softmax_f32(float* out, const float* x, ptrdiff_t rows, ptrdiff_t width) {
    for_rows(rows, width, [&](ptrdiff_t r) { softmax_row(out + r * width, x + r * width, width); });
}
void log_softmax_f32(float* out, const float* x, ptrdiff_t rows, ptrdiff_t width) {
    for_rows(rows, width,
             [&](ptrdiff_t r) { log_softmax_row(out + r * width, x + r * width, width); });
}
void softmax_backward_f32(float* dx, const float* g, ptrdiff_t g_row, const float* out,
                          ptrdiff_t rows, ptrdiff_t width) {
    for_rows(rows, width, [&](ptrdiff_t r) {
        softmax_backward_row(dx + r * width, g + r * g_row, out + r * width, width);
    });
}
void log_softmax_backward_f32(float* dx, const float* g, ptrdiff_t g_row, const float* out,
                              ptrdiff_t rows, ptrdiff_t width) {
    for_rows(rows, width, [&](ptrdiff_t r) {
        log_softmax_backward_row(dx + r * width, g + r * g_row, out + r * width, width);
    });
}

}  // namespace KERNEL_ISA
