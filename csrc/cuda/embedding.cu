#include "embedding.cuh"
#include "registry.h"

REGISTER(embedding, EMBEDDING_KERNELS);
