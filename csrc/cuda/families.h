// The families of kernels: one .cuh, one .cu and one Python file each.
#pragma once

#include <cstring>

#include "registry.h"

#define FAMILIES(F) \
    F(activation)   \
    F(embedding)    \
    F(gemm)         \
    F(loss)         \
    F(movement)     \
    F(norm)         \
    F(optim)        \
    F(random)       \
    F(reduce)       \
    F(softmax)      \
    F(words)

#define DECLARE(family) extern "C" const Kernel family##_kernels[];
FAMILIES(DECLARE)
#undef DECLARE

template <typename Visit>
void for_each_kernel(Visit visit) {
#define TABLE(family) family##_kernels,
    const Kernel* const tables[] = {FAMILIES(TABLE)};
#undef TABLE
    for (const Kernel* table : tables)
        for (const Kernel* kernel = table; kernel->name != nullptr; ++kernel) visit(*kernel);
}

// The kernel of that name, or null.
inline const Kernel* kernel_named(const char* name) {
    const Kernel* found = nullptr;
    for_each_kernel([&](const Kernel& kernel) {
        if (std::strcmp(kernel.name, name) == 0) found = &kernel;
    });
    return found;
}
