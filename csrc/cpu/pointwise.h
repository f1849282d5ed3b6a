// One pass over arrays, element by element; included by the files of such kernels.
#pragma once

#include "bfloat.h"
#include "math.h"
#include "parallel.h"

namespace KERNEL_ISA {
namespace {

constexpr std::ptrdiff_t CHUNK = 16384;  // elements of a task: some 5 us and more
// Results from this size on are stored past the caches (half of a common last level): a sum of
// 2 x 16 MB takes 1.2 ms, not 2.4.
constexpr std::ptrdiff_t LARGE = std::ptrdiff_t(16) << 20;

template <typename F, typename... In>
ALWAYS_INLINE Two applied(const F& f, In... in) {
    return {f(in.first...), f(in.second...)};
}

// out[i] = f(x[i]...) for elements from..end, vector by vector.
template <bool STREAMED = false, typename T, typename F, typename... In>
ALWAYS_INLINE void span(T* out, std::ptrdiff_t from, std::ptrdiff_t end, const F& f,
                        const In*... in) {
    constexpr int L = lanes<float>;
    std::ptrdiff_t i = from;
    for (; i + 2 * L <= end; i += 2 * L)  // two at a time: the chains of one hide the other's
        narrow_two<STREAMED>(out + i, applied(f, wide_two(in + i)...));
    for (; i < end; i += L) {
        const int part = end - i < L ? int(end - i) : L;
        narrow(out + i, f(wide(in + i, part)...), part);
    }
}

// body(from, end) for the chunks of n elements.
template <typename F>
ALWAYS_INLINE void in_chunks(std::ptrdiff_t n, const F& body) {
    const auto chunk = [&](std::ptrdiff_t c) {
        body(c * CHUNK, n < (c + 1) * CHUNK ? n : (c + 1) * CHUNK);
    };
    const std::ptrdiff_t chunks = (n + CHUNK - 1) / CHUNK;
    if (chunks < 4)
        for (std::ptrdiff_t c = 0; c < chunks; c++) chunk(c);
    else
        parallel_for(chunks, chunk);
}

// out[i] = f(x[i]...); arrays are contiguous and may be the same, of float32 or bfloat16.
template <typename T, typename F, typename... In>
ALWAYS_INLINE void pointwise(T* out, std::ptrdiff_t n, const F& f, const In*... in) {
    if (n * std::ptrdiff_t(sizeof(T)) >= LARGE &&
        reinterpret_cast<std::uintptr_t>(out) % WIDTH == 0)
        return in_chunks(n, [&](std::ptrdiff_t from, std::ptrdiff_t end) {
            span<true>(out, from, end, f, in...);
            stream_end();
        });
    in_chunks(n, [&](std::ptrdiff_t from, std::ptrdiff_t end) { span(out, from, end, f, in...); });
}

}  // namespace
}  // namespace KERNEL_ISA
