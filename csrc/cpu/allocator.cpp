// Memory of the arrays that operators return: recycled, because fresh pages cost more than kernels.
//
// A NumPy data-allocation handler (NEP 49). Blocks are 64-byte aligned and come in size classes of
// a quarter of a power of two; what is freed waits in the list of its class, up to a limit over
// all. Thread-safe: arrays may be freed by another thread than the one that made them.
#include "allocator.h"

#include <malloc.h>
#include <pthread.h>

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>

namespace {

constexpr std::size_t ALIGN = 64;
constexpr std::size_t KEEP_BYTES = std::size_t(512) << 20;
constexpr int CLASSES = 4 * 40;
#if defined(__SANITIZE_ADDRESS__)
constexpr bool RECYCLES = false;  // blocks end where the array does, and freed ones stay away
#else
constexpr bool RECYCLES = true;
#endif

struct Free {
    Free* next;
};

struct Lists {
    std::atomic_flag lock = ATOMIC_FLAG_INIT;
    Free* of[CLASSES] = {};
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
    return std::aligned_alloc(ALIGN, class_bytes(c));
}

void give(void* p) {
    if (!RECYCLES) return std::free(p);
    // the class whose size the block has: the largest that fits into it
    const std::size_t usable = malloc_usable_size(p);
    int c = class_of(usable);
    if (class_bytes(c) > usable) c--;
    const std::size_t bytes = class_bytes(c);
    acquire();
    const bool keep = lists.kept + bytes <= KEEP_BYTES;
    if (keep) {
        lists.of[c] = new (p) Free{lists.of[c]};
        lists.kept += bytes;
    }
    release();
    if (!keep) std::free(p);
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
    const std::size_t usable = malloc_usable_size(p);
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
    for (Free* block : all)
        while (block) {
            Free* next = block->next;
            std::free(block);
            block = next;
        }
}

std::size_t allocator_kept() {
    return lists.kept;
}
