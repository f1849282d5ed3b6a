#include "reduce.cuh"
#include "registry.h"

REGISTER(reduce, REDUCE_KERNELS);
