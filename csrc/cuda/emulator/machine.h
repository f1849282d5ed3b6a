// What machine.cpp (who runs) and memory.cpp (what they touch) know of each other.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace emulator {

// When a thread touched a byte. Two accesses of a block are ordered if a barrier of the block, or
// of the warp they share, lies between them; those of two blocks never are.
struct Moment {
    int32_t block = -1;
    int32_t thread = -1;
    uint32_t barriers = 0;       // of the block that the thread has passed
    uint32_t warp_barriers = 0;  // of its warp
};

Moment now();  // of the fibre that runs
bool running();
bool in_kernel(const void* at);  // whether the memory is a fibre's own: its stack, its arguments

// memory.cpp
void begin_launch(size_t dynamic_bytes);  // forgets all accesses and shared arrays
void begin_block();                       // shared memory holds nothing
void end_launch();
void add_array(const void* at, size_t bytes, bool writable);  // what kernels may touch
void forget_arrays();

extern std::string error;  // of the launch; empty if all is well

}  // namespace emulator
