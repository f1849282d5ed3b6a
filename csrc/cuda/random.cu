#include "random.cuh"
#include "registry.h"

REGISTER(random, RANDOM_KERNELS);
