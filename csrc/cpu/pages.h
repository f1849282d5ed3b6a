// Blocks of memory in pages of 2 MB; see pages.cpp.
#pragma once

#include <cstddef>

// Blocks from this size on.
constexpr std::size_t PAGES_FROM = std::size_t(128) << 10;

// A block of `bytes`, a multiple of 64, the size of class `c` < PAGES_CLASSES: of one class all
// blocks have one size. 64-byte aligned; null where there is no such memory.
constexpr int PAGES_CLASSES = 4 * 40;
void* pages_take(int c, std::size_t bytes);

// The size of a block from here; 0 for other memory.
std::size_t pages_size(const void* p);

// Gives a block of pages_take back to the system.
void pages_give(void* p);
