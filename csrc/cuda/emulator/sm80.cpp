// Asynchronous copies, and the warp's loads and products of matrices.
#include "sm80.h"

#include <algorithm>
#include <vector>

#include "machine.h"

namespace emulator {
namespace {

constexpr unsigned ALL = 0xffffffffu;

struct Copy {
    unsigned char* to;
    const void* from;
    int bytes, valid;
    unsigned char data[16];
};
struct Copies {
    std::vector<Copy> all;       // in the order they were asked for
    std::vector<size_t> groups;  // the end of each closed group in `all`
};
Copies of_thread[1024];

void must_align(const void* at, int bytes, const char* what) {
    if ((uintptr_t)at % bytes) fail("%s: the address %p is not a multiple of %d", what, at, bytes);
}

// What ldmatrix works on: one lane's registers, and the address it gave.
struct Load {
    unsigned* to;
    const unsigned short* row;
};

template <bool transposed, int count>
void spread(void** lanes, unsigned) {
    for (int lane = 0; lane < 32; ++lane) {
        for (int m = 0; m < count; ++m) {
            unsigned short pair[2];
            for (int i = 0; i < 2; ++i) {
                const int row = lane / 4, column = lane % 4 * 2 + i;
                const auto& source = *(Load*)lanes[8 * m + (transposed ? column : row)];
                pair[i] = source.row[transposed ? row : column];
            }
            ((Load*)lanes[lane])->to[m] = pair[0] | (unsigned)pair[1] << 16;
        }
    }
}

template <bool transposed>
auto spreader(int count) {
    return count == 4   ? spread<transposed, 4>
           : count == 2 ? spread<transposed, 2>
                        : spread<transposed, 1>;
}

struct Product {
    float* d;
    const unsigned *a, *b;
};

float number(unsigned bits, Format format) {
    if (format == Format::FLOAT16) return float_of_half((unsigned short)bits);
    return bits_as<float>(format == Format::BFLOAT16 ? bits << 16 : bits & ~0x1fffu);
}

// d += a b of 16 x 8 x depth; register r of a lane holds `packed` numbers.
template <Format format>
void product(void** lanes, unsigned) {
    constexpr int packed = format == Format::TF32 ? 1 : 2, depth = 8 * packed;
    float a[16][depth], b[depth][8];
    for (int lane = 0; lane < 32; ++lane) {
        const auto& own = *(Product*)lanes[lane];
        const int g = lane / 4, t = lane % 4;
        for (int i = 0; i < packed; ++i) {
            const int shift = 16 * i;
            for (int r = 0; r < 4; ++r)
                a[g + r % 2 * 8][t * packed + i + r / 2 * depth / 2] =
                    number(packed == 1 ? own.a[r] : own.a[r] >> shift & 0xffff, format);
            for (int r = 0; r < 2; ++r)
                b[t * packed + i + r * depth / 2][g] =
                    number(packed == 1 ? own.b[r] : own.b[r] >> shift & 0xffff, format);
        }
    }
    for (int lane = 0; lane < 32; ++lane) {
        float* d = ((Product*)lanes[lane])->d;
        for (int r = 0; r < 4; ++r) {
            const int row = lane / 4 + r / 2 * 8, column = lane % 4 * 2 + r % 2;
            double sum = d[r];
            for (int k = 0; k < depth; ++k) sum += (double)a[row][k] * b[k][column];
            d[r] = (float)sum;
        }
    }
}

}  // namespace

void forget_copies(int threads) {
    for (int i = 0; i < threads; ++i) {
        of_thread[i].all.clear();
        of_thread[i].groups.clear();
    }
}

void copy_async(void* to, const void* from, int bytes, int valid) {
    must_align(to, bytes, "cp.async");
    if (valid < 0 || valid > bytes) fail("cp.async reads %d bytes of %d", valid, bytes);
    Copy copy{(unsigned char*)to, from, bytes, valid, {}};
    if (valid) {
        must_align(from, bytes, "cp.async");
        reads(from, valid);
        memcpy(copy.data, from, valid);
    }
    promise(to, bytes);
    of_thread[own_thread()].all.push_back(copy);
}

void commit_copies() {
    Copies& own = of_thread[own_thread()];
    own.groups.push_back(own.all.size());
}

void wait_for_copies(int groups) {
    Copies& own = of_thread[own_thread()];
    const int landing = (int)own.groups.size() - groups;
    if (landing <= 0) return;
    const size_t end = own.groups[landing - 1];
    for (size_t i = 0; i < end; ++i) {
        const Copy& copy = own.all[i];
        if (copy.valid) {
            reads(copy.from, copy.valid);
            if (memcmp(copy.data, copy.from, copy.valid) != 0)
                fail("cp.async: what it copies from %p changed while it was under way", copy.from);
        }
        fulfil(copy.to, copy.data, copy.bytes);
    }
    own.all.erase(own.all.begin(), own.all.begin() + end);
    own.groups.erase(own.groups.begin(), own.groups.begin() + landing);
    for (size_t& group : own.groups) group -= end;
}

void load_matrices(unsigned* to, const void* row, int count, bool transposed) {
    static const char* const names[2][5] = {
        {"", "ldmatrix.x1", "ldmatrix.x2", "", "ldmatrix.x4"},
        {"", "ldmatrix.x1.trans", "ldmatrix.x2.trans", "", "ldmatrix.x4.trans"}};
    const char* name = names[transposed][count];
    if (own_lane() < 8 * count) {
        must_align(row, 16, name);
        if (!is_shared(row)) fail("%s from memory that is not shared", name);
        reads(row, 16);
    }
    Load mine{to, (const unsigned short*)row};
    meet(name, ALL, &mine, transposed ? spreader<true>(count) : spreader<false>(count));
}

void multiply(float* d, const unsigned* a, const unsigned* b, Format format) {
    Product mine{d, a, b};
    if (format == Format::FLOAT16) meet("mma.f16", ALL, &mine, product<Format::FLOAT16>);
    if (format == Format::BFLOAT16) meet("mma.bf16", ALL, &mine, product<Format::BFLOAT16>);
    if (format == Format::TF32) meet("mma.tf32", ALL, &mine, product<Format::TF32>);
}

unsigned tf32_of_float(float x) {
    const unsigned bits = bits_as<unsigned>(x);
    return (bits & 0x7f800000u) == 0x7f800000u ? bits : (bits + 0x1000u) & ~0x1fffu;
}

}  // namespace emulator
