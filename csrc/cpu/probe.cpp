// The limits of this processor as benchmarks measure them, in the same run as what they limit.
//
// Contract: fma_burn does `rounds` rounds of 12 independent multiply-adds of one vector each and
// returns the operations done; stream_read returns the sum of x (n); stream_copy writes x to out
// (n, both aligned to a vector), past the caches if asked to; stream_update writes x in place;
// stream_step reads 3 or 4 arrays of n, `apart` elements apart, and writes all but the last in
// place, as optimisers do. All must be timed outside.
#include "kernels.h"
#include "simd.h"

namespace KERNEL_ISA {

using std::ptrdiff_t;

double fma_burn(ptrdiff_t rounds) {
    constexpr int CHAINS = 12;
    vec<float> acc[CHAINS];
    // Starts that compilers do not know: a chain that starts at 1 stays there, and GCC drops it.
    for (int i = 0; i < CHAINS; i++) acc[i] = broadcast(float(rounds + i));
    const vec<float> factor = broadcast(0.999f), term = broadcast(0.001f);
    for (ptrdiff_t r = 0; r < rounds; r++) {
#pragma GCC unroll 12
        for (int i = 0; i < CHAINS; i++) acc[i] = acc[i] * factor + term;
    }
    vec<float> sum{};
    for (int i = 0; i < CHAINS; i++) sum += acc[i];
    const double done = 2.0 * CHAINS * lanes<float> * double(rounds);
    return reduce_add<float>(sum) == -1.0f ? 0.0 : done;  // so that the work is not removed
}

float stream_read(const float* x, ptrdiff_t n) {
    constexpr int L = lanes<float>;
    vec<float> sum[8] = {};
    for (ptrdiff_t i = 0; i + 8 * L <= n; i += 8 * L) {
#pragma GCC unroll 8
        for (int j = 0; j < 8; j++) sum[j] += load(x + i + j * L);
    }
    for (int j = 1; j < 8; j++) sum[0] += sum[j];
    return reduce_add<float>(sum[0]);
}

namespace {

template <bool PAST>
void copy(float* out, const float* x, ptrdiff_t n) {
    constexpr int L = lanes<float>;
    for (ptrdiff_t i = 0; i + 8 * L <= n; i += 8 * L) {
        vec<float> v[8];
#pragma GCC unroll 8
        for (int j = 0; j < 8; j++) v[j] = load(x + i + j * L);
#pragma GCC unroll 8
        for (int j = 0; j < 8; j++) {
            if constexpr (PAST)
                stream(out + i + j * L, v[j]);
            else
                store(out + i + j * L, v[j]);
        }
    }
    if constexpr (PAST) stream_end();
}

}  // namespace

void stream_update(float* x, ptrdiff_t n) {
    constexpr int L = lanes<float>;
    const vec<float> factor = broadcast(0.999f);
    for (ptrdiff_t i = 0; i + 8 * L <= n; i += 8 * L) {
#pragma GCC unroll 8
        for (int j = 0; j < 8; j++) store(x + i + j * L, load(x + i + j * L) * factor);
    }
}

namespace {

template <int READS>
void step(float* x, ptrdiff_t n, ptrdiff_t apart) {
    constexpr int L = lanes<float>;
    const vec<float> factor = broadcast(0.999f);
    for (ptrdiff_t i = 0; i + 4 * L <= n; i += 4 * L) {
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++) {
            float* at = x + i + j * L;
            const vec<float> last = load(at + (READS - 1) * apart);
#pragma GCC unroll 3
            for (int r = 0; r < READS - 1; r++)
                store(at + r * apart, load(at + r * apart) * factor + last);
        }
    }
}

}  // namespace

void stream_step(float* x, ptrdiff_t n, ptrdiff_t apart, int reads) {
    if (reads == 3)
        step<3>(x, n, apart);
    else
        step<4>(x, n, apart);
}

void stream_copy(float* out, const float* x, ptrdiff_t n, bool past) {
    if (past)
        copy<true>(out, x, n);
    else
        copy<false>(out, x, n);
}

}  // namespace KERNEL_ISA
