// Looks at every load and store of a kernel: is there memory, was it written, does nobody else
// touch it at the same time.
//
// Every few bytes of shared memory and of the arrays that a launch may touch have a cell that says
// who wrote them last and who read them. Two accesses, one of them a write, that no barrier
// separates are a race, whichever came first here. The compiler calls the functions at the end of
// this file (-fsanitize=thread, without its library) before each access.
//
// UNWATCHED: a build for sanitizers, whose accesses are not announced. Only what kernels hand over
// themselves (atomics, asynchronous copies) is seen, and looked at for its bounds alone.
#include <link.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <map>
#include <utility>
#include <vector>

#include "device.h"
#include "machine.h"

#if defined(__SANITIZE_ADDRESS__)
#    include <sanitizer/asan_interface.h>
#else
#    define ASAN_POISON_MEMORY_REGION(at, bytes) ((void)0)
#    define ASAN_UNPOISON_MEMORY_REGION(at, bytes) ((void)0)
#endif

namespace emulator {
namespace {

#ifdef UNWATCHED
constexpr bool WATCHED = false;
#else
constexpr bool WATCHED = true;
#endif
constexpr size_t GUARD = 64;          // forbidden bytes between arrays of a block
constexpr size_t ARENA = 512 * 1024;  // the shared memory of a block, with the guards
constexpr size_t WIDEST = 16;         // bytes of the largest access

// The last accesses that later ones can race with. A plain write is ordered after all before it,
// so they are forgotten; of reads and of atomic updates two are kept (see `remember`).
struct Cell {
    Moment write, update, other_update, read, other_read;
    int32_t block = -1;   // of shared memory: whose cell this is; others' is as good as new
    bool coming = false;  // an asynchronous copy to here is under way
};

// Cells are of 2^shift bytes: of the largest piece that all accesses so far were made of.
struct Array {
    const unsigned char* at;
    size_t bytes;
    bool writable;
    std::string name;
    int shift = 0;
    std::vector<Cell> cells;

    Array(const unsigned char* at, size_t bytes, bool writable, std::string name = "")
        : at(at), bytes(bytes), writable(writable), name(std::move(name)) {}

    static int zeros(size_t x) { return __builtin_ctzll(x | WIDEST); }

    void watch() {
        shift = zeros(bytes);
        if (WATCHED) cells.assign(bytes >> shift, Cell());
    }
    // The first cell of an access of `size` bytes at `start`, after which it has whole cells.
    Cell* cell(size_t start, size_t size) {
        const int wanted = zeros(start | size);
        if (wanted < shift) refine(wanted);
        return cells.data() + (start >> shift);
    }
    void refine(int wanted) {
        const size_t times = (size_t)1 << (shift - wanted);
        std::vector<Cell> finer;
        finer.reserve(cells.size() * times);
        for (const Cell& cell : cells) finer.insert(finer.end(), times, cell);
        cells.swap(finer);
        shift = wanted;
    }
    size_t offset(const Cell& cell) const { return (size_t)(&cell - cells.data()) << shift; }
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
    of_block.emplace_back(arena + start, bytes, true, name);
    of_block.back().watch();
    ASAN_UNPOISON_MEMORY_REGION(arena + start, bytes);
    return of_block.size() - 1;
}

bool ordered(Moment earlier, Moment later) {
    if (earlier.never() || earlier.bits == later.bits) return true;
    if (earlier.block() != later.block()) return false;
    if (earlier.thread() == later.thread() || earlier.barriers() < later.barriers()) return true;
    return earlier.warp() == later.warp() && earlier.warp_barriers() < later.warp_barriers();
}

// Add `present` to two accesses, so that whoever races with one of all so far races with one of the
// two. Those that no barrier orders are of one phase of the block, or of several blocks: two of
// different warps stand for all, else two of different threads.
void remember(Moment& last, Moment& other, Moment present) {
    if (ordered(other, present)) other = Moment();
    if (!ordered(last, present) && (other.never() || other.warp() == present.warp())) other = last;
    last = present;
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

void must_follow(Kind kind, const Array& array, const Cell& cell, Moment earlier, Moment present,
                 const char* did) {
    if (ordered(earlier, present)) return;
    fail("a race: %s byte %zu of %s, which thread %d of block %d %s with no barrier between",
         said(kind), array.offset(cell), array.name.c_str(), earlier.thread(), earlier.block(),
         did);
}

void look(Kind kind, const Array& array, Cell& cell, Moment present, bool shared) {
    if (shared) {
        if (cell.block != present.block()) {
            cell = Cell();
            cell.block = present.block();
        }
        const size_t offset = array.offset(cell);
        if (cell.coming)
            fail("%s byte %zu of %s, to which an asynchronous copy is under way", said(kind),
                 offset, array.name.c_str());
        if (kind != Kind::WRITE && cell.write.never() && cell.update.never())
            fail("%s byte %zu of %s, which nobody wrote", said(kind), offset, array.name.c_str());
    }
    must_follow(kind, array, cell, cell.write, present, "wrote");
    if (kind != Kind::UPDATE) {
        must_follow(kind, array, cell, cell.update, present, "updated");
        must_follow(kind, array, cell, cell.other_update, present, "updated");
    }
    if (kind == Kind::READ) {
        remember(cell.read, cell.other_read, present);
        return;
    }
    must_follow(kind, array, cell, cell.read, present, "read");
    must_follow(kind, array, cell, cell.other_read, present, "read");
    if (kind == Kind::UPDATE) {
        remember(cell.update, cell.other_update, present);
    } else {
        cell.update = cell.other_update = cell.read = cell.other_read = Moment();
        cell.write = present;
    }
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
    if (!WATCHED) return;
    const Moment present = now();
    Cell* cell = array->cell(start, bytes);
    for (Cell* end = cell + (bytes >> array->shift); cell != end; ++cell)
        look(kind, *array, *cell, present, shared);
}

// An access by one instruction of a GPU: its address is a multiple of its size.
void aligned(Kind kind, const void* at, size_t bytes) {
    if (((uintptr_t)at & (bytes - 1)) != 0 && running())
        fail("%s %zu bytes at once at %p, which is not a multiple of %zu", said(kind), bytes, at,
             bytes);
    touch(kind, at, bytes);
}

// Of memory that touch() has seen.
void set_coming(unsigned char* at, size_t bytes, bool coming) {
    if (!WATCHED) return;
    Array& array = *find(of_block, at);
    Cell* cell = array.cell(at - array.at, bytes);
    for (Cell* end = cell + (bytes >> array.shift); cell != end; ++cell) {
        cell->coming = coming;
        cell->write = now();
    }
}

}  // namespace

void add_array(const void* at, size_t bytes, bool writable) {
    if (bytes) given.emplace_back((const unsigned char*)at, bytes, writable);
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
        array.watch();
        char name[80];
        snprintf(name, sizeof name, "the array of %zu bytes at %p", array.bytes,
                 (const void*)array.at);
        array.name = name;
    }
    of_block.clear();
    by_key.clear();
    arena_used = 0;
    ASAN_POISON_MEMORY_REGION(arena, ARENA);
    if (dynamic_bytes) by_key[nullptr] = add_shared("the dynamic shared memory", dynamic_bytes);
}

void begin_block() {
    for (const Array& array : of_block) memset((void*)array.at, 0xa5, array.bytes);
}

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

void move(void* to, const void* from, size_t bytes) {
    memcpy(to, from, bytes);
}

bool is_shared(const void* at) {
    return in_arena((const unsigned char*)at);
}

void promise(void* at, size_t bytes) {
    if (!is_shared(at)) fail("an asynchronous copy to memory that is not shared");
    writes(at, bytes);
    set_coming((unsigned char*)at, bytes, true);
}

void fulfil(void* at, const void* from, size_t bytes) {
    set_coming((unsigned char*)at, bytes, false);
    memcpy(at, from, bytes);
}

}  // namespace emulator

// ---------------------------------------------------------------- called by compiled kernels

using namespace emulator;

extern "C" {
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
#define ACCESS(kind, action, bytes)                   \
    void __tsan_##action##bytes(void* at) {           \
        aligned(Kind::kind, at, bytes);               \
    }                                                 \
    void __tsan_unaligned_##action##bytes(void* at) { \
        touch(Kind::kind, at, bytes);                 \
    }
#define ACCESSES(kind, action) \
    ACCESS(kind, action, 1)    \
    ACCESS(kind, action, 2)    \
    ACCESS(kind, action, 4)    \
    ACCESS(kind, action, 8)    \
    ACCESS(kind, action, 16)
ACCESSES(READ, read)
ACCESSES(WRITE, write)
void __tsan_read_range(void* at, size_t bytes) {
    touch(Kind::READ, at, bytes);
}
void __tsan_write_range(void* at, size_t bytes) {
    touch(Kind::WRITE, at, bytes);
}
}
