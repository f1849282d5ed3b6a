// Every kernel on every instruction set that the machine has, against plain loops in double
// precision; the pool and the allocator. No Python: the sanitizers run this program.
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <random>
#include <thread>
#include <vector>

#include "allocator.h"
#include "kernels.h"
#include "parallel.h"
#include "weights.h"

namespace {

using std::ptrdiff_t;
using Floats = std::vector<float>;

std::mt19937 engine(0);
std::atomic<int> failures{0}, checks{0};
const char* isa = "";

ptrdiff_t pick(std::initializer_list<ptrdiff_t> from) {
    return from.begin()[engine() % from.size()];
}

template <typename T = float>
std::vector<T> normal(ptrdiff_t n) {
    std::normal_distribution<T> draw;
    std::vector<T> x(static_cast<std::size_t>(n));
    for (T& v : x) v = draw(engine);
    return x;
}

void check(const char* what, double got, double want, double room) {
    checks++;
    const bool same =
        std::isnan(want) ? std::isnan(got) : got == want || std::fabs(got - want) <= room;
    if (!same && failures++ < 20)
        std::printf("%s %s: %.9g, not %.9g (room %.2g)\n", isa, what, got, want, room);
}

// ---------------------------------------------------------------- products, attention

#include "selftest_attention.h"
#include "selftest_gemm.h"

void row_sums() {
    for (ptrdiff_t n : {1, 17, 5000, 70000, 300000}) {
        const Floats x = normal(2 * n);
        Floats out(3, 7.0f);
        kernels().row_sums_f32(out.data(), x.data(), 2, n);
        for (ptrdiff_t r = 0; r < 2; r++) {
            double sum = 0;
            for (ptrdiff_t i = 0; i < n; i++) sum += double(x[std::size_t(r * n + i)]);
            check("row_sums", double(out[std::size_t(r)]), sum, 1e-3);
        }
        check("behind row_sums", double(out[2]), 7, 0);
    }
    for (ptrdiff_t rows : {0, 1, 63, 200})
        for (ptrdiff_t n : {1, 17, 130}) {
            const Floats x = normal(rows * n);
            Floats out(std::size_t(n) + 1, 7.0f);
            kernels().sum_rows_f32(out.data(), x.data(), n, rows, n);
            for (ptrdiff_t j = 0; j < n; j++) {
                double sum = 0;
                for (ptrdiff_t i = 0; i < rows; i++) sum += double(x[std::size_t(i * n + j)]);
                check("sum_rows", double(out[std::size_t(j)]), sum, 1e-4);
            }
            check("behind sum_rows", double(out[std::size_t(n)]), 7, 0);
        }
}

// ---------------------------------------------------------------- elements and rows

double phi(double x) {
    return 0.5 * std::erfc(-x * std::sqrt(0.5));
}
double gate(double x) {
    return 1 / (1 + std::exp(-2 * std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
}
double sigma(double x) {
    return 1 / (1 + std::exp(-x));
}

void elements() {
    const KernelTable& k = kernels();
    const struct {
        const char* name;
        Unary* kernel;
        double (*want)(double);
        double per_x = 0;  // room for every unit of |x|
    } functions[] = {
        {"relu", k.relu_f32, [](double x) { return x > 0 ? x : 0; }},
        {"exp", k.exp_f32, [](double x) { return std::exp(x); }},
        {"log", k.log_f32, [](double x) { return std::log(x); }},
        {"tanh", k.tanh_f32, [](double x) { return std::tanh(x); }},
        {"erf", k.erf_f32, [](double x) { return std::erf(x); }},
        {"sigmoid", k.sigmoid_f32, sigma},
        {"log_sigmoid", k.log_sigmoid_f32, [](double x) { return -std::log1p(std::exp(-x)); }},
        {"gelu", k.gelu_f32, [](double x) { return x * phi(x); }, 4.8e-7},
        {"gelu_tanh", k.gelu_tanh_f32, [](double x) { return x * gate(x); }, 4.8e-7},
        {"silu", k.silu_f32, [](double x) { return x * sigma(x); }},
    };
    for (const auto& f : functions)
        for (ptrdiff_t n : {0, 1, 15, 16, 17, 33, 100, 16384 * 5 + 3}) {
            Floats x = normal(n), out(std::size_t(n) + 1, 7.0f);
            for (float& v : x) v *= 3;
            f.kernel(out.data(), x.data(), n);
            for (ptrdiff_t i = 0; i < n; i += 1 + n / 500) {
                const double at = double(x[std::size_t(i)]), want = f.want(at);
                check(f.name, double(out[std::size_t(i)]), want,
                      5e-7 * (1 + std::fabs(want)) + f.per_x * std::fabs(at));
            }
            check(f.name, double(out[std::size_t(n)]), 7, 0);
        }
    const struct {
        const char* name;
        Slope* slope;
        double (*of)(double);
    } slopes[] = {
        {"relu_backward", k.relu_backward_f32, [](double y) { return y > 0 ? y : 0; }},
        {"tanh_backward", k.tanh_backward_f32, [](double y) { return y - y * y * y / 3; }},
        {"sigmoid_backward", k.sigmoid_backward_f32,
         [](double y) { return y * y / 2 - y * y * y / 3; }},
        {"gelu_backward", k.gelu_backward_f32, [](double x) { return x * phi(x); }},
        {"gelu_tanh_backward", k.gelu_tanh_backward_f32, [](double x) { return x * gate(x); }},
        {"silu_backward", k.silu_backward_f32, [](double x) { return x * sigma(x); }},
    };
    for (const auto& f : slopes) {
        const Floats x = normal(333), g = normal(333);
        Floats out(333);
        f.slope(out.data(), g.data(), 1, x.data(), 333);
        for (std::size_t i = 0; i < 333; i++) {
            const double at = double(x[i]), slope = (f.of(at + 1e-6) - f.of(at - 1e-6)) / 2e-6;
            check(f.name, double(out[i]), double(g[i]) * slope, 1e-5);
        }
    }
}

float widened(bfloat16 x) {
    const std::uint32_t raw = std::uint32_t(x.bits) << 16;
    float y;
    std::memcpy(&y, &raw, sizeof(y));
    return y;
}

// Results of bfloat16 kernels are within half a unit of the last of their eight bits.
void sixteen_bits() {
    const KernelTable& k = kernels();
    for (ptrdiff_t n : {1, 15, 16, 33, 16384 * 4 + 5}) {
        std::vector<bfloat16> x(std::size_t(n) + 1, bfloat16{0x3f80}), out(x);
        for (bfloat16& v : x) v.bits = std::uint16_t(0x3e00 + engine() % 0x200);
        k.exp_bf16(out.data(), x.data(), n);
        for (ptrdiff_t i = 0; i < n; i += 1 + n / 500) {
            const double want = std::exp(double(widened(x[std::size_t(i)])));
            check("exp_bf16", double(widened(out[std::size_t(i)])), want, want * 0x1.01p-8);
        }
        check("behind exp_bf16", double(widened(out[std::size_t(n)])), 1, 0);
        double sum = 0;
        for (ptrdiff_t i = 0; i < n; i++) sum += double(widened(x[std::size_t(i)]));
        k.row_sums_bf16(out.data(), x.data(), 1, n);
        check("row_sums_bf16", double(widened(out[0])), sum, sum * 0x1.01p-8);
        k.sum_rows_bf16(out.data(), x.data(), 1, n, 1);
        check("sum_rows_bf16", double(widened(out[0])), sum, sum * 0x1.01p-8);
    }
}

void arithmetic() {
    const KernelTable& k = kernels();
    for (ptrdiff_t n : {1, 16, 17, 100, 16384 * 4 + 6})
        for (ptrdiff_t period : {n, n % 7 ? n : n / 7, ptrdiff_t(0)}) {
            const Floats a = normal(n), b = normal(period);
            Floats out(std::size_t(n) + 1, 7.0f);
            for (bool turned : {false, true}) {
                k.sub_f32(
                    {out.data(), a.data(), period ? b.data() : nullptr, n, period, 3, turned, 0});
                for (ptrdiff_t i = 0; i < n; i += 1 + n / 500) {
                    const double y = period ? double(b[std::size_t(i % period)]) : 3;
                    const double d = double(a[std::size_t(i)]) - y;
                    check("sub", double(out[std::size_t(i)]), turned ? -d : d, 1e-6);
                }
            }
            check("behind sub", double(out[std::size_t(n)]), 7, 0);
        }
}

void moved() {
    const KernelTable& k = kernels();
    for (ptrdiff_t rows : {1, 17, 70, 300})
        for (ptrdiff_t columns : {1, 16, 33, 530}) {
            const Floats x = normal(rows * columns);
            Floats out(x.size() + 1, 7.0f), most(std::size_t(rows > columns ? rows : columns));
            k.transpose_32(reinterpret_cast<std::uint32_t*>(out.data()), rows,
                           reinterpret_cast<const std::uint32_t*>(x.data()), columns, rows,
                           columns);
            for (ptrdiff_t i = 0; i < rows * columns; i++)
                check("transpose_32", double(out[std::size_t(i % columns * rows + i / columns)]),
                      double(x[std::size_t(i)]), 0);
            check("behind transpose_32", double(out.back()), 7, 0);
            std::vector<bfloat16> half(x.size()), turned(x.size() + 1, bfloat16{1});
            k.round_bf16(half.data(), x.data(), rows * columns);
            k.transpose_16(&turned[0].bits, rows, &half[0].bits, columns, rows, columns);
            for (ptrdiff_t i = 0; i < rows * columns; i++) {
                const double want = double(x[std::size_t(i)]);
                check("round_bf16", double(widened(half[std::size_t(i)])), want,
                      std::abs(want) * 0x1.01p-8);
                check("transpose_16", turned[std::size_t(i % columns * rows + i / columns)].bits,
                      half[std::size_t(i)].bits, 0);
            }
            check("behind transpose_16", turned.back().bits, 1, 0);
            k.row_extremes_f32(most.data(), x.data(), rows, columns, false);
            for (ptrdiff_t r = 0; r < rows; r++) {
                const auto first = x.begin() + r * columns;
                check("row_extremes_f32", double(most[std::size_t(r)]),
                      double(*std::max_element(first, first + columns)), 0);
            }
            k.column_extremes_f32(most.data(), x.data(), rows, columns, true);
            for (ptrdiff_t j = 0; j < columns; j++) {
                double least = 1e30;
                for (ptrdiff_t r = 0; r < rows; r++)
                    least = std::min(least, double(x[std::size_t(r * columns + j)]));
                check("column_extremes_f32", double(most[std::size_t(j)]), least, 0);
            }
            std::vector<unsigned char> so(x.size() + 1, 7);
            k.compare_bf16({so.data(), half.data(), nullptr, rows * columns, 0, Order::LESS});
            for (std::size_t i = 0; i < x.size(); i++)
                check("compare_bf16", so[i], widened(half[i]) < 0, 0);
            check("behind compare_bf16", so.back(), 7, 0);
            std::vector<unsigned char> kept(x.size());
            k.bernoulli(kept.data(), rows * columns, std::uint64_t(3) << 30, 5, 7);
            k.dropout_f32(out.data(), x.data(), rows * columns, 2, std::uint64_t(3) << 30, 5, 7);
            for (std::size_t i = 0; i < x.size(); i++)
                check("dropout_f32", double(out[i]), kept[i] ? 2 * double(x[i]) : 0, 0);
            check("behind dropout_f32", double(out.back()), 7, 0);
            k.clip_f32(out.data(), x.data(), -1, 0.5f, rows * columns);
            for (std::size_t i = 0; i < x.size(); i++)
                check("clip_f32", double(out[i]), std::clamp(double(x[i]), -1.0, 0.5), 0);
        }
}

void row_kernels() {
    const KernelTable& k = kernels();
    for (ptrdiff_t width : {1, 5, 16, 31, 130})
        for (ptrdiff_t rows : {1, 3, 700}) {
            const Floats x = normal(rows * width), g = normal(rows * width);
            Floats soft(x.size()), logs(x.size()), back(x.size());
            k.softmax_f32(soft.data(), x.data(), rows, width);
            k.log_softmax_f32(logs.data(), x.data(), rows, width);
            k.softmax_backward_f32(back.data(), g.data(), width, soft.data(), rows, width);
            Floats out(x.size()), mean(std::size_t(rows), 0.0f), rstd(mean), dx(x.size());
            const Floats weight = normal(width), bias = normal(width);
            Floats dweight(std::size_t(width), 0.0f), dbias(dweight);
            LayerNorm norm{out.data(),  mean.data(), rstd.data(), x.data(), weight.data(),
                           bias.data(), 1e-5f,       rows,        width};
            Floats total(x.size()), same(x.size());
            norm.added = g.data();
            norm.total = total.data();
            k.layer_norm_f32(norm);
            same = out;
            norm.x = total.data();
            norm.added = nullptr;
            k.layer_norm_f32(norm);
            check("layer_norm of a sum", out == same, 1, 0);
            for (std::size_t i = 0; i < x.size(); i++)
                check("the sum", double(total[i]), double(x[i] + g[i]), 0);
            norm.x = x.data();
            k.layer_norm_f32(norm);
            k.norm_backward_f32({dx.data(), dweight.data(), dbias.data(), g.data(), x.data(),
                                 weight.data(), mean.data(), rstd.data(), rows, width, width});
            std::vector<double> wanted(std::size_t(width), 0.0);
            for (ptrdiff_t r = 0; r < rows; r++) {
                const float* row = x.data() + r * width;
                double sum = 0, center = 0, spread = 0, dot = 0;
                for (ptrdiff_t j = 0; j < width; j++) {
                    sum += std::exp(double(row[j]));
                    center += double(row[j]) / double(width);
                }
                for (ptrdiff_t j = 0; j < width; j++) {
                    spread += std::pow(double(row[j]) - center, 2) / double(width);
                    dot += double(g[std::size_t(r * width + j)]) * std::exp(double(row[j])) / sum;
                }
                const double rate = 1 / std::sqrt(spread + 1e-5);
                for (ptrdiff_t j = 0; j < width; j++) {
                    const auto at = std::size_t(r * width + j), c = std::size_t(j);
                    const double p = std::exp(double(row[j])) / sum;
                    const double hat = (double(row[j]) - center) * rate;
                    check("softmax", double(soft[at]), p, 1e-6);
                    check("log_softmax", double(logs[at]), std::log(p), 1e-5);
                    check("softmax_backward", double(back[at]), p * (double(g[at]) - dot), 2e-6);
                    check("layer_norm", double(out[at]), hat * double(weight[c]) + double(bias[c]),
                          1e-4 * (1 + std::fabs(hat)));
                    wanted[c] += double(g[at]) * hat;
                }
            }
            for (std::size_t j = 0; j < wanted.size(); j++)
                check("layer_norm weight", double(dweight[j]), wanted[j], 3e-3);
        }
}

// ---------------------------------------------------------------- losses, optimisers

void training() {
    const KernelTable& k = kernels();
    const ptrdiff_t rows = 9, classes = 37;
    const Floats x = normal(rows * classes), g(std::size_t(rows), 1.0f);
    std::vector<std::int64_t> target(static_cast<std::size_t>(rows));
    for (auto& t : target) t = std::int64_t(engine() % std::size_t(classes));
    target[2] = -100;
    Floats losses(std::size_t(rows), 0.0f), lse(losses), dx(x.size());
    float total = 0.0f;
    CrossEntropy c{rows,          classes,    x.data(), target.data(), nullptr, -100,     0.0f,
                   losses.data(), lse.data(), &total,   g.data(),      1,       dx.data()};
    k.cross_entropy_f32(c);
    check("cross entropy, rows that count", double(total), double(rows - 1), 0.0);
    k.cross_entropy_backward_f32(c);
    for (ptrdiff_t r = 0; r < rows; r++) {
        double sum = 0;
        for (ptrdiff_t j = 0; j < classes; j++)
            sum += std::exp(double(x[std::size_t(r * classes + j)]));
        const std::int64_t t = target[std::size_t(r)];
        const double loss = t < 0 ? 0 : std::log(sum) - double(x[std::size_t(r * classes + t)]);
        check("cross_entropy", double(losses[std::size_t(r)]), loss, 1e-5);
        for (ptrdiff_t j = 0; j < classes; j++) {
            const auto at = std::size_t(r * classes + j);
            const double slope = t < 0 ? 0 : std::exp(double(x[at])) / sum - (j == t);
            check("cross_entropy_backward", double(dx[at]), slope, 1e-5);
        }
    }

    Floats p = normal(40000), m(p.size(), 0.1f), s(p.size(), 0.2f);
    const Floats start = p, grad = normal(40000);
    const AdamParameter one{p.data(), m.data(), s.data(), nullptr, grad.data(), 40000, 0.01f, 0.5f};
    k.adam_step_f32({&one, 1, 0.01f, 0.9f, 0.999f, 1e-8f, 0.1f, 0.1f, 0.001f, false, true});
    for (std::size_t i = 0; i < p.size(); i += 97) {
        const double mean = 0.9 * 0.1 + 0.1 * double(grad[i]);
        const double square = 0.999 * 0.2 + 0.001 * double(grad[i]) * double(grad[i]);
        check("adam", double(p[i]),
              double(start[i]) * (1 - 0.01 * 0.1) - 0.01 * mean / (std::sqrt(square) / 0.5 + 1e-8),
              1e-5);
    }

    const Floats rows_of = normal(6 * 19);
    const std::int64_t index[] = {4, 0, 4, 7, 2, 0};
    Floats table(9 * 19, 7.0f);
    k.embedding_backward_f32(table.data(), rows_of.data(), 19, index, 6, 9, 19, 2);
    for (int r = 0; r < 9; r++)
        for (int j = 0; j < 19; j++) {
            double sum = 0;
            for (int i = 0; i < 6; i++)
                if (index[i] == r && r != 2) sum += double(rows_of[std::size_t(i * 19 + j)]);
            check("embedding_backward", double(table[std::size_t(r * 19 + j)]), sum, 1e-6);
        }
}

// ---------------------------------------------------------------- pool and allocator

void hammer(int rounds) {
    for (int round = 0; round < rounds; round++) {
        const int n = 1 + round % 97;
        std::vector<std::atomic<int>> hits(static_cast<std::size_t>(n));
        parallel_for(n, [&](ptrdiff_t task) {
            parallel_for(2, [&](ptrdiff_t inner) { hits[std::size_t(task)] += int(inner); });
        });
        for (auto& h : hits) check("pool", h, 1, 0);
    }
}

void pool() {
    isa = "pool";
    set_thread_count(3);
    std::thread one(hammer, 300), two(hammer, 300);
    hammer(300);
    one.join();
    two.join();
#if !defined(__SANITIZE_THREAD__)  // which does not support threads after fork
    const pid_t child = fork();
    if (!child) {
        failures = 0;
        hammer(50);
        _exit(failures ? 1 : 0);
    }
    int status = 1;
    waitpid(child, &status, 0);
    check("after fork", status, 0, 0);
#endif
    bool caught = false;
    try {
        parallel_for(8, [](ptrdiff_t task) {
            if (task == 5) throw std::bad_alloc();
        });
    } catch (const std::bad_alloc&) {
        caught = true;
    }
    check("a failed task", caught, 1, 0);
}

void allocator() {
    isa = "allocator";
    const auto churn = [] {
        std::vector<std::pair<unsigned char*, std::size_t>> held;
        std::mt19937 local(1);
        for (int round = 0; round < 4000; round++) {
            const std::size_t size = 1 + local() % (local() % 8 ? 2000 : 300000);
            auto* p = static_cast<unsigned char*>(round % 3 ? allocator_malloc(nullptr, size)
                                                            : allocator_calloc(nullptr, size, 1));
            if (reinterpret_cast<std::uintptr_t>(p) % 64) std::abort();
            p[0] = p[size - 1] = static_cast<unsigned char>(size);
            held.emplace_back(p, size);
            if (held.size() > 50) {
                const std::size_t i = local() % held.size();
                auto [old, bytes] = held[i];
                if (old[0] != static_cast<unsigned char>(bytes)) std::abort();
                if (local() % 4 == 0) {
                    old = static_cast<unsigned char*>(allocator_realloc(nullptr, old, 2 * bytes));
                    if (old[0] != static_cast<unsigned char>(bytes)) std::abort();
                    bytes *= 2;
                }
                allocator_free(nullptr, old, bytes);
                held[i] = held.back();
                held.pop_back();
            }
        }
        for (auto [p, size] : held) allocator_free(nullptr, p, size);
    };
    std::thread one(churn), two(churn);
    one.join();
    two.join();
#if !defined(__SANITIZE_ADDRESS__)  // under which nothing is
    check("kept", allocator_kept() > 0, 1, 0);
#endif
    allocator_trim();
    check("trimmed", double(allocator_kept()), 0, 0);
#if !defined(__SANITIZE_ADDRESS__)
    // The blocks that have waited longest go: after the first ones and one more of another size
    // than the limit holds, those of the latter are all there.
    constexpr std::size_t MB = std::size_t(1) << 20;
    const auto fill = [](std::size_t size, int count) {
        std::vector<void*> blocks;
        for (int i = 0; i < count; i++) blocks.push_back(allocator_malloc(nullptr, size));
        for (void* p : blocks) allocator_free(nullptr, p, size);
        return blocks;
    };
    fill(32 * MB, 20);
    check("the limit", double(allocator_kept()), 512 * double(MB), 0);
    const std::vector<void*> made = fill(24 * MB, 5);
    check("others went", double(allocator_kept()), (5 * 24 + 12 * 32) * double(MB), 0);
    for (auto p = made.rbegin(); p != made.rend(); ++p)
        check("what came last is taken first", allocator_malloc(nullptr, 24 * MB) == *p, 1, 0);
    check("taken", double(allocator_kept()), 12 * 32 * double(MB), 0);
    for (void* p : made) allocator_free(nullptr, p, 24 * MB);
    allocator_free(nullptr, allocator_malloc(nullptr, 600 * MB), 600 * MB);
    check("too large to keep", double(allocator_kept()), (5 * 24 + 12 * 32) * double(MB), 0);
    allocator_trim();
#endif
}

}  // namespace

int main() {
    for (int i = 0; const KernelTable* table = supported(i); i++) {
        isa = table->isa;
        use_isa(isa);
        const int before = checks;
        for (int threads : {1, 3}) {
            set_thread_count(threads);
            products(kernels().gemm_f32);
            products(kernels().gemm_f64);
            linear_gradients(kernels().linear_backward_f32);
            linear_gradients(kernels().linear_backward_f64);
            packed_weights(kernels().gemm_f32, kernels().takes_packed_f32);
            packed_weights(kernels().gemm_f64, kernels().takes_packed_f64);
            row_sums();
            elements();
            sixteen_bits();
            arithmetic();
            moved();
            row_kernels();
            attention();
            training();
        }
        std::printf("%s: %d checks\n", isa, int(checks) - before);
    }
    pool();
    allocator();
    std::printf("%d checks, %d failures\n", int(checks), int(failures));
    return failures ? 1 : 0;
}
