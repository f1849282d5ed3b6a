// The tables of kernels that the extension and the emulator start by number. C++, no CUDA.
#pragma once

#include <cstddef>

struct Kernel {
    const char* name;
    const void* function;  // of nvcc: its stub on the host; of the emulator: takes the arguments
    size_t bytes;          // of the arguments
    int threads;           // the most in a block
};

#ifdef EMULATED
#    define ENTRY(name, Arguments, function, threads)                                    \
        {#name, (const void*)+[](const void* given) { name(*(const Arguments*)given); }, \
         sizeof(Arguments), threads},
#else
#    define ENTRY(name, Arguments, function, threads) \
        {#name, (const void*)name, sizeof(Arguments), threads},
#endif

// A file's kernels, closed by an entry without a name.
#define REGISTER(family, LIST) extern "C" const Kernel family##_kernels[] = {LIST(ENTRY){}}
