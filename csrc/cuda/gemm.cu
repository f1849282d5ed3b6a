#include "gemm.cuh"
#include "registry.h"

REGISTER(gemm, GEMM_KERNELS);
