// Packed copies of the weights of linear maps; see weights.cpp.
#pragma once

#include <cstddef>

// The packed form of a contiguous weight (n, k), as GemmCall takes it, until this thread asks for
// another; null if it is too large, or still changing, or there is no memory for it.
template <typename T>
const T* packed_weight(const T* weight, std::ptrdiff_t n, std::ptrdiff_t k);
