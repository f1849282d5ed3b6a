#include "registry.h"
#include "words.cuh"

REGISTER(words, WORDS_KERNELS);
