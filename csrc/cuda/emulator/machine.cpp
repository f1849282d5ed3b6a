// Runs kernels: blocks one after the other, their threads as fibres.
//
// A fibre runs until it waits: for the block (barrier), for lanes of its warp (meet), or because it
// has ended. When nobody can run, what they wait for tells whether a barrier is complete or some
// thread will never come, which is an error. The order of threads and blocks can be changed: a
// kernel's results may not depend on it.
#include "machine.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <memory>
#include <numeric>
#include <random>
#include <vector>

#include "../families.h"
#include "device.h"
#include "fibre.h"

#if defined(__SANITIZE_ADDRESS__)
#    include <sanitizer/asan_interface.h>
#    include <sanitizer/common_interface_defs.h>
#endif

extern "C" const Kernel probes_kernels[];  // probes.cu

namespace emulator {

Index thread_index, block_index, block_size, grid_size;
std::string error;

namespace {

constexpr size_t STACK = 256 * 1024;
constexpr int MOST_THREADS = 1024;
// Stacks of one size put the same frames of all fibres into the same sets of a cache.
constexpr size_t COLOURS = 32, COLOUR = 128;

enum class State { READY, AT_BARRIER, AT_MEETING, ENDED };

struct Fibre {
    Context context;
    unsigned char* stack = nullptr;
    size_t stack_bytes = 0;
    void* fake_stack = nullptr;  // of AddressSanitizer
    State state = State::ENDED;
    const char* what = "";  // it meets in, or the file of its barrier
    int line = 0;
    unsigned mask = 0;
    void* given = nullptr;
    void (*act)(void**, unsigned) = nullptr;
    uint32_t warp_barriers = 0;
};

std::vector<std::unique_ptr<Fibre>> fibres;
unsigned char* stacks = nullptr;
Context scheduler;
#if defined(__SANITIZE_ADDRESS__)
void* scheduler_fake = nullptr;
const void* scheduler_stack = nullptr;
size_t scheduler_size = 0;
#endif
int current = -1, threads = 0;
uint32_t barriers = 0;
const Kernel* kernel = nullptr;
const unsigned char* arguments = nullptr;
uint64_t order_seed = 0;

void switch_to_scheduler(bool ended) {
    Fibre& own = *fibres[current];
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(ended ? nullptr : &own.fake_stack, scheduler_stack,
                                   scheduler_size);
#else
    (void)ended;
#endif
    switch_context(own.context, scheduler);
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(own.fake_stack, &scheduler_stack, &scheduler_size);
#endif
}

void switch_to(int thread) {
    current = thread;
    thread_index = {(unsigned)thread, 0, 0};
    Fibre& next = *fibres[thread];
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(&scheduler_fake, next.stack, next.stack_bytes);
#endif
    switch_context(scheduler, next.context);
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(scheduler_fake, nullptr, nullptr);
#endif
    current = -1;
}

void run_thread() {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(nullptr, &scheduler_stack, &scheduler_size);
#endif
    ((void (*)(const void*))kernel->function)(arguments);
    fibres[current]->state = State::ENDED;
    switch_to_scheduler(true);
}

void wait(State state) {
    fibres[current]->state = state;
    switch_to_scheduler(false);
}

void start_threads() {
    if (stacks == nullptr) {
        void* found = mmap(nullptr, STACK * MOST_THREADS, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (found == MAP_FAILED) throw std::bad_alloc();
        stacks = (unsigned char*)found;
    }
    while ((int)fibres.size() < threads) {
        const size_t place = fibres.size();
        fibres.push_back(std::make_unique<Fibre>());
        fibres.back()->stack = stacks + STACK * place;
        fibres.back()->stack_bytes = STACK - place % COLOURS * COLOUR;
    }
    for (int i = 0; i < threads; ++i) {
        Fibre& fibre = *fibres[i];
#if defined(__SANITIZE_ADDRESS__)
        // what the last one left there: its first frames, which never returned, or all of them
        const size_t left = fibre.state == State::ENDED ? 4096 : fibre.stack_bytes;
        __asan_unpoison_memory_region(fibre.stack + fibre.stack_bytes - left, left);
#endif
        prepare(fibre.context, fibre.stack, fibre.stack_bytes, run_thread);
        fibre.state = State::READY;
        fibre.warp_barriers = 0;
    }
}

const char* name_of(const char* path) {
    const char* slash = strrchr(path, '/');
    return slash == nullptr ? path : slash + 1;
}

int count(State state) {
    int found = 0;
    for (int i = 0; i < threads; ++i) found += fibres[i]->state == state;
    return found;
}

// Nobody can run: let them go on together, or say why they never will.
void release() {
    const int waiting = count(State::AT_BARRIER), ended = count(State::ENDED);
    char text[400];
    const Fibre& first = *fibres[0];
    if (waiting == threads) {
        for (int i = 1; i < threads; ++i) {
            const Fibre& other = *fibres[i];
            if (other.line == first.line && strcmp(other.what, first.what) == 0) continue;
            snprintf(text, sizeof text,
                     "__syncthreads in divergent code: thread 0 waits at %s:%d, thread %d at %s:%d",
                     name_of(first.what), first.line, i, name_of(other.what), other.line);
            error = text;
            return;
        }
        if (++barriers > MOST_BARRIERS) error = "more barriers than the emulator can count";
        for (int i = 0; i < threads; ++i) fibres[i]->state = State::READY;
        return;
    }
    int one = 0;
    while (fibres[one]->state != State::AT_MEETING && one + 1 < threads) ++one;
    const Fibre& lane = *fibres[one];
    if (lane.state == State::AT_MEETING) {
        unsigned there = 0;
        for (int i = one / 32 * 32; i < std::min(one / 32 * 32 + 32, threads); ++i)
            if (fibres[i]->state == State::AT_MEETING && fibres[i]->mask == lane.mask &&
                strcmp(fibres[i]->what, lane.what) == 0)
                there |= 1u << i % 32;
        snprintf(text, sizeof text,
                 "%s: lanes %08x of warp %d wait for lanes %08x of their mask %08x, which never"
                 " come (they wait elsewhere, have ended or do not exist)",
                 lane.what, there, one / 32, lane.mask & ~there, lane.mask);
    } else {
        one = 0;
        while (fibres[one]->state != State::AT_BARRIER) ++one;
        snprintf(text, sizeof text,
                 "__syncthreads at %s:%d: %d of %d threads wait there, %d have ended without it",
                 name_of(fibres[one]->what), fibres[one]->line, waiting, threads, ended);
    }
    error = text;
}

void run_block(const std::vector<int>& order) {
    barriers = 0;
    begin_block();
    forget_copies(threads);
    start_threads();
    while (error.empty()) {
        bool any = false, live = false;
        for (int thread : order) {
            while (error.empty() && fibres[thread]->state == State::READY) {
                any = true;
                switch_to(thread);
            }
            live |= fibres[thread]->state != State::ENDED;
        }
        if (!live) return;
        if (!any && error.empty()) release();
    }
    // After an error the fibres are left where they are: kernels own nothing that must be given
    // back.
}

std::vector<int> ordered(int count, uint64_t seed) {
    std::vector<int> order(count);
    std::iota(order.begin(), order.end(), 0);
    if (seed == 1) std::reverse(order.begin(), order.end());
    if (seed > 1) std::shuffle(order.begin(), order.end(), std::mt19937_64(seed));
    return order;
}

}  // namespace

void fail(const char* format, ...) {
    if (error.empty()) {
        char text[400];
        va_list values;
        va_start(values, format);
        vsnprintf(text, sizeof text, format, values);
        va_end(values);
        error = text;
        if (current >= 0) {
            snprintf(text, sizeof text, " (block %u, thread %d)", block_index.x, current);
            error += text;
        }
    }
    fibres[current]->state = State::ENDED;
    switch_to_scheduler(true);
    __builtin_unreachable();
}

Moment now() {
    return {block_index.x, current, barriers, fibres[current]->warp_barriers};
}

int own_thread() {
    return current;
}

bool running() {
    return current >= 0;
}

bool in_kernel(const void* at) {
    const auto* byte = (const unsigned char*)at;
    return (byte >= stacks && byte < stacks + STACK * MOST_THREADS) ||
           (byte >= arguments && byte < arguments + kernel->bytes);
}

void barrier(const char* file, int line) {
    fibres[current]->what = file;
    fibres[current]->line = line;
    wait(State::AT_BARRIER);
}

void meet(const char* what, unsigned mask, void* mine, void (*act)(void**, unsigned)) {
    const int own = current, base = own / 32 * 32;
    if (!(mask >> own % 32 & 1))
        fail("%s: lane %d is not in its own mask %08x", what, own % 32, mask);
    Fibre& fibre = *fibres[own];
    fibre.what = what;
    fibre.mask = mask;
    fibre.given = mine;
    // most often a neighbour is not there yet
    for (const int lane : {(own + 1) % 32, (own + 31) % 32})
        if ((mask >> lane & 1) && base + lane < threads) {
            const State state = fibres[base + lane]->state;
            if (state == State::READY || state == State::AT_BARRIER) return wait(State::AT_MEETING);
        }
    void* lanes[32];
    for (int lane = 0; lane < 32; ++lane) {
        if (!(mask >> lane & 1)) continue;
        const int other = base + lane;
        if (other >= threads)
            fail("%s: the mask %08x names lane %d, which does not exist in this block", what, mask,
                 lane);
        const Fibre& there = *fibres[other];
        lanes[lane] = there.given;
        if (other == own) continue;
        if (there.state == State::ENDED)
            fail("%s: the mask %08x names lane %d, which has ended", what, mask, lane);
        if (there.state != State::AT_MEETING) return wait(State::AT_MEETING);
        if ((there.what != what && strcmp(there.what, what) != 0) || there.mask != mask)
            fail("%s with mask %08x meets lane %d in %s with mask %08x", what, mask, lane,
                 there.what, there.mask);
    }
    if (act != nullptr) act(lanes, mask);
    const bool orders = act == nullptr;  // __syncwarp alone orders accesses to memory
    for (int lane = 0; lane < 32; ++lane) {
        if (!(mask >> lane & 1)) continue;
        Fibre& other = *fibres[base + lane];
        if (orders && mask == 0xffffffffu && ++other.warp_barriers > MOST_BARRIERS)
            fail("more barriers of a warp than the emulator can count");
        if (base + lane != own) other.state = State::READY;
    }
}

void warp_barrier(unsigned mask) {
    meet("__syncwarp", mask, nullptr, nullptr);
}

float float_of_half(unsigned short bits) {
    const uint32_t sign = (uint32_t)(bits & 0x8000) << 16, exponent = bits >> 10 & 31;
    const uint32_t mantissa = bits & 1023;
    if (exponent == 31) return bits_as<float>(sign | 0x7f800000u | mantissa << 13);
    if (exponent == 0) return std::copysign(mantissa * 0x1p-24f, sign ? -1.0f : 1.0f);
    return bits_as<float>(sign | (exponent + 112) << 23 | mantissa << 13);
}

unsigned short half_of_float(float x) {
    const uint32_t bits = bits_as<uint32_t>(x);
    const unsigned short sign = bits >> 16 & 0x8000;
    if (x != x) return 0x7fff;
    const float size = std::fabs(x);
    if (size >= 65520.0f) return sign | 0x7c00;
    if (size < 0x1p-14f) return sign | (unsigned short)std::nearbyint(size * 0x1p24f);
    const uint32_t rounded = (bits & 0x7fffffff) + 0xfff + (bits >> 13 & 1);
    return sign | (unsigned short)((rounded - (112u << 23)) >> 13);
}

}  // namespace emulator

unsigned __ballot_sync(unsigned mask, int predicate) {
    unsigned mine = predicate != 0;
    emulator::meet("__ballot_sync", mask, &mine, [](void** lanes, unsigned mask) {
        unsigned votes = 0;
        for (int lane = 0; lane < 32; ++lane)
            if (mask >> lane & 1) votes |= *(unsigned*)lanes[lane] << lane;
        for (int lane = 0; lane < 32; ++lane)
            if (mask >> lane & 1) *(unsigned*)lanes[lane] = votes;
    });
    return mine;
}

// ---------------------------------------------------------------- for ctypes

// Every array that kernels may touch from now on, until `emulator_forget`.
extern "C" void emulator_array(const void* at, size_t bytes, int writable) {
    emulator::add_array(at, bytes, writable != 0);
}
extern "C" void emulator_forget() {
    emulator::forget_arrays();
}

// 0: threads and blocks in order, 1: backwards, else shuffled.
extern "C" void emulator_order(uint64_t seed) {
    emulator::order_seed = seed;
}

extern "C" const Kernel* emulator_kernel(const char* name) {
    for (const Kernel* probe = probes_kernels; probe->name != nullptr; ++probe)
        if (strcmp(probe->name, name) == 0) return probe;
    return kernel_named(name);
}

// Run a kernel; what went wrong, or null.
extern "C" const char* emulator_launch(const Kernel* kernel, unsigned blocks, unsigned threads,
                                       size_t shared, const void* arguments, size_t bytes) {
    using namespace emulator;
    error.clear();
    if (bytes != kernel->bytes || !threads || (int)threads > kernel->threads ||
        kernel->threads > MOST_THREADS || shared > 232448 - 1024 || blocks > MOST_BLOCKS) {
        char text[300];
        snprintf(text, sizeof text,
                 "%zu bytes of arguments for %zu, %u blocks, %u threads for at most %d, %zu"
                 " bytes of shared memory",
                 bytes, kernel->bytes, blocks, threads, kernel->threads, shared);
        error = text;
        return error.c_str();
    }
    emulator::kernel = kernel;
    emulator::arguments = (const unsigned char*)arguments;
    emulator::threads = (int)threads;
    block_size = {threads, 1, 1};
    grid_size = {blocks, 1, 1};
    begin_launch(shared);
    const std::vector<int> order = ordered((int)threads, order_seed);
    for (int block : ordered((int)blocks, order_seed)) {
        block_index = {(unsigned)block, 0, 0};
        run_block(order);
        if (!error.empty()) break;
    }
    return error.empty() ? nullptr : error.c_str();
}
