// Memory of the arrays that operators return: recycled, because fresh pages cost more than kernels.
//
// A NumPy data-allocation handler (NEP 49). Blocks are 64-byte aligned and come in size classes of
// a quarter of a power of two; what is freed waits in the list of its class, up to a limit over
// all. Above it the blocks go that have waited longest, whatever their class: those of shapes that
// are gone, or more of a shape than is used at once. Thread-safe: arrays may be freed by another
// thread than the one that made them. Large blocks lie in large pages (pages.cpp), where there are
// any, the others in the C library's memory.
#include "allocator.h"

#include <malloc.h>
#include <pthread.h>

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>

#include "pages.h"

namespace {

constexpr std::size_t ALIGN = 64;
constexpr std::size_t KEEP_BYTES = std::size_t(512) << 20;
constexpr int CLASSES = PAGES_CLASSES;
#if defined(__SANITIZE_ADDRESS__)
constexpr bool RECYCLES = false;  // blocks end where the array does, and freed ones stay away
#else
constexpr bool RECYCLES = true;
#endif

// A block that waits, written into its memory. The last to come is the first to be taken, so the
// others of its class, `next`, have waited longer.
struct Free {
    Free *next, *before;  // `before` of a list's first is not set
    std::uint64_t since;
};

struct Lists {
    std::atomic_flag lock = ATOMIC_FLAG_INIT;
    Free *of[CLASSES] = {}, *last[CLASSES];  // `last` of an empty list is not set
    std::uint64_t oldest[CLASSES];           // last->since
    std::uint64_t clock = 0;
    std::size_t kept = 0;
};
Lists lists;

void acquire() {
    while (lists.lock.test_and_set(std::memory_order_acquire)) {
    }
}
void release() {
    lists.lock.clear(std::memory_order_release);
}

// A child must not inherit the lock from a thread that it does not have.
const int registered = pthread_atfork(acquire, release, release);

// The class of the smallest block of at least `size` bytes: 64, 128, 192, 256, 320, 384, 448, 512,
// 640 ... in quarters of a power of two, all multiples of the alignment.
int class_of(std::size_t size) {
    if (size <= 4 * ALIGN) return size ? int((size - 1) / ALIGN) : 0;
    const int power = 63 - __builtin_clzll(size - 1);  // 2^power < size <= 2^(power + 1)
    return 4 * (power - 7) + int((size - 1) >> (power - 2) & 3);
}
std::size_t class_bytes(int c) {
    return c < 4 ? (c + 1) * ALIGN : std::size_t(5 + c % 4) << (c / 4 + 5);
}

void put(Free* block, int c) {
    Free* first = lists.of[c];
    *block = {first, nullptr, ++lists.clock};
    if (first) {
        first->before = block;
    } else {
        lists.last[c] = block;
        lists.oldest[c] = lists.clock;
    }
    lists.of[c] = block;
    lists.kept += class_bytes(c);
}

// Takes the blocks that have waited longest out of the lists until `bytes` more may be kept; they
// are chained by `next`.
Free* evict(std::size_t bytes) {
    Free* out = nullptr;
    while (lists.kept > KEEP_BYTES - bytes) {
        int c = -1;
        for (int i = 0; i < CLASSES; i++)
            if (lists.of[i] && (c < 0 || lists.oldest[i] < lists.oldest[c])) c = i;
        Free* block = lists.last[c];
        if (block == lists.of[c]) {
            lists.of[c] = nullptr;
        } else {
            lists.last[c] = block->before;
            lists.last[c]->next = nullptr;
            lists.oldest[c] = lists.last[c]->since;
        }
        lists.kept -= class_bytes(c);
        block->next = out;
        out = block;
    }
    return out;
}

std::size_t size_of(void* p) {
    const std::size_t bytes = pages_size(p);
    return bytes ? bytes : malloc_usable_size(p);
}

void free_one(void* p) {
    if (pages_size(p))
        pages_give(p);
    else
        std::free(p);
}

void free_all(Free* block) {
    while (block) {
        Free* next = block->next;
        free_one(block);
        block = next;
    }
}

void* take(std::size_t size) {
    const int c = class_of(size);
    if (c >= CLASSES) return nullptr;
    if (!RECYCLES) {
        void* exact = nullptr;
        return posix_memalign(&exact, ALIGN, size ? size : 1) ? nullptr : exact;
    }
    acquire();
    Free* block = lists.of[c];
    if (block) {
        lists.of[c] = block->next;
        lists.kept -= class_bytes(c);
    }
    release();
    if (block) return block;
    const std::size_t bytes = class_bytes(c);
    void* large = bytes >= PAGES_FROM ? pages_take(c, bytes) : nullptr;
    return large ? large : std::aligned_alloc(ALIGN, bytes);
}

void give(void* p) {
    if (!RECYCLES) return std::free(p);
    // the class whose size the block has: the largest that fits into it
    const std::size_t usable = size_of(p);
    int c = class_of(usable);
    if (class_bytes(c) > usable) c--;
    const std::size_t bytes = class_bytes(c);
    if (bytes > KEEP_BYTES) return free_one(p);
    acquire();
    Free* gone = lists.kept > KEEP_BYTES - bytes ? evict(bytes) : nullptr;
    put(new (p) Free, c);
    release();
    free_all(gone);
}

}  // namespace

void* allocator_malloc(void*, std::size_t size) {
    return take(size);
}

void* allocator_calloc(void*, std::size_t count, std::size_t size) {
    std::size_t bytes;
    if (__builtin_mul_overflow(count, size, &bytes)) return nullptr;
    void* p = take(bytes);
    return p ? std::memset(p, 0, bytes) : nullptr;
}

void* allocator_realloc(void*, void* p, std::size_t size) {
    if (!p) return take(size);
    const std::size_t usable = size_of(p);
    if (size <= usable) return p;
    void* fresh = take(size);
    if (!fresh) return nullptr;
    std::memcpy(fresh, p, usable);
    give(p);
    return fresh;
}

void allocator_free(void*, void* p, std::size_t) {
    if (p) give(p);
}

void allocator_trim() {
    acquire();
    Free* all[CLASSES];
    std::memcpy(all, lists.of, sizeof(all));
    std::memset(lists.of, 0, sizeof(all));
    lists.kept = 0;
    release();
    for (Free* block : all) free_all(block);
}

std::size_t allocator_kept() {
    return lists.kept;
}
