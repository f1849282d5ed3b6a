// Gradient of a look-up: rows added where the indices say, float32.
//
// Contract: every row of out (rows, width) is the sum of the rows of g whose index names it, in
// their order; `padding` (or -1) names a row that stays 0.
//
// Algorithm: the rows of out are dealt out in ranges; each range is cleared and then takes, of all
// indices, those that fall into it. Limits: memory, out written once and g read once.
#include "kernels.h"
#include "math.h"
#include "parallel.h"
#include "rows.h"

namespace KERNEL_ISA {

using std::ptrdiff_t;

void embedding_backward_f32(float* out, const float* g, const std::int64_t* index, ptrdiff_t count,
                            ptrdiff_t rows, ptrdiff_t width, ptrdiff_t padding) {
    const ptrdiff_t worth = rows * width / 65536 + 1, ranges = worth < 16 ? worth : 16;
    parallel_for(ranges, [&](ptrdiff_t t) {
        const ptrdiff_t from = rows * t / ranges, to = rows * (t + 1) / ranges;
        __builtin_memset(out + from * width, 0, std::size_t((to - from) * width) * sizeof(float));
        for (ptrdiff_t i = 0; i < count; i++) {
            const std::int64_t row = index[i];
            if (row < from || row >= to || row == padding) continue;
            float* sum = out + row * width;
            for_row(width, [&](ptrdiff_t j, int n) {
                put(sum + j, get(sum + j, n) + get(g + i * width + j, n), n);
            });
        }
    });
}

}  // namespace KERNEL_ISA
