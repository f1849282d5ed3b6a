#include "movement.cuh"
#include "registry.h"

REGISTER(movement, MOVEMENT_KERNELS);
