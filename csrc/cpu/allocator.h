// The functions of a NumPy data-allocation handler; see allocator.cpp.
#pragma once

#include <cstddef>

void* allocator_malloc(void*, std::size_t size);
void* allocator_calloc(void*, std::size_t count, std::size_t size);
void* allocator_realloc(void*, void* p, std::size_t size);
void allocator_free(void*, void* p, std::size_t size);

void allocator_trim();         // give everything that is kept back to the system
std::size_t allocator_kept();  // bytes that wait for their next use
