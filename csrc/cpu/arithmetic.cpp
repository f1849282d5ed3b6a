// Sums, differences, products, quotients and maxima of two arrays, choices, float32 and bfloat16;
// comparisons of bfloat16.
//
// Contract: Arithmetic, Selection and Comparison in kernels.h; each result is that of the float32
// operation, rounded once. A NaN on either side gives NaN.
//
// Limits: memory; above the first level cache the loads and stores, not the operation.
#include "kernels.h"
#include "pointwise.h"

namespace KERNEL_ISA {
namespace {

using std::ptrdiff_t;

template <typename T, typename F>
ALWAYS_INLINE void arithmetic(const Arithmetic<T>& a, const F& f) {
    if (!a.b) {
        const vf number = splat(a.number);
        pointwise(a.out, a.n, [&](vf x) { return f(x, number); }, a.a);
    } else if (a.period == a.n) {
        pointwise(a.out, a.n, f, a.a, a.b);
    } else if (a.each) {
        in_chunks(a.n, [&](ptrdiff_t from, ptrdiff_t end) {
            for (ptrdiff_t next; from < end; from = next) {
                const ptrdiff_t at = from / a.each;
                next = (at + 1) * a.each < end ? (at + 1) * a.each : end;
                const vf number = splat(wide(a.b + at, 1)[0]);
                span(a.out, from, next, [&](vf x) { return f(x, number); }, a.a);
            }
        });
    } else {
        in_chunks(a.n, [&](ptrdiff_t from, ptrdiff_t end) {
            ptrdiff_t at = from % a.period;
            while (from < end) {  // up to the end of b, again and again
                const ptrdiff_t n = a.period - at < end - from ? a.period - at : end - from;
                span(a.out + from, 0, n, f, a.a + from, a.b + at);
                from += n;
                at = 0;
            }
        });
    }
}

typedef signed char byte_vector __attribute__((vector_size(lanes<float>)));

// The lanes whose byte is not 0.
ALWAYS_INLINE vi mask_of(const unsigned char* p, int n) {
    byte_vector x{};
    std::memcpy(&x, p, std::size_t(n));
    return __builtin_convertvector(x, vi) != 0;
}

template <bool A, bool B, typename T>
void choice(const Selection<T>& c) {
    constexpr int L = lanes<float>;
    const vf x = splat(c.a_number), y = splat(c.b_number);
    in_chunks(c.n, [&](ptrdiff_t from, ptrdiff_t end) {
        ptrdiff_t i = from;
        for (; i + L <= end; i += L)
            narrow(c.out + i,
                   select(mask_of(c.mask + i, L), A ? wide(c.a + i) : x, B ? wide(c.b + i) : y));
        if (i < end) {
            const int n = int(end - i);
            narrow(
                c.out + i,
                select(mask_of(c.mask + i, n), A ? wide(c.a + i, n) : x, B ? wide(c.b + i, n) : y),
                n);
        }
    });
}

template <typename T>
void choose(const Selection<T>& c) {
    if (c.a)
        c.b ? choice<true, true>(c) : choice<true, false>(c);
    else
        c.b ? choice<false, true>(c) : choice<false, false>(c);
}

}  // namespace

void where_f32(const Selection<float>& c) {
    choose(c);
}
void where_bf16(const Selection<bfloat16>& c) {
    choose(c);
}

template <typename F>
ALWAYS_INLINE void compare(const Comparison& c, const F& holds) {
    constexpr int L = lanes<float>;
    const vf number = splat(c.number);
    in_chunks(c.n, [&](ptrdiff_t from, ptrdiff_t end) {
        for (ptrdiff_t i = from; i < end; i += L) {
            const int n = end - i < L ? int(end - i) : L;
            const vf x = n == L ? wide(c.a + i) : wide(c.a + i, n);
            const vf y = !c.b ? number : n == L ? wide(c.b + i) : wide(c.b + i, n);
            const vi mask = holds(x, y);
#if defined(__AVX512F__)
            const __m128i ones = _mm_maskz_set1_epi8(_mm512_movepi32_mask((__m512i)mask), 1);
#else
            const byte_vector ones = __builtin_convertvector(mask, byte_vector) & 1;
#endif
            std::memcpy(c.out + i, &ones, std::size_t(n));
        }
    });
}

void compare_bf16(const Comparison& c) {
    switch (c.order) {
        case Order::EQUAL:
            return compare(c, [](vf x, vf y) { return x == y; });
        case Order::UNEQUAL:
            return compare(c, [](vf x, vf y) { return x != y; });
        case Order::LESS:
            return compare(c, [](vf x, vf y) { return x < y; });
        case Order::LESS_EQUAL:
            return compare(c, [](vf x, vf y) { return x <= y; });
        case Order::GREATER:
            return compare(c, [](vf x, vf y) { return x > y; });
        case Order::GREATER_EQUAL:
            return compare(c, [](vf x, vf y) { return x >= y; });
    }
}

// f and what it is with its sides exchanged
#define ARITHMETIC_OF(T, name, suffix, expression, exchanged)     \
    void name##_##suffix(const Arithmetic<T>& a) {                \
        if (a.turned)                                             \
            arithmetic(a, [](vf x, vf y) { return exchanged; });  \
        else                                                      \
            arithmetic(a, [](vf x, vf y) { return expression; }); \
    }
#define SYMMETRIC_OF(T, name, suffix, expression)             \
    void name##_##suffix(const Arithmetic<T>& a) {            \
        arithmetic(a, [](vf x, vf y) { return expression; }); \
    }
#define ARITHMETIC(name, expression, exchanged)            \
    ARITHMETIC_OF(float, name, f32, expression, exchanged) \
    ARITHMETIC_OF(bfloat16, name, bf16, expression, exchanged)
#define SYMMETRIC(name, expression)            \
    SYMMETRIC_OF(float, name, f32, expression) \
    SYMMETRIC_OF(bfloat16, name, bf16, expression)
SYMMETRIC(add, x + y)
SYMMETRIC(mul, x* y)
SYMMETRIC(maximum, select(x == x, max(x, y), x))
ARITHMETIC(sub, x - y, y - x)
ARITHMETIC(div, x / y, y / x)

}  // namespace KERNEL_ISA
