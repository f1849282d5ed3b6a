// Elements moved or converted: float32 to bfloat16 and back, transposes.
//
// Contract: kernels.h. Transposes move elements of 4 or 2 bytes, whatever they are.
//
// Algorithm: a transpose goes by squares of as many elements as a vector of float has through the
// registers, 16-bit ones widened, in blocks whose pages the translation buffers hold. Limits:
// memory, read and written once.
#include "kernels.h"
#include "pointwise.h"
#include "transpose.h"

namespace KERNEL_ISA {
namespace {

using std::ptrdiff_t;

constexpr ptrdiff_t DOWN = 64, ACROSS = 256;  // rows and columns of x in a block

ALWAYS_INLINE vu bits_of(const std::uint32_t* p) {
    return load(p);
}
ALWAYS_INLINE vu bits_of(const std::uint16_t* p) {
    return (vu)wide(reinterpret_cast<const bfloat16*>(p));
}
template <bool STREAMED>
ALWAYS_INLINE void put_bits(std::uint32_t* p, vu x) {
    STREAMED ? stream(reinterpret_cast<float*>(p), (vf)x) : store(p, x);
}
template <bool STREAMED>
ALWAYS_INLINE void put_bits(std::uint16_t* p, vu x) {
    const short_vector half = upper(x);
    std::memcpy(p, &half, sizeof(half));
}

template <bool STREAMED, typename T>
void block(T* out, ptrdiff_t out_row, const T* x, ptrdiff_t x_row, ptrdiff_t rows,
           ptrdiff_t columns) {
    constexpr int L = lanes<float>;
    const ptrdiff_t whole = columns / L * L;
    ptrdiff_t i = 0;
    for (; i + L <= rows; i += L)
        for (ptrdiff_t j = 0; j < whole; j += L) {
            vu v[L];
#pragma GCC unroll 16
            for (int r = 0; r < L; r++) v[r] = bits_of(x + (i + r) * x_row + j);
            transpose_by<std::uint32_t, L / 2>(v);
#pragma GCC unroll 16
            for (int r = 0; r < L; r++) put_bits<STREAMED>(out + (j + r) * out_row + i, v[r]);
        }
    for (ptrdiff_t j = whole; j < columns; j++)
        for (ptrdiff_t r = 0; r < i; r++) out[j * out_row + r] = x[r * x_row + j];
    for (; i < rows; i++)
        for (ptrdiff_t j = 0; j < columns; j++) out[j * out_row + i] = x[i * x_row + j];
}

template <typename T>
void transpose(T* out, ptrdiff_t out_row, const T* x, ptrdiff_t x_row, ptrdiff_t rows,
               ptrdiff_t columns) {
    const ptrdiff_t down = (rows + DOWN - 1) / DOWN, across = (columns + ACROSS - 1) / ACROSS;
    const bool streamed = sizeof(T) == 4 && rows * columns * ptrdiff_t(sizeof(T)) >= LARGE &&
                          reinterpret_cast<std::uintptr_t>(out) % WIDTH == 0 &&
                          out_row * ptrdiff_t(sizeof(T)) % WIDTH == 0;
    parallel_for(across, [&](ptrdiff_t t) {
        const ptrdiff_t j = t * ACROSS, width = columns - j < ACROSS ? columns - j : ACROSS;
        for (ptrdiff_t d = 0; d < down; d++) {
            const ptrdiff_t i = d * DOWN, height = rows - i < DOWN ? rows - i : DOWN;
            const auto move = streamed ? block<true, T> : block<false, T>;
            move(out + j * out_row + i, out_row, x + i * x_row + j, x_row, height, width);
        }
        if (streamed) stream_end();
    });
}

// from (elements of In) to (elements of Out), one of which is bfloat16
template <typename Out, typename In>
void convert(Out* out, const In* in, ptrdiff_t n) {
    constexpr int L = lanes<float>;
    const bool streamed =
        sizeof(Out) == 4 && n * 4 >= LARGE && reinterpret_cast<std::uintptr_t>(out) % WIDTH == 0;
    in_chunks(n, [&](ptrdiff_t from, ptrdiff_t end) {
        ptrdiff_t i = from;
        if constexpr (sizeof(Out) == 4)
            if (streamed) {
                for (; i + L <= end; i += L) stream(out + i, wide(in + i));
                stream_end();
            }
        for (; i + 2 * L <= end; i += 2 * L) {
            const vf first = wide(in + i), second = wide(in + i + L);
            narrow(out + i, first);
            narrow(out + i + L, second);
        }
        for (; i < end; i += L) {
            const int part = end - i < L ? int(end - i) : L;
            narrow(out + i, wide(in + i, part), part);
        }
    });
}

}  // namespace

void round_bf16(bfloat16* out, const float* in, ptrdiff_t n) {
    convert(out, in, n);
}
void widen_bf16(float* out, const bfloat16* in, ptrdiff_t n) {
    convert(out, in, n);
}
void transpose_32(std::uint32_t* out, ptrdiff_t out_row, const std::uint32_t* x, ptrdiff_t x_row,
                  ptrdiff_t rows, ptrdiff_t columns) {
    transpose(out, out_row, x, x_row, rows, columns);
}
void transpose_16(std::uint16_t* out, ptrdiff_t out_row, const std::uint16_t* x, ptrdiff_t x_row,
                  ptrdiff_t rows, ptrdiff_t columns) {
    transpose(out, out_row, x, x_row, rows, columns);
}

}  // namespace KERNEL_ISA
