// Cross-entropy of contiguous rows of logits, float32, forward and backward.
//
// Contract: CrossEntropy in loss.h, and minidl/backends/reference/loss.py.
//
// Algorithm: forward takes the largest and the sum of exponentials of a row in two passes over the
// first level cache; backward makes the probabilities again from the log-sum-exp. Limits: logits
// are read once forward, read and written once backward; one exponential an element each.
#include "loss.h"

#include "kernels.h"
#include "math.h"
#include "rows.h"

namespace KERNEL_ISA {
namespace {

using std::ptrdiff_t;

void forward_row(const CrossEntropy& a, ptrdiff_t r) {
    const float* x = a.logits + r * a.classes;
    const std::int64_t t = a.target[r];
    float top = -__builtin_inff();
    vf most = splat(top);
    for_row(a.classes, [&](ptrdiff_t c, int n) {
        most = max(most, n == lanes<float> ? load(x + c) : load_part_or(x + c, n, top));
    });
    top = reduce_max<float>(most);
    vf sum{};
    for_row(a.classes, [&](ptrdiff_t c, int n) { sum += first(exp(get(x + c, n) - top), n); });
    const float level = log(splat(reduce_add<float>(sum)))[0];
    a.lse[r] = level + top;
    if (t == a.ignore_index) {
        a.losses[r] = 0.0f;
        return;
    }
    float loss = (level - (x[t] - top)) * (a.weight ? a.weight[t] : 1.0f);
    if (a.label_smoothing != 0.0f) {
        // level >= 0 >= x - top, so this sum of all classes' losses does not cancel
        vf all{};
        for_row(a.classes, [&](ptrdiff_t c, int n) {
            const vf one = level - (get(x + c, n) - top);
            all += first(a.weight ? one * get(a.weight + c, n) : one, n);
        });
        loss = (1.0f - a.label_smoothing) * loss +
               a.label_smoothing / float(a.classes) * reduce_add<float>(all);
    }
    a.losses[r] = loss;
}

void backward_row(const CrossEntropy& a, ptrdiff_t r, float shares) {
    const float* x = a.logits + r * a.classes;
    float* dx = a.dx + r * a.classes;
    const std::int64_t t = a.target[r];
    if (t == a.ignore_index) {
        for_row(a.classes, [&](ptrdiff_t c, int n) { put(dx + c, vf{}, n); });
        return;
    }
    const float g = a.g[r * a.g_step], level = a.lse[r];
    const float direct = (1.0f - a.label_smoothing) * (a.weight ? a.weight[t] : 1.0f) * g;
    const float factor = direct + shares * g, share = a.label_smoothing / float(a.classes) * g;
    for_row(a.classes, [&](ptrdiff_t c, int n) {
        vf d = exp(get(x + c, n) - level) * factor;
        if (share != 0.0f) d -= a.weight ? share * get(a.weight + c, n) : splat(share);
        put(dx + c, d, n);
    });
    dx[t] -= direct;
}

}  // namespace

void cross_entropy_f32(const CrossEntropy& a) {
    for_rows(a.rows, a.classes, [&](ptrdiff_t r) { forward_row(a, r); });
    double total = 0.0;
    for (ptrdiff_t r = 0; r < a.rows; r++)
        if (a.target[r] != a.ignore_index) total += a.weight ? double(a.weight[a.target[r]]) : 1.0;
    *a.total = float(total);
}

void cross_entropy_backward_f32(const CrossEntropy& a) {
    float shares = 0.0f;  // of the probability that smoothing takes from the target
    if (a.label_smoothing != 0.0f) {
        double total = double(a.classes);
        if (a.weight) {
            total = 0.0;
            for (ptrdiff_t c = 0; c < a.classes; c++) total += double(a.weight[c]);
        }
        shares = float(double(a.label_smoothing) / double(a.classes) * total);
    }
    for_rows(a.rows, a.classes, [&](ptrdiff_t r) { backward_row(a, r, shares); });
}

}  // namespace KERNEL_ISA
