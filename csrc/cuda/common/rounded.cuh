// Products that are rounded by themselves: the compiler makes no multiply-add of them.
#pragma once

#include "kernel.cuh"

__device__ inline float times(float x, float y) {
    return __fmul_rn(x, y);
}
__device__ inline double times(double x, double y) {
    return __dmul_rn(x, y);
}
