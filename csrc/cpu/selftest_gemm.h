// The part of selftest.cpp about matrix products; included there, in its namespace.

double activated(Activation which, double x) {
    switch (which) {
        case Activation::relu:
            return std::fmax(x, 0);
        case Activation::gelu:
            return 0.5 * x * std::erfc(-x / std::sqrt(2.0));
        case Activation::gelu_tanh:
            return x / (1 + std::exp(-2 * std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
        case Activation::silu:
            return x / (1 + std::exp(-x));
        case Activation::tanh:
            return std::tanh(x);
        case Activation::sigmoid:
            return 1 / (1 + std::exp(-x));
        default:
            return x;
    }
}

template <typename T>
void products(void (*gemm)(const GemmCall<T>&)) {
    const double eps = sizeof(T) == 4 ? 1.2e-7 : 2.3e-16;
    for (int round = 0; round < 90; round++) {
        const bool parts = round % 15 == 14;  // few tiles and many terms
        const ptrdiff_t m = parts ? pick({1, 3, 25, 48, 65, 130})
                                  : pick({0, 1, 2, 3, 5, 7, 12, 13, 24, 25, 33, 70, 1024}),
                        n = parts ? pick({17, 64, 65, 100})
                                  : pick({0, 1, 7, 15, 16, 17, 32, 48, 63, 64, 65, 130, 300, 1030}),
                        k = parts ? pick({2048, 4099, 8192})
                                  : pick({0, 1, 2, 15, 16, 33, 64, 300, 1100});
        const bool at = engine() % 2, bt = engine() % 2, wide = engine() % 4 == 0;
        const ptrdiff_t gap = wide ? 2 : 1;
        const auto a = normal<T>(m * k * gap + 1), b = normal<T>(k * n * gap + 1);
        const auto bias = normal<T>(n + 1), before = normal<T>(m * n + 1);
        auto c = before;
        GemmCall<T> g{m,
                      n,
                      k,
                      a.data(),
                      gap * (at ? 1 : k),
                      gap * (at ? m : 1),
                      b.data(),
                      gap * (bt ? 1 : n),
                      gap * (bt ? k : 1),
                      c.data(),
                      n,
                      engine() % 2 ? bias.data() : nullptr,
                      engine() % 2 == 0};
        auto pre = before;
        g.activation = engine() % 3 ? Activation::none : Activation(engine() % 7);
        const bool kept = engine() % 2;
        if (kept && g.activation != Activation::none) g.pre = pre.data();
        gemm(g);
        check("behind the input of the activation", double(pre[std::size_t(m * n)]),
              double(before[std::size_t(m * n)]), 0);
        check("behind C", double(c[std::size_t(m * n)]), double(before[std::size_t(m * n)]), 0);
        for (int probe = 0; probe < 50 && m && n; probe++) {
            const ptrdiff_t i = ptrdiff_t(engine() % std::size_t(m)),
                            j = ptrdiff_t(engine() % std::size_t(n));
            double sum = g.bias ? double(g.bias[j]) : 0.0, size = std::fabs(sum) + 1;
            if (g.accumulate) sum += double(before[std::size_t(i * n + j)]);
            for (ptrdiff_t p = 0; p < k; p++) {
                const double term = double(a[std::size_t(i * g.a_row + p * g.a_col)]) *
                                    double(b[std::size_t(p * g.b_row + j * g.b_col)]);
                sum += term;
                size += std::fabs(term);
            }
            const double room = double(k + 3) * eps * size;
            if (g.pre) check("gemm, before", double(pre[std::size_t(i * n + j)]), sum, room);
            check("gemm", double(c[std::size_t(i * n + j)]), activated(g.activation, sum),
                  2 * room + 10 * eps);
        }
    }
}

// Products with a kept copy of the weight, whatever is written into it between them.
template <typename T>
void packed_weights(void (*gemm)(const GemmCall<T>&), bool (*takes)(const GemmCall<T>&)) {
    for (int round = 0; round < 60; round++) {
        const ptrdiff_t m = pick({5, 8, 33, 48}), n = pick({3, 16, 64, 100}),
                        k = pick({1, 15, 64, 100, 1300});
        const auto a = normal<T>(m * k);
        auto w = normal<T>(n * k);
        std::vector<T> c(std::size_t(m * n)), want(c.size());
        for (int call = 0; call < 12; call++) {
            if (call % 4 == 3) w[engine() % w.size()] += T(1);
            if (call == 8)
                for (T& v : w) v = -v;
            GemmCall<T> g{m, n, k, a.data(), k, 1, w.data(), 1, k, want.data(), n, nullptr, false};
            gemm(g);
            g.c = c.data();
            if (takes(g)) g.packed = packed_weight(w.data(), n, k);
            gemm(g);
            check("packed weight", c == want, 1, 0);
        }
    }
}

// All gradients of linear maps; with relu, of the rows whose result is positive.
template <typename T>
void linear_gradients(void (*backward)(const LinearBackward<T>&)) {
    const double eps = sizeof(T) == 4 ? 1.2e-7 : 2.3e-16;
    for (int round = 0; round < 30; round++) {
        const ptrdiff_t rows = pick({0, 1, 47, 100, 777}), outer = pick({0, 1, 5, 64, 130}),
                        inner = pick({0, 1, 17, 96, 512}), gap = pick({0, 3});
        const auto g = normal<T>(rows * (outer + gap) + 1), x = normal<T>(rows * inner + 1);
        const auto w = normal<T>(outer * inner + 1), kept = normal<T>(rows * outer + 1);
        const bool relu = sizeof(T) == 4 && engine() % 2;
        std::vector<T> dx(x.size(), T(7)), dw(w.size(), T(7)), db(std::size_t(outer) + 1, T(7));
        backward({rows, outer, inner, g.data(), outer + gap, x.data(), inner, 1, w.data(), inner, 1,
                  relu ? Activation::relu : Activation::none, relu ? kept.data() : nullptr,
                  dx.data(), dw.data(), db.data()});
        const auto slope = [&](ptrdiff_t r, ptrdiff_t o) {
            const bool dead = relu && kept[std::size_t(r * outer + o)] <= 0;
            return dead ? 0.0 : double(g[std::size_t(r * (outer + gap) + o)]);
        };
        const auto compare = [&](const char* what, T got, ptrdiff_t terms, auto term) {
            double sum = 0, size = 1;
            for (ptrdiff_t i = 0; i < terms; i++) {
                sum += term(i);
                size += std::fabs(term(i));
            }
            check(what, double(got), sum, double(terms + 3) * eps * size);
        };
        for (int probe = 0; probe < 50 && outer && inner; probe++) {
            const auto any = [](ptrdiff_t n) { return ptrdiff_t(engine() % std::size_t(n)); };
            const ptrdiff_t o = any(outer), i = any(inner), r = rows ? any(rows) : 0;
            if (rows)
                compare("linear, dx", dx[std::size_t(r * inner + i)], outer, [&](ptrdiff_t n) {
                    return slope(r, n) * double(w[std::size_t(n * inner + i)]);
                });
            compare("linear, dweight", dw[std::size_t(o * inner + i)], rows, [&](ptrdiff_t n) {
                return slope(n, o) * double(x[std::size_t(n * inner + i)]);
            });
            compare("linear, dbias", db[std::size_t(o)], rows,
                    [&](ptrdiff_t n) { return slope(n, o); });
        }
        check("behind the gradients", double(dx.back() + dw.back() + db.back()), 21, 0);
    }
}
