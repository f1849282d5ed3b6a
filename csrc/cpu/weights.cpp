// Packed copies of the weights of linear maps, for products with few rows: packing a weight costs
// as much as multiplying five rows by it.
//
// A copy is found by address and shape and taken if the weight has not changed, which its
// fingerprint tells: weights may be written by anybody, through any view of their memory, so no
// version that is counted would do. A fingerprint reads the weight once, at the speed of the
// caches: 64 x 64 take 0.08 us, packing them 0.4. Weights that change between calls, as in
// training, are asked for less and less often.
//
// Every thread has a table of its own: SLOTS copies of at most LARGEST bytes each.
#include "weights.h"

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "kernels.h"

namespace {

using std::ptrdiff_t;

constexpr std::size_t SLOTS = 32;
constexpr ptrdiff_t LARGEST = 256 << 10;
constexpr unsigned MOST_CHANGES = 6;  // from so many on, one call of 2^6 looks at the weight

struct Freed {
    void operator()(void* p) const { std::free(p); }
};

struct Slot {
    const void* weight = nullptr;
    const KernelTable* table = nullptr;
    ptrdiff_t n = 0, k = 0;
    std::uint64_t print[FINGERPRINT];
    std::unique_ptr<void, Freed> copy;
    unsigned changes = 0, pause = 0;  // changes in a row; calls to let pass before the next look
};

thread_local Slot slots[SLOTS];

ptrdiff_t pack(float* to, const float* weight, ptrdiff_t n, ptrdiff_t k) {
    return kernels().pack_weight_f32(to, weight, n, k);
}
ptrdiff_t pack(double* to, const double* weight, ptrdiff_t n, ptrdiff_t k) {
    return kernels().pack_weight_f64(to, weight, n, k);
}

// The slot of a weight: one of two, and if it is in neither, the one without a copy that holds.
Slot& slot_of(const void* weight) {
    const std::uint64_t mixed =
        reinterpret_cast<std::uintptr_t>(weight) * std::uint64_t(0x9e3779b97f4a7c15);
    const std::size_t at = std::size_t(mixed >> 32) % SLOTS;
    Slot &one = slots[at], &two = slots[at ^ 1];
    if (one.weight == weight || two.weight == weight) return one.weight == weight ? one : two;
    return one.weight && (!two.weight || two.changes > one.changes) ? two : one;
}

}  // namespace

template <typename T>
const T* packed_weight(const T* weight, ptrdiff_t n, ptrdiff_t k) {
    const ptrdiff_t bytes = n * k * ptrdiff_t(sizeof(T));
    if (bytes > LARGEST) return nullptr;
    Slot& slot = slot_of(weight);
    const bool known =
        slot.weight == weight && slot.table == &kernels() && slot.n == n && slot.k == k;
    if (known && slot.pause) {
        slot.pause--;
        return nullptr;
    }
    std::uint64_t print[FINGERPRINT];
    kernels().fingerprint(print, weight, bytes);
    print[0] ^= sizeof(T);
    const bool same = known && !std::memcmp(print, slot.print, sizeof print);
    if (same && slot.copy) return static_cast<const T*>(slot.copy.get());
    if (same) {  // the second time: it pays to keep a copy
        const std::size_t size = std::size_t(pack(nullptr, weight, n, k)) * sizeof(T);
        slot.copy.reset(std::aligned_alloc(64, (size + 63) / 64 * 64));
        if (!slot.copy) return nullptr;
        T* copy = static_cast<T*>(slot.copy.get());
        pack(copy, weight, n, k);
        slot.changes = 0;
        return copy;
    }
    if (!known) {
        slot.weight = weight;
        slot.table = &kernels();
        slot.n = n;
        slot.k = k;
        slot.changes = 0;
    } else if (slot.changes < MOST_CHANGES) {
        slot.changes++;
    }
    slot.pause = (1u << slot.changes) - 1;
    std::memcpy(slot.print, print, sizeof print);
    slot.copy.reset();
    return nullptr;
}

template const float* packed_weight(const float*, ptrdiff_t, ptrdiff_t);
template const double* packed_weight(const double*, ptrdiff_t, ptrdiff_t);
