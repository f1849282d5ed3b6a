// What attention.cpp and attention_few.cpp share: sizes of blocks, weights, masks.
#pragma once

#include "attention.h"
#include "math.h"
#include "parallel.h"
#include "tile.h"

namespace KERNEL_ISA {

// attention_f32 for at most FEW_QUERIES, without causality.
constexpr std::ptrdiff_t FEW_QUERIES = 8;
void attention_few(const AttentionCall& a);

namespace {

using std::ptrdiff_t;

constexpr int QUERIES = 64;     // of a block
constexpr int KEYS = 128;       // of a block, a multiple of QUERIES
constexpr ptrdiff_t PARTS = 8;  // at most: shares of the keys, where there are few heads
constexpr float NOTHING = -__builtin_inff();
constexpr float LOG2_E = 1.44269504f, LN_2 = 0.693147181f;

inline ptrdiff_t blocks(ptrdiff_t n, int size) {
    return (n + size - 1) / size;
}
inline int length(ptrdiff_t n, ptrdiff_t block, int size) {
    return int(n - block * size < size ? n - block * size : size);
}

// 2^x for x that is not large; below -150 0. 2^x = 2^n (1 + r p(r)).
ALWAYS_INLINE vf exp2(vf x) {
    x = max(splat(-151.0f), x);  // the second operand is what NaN gives
    const vf n = nearest(x), r = x - n;
    vf p = splat(0.000153264715f);
    p = p * r + 0.00133908063f;
    p = p * r + 0.00961850584f;
    p = p * r + 0.0555035993f;
    p = p * r + 0.240226477f;
    p = p * r + 0.693147182f;
    return scale(p * r + 1.0f, n);
}

// C (m, n) = or += A B in slivers of columns.
inline void product(ptrdiff_t m, ptrdiff_t n, ptrdiff_t k, const float* a, ptrdiff_t a_row,
                    ptrdiff_t a_col, const float* b, ptrdiff_t b_row, float* c, ptrdiff_t c_row,
                    bool accumulate) {
    constexpr int S = SLIVER<float>;
    for (ptrdiff_t j = 0; j < n; j += S)
        sliver_product<float>(m, int(n - j < S ? n - j : S), k, a, a_row, a_col, b + j, b_row,
                              false, c + j, c_row, nullptr, accumulate);
}

// ---------------------------------------------------------------- masks

enum Seen : unsigned char { none, some, all };

// What the mask says of every block, found once.
class SeenBlocks {
  public:
    explicit SeenBlocks(const AttentionCall& a)
        : a_(a),
          heads_(a.mask.head ? a.heads : 1),
          rows_(a.mask.row ? blocks(a.queries, QUERIES) : 1),
          columns_(a.mask.column ? blocks(a.keys, KEYS) : 1),
          count_(a.mask.added || a.mask.seen
                     ? (a.mask.batch ? a.batch : 1) * heads_ * rows_ * columns_
                     : 0),
          found_(count_) {
        const ptrdiff_t lines = count_ / columns_;
        const auto line = [&](ptrdiff_t n) {
            for (ptrdiff_t j = 0; j < columns_; j++)
                found_.get()[n * columns_ + j] =
                    find(n / rows_ / heads_, n / rows_ % heads_, n % rows_, j);
        };
        if (lines < 4)
            for (ptrdiff_t n = 0; n < lines; n++) line(n);
        else
            parallel_for(lines, line);
    }

    Seen of(ptrdiff_t b, ptrdiff_t h, ptrdiff_t i, ptrdiff_t j) const {
        if (!count_) return all;
        const AttentionMask& m = a_.mask;
        ptrdiff_t n = m.batch ? b : 0;
        n = n * heads_ + (m.head ? h : 0);
        n = n * rows_ + (m.row ? i : 0);
        return found_.get()[n * columns_ + (m.column ? j : 0)];
    }

  private:
    Seen find(ptrdiff_t b, ptrdiff_t h, ptrdiff_t i, ptrdiff_t j) const {
        const AttentionMask& m = a_.mask;
        const int rows = m.row ? length(a_.queries, i, QUERIES) : 1;
        const int columns = m.column ? length(a_.keys, j, KEYS) : 1;
        const ptrdiff_t at = b * m.batch + h * m.head + i * QUERIES * m.row + j * KEYS * m.column;
        const auto judge = [&](const auto* p, auto nothing, auto everything) {
            unsigned char dead = 1, free = 1;
            for (int r = 0; r < rows; r++, p += m.row)
                for (int c = 0; c < columns; c++) {
                    dead &= p[c * m.column] == nothing;
                    free &= p[c * m.column] == everything;
                }
            return dead ? none : free ? all : some;
        };
        return m.added ? judge(m.added + at, NOTHING, 0.0f)
                       : judge(m.seen + at, (unsigned char)0, (unsigned char)1);
    }

    const AttentionCall& a_;
    ptrdiff_t heads_, rows_, columns_, count_;
    Scratch<Seen> found_;
};

// Shares of `count` blocks of keys, where there are few heads: enough tasks for many threads.
inline ptrdiff_t shares(ptrdiff_t heads, ptrdiff_t count) {
    ptrdiff_t parts = heads >= 2 * PARTS ? 1 : (2 * PARTS + heads - 1) / heads;
    parts = parts < PARTS ? parts : PARTS;
    return parts < (count + 1) / 2 ? parts : (count + 1) / 2;
}

}  // namespace
}  // namespace KERNEL_ISA
