#include "optim.cuh"
#include "registry.h"

REGISTER(optim, OPTIM_KERNELS);
