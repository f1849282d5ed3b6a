#include "loss.cuh"
#include "registry.h"

REGISTER(loss, LOSS_KERNELS);
