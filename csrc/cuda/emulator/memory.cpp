// Looks at every load and store of a kernel: is there memory, was it written, does nobody else
// touch it at the same time.
//
// Each byte of shared memory and of the arrays that a launch may touch has a cell that says who
// wrote it last and who read it. Two accesses, one of them a write, that no barrier separates are
// a race, whichever came first here. The compiler calls the functions at the end of this file
// (-fsanitize=thread, without its library) before each access.
#include <link.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <map>
#include <vector>

#include "device.h"
#include "machine.h"

namespace emulator {
namespace {

constexpr size_t GUARD = 64;          // forbidden bytes between arrays of a block
constexpr size_t ARENA = 512 * 1024;  // the shared memory of a block, with the guards

struct Cell {
    Moment write, read, other_read;  // the last ones; `other_read` is of another thread than `read`
    bool atomic = false;             // the last write was
    bool written = false;            // since the block began, of shared memory
    bool coming = false;             // an asynchronous copy to here is under way
};

struct Array {
    const unsigned char* at;
    size_t bytes;
    bool writable;
    std::string name;
    std::vector<Cell> cells;
};

alignas(1024) unsigned char arena[ARENA];
size_t arena_used = 0;
std::vector<Array> of_block;  // shared; the dynamic one first, if there is one
std::map<const void*, size_t> by_key;
std::vector<Array> of_launch;  // sorted, without overlaps
std::vector<Array> given;

Array* find(std::vector<Array>& arrays, const unsigned char* at) {
    auto after = std::upper_bound(arrays.begin(), arrays.end(), at,
                                  [](const unsigned char* x, const Array& a) { return x < a.at; });
    if (after == arrays.begin()) return nullptr;
    Array& found = *(after - 1);
    return at < found.at + found.bytes ? &found : nullptr;
}

bool in_arena(const unsigned char* at) {
    return at >= arena && at < arena + ARENA;
}

size_t add_shared(const char* name, size_t bytes) {
    const size_t start = (arena_used + GUARD + 15) / 16 * 16;
    if (start + bytes + GUARD > ARENA) fail("%zu bytes of shared memory for %s", bytes, name);
    arena_used = start + bytes;
    of_block.push_back({arena + start, bytes, true, name, std::vector<Cell>(bytes)});
    return of_block.size() - 1;
}

bool ordered(const Moment& earlier, const Moment& later) {
    if (earlier.block < 0) return true;
    if (earlier.block != later.block) return false;
    if (earlier.thread == later.thread || earlier.barriers < later.barriers) return true;
    return earlier.thread / 32 == later.thread / 32 && earlier.warp_barriers < later.warp_barriers;
}

bool constant_of_library(const unsigned char* at) {
    static const std::vector<std::pair<const unsigned char*, size_t>> parts = [] {
        std::vector<std::pair<const unsigned char*, size_t>> found;
        dl_iterate_phdr(
            [](dl_phdr_info* info, size_t, void* into) {
                std::vector<std::pair<const unsigned char*, size_t>> own;
                bool here = false;
                for (int i = 0; i < info->dlpi_phnum; ++i) {
                    const auto& part = info->dlpi_phdr[i];
                    if (part.p_type != PT_LOAD) continue;
                    const auto* start = (const unsigned char*)info->dlpi_addr + part.p_vaddr;
                    here |= (const unsigned char*)&arena_used >= start &&
                            (const unsigned char*)&arena_used < start + part.p_memsz;
                    own.push_back({start, part.p_memsz});
                }
                if (here) *(decltype(own)*)into = own;
                return 0;
            },
            &found);
        return found;
    }();
    for (const auto& [start, bytes] : parts)
        if (at >= start && at < start + bytes) return true;
    return false;
}

enum class Kind { READ, WRITE, UPDATE };

const char* said(Kind kind) {
    return kind == Kind::READ ? "reads" : kind == Kind::WRITE ? "writes" : "updates";
}

[[noreturn]] void race(Kind kind, const Array& array, size_t offset, const Moment& earlier,
                       const char* did) {
    fail("a race: %s byte %zu of %s, which thread %d of block %d %s with no barrier between",
         said(kind), offset, array.name.c_str(), earlier.thread, earlier.block, did);
}

void touch(Kind kind, const void* address, size_t bytes) {
    if (!running()) return;
    const auto* at = (const unsigned char*)address;
    if (in_kernel(at)) return;
    const bool shared = in_arena(at);
    Array* array = find(shared ? of_block : of_launch, at);
    if (array == nullptr) {
        if (kind == Kind::READ && !shared && constant_of_library(at)) return;
        Array* before = find(shared ? of_block : of_launch, at - 1);
        if (before != nullptr)
            fail("%s %zu bytes behind the end of %s", said(kind), bytes, before->name.c_str());
        fail("%s %zu bytes at %p, outside of every array", said(kind), bytes, address);
    }
    const size_t start = at - array->at;
    if (start + bytes > array->bytes)
        fail("%s %zu bytes from byte %zu of %s, which has %zu", said(kind), bytes, start,
             array->name.c_str(), array->bytes);
    if (kind != Kind::READ && !array->writable) fail("writes to %s", array->name.c_str());
    const Moment present = now();
    for (size_t i = start; i < start + bytes; ++i) {
        Cell& cell = array->cells[i];
        if (cell.coming)
            fail("%s byte %zu of %s, to which an asynchronous copy is under way", said(kind), i,
                 array->name.c_str());
        if (shared && kind != Kind::WRITE && !cell.written)
            fail("%s byte %zu of %s, which nobody wrote", said(kind), i, array->name.c_str());
        if (!ordered(cell.write, present) && !(cell.atomic && kind == Kind::UPDATE))
            race(kind, *array, i, cell.write, "wrote");
        if (kind == Kind::READ) {
            if (cell.read.thread != present.thread || cell.read.block != present.block)
                cell.other_read = cell.read;
            cell.read = present;
            continue;
        }
        if (!ordered(cell.read, present)) race(kind, *array, i, cell.read, "read");
        if (!ordered(cell.other_read, present)) race(kind, *array, i, cell.other_read, "read");
        cell.write = present;
        cell.atomic = kind == Kind::UPDATE;
        cell.written = true;
    }
}

}  // namespace

void add_array(const void* at, size_t bytes, bool writable) {
    if (bytes) given.push_back({(const unsigned char*)at, bytes, writable, "", {}});
}

void forget_arrays() {
    given.clear();
}

void begin_launch(size_t dynamic_bytes) {
    std::sort(given.begin(), given.end(),
              [](const Array& a, const Array& b) { return a.at < b.at; });
    of_launch.clear();
    for (const Array& one : given) {  // views of one memory become one array
        if (!of_launch.empty() && one.at < of_launch.back().at + of_launch.back().bytes) {
            Array& last = of_launch.back();
            last.bytes = std::max<size_t>(last.bytes, one.at + one.bytes - last.at);
            last.writable |= one.writable;
        } else {
            of_launch.push_back(one);
        }
    }
    for (Array& array : of_launch) {
        array.cells.assign(array.bytes, Cell());
        char name[80];
        snprintf(name, sizeof name, "the array of %zu bytes at %p", array.bytes,
                 (const void*)array.at);
        array.name = name;
    }
    of_block.clear();
    by_key.clear();
    arena_used = 0;
    if (dynamic_bytes) by_key[nullptr] = add_shared("the dynamic shared memory", dynamic_bytes);
}

void begin_block() {
    for (Array& array : of_block) std::fill(array.cells.begin(), array.cells.end(), Cell());
    memset(arena, 0xa5, arena_used);
}

void end_launch() {}

void* shared_array(const void* key, const char* name, size_t bytes) {
    auto found = by_key.find(key);
    if (found == by_key.end()) {
        const std::string full = std::string("the shared array ") + name;
        found = by_key.emplace(key, add_shared(full.c_str(), bytes)).first;
    }
    return (void*)of_block[found->second].at;
}

unsigned char* dynamic_memory() {
    const auto found = by_key.find(nullptr);
    // a launch without it: an address that nothing may be read from
    return found == by_key.end() ? arena + ARENA - GUARD
                                 : (unsigned char*)of_block[found->second].at;
}

void reads(const void* at, size_t bytes) {
    touch(Kind::READ, at, bytes);
}
void writes(void* at, size_t bytes) {
    touch(Kind::WRITE, at, bytes);
}
void updates(void* at, size_t bytes) {
    touch(Kind::UPDATE, at, bytes);
}

void promise(void* at, size_t bytes) {
    writes(at, bytes);
    Array* array = find(of_block, (const unsigned char*)at);
    if (array == nullptr) fail("an asynchronous copy to memory that is not shared");
    const size_t start = (const unsigned char*)at - array->at;
    for (size_t i = start; i < start + bytes; ++i) array->cells[i].coming = true;
}

void fulfil(void* at, const void* from, size_t bytes) {
    Array* array = find(of_block, (const unsigned char*)at);
    const size_t start = (const unsigned char*)at - array->at;
    for (size_t i = start; i < start + bytes; ++i) {
        array->cells[i].coming = false;
        array->cells[i].write = now();
    }
    memcpy(at, from, bytes);
}

}  // namespace emulator

// ---------------------------------------------------------------- called by compiled kernels

using namespace emulator;

extern "C" {
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_read1(void* at) {
    touch(Kind::READ, at, 1);
}
void __tsan_read2(void* at) {
    touch(Kind::READ, at, 2);
}
void __tsan_read4(void* at) {
    touch(Kind::READ, at, 4);
}
void __tsan_read8(void* at) {
    touch(Kind::READ, at, 8);
}
void __tsan_read16(void* at) {
    touch(Kind::READ, at, 16);
}
void __tsan_write1(void* at) {
    touch(Kind::WRITE, at, 1);
}
void __tsan_write2(void* at) {
    touch(Kind::WRITE, at, 2);
}
void __tsan_write4(void* at) {
    touch(Kind::WRITE, at, 4);
}
void __tsan_write8(void* at) {
    touch(Kind::WRITE, at, 8);
}
void __tsan_write16(void* at) {
    touch(Kind::WRITE, at, 16);
}
void __tsan_unaligned_read2(void* at) {
    touch(Kind::READ, at, 2);
}
void __tsan_unaligned_read4(void* at) {
    touch(Kind::READ, at, 4);
}
void __tsan_unaligned_read8(void* at) {
    touch(Kind::READ, at, 8);
}
void __tsan_unaligned_read16(void* at) {
    touch(Kind::READ, at, 16);
}
void __tsan_unaligned_write2(void* at) {
    touch(Kind::WRITE, at, 2);
}
void __tsan_unaligned_write4(void* at) {
    touch(Kind::WRITE, at, 4);
}
void __tsan_unaligned_write8(void* at) {
    touch(Kind::WRITE, at, 8);
}
void __tsan_unaligned_write16(void* at) {
    touch(Kind::WRITE, at, 16);
}
void __tsan_read_range(void* at, size_t bytes) {
    touch(Kind::READ, at, bytes);
}
void __tsan_write_range(void* at, size_t bytes) {
    touch(Kind::WRITE, at, bytes);
}
}
