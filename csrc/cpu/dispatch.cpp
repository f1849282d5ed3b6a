// Which table of kernels serves: read off the processor once. Compiled for the baseline.
#include <cstdlib>
#include <cstring>

#include "kernels.h"

#define ISA(name)                       \
    namespace k_##name {                \
        extern const KernelTable TABLE; \
    }
ISA(baseline)
#if defined(__x86_64__)
ISA(avx2)
ISA(avx512)
ISA(avx512_bf16)
#endif

namespace {

struct Choice {
    const KernelTable* table;
    bool (*have)();
};

// Best last. The compiler's run time also asks whether the system saves the registers.
const Choice CHOICES[] = {
    {&k_baseline::TABLE, [] { return true; }},
#if defined(__x86_64__)
    {&k_avx2::TABLE,
     [] { return bool(__builtin_cpu_supports("avx2")) && bool(__builtin_cpu_supports("fma")); }},
    {&k_avx512::TABLE,
     [] {
         return bool(__builtin_cpu_supports("avx512f")) &&
                bool(__builtin_cpu_supports("avx512bw")) &&
                bool(__builtin_cpu_supports("avx512dq")) &&
                bool(__builtin_cpu_supports("avx512vl"));
     }},
    {&k_avx512_bf16::TABLE,
     [] {
         return bool(__builtin_cpu_supports("avx512bf16")) &&
                bool(__builtin_cpu_supports("avx512vnni")) &&
                bool(__builtin_cpu_supports("avx512bw"));
     }},
#endif
};

const KernelTable* best() {
    const KernelTable* table = nullptr;
    for (const Choice& choice : CHOICES)
        if (choice.have()) table = choice.table;
    return table;
}

const KernelTable* current = best();

}  // namespace

const KernelTable& kernels() {
    return *current;
}

bool use_isa(const char* name) {
    for (const Choice& choice : CHOICES)
        if (!std::strcmp(choice.table->isa, name) && choice.have()) {
            current = choice.table;
            return true;
        }
    return false;
}

const KernelTable* supported(int i) {
    for (const Choice& choice : CHOICES)
        if (choice.have() && i-- == 0) return choice.table;
    return nullptr;
}
