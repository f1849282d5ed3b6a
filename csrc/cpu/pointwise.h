// One pass over arrays of float32, element by element; included by the files of such kernels.
#pragma once

#include "math.h"
#include "parallel.h"

namespace KERNEL_ISA {
namespace {

constexpr std::ptrdiff_t CHUNK = 16384;  // elements of a task: 64 KB, some 5 us and more

// out[i] = f(x[i]...), vector by vector; arrays are contiguous and may be the same.
template <typename F, typename... In>
ALWAYS_INLINE void pointwise(float* out, std::ptrdiff_t n, const F& f, const In*... in) {
    constexpr int L = lanes<float>;
    const auto chunk = [&](std::ptrdiff_t c) {
        const std::ptrdiff_t end = n < (c + 1) * CHUNK ? n : (c + 1) * CHUNK;
        std::ptrdiff_t i = c * CHUNK;
        for (; i + 2 * L <= end; i += 2 * L) {  // two at a time: the chains of one hide the other's
            const vf first = f(load(in + i)...), second = f(load(in + i + L)...);
            store(out + i, first);
            store(out + i + L, second);
        }
        for (; i < end; i += L) {
            const int part = end - i < L ? int(end - i) : L;
            store_part(out + i, f(load_part(in + i, part)...), part);
        }
    };
    const std::ptrdiff_t chunks = (n + CHUNK - 1) / CHUNK;
    if (chunks < 4)
        for (std::ptrdiff_t c = 0; c < chunks; c++) chunk(c);
    else
        parallel_for(chunks, chunk);
}

}  // namespace
}  // namespace KERNEL_ISA
