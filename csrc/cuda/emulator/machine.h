// What machine.cpp (who runs), memory.cpp (what they touch) and sm80.cpp know of each other.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace emulator {

// When a thread touched memory. Two accesses of a block are ordered if a barrier of the block, or
// of the warp they share, lies between them; those of two blocks never are. In 64 bits, as there
// are several for every few bytes: the block + 1 (0: never), the thread, how many barriers of its
// block and how many of its warp the thread has passed.
struct Moment {
    uint64_t bits = 0;

    Moment() = default;
    Moment(unsigned block, int thread, unsigned barriers, unsigned warp_barriers)
        : bits((uint64_t)(block + 1) << 40 | (uint64_t)thread << 30 | (uint64_t)barriers << 15 |
               warp_barriers) {}
    bool never() const { return bits == 0; }
    int block() const { return (int)(bits >> 40) - 1; }
    int thread() const { return bits >> 30 & 0x3ff; }
    unsigned barriers() const { return bits >> 15 & 0x7fff; }
    unsigned warp_barriers() const { return bits & 0x7fff; }
    uint64_t warp() const { return bits >> 35; }  // of its block
};
constexpr unsigned MOST_BLOCKS = (1u << 24) - 2, MOST_BARRIERS = 0x7fff;

Moment now();  // of the fibre that runs
bool running();
int own_thread();
bool in_kernel(const void* at);  // whether the memory is a fibre's own: its stack, its arguments

// memory.cpp
void begin_launch(size_t dynamic_bytes);  // forgets all accesses and shared arrays
void begin_block();                       // shared memory holds nothing
void add_array(const void* at, size_t bytes, bool writable);  // what kernels may touch
void forget_arrays();
bool is_shared(const void* at);
// An asynchronous copy to shared memory: asked for, and there.
void promise(void* at, size_t bytes);
void fulfil(void* at, const void* from, size_t bytes);

// sm80.cpp
void forget_copies(int threads);

extern std::string error;  // of the launch; empty if all is well

}  // namespace emulator
