#include "registry.h"
#include "softmax.cuh"

REGISTER(softmax, SOFTMAX_KERNELS);
