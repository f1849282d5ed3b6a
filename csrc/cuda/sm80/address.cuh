// Addresses in shared memory as instructions take them.
#pragma once

#include "../common/dtype.cuh"

#ifdef EMULATED
#    include "../emulator/sm80.h"
#else
__device__ inline u32 shared_address(const void* at) {
    return (u32)__cvta_generic_to_shared(at);
}
#endif
