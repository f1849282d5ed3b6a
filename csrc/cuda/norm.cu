#include "norm.cuh"
#include "registry.h"

REGISTER(norm, NORM_KERNELS);
