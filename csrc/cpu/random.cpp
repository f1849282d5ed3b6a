// Philox4x32-10 (Salmon et al. 2011): bits, uniform numbers, Booleans, dropout.
//
// Contract: minidl/backends/reference/random.py; the numbers are the same on every machine.
//
// Algorithm: as many counters at once as there are 64-bit lanes, one word of the counter a lane. A
// product of 32-bit words fills a lane; what earlier rounds leave in its upper half is ignored by
// the next product, so nothing is masked before the end. Limits: some 3 operations a word.
#include "kernels.h"
#include "parallel.h"
#include "simd.h"

namespace KERNEL_ISA {
namespace {

using std::ptrdiff_t;
using Word = std::uint32_t;
using vu = vec<std::uint64_t>;

constexpr int L = lanes<std::uint64_t>;
constexpr int GROUP = 4 * L;          // words of one group of counters
constexpr ptrdiff_t CHUNK = 1 << 15;  // words of a task, a multiple of every group

// The 64-bit products of the lower halves.
ALWAYS_INLINE vu product(vu a, vu b) {
#if defined(__AVX512F__)
    return (vu)_mm512_mul_epu32((__m512i)a, (__m512i)b);
#elif defined(__AVX2__)
    return (vu)_mm256_mul_epu32((__m256i)a, (__m256i)b);
#elif defined(__x86_64__)
    return (vu)_mm_mul_epu32((__m128i)a, (__m128i)b);
#else
    return (a & 0xffffffff) * (b & 0xffffffff);
#endif
}

template <int... I>
ALWAYS_INLINE vu ramp(std::integer_sequence<int, I...>) {
    return vu{std::uint64_t(I)...};
}
// Lanes of a and b in turn, from the lower or the upper half of both.
template <int HALF, int... I>
ALWAYS_INLINE vu woven(vu a, vu b, std::integer_sequence<int, I...>) {
    return __builtin_shufflevector(a, b, (HALF * (L / 2) + I / 2 + I % 2 * L)...);
}

// The keys of the rounds.
struct Keys {
    explicit Keys(std::uint64_t seed) {
        Word k0 = Word(seed), k1 = Word(seed >> 32);
        for (auto& pair : of) {
            pair[0] = k0;
            pair[1] = k1;
            k0 += 0x9e3779b9u;
            k1 += 0xbb67ae85u;
        }
    }
    std::uint64_t of[10][2];
};

// The words of the L counters from `counter` on.
ALWAYS_INLINE void group(Word* words, std::uint64_t counter, const Keys& keys) {
    using Lanes = std::make_integer_sequence<int, L>;
    const vu at = ramp(Lanes{}) + counter;
    vu c0 = at & 0xffffffff, c1 = at >> 32, c2{}, c3{};
#pragma GCC unroll 10
    for (int round = 0; round < 10; round++) {
        const vu p0 = product(c0, vu{} + 0xd2511f53u), p1 = product(c2, vu{} + 0xcd9e8d57u);
        c0 = (p1 >> 32) ^ c1 ^ keys.of[round][0];
        c1 = p1;
        c2 = (p0 >> 32) ^ c3 ^ keys.of[round][1];
        c3 = p0;
    }
    const vu first = (c0 & 0xffffffff) | c1 << 32, second = (c2 & 0xffffffff) | c3 << 32;
    const vu low = woven<0>(first, second, Lanes{}), high = woven<1>(first, second, Lanes{});
    std::memcpy(words, &low, sizeof(low));
    std::memcpy(words + GROUP / 2, &high, sizeof(high));
}

// f(at, words, count) for the n words of the stream from counter `offset`, group by group.
template <typename F>
void for_words(ptrdiff_t n, std::uint64_t seed, std::uint64_t offset, const F& f) {
    const Keys keys(seed);
    const auto chunk = [&](ptrdiff_t c) {
        const ptrdiff_t end = n < (c + 1) * CHUNK ? n : (c + 1) * CHUNK;
        for (ptrdiff_t at = c * CHUNK; at < end; at += GROUP) {
            Word words[GROUP];
            group(words, offset + std::uint64_t(at / 4), keys);
            if (end - at >= GROUP)
                f(at, words, GROUP);  // a constant count, for the compiler
            else
                f(at, words, int(end - at));
        }
    };
    const ptrdiff_t chunks = (n + CHUNK - 1) / CHUNK;
    if (chunks < 3)
        for (ptrdiff_t c = 0; c < chunks; c++) chunk(c);
    else
        parallel_for(chunks, chunk);
}

}  // namespace

void philox_bits(std::uint32_t* out, ptrdiff_t n, std::uint64_t seed, std::uint64_t offset) {
    for_words(n, seed, offset, [&](ptrdiff_t at, const Word* words, int count) {
        std::memcpy(out + at, words, std::size_t(count) * sizeof(Word));
    });
}

void uniform_f32(float* out, ptrdiff_t n, std::uint64_t seed, std::uint64_t offset) {
    for_words(n, seed, offset, [&](ptrdiff_t at, const Word* words, int count) {
        for (int i = 0; i < count; i++) out[at + i] = float(std::int32_t(words[i] >> 8)) * 0x1p-24f;
    });
}

void uniform_f64(double* out, ptrdiff_t n, std::uint64_t seed, std::uint64_t offset) {
    for_words(2 * n, seed, offset, [&](ptrdiff_t at, const Word* words, int count) {
        for (int i = 0; i < count; i += 2) {
            const std::uint64_t wide = std::uint64_t(words[i + 1]) << 32 | words[i];
            out[(at + i) / 2] = double(std::int64_t(wide >> 11)) * 0x1p-53;
        }
    });
}

void bernoulli(unsigned char* out, ptrdiff_t n, std::uint64_t limit, std::uint64_t seed,
               std::uint64_t offset) {
    if (limit > 0xffffffffu) {
        std::memset(out, 1, std::size_t(n));
        return;
    }
    const Word below = Word(limit);
    for_words(n, seed, offset, [&](ptrdiff_t at, const Word* words, int count) {
        for (int i = 0; i < count; i++) out[at + i] = words[i] < below;
    });
}

void dropout_f32(float* out, const float* x, ptrdiff_t n, float scale, std::uint64_t limit,
                 std::uint64_t seed, std::uint64_t offset) {
    typedef Word words_of __attribute__((vector_size(WIDTH), aligned(4), may_alias));
    const bool all = limit > 0xffffffffu;
    const Word below = Word(limit);
    const vec<float> factor = broadcast(scale), none{};
    for_words(n, seed, offset, [&](ptrdiff_t at, const Word* words, int count) {
        for (int i = 0; i < count; i += lanes<float>) {
            const vec<Word> bits = *reinterpret_cast<const words_of*>(words + i);
            const vec<float> by = all ? factor : bits < below ? factor : none;
            if (count - i >= lanes<float>)
                store(out + at + i, load(x + at + i) * by);
            else
                store_part(out + at + i, load_part(x + at + i, count - i) * by, count - i);
        }
    });
}

}  // namespace KERNEL_ISA
