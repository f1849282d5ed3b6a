// Large blocks of memory, many to a page of 2 MB.
//
// A kernel that walks over megabytes asks for a translation of every page of 4 KB, of which a
// processor holds some thousands: with pages of 2 MB, steps of Transformers whose arrays have 0.1
// to 6 MB each take 2 % to 5 % less time (Zen 4, in a virtual machine). The C library's allocator
// gives such arrays mappings of their own, too small for a large page.
//
// One range of addresses is reserved for all, unless the process may have only so many. It can be
// neither read nor written, so that it counts against no limit and is in no core dump, until its
// next part is opened. Runs of pages are cut into blocks of one class; a bit per block says that it
// is free. What is given back leaves the memory at once, and a run whose blocks are all free serves
// any class again.
#include "pages.h"

#include <pthread.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>

namespace {

constexpr std::size_t PAGE = std::size_t(2) << 20, SMALL = 4096;
constexpr std::size_t MOST = std::size_t(64) << 30;  // bytes of the range, at most
constexpr std::size_t PAGES = MOST / PAGE;
constexpr std::uint32_t LONGEST = 8;  // pages of a run of several blocks
constexpr std::uint32_t STEP = 32;    // pages that are opened at once, at least
constexpr std::uint32_t NONE = 0;     // the first page begins no run

struct Run {
    std::size_t bytes;     // of a block
    std::uint64_t free;    // a bit for every block
    std::uint32_t pages;   // of the run
    std::uint32_t blocks;  // at most 64
    std::uint32_t first;   // of every page: where its run begins
    std::uint32_t next;    // run of the same class with a free block, or of as many pages
    std::uint32_t before;
    int c;
};

struct Range {
    std::atomic_flag lock = ATOMIC_FLAG_INIT;
    std::atomic<char*> base{nullptr};  // null before the first use, and where there is no range
    bool asked = false;
    std::uint32_t end = 0, used = 1, opened = 0;    // pages
    std::uint32_t open[PAGES_CLASSES] = {};         // runs with a free block
    std::uint32_t unused[LONGEST + 1] = {};         // runs without blocks, by pages
    std::uint32_t unused_long[PAGES_CLASSES] = {};  // those of one block and more pages, by class
    Run runs[PAGES];
};
Range range;

void acquire() {
    while (range.lock.test_and_set(std::memory_order_acquire)) {
    }
}
void release() {
    range.lock.clear(std::memory_order_release);
}

// A child must not inherit the lock from a thread that it does not have.
const int registered = pthread_atfork(acquire, release, release);

// Twice the machine's memory in addresses.
void reserve() {
    range.asked = true;
    rlimit addresses;
    if (getrlimit(RLIMIT_AS, &addresses) || addresses.rlim_cur != RLIM_INFINITY) return;
    const long pages = sysconf(_SC_PHYS_PAGES), size = sysconf(_SC_PAGESIZE);
    if (pages <= 0 || size <= 0) return;
    const std::size_t twice = std::size_t(pages) * std::size_t(size) * 2;
    const std::size_t bytes = (twice < MOST ? twice : MOST) / PAGE * PAGE;
    void* p = mmap(nullptr, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) return;
    if (madvise(p, bytes, MADV_HUGEPAGE)) {  // a kernel without large pages
        munmap(p, bytes);
        return;
    }
    const auto at = reinterpret_cast<std::uintptr_t>(p), aligned = (at + PAGE - 1) / PAGE * PAGE;
    range.end = std::uint32_t((bytes - (aligned - at)) / PAGE);
    range.base.store(static_cast<char*>(p) + (aligned - at), std::memory_order_release);
}

// Makes the first pages of the range, so many, memory; false if the system has none.
bool open_pages(std::uint32_t pages) {
    if (pages <= range.opened) return true;
    const std::uint32_t left = range.end - range.opened, more = pages - range.opened;
    const std::uint32_t step = more > STEP ? more : STEP < left ? STEP : left;
    char* at = range.base.load(std::memory_order_relaxed) + std::size_t(range.opened) * PAGE;
    if (mprotect(at, std::size_t(step) * PAGE, PROT_READ | PROT_WRITE)) return false;
    range.opened += step;
    return true;
}

void push(std::uint32_t& list, std::uint32_t run) {
    range.runs[run].next = list;
    range.runs[run].before = NONE;
    if (list) range.runs[list].before = run;
    list = run;
}
void remove(std::uint32_t& list, std::uint32_t run) {
    const Run& r = range.runs[run];
    if (r.before) range.runs[r.before].next = r.next;
    if (r.next) range.runs[r.next].before = r.before;
    if (list == run) list = r.next;
}

// Pages of a run of blocks: as many as leave the least over.
std::uint32_t pages_for(std::size_t bytes) {
    std::uint32_t best = std::uint32_t((bytes + PAGE - 1) / PAGE);
    const auto over = [bytes](std::uint32_t pages) {
        return double(pages * PAGE % bytes) / double(pages);
    };
    for (std::uint32_t pages = best; pages <= LONGEST && pages * PAGE / bytes <= 64; pages++)
        if (over(pages) < over(best)) best = pages;
    return best;
}

std::uint32_t& unused(std::uint32_t pages, int c) {
    return pages <= LONGEST ? range.unused[pages] : range.unused_long[c];
}

// A new run for the class, in the list of those with a free block; false where there is none.
bool open_run(int c, std::size_t bytes) {
    const std::uint32_t pages = pages_for(bytes);
    std::uint32_t run = unused(pages, c);
    if (run) {
        remove(unused(pages, c), run);
    } else {
        if (pages > range.end - range.used || !open_pages(range.used + pages)) return false;
        run = range.used;
        range.used += pages;
        for (std::uint32_t i = 0; i < pages; i++) range.runs[run + i].first = run;
    }
    Run& r = range.runs[run];
    r.bytes = bytes;
    r.pages = pages;
    r.blocks = std::uint32_t(pages * PAGE / bytes);
    r.free = r.blocks == 64 ? ~std::uint64_t(0) : (std::uint64_t(1) << r.blocks) - 1;
    r.c = c;
    push(range.open[c], run);
    return true;
}

// The run of an address, or null.
Run* run_of(const void* p) {
    const auto at = reinterpret_cast<std::uintptr_t>(p);
    const auto base = reinterpret_cast<std::uintptr_t>(range.base.load(std::memory_order_acquire));
    if (!base || at < base || at >= base + std::size_t(range.end) * PAGE) return nullptr;
    return &range.runs[range.runs[(at - base) / PAGE].first];
}

char* start(const Run* r) {
    return range.base.load(std::memory_order_relaxed) + std::size_t(r - range.runs) * PAGE;
}

}  // namespace

void* pages_take(int c, std::size_t bytes) {
    acquire();
    if (!range.asked) reserve();
    void* p = nullptr;
    if (range.base.load(std::memory_order_relaxed) && (range.open[c] || open_run(c, bytes))) {
        const std::uint32_t run = range.open[c];
        Run& r = range.runs[run];
        const int block = __builtin_ctzll(r.free);
        r.free &= r.free - 1;
        if (!r.free) remove(range.open[c], run);
        p = start(&r) + std::size_t(block) * r.bytes;
    }
    release();
    return p;
}

// Without the lock: who has a block has its run, which stays as it is.
std::size_t pages_size(const void* p) {
    const Run* r = run_of(p);
    return r ? r->bytes : 0;
}

void pages_give(void* p) {
    Run* r = run_of(p);
    // the small pages that are the block's alone; the block is still nobody else's
    const auto at = reinterpret_cast<std::uintptr_t>(p);
    const std::uintptr_t from = (at + SMALL - 1) / SMALL * SMALL;
    const std::uintptr_t to = (at + r->bytes) / SMALL * SMALL;
    madvise(reinterpret_cast<void*>(from), to - from, MADV_DONTNEED);
    acquire();
    const std::uint32_t run = std::uint32_t(r - range.runs);
    if (!r->free) push(range.open[r->c], run);
    r->free |= std::uint64_t(1) << (std::size_t(static_cast<char*>(p) - start(r)) / r->bytes);
    if (__builtin_popcountll(r->free) == int(r->blocks)) {
        remove(range.open[r->c], run);
        push(unused(r->pages, r->c), run);
    }
    release();
}
