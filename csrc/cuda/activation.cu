#include "activation.cuh"
#include "registry.h"

REGISTER(activation, ACTIVATION_KERNELS);
