// The instructions of sm80/*.cuh on the CPU (sm80.cpp).
#pragma once

#include "device.h"

namespace emulator {

// cp.async: the bytes arrive when the thread that asked for them waits for their group. Until then
// nobody may touch them, and what they are copied from may not change.
void copy_async(void* to, const void* from, int bytes, int valid);
void commit_copies();
void wait_for_copies(int groups);  // until no more than `groups` groups are under way

// ldmatrix: `count` matrices of 8 x 8 16-bit numbers.
void load_matrices(unsigned* to, const void* row, int count, bool transposed);

enum class Format { FLOAT16, BFLOAT16, TF32 };

// mma.sync: exact products, summed in double and rounded once; a GPU rounds and cuts in between.
void multiply(float* d, const unsigned* a, const unsigned* b, Format format);

unsigned tf32_of_float(float x);

}  // namespace emulator
