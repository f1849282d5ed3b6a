// Gradients of a linear map with an activation, all three in one pass over the rows.
//
// Contract: linear.h, and minidl/backends/reference/matmul.py. Results do not depend on the number
// of threads.
//
// Algorithm: rows in blocks. A block of g, multiplied by the derivative of the activation, stays in
// the second level cache while it is used three times, for dx, dweight and dbias, and so does
// dweight, which the blocks are added to. A weight that is too large for that is done in one block.
// Limits: 4 rows outer inner operations; g, x and what was kept are read once.
#include "linear.h"

#include "kernels.h"
#include "parallel.h"
#include "simd.h"

namespace KERNEL_ISA {

Slope relu_backward_f32, tanh_backward_f32, sigmoid_backward_f32;
Slope gelu_backward_f32, gelu_tanh_backward_f32, silu_backward_f32;
void gemm_f32(const GemmCall<float>& g);
void gemm_f64(const GemmCall<double>& g);
void sum_rows_f32(float* out, const float* x, std::ptrdiff_t x_row, std::ptrdiff_t rows,
                  std::ptrdiff_t n);
void sum_rows_f64(double* out, const double* x, std::ptrdiff_t x_row, std::ptrdiff_t rows,
                  std::ptrdiff_t n);

namespace {

using std::ptrdiff_t;

constexpr ptrdiff_t WEIGHT_BYTES = 512 << 10;  // up to here a weight is read in place
constexpr ptrdiff_t BLOCK_BYTES = 384 << 10;   // of g or of x
constexpr ptrdiff_t UNIT = 24;                 // rows: whole tiles
constexpr ptrdiff_t FEWEST = 96;               // rows of a block
constexpr ptrdiff_t TASK_ROWS = 48;            // rows of dx, or of dweight, of a task, at least
constexpr ptrdiff_t TASKS = 8;                 // of each of the two products
constexpr ptrdiff_t SERIAL = ptrdiff_t(64) * 64 * 64;

void multiply(const GemmCall<float>& g) {
    gemm_f32(g);
}
void multiply(const GemmCall<double>& g) {
    gemm_f64(g);
}
void sum_rows(float* out, const float* x, ptrdiff_t x_row, ptrdiff_t rows, ptrdiff_t n) {
    sum_rows_f32(out, x, x_row, rows, n);
}
void sum_rows(double* out, const double* x, ptrdiff_t x_row, ptrdiff_t rows, ptrdiff_t n) {
    sum_rows_f64(out, x, x_row, rows, n);
}

Slope* slope(Activation which) {
    switch (which) {
        case Activation::relu:
            return relu_backward_f32;
        case Activation::tanh:
            return tanh_backward_f32;
        case Activation::sigmoid:
            return sigmoid_backward_f32;
        case Activation::gelu:
            return gelu_backward_f32;
        case Activation::gelu_tanh:
            return gelu_tanh_backward_f32;
        case Activation::silu:
            return silu_backward_f32;
        default:
            return nullptr;
    }
}

ptrdiff_t up(ptrdiff_t n, ptrdiff_t step) {
    return (n + step - 1) / step;
}
ptrdiff_t least(ptrdiff_t a, ptrdiff_t b) {
    return a < b ? a : b;
}
ptrdiff_t most(ptrdiff_t a, ptrdiff_t b) {
    return a < b ? b : a;
}

template <typename T>
void linear_backward(const LinearBackward<T>& l) {
    constexpr ptrdiff_t size = sizeof(T);
    const ptrdiff_t outer = l.outer, inner = l.inner;
    const bool small = outer * inner * size <= WEIGHT_BYTES;
    const ptrdiff_t fit = BLOCK_BYTES / (size * most(1, most(outer, inner))) / UNIT * UNIT;
    const ptrdiff_t limit = most(FEWEST, fit);
    // as equal as can be, whole tiles
    const ptrdiff_t block =
        small && l.rows > limit ? up(up(l.rows, up(l.rows, limit)), UNIT) * UNIT : l.rows;
    Scratch<T> space((l.kept ? block * outer : 0) + outer);
    Scratch<double> total(l.dbias ? outer : 0);
    T *const sums = space.get(), *const scaled = sums + outer;
    for (ptrdiff_t j = 0; l.dbias && j < outer; j++) total.get()[j] = 0.0;
    if (l.dweight && !l.rows)
        for (ptrdiff_t n = 0; n < outer * inner; n++) l.dweight[n] = T(0);
    for (ptrdiff_t at = 0; at < l.rows; at += block) {
        const ptrdiff_t rows = least(block, l.rows - at);
        const T* g = l.g + at * l.g_row;
        ptrdiff_t g_row = l.g_row;
        if constexpr (sizeof(T) == sizeof(float))
            if (l.kept) {
                const ptrdiff_t part = most(1, 16384 / most(1, outer));
                parallel_for(up(rows, part), [&](ptrdiff_t task) {
                    const ptrdiff_t i = task * part, n = least(part, rows - i);
                    for (ptrdiff_t r = i; r < i + n; r++)
                        slope(l.activation)(scaled + r * outer, g + r * g_row, 1,
                                            l.kept + (at + r) * outer, outer);
                });
                g = scaled;
                g_row = outer;
            }
        const auto for_x = [&](ptrdiff_t i, ptrdiff_t n) {
            multiply({n, inner, outer, g + i * g_row, g_row, 1, l.weight, l.w_row, l.w_col,
                      l.dx + (at + i) * inner, inner, nullptr, false});
        };
        const auto for_weight = [&](ptrdiff_t i, ptrdiff_t n) {
            multiply({n, inner, rows, g + i, 1, g_row, l.x + at * l.x_row, l.x_row, l.x_col,
                      l.dweight + i * inner, inner, nullptr, at > 0});
        };
        const auto for_bias = [&] {
            sum_rows(sums, g, g_row, rows, outer);
            for (ptrdiff_t j = 0; j < outer; j++) total.get()[j] += double(sums[j]);
        };
        // Large products are dealt out by the matrix product itself, one after the other.
        if (block == l.rows || rows * outer * inner < SERIAL) {
            if (l.dbias) for_bias();
            if (l.dx) for_x(0, rows);
            if (l.dweight) for_weight(0, outer);
            continue;
        }
        const ptrdiff_t x_part = most(TASK_ROWS, up(up(rows, TASKS), UNIT) * UNIT);
        const ptrdiff_t w_part = most(TASK_ROWS, up(up(outer, TASKS), UNIT) * UNIT);
        const ptrdiff_t x_tasks = l.dx ? up(rows, x_part) : 0;
        const ptrdiff_t w_tasks = l.dweight ? up(outer, w_part) : 0;
        parallel_for(x_tasks + w_tasks + (l.dbias != nullptr), [&](ptrdiff_t task) {
            if (task < x_tasks)
                for_x(task * x_part, least(x_part, rows - task * x_part));
            else if ((task -= x_tasks) < w_tasks)
                for_weight(task * w_part, least(w_part, outer - task * w_part));
            else
                for_bias();
        });
    }
    for (ptrdiff_t j = 0; l.dbias && j < outer; j++) l.dbias[j] = T(total.get()[j]);
}

}  // namespace

void linear_backward_f32(const LinearBackward<float>& l) {
    linear_backward(l);
}
void linear_backward_f64(const LinearBackward<double>& l) {
    linear_backward(l);
}

}  // namespace KERNEL_ISA
