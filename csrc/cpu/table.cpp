// The table of one instruction set; compiled once per set, like every kernel.
#include <type_traits>

#include "kernels.h"

namespace KERNEL_ISA {

#define K(name, ...) std::remove_pointer_t<Pointer<__VA_ARGS__>> name;
KERNELS(K)
#undef K

extern const KernelTable TABLE;
const KernelTable TABLE = {KERNEL_NAME,
#define K(name, ...) name,
                           KERNELS(K)
#undef K
};

}  // namespace KERNEL_ISA
