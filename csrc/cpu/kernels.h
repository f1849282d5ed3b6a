// The table of kernels that every instruction set provides. Outputs come first, sizes last; sizes
// and steps are in elements; arrays are contiguous unless a step is given. What a kernel computes
// is specified by the entry of its name in minidl/backends/reference.
#pragma once

#include <cstddef>
#include <cstdint>

#include "attention.h"
#include "gemm.h"
#include "linear.h"
#include "loss.h"
#include "optim.h"

// Arguments of layer_norm: of the rows of x or, where something is added to them, of the sums,
// which are kept. weight and bias may be null.
struct LayerNorm {
    float *out, *mean, *rstd;
    const float *x, *weight, *bias;
    float eps;
    std::ptrdiff_t rows, width;
    const float* added = nullptr;
    float* total = nullptr;
};

// Arguments of layer_norm_backward and, with a null mean, of rms_norm_backward. weight, dweight and
// dbias may be null. dx (rows, width) may be g or x; the rows of g are g_row apart, which may be 0.
struct NormBackward {
    float *dx, *dweight, *dbias;
    const float *g, *x, *weight, *mean, *rstd;
    std::ptrdiff_t rows, width, g_row;
};

// The upper half of a float32. Kernels compute in float32 and round their results once.
struct bfloat16 {
    std::uint16_t bits;
};

constexpr int FINGERPRINT = 8;

// out[i] = f(in[i]); out may be an input.
using Unary = void(float* out, const float* in, std::ptrdiff_t n);
using Unary16 = void(bfloat16* out, const bfloat16* in, std::ptrdiff_t n);
using Binary = void(float* out, const float* a, const float* b, std::ptrdiff_t n);
// g f'(in[i]); the gradient g has step 1, or 0 where it is one for all.
using Slope = void(float* out, const float* g, std::ptrdiff_t g_step, const float* in,
                   std::ptrdiff_t n);
using Slope16 = void(bfloat16* out, const bfloat16* g, std::ptrdiff_t g_step, const bfloat16* in,
                     std::ptrdiff_t n);
// out[i] = f(a[i], b[i mod period]), of n elements, or with `each` f(a[i], b[i div each]); without
// b the number takes its place, and `turned` makes it f(b, a). out may be a, and b where its period
// is n.
template <typename T>
struct Arithmetic {
    T* out;
    const T *a, *b;
    std::ptrdiff_t n, period;
    float number;
    bool turned;
    std::ptrdiff_t each;
};
// out[i] = 1 where a[i] is so to b[i], of n elements, else 0; without b to the number.
enum class Order { EQUAL, UNEQUAL, LESS, LESS_EQUAL, GREATER, GREATER_EQUAL };
struct Comparison {
    unsigned char* out;
    const bfloat16 *a, *b;
    std::ptrdiff_t n;
    float number;
    Order order;
};
// out[i] = mask[i] ? a[i] : b[i], of n elements; without an array the number takes its place.
template <typename T>
struct Selection {
    T* out;
    const unsigned char* mask;
    const T *a, *b;
    std::ptrdiff_t n;
    float a_number, b_number;
};
// The same, of rows; softmax and its kin. The rows of g are g_row apart, which may be 0.
using Rows = void(float* out, const float* in, std::ptrdiff_t rows, std::ptrdiff_t width);
using RowsBackward = void(float* dx, const float* g, std::ptrdiff_t g_row, const float* out,
                          std::ptrdiff_t rows, std::ptrdiff_t width);

// Every kernel once: declarations, table and initialiser are made from this list.
#define KERNELS(K)                                                                                \
    K(gemm_f32, void(const GemmCall<float>&))                                                     \
    K(gemm_f64, void(const GemmCall<double>&))                                                    \
    /* whether a call would pack B, at a price that counts */                                     \
    K(takes_packed_f32, bool(const GemmCall<float>&))                                             \
    K(takes_packed_f64, bool(const GemmCall<double>&))                                            \
    /* the packed form of the transpose of weight (n, k): returns its elements, fills `to` unless \
     */                                                                                           \
    /* it is null */                                                                              \
    K(pack_weight_f32,                                                                            \
      std::ptrdiff_t(float* to, const float* weight, std::ptrdiff_t n, std::ptrdiff_t k))         \
    K(pack_weight_f64,                                                                            \
      std::ptrdiff_t(double* to, const double* weight, std::ptrdiff_t n, std::ptrdiff_t k))       \
    /* a hash of FINGERPRINT words of x (bytes) */                                                \
    K(fingerprint, void(std::uint64_t* to, const void* x, std::ptrdiff_t bytes))                  \
    K(linear_backward_f32, void(const LinearBackward<float>&))                                    \
    K(linear_backward_f64, void(const LinearBackward<double>&))                                   \
    /* out (n) = sum over the rows of x (rows, n) */                                              \
    K(sum_rows_f32, void(float* out, const float* x, std::ptrdiff_t x_row, std::ptrdiff_t rows,   \
                         std::ptrdiff_t n))                                                       \
    K(sum_rows_f64, void(double* out, const double* x, std::ptrdiff_t x_row, std::ptrdiff_t rows, \
                         std::ptrdiff_t n))                                                       \
    /* out (rows) = sums of the rows of x (rows, n) */                                            \
    K(row_sums_f32, void(float* out, const float* x, std::ptrdiff_t rows, std::ptrdiff_t n))      \
    K(fma_burn, double(std::ptrdiff_t rounds))                                                    \
    K(stream_read, float(const float* x, std::ptrdiff_t n))                                       \
    K(stream_copy, void(float* out, const float* x, std::ptrdiff_t n, bool past))                 \
    K(stream_update, void(float* x, std::ptrdiff_t n))                                            \
    K(stream_step, void(float* x, std::ptrdiff_t n, std::ptrdiff_t apart, int reads))             \
    K(sum_rows_bf16, void(bfloat16 * out, const bfloat16* x, std::ptrdiff_t x_row,                \
                          std::ptrdiff_t rows, std::ptrdiff_t n))                                 \
    K(row_sums_bf16,                                                                              \
      void(bfloat16 * out, const bfloat16* x, std::ptrdiff_t rows, std::ptrdiff_t n))             \
    K(add_f32, void(const Arithmetic<float>&))                                                    \
    K(sub_f32, void(const Arithmetic<float>&))                                                    \
    K(mul_f32, void(const Arithmetic<float>&))                                                    \
    K(div_f32, void(const Arithmetic<float>&))                                                    \
    K(maximum_f32, void(const Arithmetic<float>&))                                                \
    K(add_bf16, void(const Arithmetic<bfloat16>&))                                                \
    K(sub_bf16, void(const Arithmetic<bfloat16>&))                                                \
    K(mul_bf16, void(const Arithmetic<bfloat16>&))                                                \
    K(div_bf16, void(const Arithmetic<bfloat16>&))                                                \
    K(maximum_bf16, void(const Arithmetic<bfloat16>&))                                            \
    K(compare_bf16, void(const Comparison&))                                                      \
    /* in[i] between low and high; NaN stays */                                                   \
    K(clip_f32, void(float* out, const float* in, float low, float high, std::ptrdiff_t n))       \
    K(clip_bf16,                                                                                  \
      void(bfloat16 * out, const bfloat16* in, float low, float high, std::ptrdiff_t n))          \
    K(round_bf16, void(bfloat16 * out, const float* in, std::ptrdiff_t n))                        \
    K(widen_bf16, void(float* out, const bfloat16* in, std::ptrdiff_t n))                         \
    /* out (columns, rows) = x (rows, columns) transposed; rows of both some elements apart */    \
    K(transpose_32, void(std::uint32_t* out, std::ptrdiff_t out_row, const std::uint32_t* x,      \
                         std::ptrdiff_t x_row, std::ptrdiff_t rows, std::ptrdiff_t columns))      \
    K(transpose_16, void(std::uint16_t* out, std::ptrdiff_t out_row, const std::uint16_t* x,      \
                         std::ptrdiff_t x_row, std::ptrdiff_t rows, std::ptrdiff_t columns))      \
    /* the largest (or smallest) of the rows of x (rows, n); NaN where there is one */            \
    K(row_extremes_f32,                                                                           \
      void(float* out, const float* x, std::ptrdiff_t rows, std::ptrdiff_t n, bool smallest))     \
    K(row_extremes_bf16, void(bfloat16 * out, const bfloat16* x, std::ptrdiff_t rows,             \
                              std::ptrdiff_t n, bool smallest))                                   \
    /* the same of its columns */                                                                 \
    K(column_extremes_f32,                                                                        \
      void(float* out, const float* x, std::ptrdiff_t rows, std::ptrdiff_t n, bool smallest))     \
    K(column_extremes_bf16, void(bfloat16 * out, const bfloat16* x, std::ptrdiff_t rows,          \
                                 std::ptrdiff_t n, bool smallest))                                \
    K(neg_f32, Unary)                                                                             \
    K(abs_f32, Unary)                                                                             \
    K(sqrt_f32, Unary)                                                                            \
    K(square_f32, Unary)                                                                          \
    K(cube_f32, Unary)                                                                            \
    K(rsqrt_f32, Unary)                                                                           \
    K(square_bf16, Unary16)                                                                       \
    K(cube_bf16, Unary16)                                                                         \
    K(rsqrt_bf16, Unary16)                                                                        \
    K(neg_bf16, Unary16)                                                                          \
    K(abs_bf16, Unary16)                                                                          \
    K(where_f32, void(const Selection<float>&))                                                   \
    K(where_bf16, void(const Selection<bfloat16>&))                                               \
    K(sqrt_bf16, Unary16)                                                                         \
    K(relu_bf16, Unary16)                                                                         \
    K(exp_bf16, Unary16)                                                                          \
    K(log_bf16, Unary16)                                                                          \
    K(tanh_bf16, Unary16)                                                                         \
    K(sigmoid_bf16, Unary16)                                                                      \
    K(gelu_bf16, Unary16)                                                                         \
    K(gelu_tanh_bf16, Unary16)                                                                    \
    K(silu_bf16, Unary16)                                                                         \
    K(relu_backward_bf16, Slope16)                                                                \
    K(tanh_backward_bf16, Slope16)                                                                \
    K(sigmoid_backward_bf16, Slope16)                                                             \
    K(gelu_backward_bf16, Slope16)                                                                \
    K(gelu_tanh_backward_bf16, Slope16)                                                           \
    K(silu_backward_bf16, Slope16)                                                                \
    /* max(x, 0), NaN for NaN */                                                                  \
    K(relu_f32, Unary)                                                                            \
    K(exp_f32, Unary)                                                                             \
    K(log_f32, Unary)                                                                             \
    K(tanh_f32, Unary)                                                                            \
    K(erf_f32, Unary)                                                                             \
    K(sigmoid_f32, Unary)                                                                         \
    K(log_sigmoid_f32, Unary)                                                                     \
    K(gelu_f32, Unary)                                                                            \
    K(gelu_tanh_f32, Unary)                                                                       \
    K(silu_f32, Unary)                                                                            \
    /* of relu's, tanh's and sigmoid's outputs instead of inputs */                               \
    K(relu_backward_f32, Slope)                                                                   \
    K(tanh_backward_f32, Slope)                                                                   \
    K(sigmoid_backward_f32, Slope)                                                                \
    K(gelu_backward_f32, Slope)                                                                   \
    K(gelu_tanh_backward_f32, Slope)                                                              \
    K(silu_backward_f32, Slope)                                                                   \
    K(bce_logits_f32, Binary)                                                                     \
    K(bce_logits_backward_f32,                                                                    \
      void(float* out, const float* g, const float* x, const float* target, std::ptrdiff_t n))    \
    K(softmax_f32, Rows)                                                                          \
    K(log_softmax_f32, Rows)                                                                      \
    K(softmax_backward_f32, RowsBackward)                                                         \
    K(log_softmax_backward_f32, RowsBackward)                                                     \
    K(layer_norm_f32, void(const LayerNorm&))                                                     \
    K(rms_norm_f32, void(float* out, float* rstd, const float* x, const float* weight, float eps, \
                         std::ptrdiff_t rows, std::ptrdiff_t width))                              \
    K(norm_backward_f32, void(const NormBackward&))                                               \
    K(attention_f32, void(const AttentionCall&))                                                  \
    K(attention_backward_f32, void(const AttentionCall&))                                         \
    K(cross_entropy_f32, void(const CrossEntropy&))                                               \
    K(cross_entropy_backward_f32, void(const CrossEntropy&))                                      \
    K(adam_step_f32, void(const AdamStep&))                                                       \
    K(sgd_step_f32, void(const SgdStep&))                                                         \
    K(square_sums_f32, void(double* sums, const FlatArrays&))                                     \
    K(scale_f32, void(const FlatArrays&, float factor))                                           \
    K(philox_bits,                                                                                \
      void(std::uint32_t* out, std::ptrdiff_t n, std::uint64_t seed, std::uint64_t offset))       \
    K(uniform_f32, void(float* out, std::ptrdiff_t n, std::uint64_t seed, std::uint64_t offset))  \
    K(uniform_f64, void(double* out, std::ptrdiff_t n, std::uint64_t seed, std::uint64_t offset)) \
    /* 1 where the word is below limit <= 2^32 */                                                 \
    K(bernoulli, void(unsigned char* out, std::ptrdiff_t n, std::uint64_t limit,                  \
                      std::uint64_t seed, std::uint64_t offset))                                  \
    /* x times scale where the word is below limit <= 2^32, else times 0 */                       \
    K(dropout_f32, void(float* out, const float* x, std::ptrdiff_t n, float scale,                \
                        std::uint64_t limit, std::uint64_t seed, std::uint64_t offset))           \
    K(embedding_backward_f32,                                                                     \
      void(float* out, const float* g, std::ptrdiff_t g_row, const std::int64_t* index,           \
           std::ptrdiff_t count, std::ptrdiff_t rows, std::ptrdiff_t width,                       \
           std::ptrdiff_t padding))

template <typename Signature>
using Pointer = Signature*;

struct KernelTable {
    const char* isa;
#define K(name, ...) Pointer<__VA_ARGS__> name;
    KERNELS(K)
#undef K
};

// The table in use: the best that the processor has, or the one that MINIDL_ISA names.
const KernelTable& kernels();
// Take the table of that name; false if it was not built or the processor lacks it.
bool use_isa(const char* name);
// The i-th table that the processor has, best last; null behind the last.
const KernelTable* supported(int i);
